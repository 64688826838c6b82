//! kubectl bulkhead: see and call tenants; render them, try and test their policies without a cluster.

pub mod agent_call;
pub mod agent_connect;
pub mod args;
pub mod call;
pub mod connect;
pub mod connection;
pub mod dev;
pub mod door;
pub mod exit;
pub mod explain;
pub mod offline;
pub mod output;
pub mod paint;
pub mod policy;
pub mod progress;
pub mod render;
pub mod status;
