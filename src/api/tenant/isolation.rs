//! How strongly a tenant's pods are separated from others.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The isolation tier, each with its own sub-object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.tier != 'Sandbox' || has(self.sandbox)")
        .message("tier Sandbox needs sandbox.runtimeClassName"),
    validation = Rule::new("self.tier == 'Sandbox' || !has(self.sandbox)")
        .message("sandbox belongs to tier Sandbox: set tier to Sandbox, or remove sandbox")
)]
pub struct Isolation {
    /// `Namespace` (the default) or `Sandbox`.
    #[serde(default)]
    pub tier: Tier,
    /// Required with `tier: Sandbox`, refused otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// An isolation tier.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// Namespaces, network policies and Pod Security `restricted` on shared nodes.
    #[default]
    Namespace,
    /// `Namespace`, and every pod of the tenant's servers runs under a sandboxing runtime class. What developers run
    /// in the agents' namespace names the class itself: Bulkhead doesn't make those pods.
    Sandbox,
}

/// Settings of the `Sandbox` tier.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Name of an existing `RuntimeClass`, for example one for gVisor or Kata Containers.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub runtime_class_name: String,
}
