//! Bulkhead's operator: makes and keeps every tenant's stack.

pub mod build;
pub mod duration;
pub mod names;
pub mod quantity;
pub mod settings;
pub mod validate;
