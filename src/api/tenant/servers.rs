//! A tenant's MCP servers: one Deployment each, in which the sidecar is the only way in.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    agents::EgressRule,
    resources::{ClientFeatures, Resource},
    schema,
    tools::{Prompt, Tool},
};

/// An MCP server. Clients reach it as `https://<name>.<tenant>.svc:8443<http.path>`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.volumes) || self.volumes.all(volume, self.volumes.exists_one(other, other.mountPath == volume.mountPath))")
        .message("each volume needs a mountPath of its own"),
    validation = Rule::new("self.replicas <= 1 || !has(self.volumes) || !self.volumes.exists(volume, has(volume.persistent))")
        .message("a persistent volume can be mounted by one pod only: set replicas to 1, or use sizeLimit instead of persistent")
)]
pub struct Server {
    /// Name of the server, of its Deployment, Service and `ServiceAccount`, and in its SPIFFE ID.
    #[schemars(length(min = 1, max = 40), regex(pattern = schema::DNS_LABEL_RFC1035))]
    #[x_kube(validation = Rule::new("!(self in ['default', 'servers-ca', 'selfsigned', 'bulkhead', 'bulkhead-trust', 'kubernetes']) && !self.endsWith('-tls') && !self.endsWith('-policy')")
        .message("this name is taken by an object of Bulkhead's in the servers' namespace: choose another (not default, servers-ca, selfsigned, bulkhead, bulkhead-trust, kubernetes, *-tls or *-policy)"))]
    pub name: String,
    /// Image of the MCP server.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$")
    )]
    pub image: String,
    /// Number of pods.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub replicas: u32,
    /// Where the server listens on its pod's loopback.
    pub http: Http,
    /// Further names under which clients reach it, for example those of a gateway or of a DNS zone of the platform's: they
    /// are in the server's certificate, and `Host` may be one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(min = 3, max = 253), regex(pattern = schema::HOSTNAME)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub hostnames: Vec<String>,
    /// Entrypoint, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// Arguments of the entrypoint, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// Environment, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// What the server container requests and is limited to.
    #[serde(default)]
    pub resources: ComputeResources,
    /// Numeric user of the server container. Not 0, and not the sidecar's (64532).
    #[serde(default = "default_run_as_user")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[x_kube(validation = Rule::new("self != 64532").message("64532 is the sidecar's user: choose another, for example 65532"))]
    pub run_as_user: i64,
    /// Secrets of the servers' namespace with registry credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub image_pull_secrets: Vec<ImagePullSecret>,
    /// Writable places of the server container; its root is read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
    /// The server container's own probes. Without them the sidecar's check that the server accepts connections decides.
    #[serde(default)]
    pub probes: Probes,
    /// Name resolution of the server's pods.
    #[serde(default)]
    pub dns: Dns,
    /// What the server may dial. Everything else is denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<EgressRule>,
    /// Pods besides the tenant's agents that may open the sidecar's port. They need an agent's certificate all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub clients: Vec<ClientPeer>,
    /// The tools that exist for clients. What isn't listed can be neither seen nor called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tools: Vec<Tool>,
    /// The prompts that exist for clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub prompts: Vec<Prompt>,
    /// The MCP resources and resource templates that exist for clients. (`resources` are the container's, as in a Pod.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uri"]))]
    pub mcp_resources: Vec<Resource>,
    /// Definitions of the server's `instructions`, its text for clients' models, that clients get: `sha256:` and 64 hex digits
    /// over the canonical form (RFC 8785) of the text, as the sidecar records it. Any other text is left out, and while none is
    /// given every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::definitions")]
    pub instructions: Vec<String>,
    /// What the server may ask of its clients, and they of its log.
    #[serde(default)]
    pub client_features: ClientFeatures,
    /// What becomes of what the server is held to.
    #[serde(default)]
    pub pinning: Pinning,
}

/// A server is held to the first definition that it shows of each tool and prompt (name, description, schema: all of it), in
/// all its pods and over restarts. One that differs is not offered to anybody, until the server shows the first again or
/// `definitions` of the tool or prompt accepts it.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pinning {
    /// What a change of `image` makes of it.
    #[serde(default)]
    pub on_image_change: OnImageChange,
}

/// What a change of a server's image makes of the definitions that it is held to.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnImageChange {
    /// The server of the new image is held to what that of the old one showed.
    #[default]
    Hold,
    /// It is held to what it shows first itself.
    Accept,
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
    /// TCP port. Not one of the sidecar's (8443, 8444, 8445, 8446, 9464).
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = Rule::new(NOT_A_SIDECAR_PORT).message(NOT_A_SIDECAR_PORT_MESSAGE))]
    pub port: u16,
    /// Path of the Streamable HTTP endpoint.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 256), regex(pattern = schema::URL_PATH))]
    pub path: String,
}

fn default_path() -> String {
    "/mcp".into()
}

/// A variable of the server container's environment: a value, or a key of a Secret.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.secretKeyRef)")
    .message("a variable has exactly one of value and secretKeyRef"))]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[x_kube(validation = Rule::new("!self.startsWith('BULKHEAD_')").message("names that begin with BULKHEAD_ are the sidecar's: choose another"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub value: Option<String>,
    /// The Secret key that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// A key of a Secret in the servers' namespace. Bulkhead's own Secrets are refused.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    #[x_kube(validation = Rule::new(NOT_OURS).message(NOT_OURS_MESSAGE))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub key: String,
}

/// A Secret with registry credentials in the servers' namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImagePullSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    #[x_kube(validation = Rule::new(NOT_OURS).message(NOT_OURS_MESSAGE))]
    pub name: String,
}

/// Compute resources of the server container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(REQUESTS_WITHIN_LIMITS)
    .message("requests must not be greater than limits; left out, requests are cpu 50m, memory 64Mi, ephemeral-storage 64Mi and limits cpu 500m, memory 256Mi, ephemeral-storage 256Mi"))]
pub struct ComputeResources {
    /// Guaranteed: `cpu`, `memory`, `ephemeral-storage`. Left out: `50m`, `64Mi`, `64Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::resource_amounts")]
    pub requests: BTreeMap<String, String>,
    /// At most: `cpu`, `memory`, `ephemeral-storage`. Left out: `500m`, `256Mi`, `256Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::resource_amounts")]
    pub limits: BTreeMap<String, String>,
}

/// A writable volume of the server container: an `emptyDir` of a given size, or a persistent volume.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.sizeLimit) != has(self.persistent)")
    .message("a volume has exactly one of sizeLimit (an emptyDir) and persistent"))]
pub struct Volume {
    /// Name of the volume: letters and digits only, so that `<server>-<volume>` names one claim.
    #[schemars(length(min = 1, max = 22), regex(pattern = r"^[a-z0-9]+$"))]
    pub name: String,
    /// Absolute path in the container.
    #[schemars(length(min = 2, max = 256), regex(pattern = schema::ABSOLUTE_PATH))]
    #[x_kube(validation = Rule::new("!self.contains('/./') && !self.contains('/../') && !self.endsWith('/.') && !self.endsWith('/..') && ['/etc/bulkhead', '/run/bulkhead', '/var/run/bulkhead', '/var/run/secrets', '/run/secrets', '/proc', '/sys', '/dev'].all(taken, self != taken && !self.startsWith(taken + '/'))")
        .message("must be an absolute path without '.' and '..', and not in /etc/bulkhead, /run/bulkhead, /run/secrets, /proc, /sys or /dev"))]
    pub mount_path: String,
    /// Size of an `emptyDir`, for example `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub size_limit: Option<String>,
    /// A persistent volume that outlives the pods. It is deleted with the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<PersistentVolume>,
}

/// A persistent volume claim, `<server>-<volume>`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0")
        .message("a persistent volume can't shrink: keep the size or make it larger"),
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("storageClassName can't change: add a volume of another name instead")
)]
pub struct PersistentVolume {
    /// Requested size, for example `1Gi`.
    #[schemars(schema_with = "schema::quantity")]
    pub size: String,
    /// Storage class. Left out: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
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
#[x_kube(validation = Rule::new("has(self.exec) != has(self.httpGet)").message("a probe has exactly one of exec and httpGet"))]
pub struct Probe {
    /// Runs a command in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecAction>,
    /// Asks over HTTP, at the pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetAction>,
    /// Seconds before the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub initial_delay_seconds: Option<u32>,
    /// Seconds between probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<u32>,
    /// Seconds after which a probe has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// Failures in a row that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: Option<u32>,
}

/// A command in the container; exit code 0 passes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecAction {
    /// The command and its arguments, no shell.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
}

/// An HTTP GET; a status from 200 to 399 passes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpGetAction {
    /// Path.
    #[schemars(length(min = 1, max = 256), regex(pattern = schema::URL_PATH))]
    pub path: String,
    /// Port. Not one of the sidecar's.
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = Rule::new(NOT_A_SIDECAR_PORT).message(NOT_A_SIDECAR_PORT_MESSAGE))]
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
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub namespace: String,
    /// Labels of the pods.
    #[schemars(schema_with = "schema::pod_labels")]
    pub pod_labels: BTreeMap<String, String>,
}

const NOT_A_SIDECAR_PORT: &str = "!(self in [8443, 8444, 8445, 8446, 9464])";
const NOT_A_SIDECAR_PORT_MESSAGE: &str = "8443, 8444, 8445, 8446 and 9464 are the sidecar's ports: let the server listen on another, for example 3000";

const NOT_OURS: &str = "!self.endsWith('-tls') && !self.endsWith('-ca')";
const NOT_OURS_MESSAGE: &str =
    "Secrets named *-tls and *-ca hold Bulkhead's keys and are not for servers: use a Secret of another name";

/// What is left out has the default of the operator (`50m`/`64Mi`, `500m`/`256Mi`).
const REQUESTS_WITHIN_LIMITS: &str = "['cpu', 'memory', 'ephemeral-storage'].all(name, \
    quantity(has(self.requests) && name in self.requests ? self.requests[name] : (name == 'cpu' ? '50m' : '64Mi'))\
    .compareTo(quantity(has(self.limits) && name in self.limits ? self.limits[name] : (name == 'cpu' ? '500m' : '256Mi'))) <= 0)";
