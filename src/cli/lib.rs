//! kubectl bulkhead: see, call and render tenants.

pub mod agent_call;
pub mod args;
pub mod call;
pub mod connection;
pub mod exit;
pub mod output;
pub mod paint;
pub mod progress;
pub mod render;
pub mod status;
