//! `McpTenant`: one tenant and everything it gets.

mod agents;
mod isolation;
mod servers;
mod status;
mod tools;

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use agents::{Agent, EgressPeer, EgressRule};
pub use isolation::{Isolation, Sandbox, Tier};
pub use servers::{
    ClientPeer, ComputeResources, Dns, EnvVar, ExecAction, Http, HttpGetAction, ImagePullSecret, PersistentVolume,
    Probe, Probes, SecretKeyRef, Server, Volume,
};
pub use status::{McpTenantStatus, NamespaceStatus, ServerStatus};
pub use tools::{Arguments, Bounds, ForcedValue, IdentityKey, Tool};

/// A tenant of the platform: two namespaces, its certificates, and its MCP servers, each behind
/// an enforcing sidecar. The tenant's name is the name of its servers' namespace; its agents'
/// namespace is that name followed by `-agents`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "bulkhead.dev",
    version = "v1alpha1",
    kind = "McpTenant",
    plural = "mcptenants",
    shortname = "mcpt",
    category = "bulkhead",
    status = "McpTenantStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct McpTenantSpec {
    /// How strongly the tenant's pods are separated from others.
    #[serde(default)]
    pub isolation: Isolation,
    /// Who the tenant is to the servers' data. Immutable, and claimed: no two tenants of a
    /// cluster have the same.
    pub identity: Identity,
    /// Further facts about the tenant that forced arguments may take. They may change and need not be unique.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Who may see the tenant and its servers' logs. Admins run nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admins: Vec<Subject>,
    /// Who may run agents in the agents' namespace. Developers approve nothing and see nothing of the servers' namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub developers: Vec<Subject>,
    /// What the tenant's servers may use in total. What Bulkhead adds (sidecars, a rollout's
    /// surge, certificate renewal) comes on top and doesn't count. The agents' namespace gets the same again.
    pub quota: Quota,
    /// Lifetime of the tenant's leaf certificates.
    #[serde(default)]
    pub certificates: Certificates,
    /// The tenant's agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<Agent>,
    /// The tenant's MCP servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Server>,
}

/// Who the tenant is to the servers' data.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The value that `forced: {…: {identity: tenantId}}` sets. Never changed, never shared.
    pub tenant_id: String,
}

/// A user or group of the cluster's authentication.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// `User` or `Group`.
    pub kind: SubjectKind,
    /// Name as the API server's authenticator gives it.
    pub name: String,
}

/// Kind of a [`Subject`].
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SubjectKind {
    /// One user.
    User,
    /// Every member of a group.
    Group,
}

/// What a tenant's servers may use in total.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// CPU limit of all server containers together, for example `2` or `1500m`.
    pub cpu: String,
    /// Memory limit of all server containers together, for example `4Gi`.
    pub memory: String,
    /// Number of server pods.
    pub pods: u32,
}

/// Lifetime of leaf certificates, as Go durations (`24h`, `90m`).
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// How long a leaf is valid. At least 1h, cert-manager's minimum.
    #[serde(default = "default_duration")]
    pub duration: String,
    /// How long before its end a leaf is renewed. At least 5m and less than `duration`.
    #[serde(default = "default_renew_before")]
    pub renew_before: String,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { duration: default_duration(), renew_before: default_renew_before() }
    }
}

fn default_duration() -> String {
    "24h".into()
}

fn default_renew_before() -> String {
    "8h".into()
}
