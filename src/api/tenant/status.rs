//! What the operator reports about a tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a tenant.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::known_formats)]
pub struct McpTenantStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Accepted`, `NetworkIsolated`, `CertificatesReady`, `PolicyEnforced`, `ToolsOffered`.
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
    /// Pods that are ready and whose sidecar says that it enforces `policyRevision`.
    pub ready_replicas: u32,
    /// Revision of the policy that its sidecars must enforce.
    #[schemars(length(max = 64))]
    pub policy_revision: String,
    /// Stands for all definitions that the server is held to (SHA-256, as of each of them). They are in the `ConfigMap` with its
    /// policy. None: nothing is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub definitions: Option<String>,
    /// Tools and prompts that the server shows and nobody is offered, as its sidecars say. The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    #[schemars(length(max = 16))]
    pub withheld: Vec<WithheldOffer>,
    /// Rules with `enforcement: Report` that would have refused or changed something since this policy is in force. The
    /// first of them. How often is in the sidecars' metrics, each time in their audit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    #[schemars(length(max = 16))]
    pub reported: Vec<ReportedRule>,
}

/// What a server offers by name.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OfferKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
}

impl OfferKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "Tool",
            Self::Prompt => "Prompt",
        }
    }
}

/// A definition that the server shows and nobody is offered.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WithheldOffer {
    /// Whether it is a tool or a prompt.
    pub kind: OfferKind,
    /// Its name.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Why it is not offered, for example `definition_changed`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The version of the protocol in which the server shows this definition.
    #[schemars(length(max = 16))]
    pub protocol_version: String,
    /// Its fingerprint. Where it may be accepted, `definitions` of the tool or prompt takes it.
    #[schemars(length(max = 80))]
    pub definition: String,
}

/// A rule that only reports.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReportedRule {
    /// Where it is, for example `tools[list].bounds[limit]`.
    #[schemars(length(max = 640))]
    pub rule: String,
    /// Why it would have refused, for example `argument_out_of_bounds`.
    #[schemars(length(max = 64))]
    pub reason: String,
}
