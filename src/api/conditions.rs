//! Condition types and reasons: part of the API, never renamed.

/// Condition types of `McpTenant`.
pub mod types {
    /// Everything below is true and the servers take calls.
    pub const READY: &str = "Ready";
    /// The specification is valid and the tenant holds all its claims.
    pub const ACCEPTED: &str = "Accepted";
    /// Every sidecar says that its canary is refused: network policies are enforced.
    pub const NETWORK_ISOLATED: &str = "NetworkIsolated";
    /// Both CAs and all leaf certificates are issued and current.
    pub const CERTIFICATES_READY: &str = "CertificatesReady";
    /// Every ready sidecar says that it runs the current policy.
    pub const POLICY_ENFORCED: &str = "PolicyEnforced";
    /// Every tool and prompt of the policy that its server shows is offered. `Ready` doesn't wait for it.
    pub const TOOLS_OFFERED: &str = "ToolsOffered";
}

/// Reasons of conditions. A refused specification has one of the operator's validation reasons instead.
pub mod reasons {
    /// The condition holds.
    pub const AS_SPECIFIED: &str = "AsSpecified";
    /// `Accepted`: valid, and all claims are held.
    pub const VALID: &str = "Valid";
    /// The object doesn't fit the current schema and can't be read.
    pub const UNREADABLE: &str = "Unreadable";
    /// `spec.identity` has a value that another tenant of the cluster holds.
    pub const IDENTITY_TAKEN: &str = "IdentityTaken";
    /// An issuer and audience of `spec.issuers` is one that another tenant of the cluster holds.
    pub const AUDIENCE_TAKEN: &str = "AudienceTaken";
    /// A namespace of this name exists, or is claimed, and isn't this tenant's.
    pub const NAMESPACE_TAKEN: &str = "NamespaceTaken";
    /// Somebody else's `ClusterRole` or `ClusterRoleBinding` has the name of the one with which the tenant's people read
    /// their tenant.
    pub const CLUSTER_ROLE_TAKEN: &str = "ClusterRoleTaken";
    /// The tenant isn't accepted, so this isn't known.
    pub const NOT_ACCEPTED: &str = "NotAccepted";
    /// The tenant has no servers, or none of their pods run: nothing was confirmed.
    pub const NO_PODS: &str = "NoPods";
    /// A sidecar has not yet seen its canary refused.
    pub const WAITING_FOR_SIDECARS: &str = "WaitingForSidecars";
    /// A sidecar could reach its canary: the cluster does not enforce network policies.
    pub const NETWORK_POLICY_NOT_ENFORCED: &str = "NetworkPolicyNotEnforced";
    /// cert-manager has not yet issued a certificate.
    pub const WAITING_FOR_CERTIFICATES: &str = "WaitingForCertificates";
    /// A Deployment is held back until what it mounts exists.
    pub const WAITING_FOR_TRUST: &str = "WaitingForTrust";
    /// The keys of an issuer of persons' tokens can't be had, so those tokens are refused.
    pub const WAITING_FOR_ISSUER: &str = "WaitingForIssuer";
    /// A tool or prompt is not what its server showed first, or not what the tenant accepts.
    pub const DEFINITION_NOT_ACCEPTED: &str = "DefinitionNotAccepted";
    /// A tool or prompt can't be offered as its server defines it, whoever accepts it: its forced arguments can't be taken out of
    /// its schema, its schema can't be checked, or there are hidden characters in it.
    pub const DEFINITION_UNUSABLE: &str = "DefinitionUnusable";
    /// A Deployment has not rolled out.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// A pod can't be made or doesn't run.
    pub const PODS_FAILING: &str = "PodsFailing";
    /// The tenant's quota refuses an object or a pod.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// A namespace of the tenant is being deleted by somebody else.
    pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";
    /// Something could not be read or written; it is tried again.
    pub const RECONCILE_FAILED: &str = "ReconcileFailed";
    /// The tenant is being deleted.
    pub const TERMINATING: &str = "Terminating";
}
