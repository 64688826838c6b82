//! Bulkhead's Kubernetes API: the custom resources, their validation rules and conditions.

pub mod cert_manager;
pub mod conditions;
pub mod tenant;

pub use tenant::{McpTenant, McpTenantSpec, McpTenantStatus};
