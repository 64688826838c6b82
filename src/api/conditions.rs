//! Condition types and reasons: part of the API, never renamed.

/// Condition types of `McpTenant`.
pub mod types {
    /// Everything below is true and the servers take calls.
    pub const READY: &str = "Ready";
    /// The specification is valid and the tenant holds all its claims.
    pub const ACCEPTED: &str = "Accepted";
    /// Every sidecar saw its canary refused: network policies are enforced.
    pub const NETWORK_ISOLATED: &str = "NetworkIsolated";
    /// Both CAs and all leaf certificates are issued and current.
    pub const CERTIFICATES_READY: &str = "CertificatesReady";
    /// Every ready sidecar runs the current policy.
    pub const POLICY_ENFORCED: &str = "PolicyEnforced";
}
