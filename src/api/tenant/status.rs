//! What the operator reports about a tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a tenant.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::known_formats)]
pub struct McpTenantStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Accepted`, `NetworkIsolated`, `CertificatesReady`, `PolicyEnforced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The tenant's namespaces. A namespace with another UID is not this tenant's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(length(max = 4))]
    pub namespaces: Vec<NamespaceStatus>,
    /// The tenant's servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(length(max = 16))]
    pub servers: Vec<ServerStatus>,
}

/// A namespace that was made for the tenant.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceStatus {
    /// Name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// UID.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// State of one MCP server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Where agents reach it.
    #[schemars(length(max = 1024))]
    pub url: String,
    /// Pods that should run.
    pub replicas: u32,
    /// Pods that are ready and enforce `policyRevision`.
    pub ready_replicas: u32,
    /// Revision of the policy that its sidecars must enforce.
    #[schemars(length(max = 64))]
    pub policy_revision: String,
}
