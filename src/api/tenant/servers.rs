//! A tenant's MCP servers: one Deployment each, in which the sidecar is the only way in.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{agents::EgressRule, tools::Tool};

/// An MCP server. Clients reach it as `https://<name>.<tenant>.svc:8443<http.path>`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Name of the server, of its Deployment, Service and `ServiceAccount`, and in its SPIFFE ID.
    pub name: String,
    /// Image of the MCP server.
    pub image: String,
    /// Number of pods.
    #[serde(default = "default_replicas")]
    pub replicas: u32,
    /// Where the server listens on its pod's loopback.
    pub http: Http,
    /// Entrypoint, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments of the entrypoint, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// What the server container requests and is limited to.
    #[serde(default)]
    pub resources: ComputeResources,
    /// Numeric user of the server container. Not 0, and not the sidecar's (64532).
    #[serde(default = "default_run_as_user")]
    pub run_as_user: i64,
    /// Secrets of the servers' namespace with registry credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<ImagePullSecret>,
    /// Writable places of the server container; its root is read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// The server container's own probes. Without them the sidecar's check that the server accepts connections decides.
    #[serde(default)]
    pub probes: Probes,
    /// Name resolution of the server's pods.
    #[serde(default)]
    pub dns: Dns,
    /// What the server may dial. Everything else is denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
    /// Pods besides the tenant's agents that may open the sidecar's port. They need an agent's certificate all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientPeer>,
    /// The tools that exist for clients. What isn't listed can be neither seen nor called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
}

fn default_replicas() -> u32 {
    1
}

fn default_run_as_user() -> i64 {
    65_532
}

/// Where an MCP server listens on its pod's loopback (127.0.0.1).
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// TCP port. Not one of the sidecar's (8443, 8444, 9464).
    pub port: u16,
    /// Path of the Streamable HTTP endpoint.
    #[serde(default = "default_path")]
    pub path: String,
}

fn default_path() -> String {
    "/mcp".into()
}

/// A variable of the server container's environment: a value, or a key of a Secret.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable.
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The Secret key that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// A key of a Secret in the servers' namespace. Bulkhead's own Secrets are refused.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in the Secret.
    pub key: String,
}

/// A Secret with registry credentials in the servers' namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImagePullSecret {
    /// Name of the Secret.
    pub name: String,
}

/// Compute resources of the server container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ComputeResources {
    /// Guaranteed: `cpu`, `memory`, `ephemeral-storage`. Left out: `50m`, `64Mi`, `64Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// At most: `cpu`, `memory`, `ephemeral-storage`. Left out: `500m`, `256Mi`, `256Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

/// A writable volume of the server container: an `emptyDir` of a given size, or a persistent volume.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name of the volume.
    pub name: String,
    /// Absolute path in the container.
    pub mount_path: String,
    /// Size of an `emptyDir`, for example `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<String>,
    /// A persistent volume that outlives the pods. It is deleted with the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<PersistentVolume>,
}

/// A persistent volume claim, `<server>-<volume>`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolume {
    /// Requested size, for example `1Gi`.
    pub size: String,
    /// Storage class. Left out: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
}

/// Probes of the server container, as in a Pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Until it passes, the other probes wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// While it fails, the pod gets no calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// When it fails, the container is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

/// One probe: exactly one of `exec` and `httpGet`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Runs a command in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecAction>,
    /// Asks over HTTP, at the pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetAction>,
    /// Seconds before the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay_seconds: Option<u32>,
    /// Seconds between probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<u32>,
    /// Seconds after which a probe has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// Failures in a row that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<u32>,
}

/// A command in the container; exit code 0 passes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecAction {
    /// The command and its arguments, no shell.
    pub command: Vec<String>,
}

/// An HTTP GET; a status from 200 to 399 passes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpGetAction {
    /// Path.
    pub path: String,
    /// Port. Not one of the sidecar's.
    pub port: u16,
}

/// Name resolution of a server's pods.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dns {
    /// None. The Services of declared egress peers are in `/etc/hosts`.
    #[default]
    None,
    /// The cluster's DNS: it names every Service of the cluster, and queries can carry data out.
    Cluster,
}

/// Pods that may open the sidecar's port: namespace *and* labels.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientPeer {
    /// Namespace of the pods.
    pub namespace: String,
    /// Labels of the pods.
    pub pod_labels: BTreeMap<String, String>,
}
