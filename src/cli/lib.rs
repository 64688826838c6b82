//! kubectl bulkhead: see, call and render tenants.

pub mod agent_call;
pub mod exit;
pub mod output;
