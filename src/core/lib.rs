//! Bulkhead's pure core: what a tenant's policy says, how an MCP message is read, decided and
//! rewritten, and what the audit records. No I/O, no clock, no Kubernetes, no async.

pub mod pod;
pub mod policy;
