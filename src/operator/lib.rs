//! Bulkhead's operator: makes and keeps every tenant's stack.
//!
//! The pure half (`validate`, `build` and what they need) knows no API server and is what `kubectl bulkhead render`
//! runs. The other half reads the cluster, applies what was built, and reports.

pub mod build;
pub mod duration;
pub mod names;
pub mod quantity;
pub mod ranges;
pub mod settings;
pub mod validate;

pub mod apply;
pub mod cache;
pub mod claims;
pub mod context;
pub mod control;
pub mod controller;
pub mod dereference;
pub mod error;
pub mod events;
pub mod issuers;
pub mod kinds;
pub mod lease;
pub mod metrics;
pub mod run;
pub mod server;
pub mod status;
pub mod teardown;
pub mod telemetry;
pub mod token_keys;
pub mod watch;
