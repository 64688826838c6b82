//! `McpTenant`: one tenant and everything it gets.

mod agents;
mod isolation;
mod issuers;
mod resources;
mod schema;
mod servers;
mod status;
mod tls;
mod tools;

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use agents::{Agent, EgressPeer, EgressRule, RequestLimits};
pub use isolation::{Isolation, Sandbox, Tier};
pub use issuers::{AgentClient, Issuer, PersonRoles};
pub use resources::{ClientFeatures, ElicitationMode, Resource};
pub use servers::{
    ClientPeer, ComputeResources, Dns, EnvVar, ExecAction, Http, HttpGetAction, ImagePullSecret,
    OnImageChange, PersistentVolume, Pinning, Probe, Probes, SecretKeyRef, Server, Volume,
};
pub use status::{McpTenantStatus, NamespaceStatus, OfferKind, ReportedRule, ServerStatus, WithheldOffer};
pub use tls::{KeyExchange, Tls};
pub use tools::{
    ArgumentType, Arguments, Bounds, Enforcement, ForcedValue, IdentityKey, Owned, Prompt, Results, Tool,
};

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
    derive = "PartialEq",
    doc = "A tenant of the platform: two namespaces, its certificates, and its MCP servers, each behind an \
           enforcing sidecar. The tenant's name is the name of its servers' namespace; its agents' namespace \
           is that name followed by `-agents`.",
    printcolumn(name = "Ready", json_path = ".status.conditions[?(@.type==\"Ready\")].status", type_ = "string"),
    printcolumn(name = "Reason", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", type_ = "string"),
    printcolumn(name = "Tier", json_path = ".spec.isolation.tier", type_ = "string"),
    printcolumn(
        name = "Message",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        type_ = "string",
        priority = 1
    ),
    printcolumn(name = "Age", json_path = ".metadata.creationTimestamp", type_ = "date"),
    validation = Rule::new(NAME_IS_LABEL).message(NAME_IS_LABEL_MESSAGE),
    validation = Rule::new(NAME_IS_FREE).message(NAME_IS_FREE_MESSAGE),
    validation = Rule::new(NAME_IS_NO_DOMAIN).message(NAME_IS_NO_DOMAIN_MESSAGE),
    validation = Rule::new(SERVERS_DIAL_OTHERS).message(DIAL_OTHERS_MESSAGE),
    validation = Rule::new(AGENTS_DIAL_OTHERS).message(DIAL_OTHERS_MESSAGE)
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::known_formats)]
#[x_kube(
    validation = Rule::new("!has(self.servers) || self.servers.all(server, !has(server.tools) || server.tools.all(tool, !has(tool.arguments.forced) || tool.arguments.forced.all(name, !has(tool.arguments.forced[name].attribute) || (has(self.attributes) && tool.arguments.forced[name].attribute in self.attributes))))")
        .message("a forced argument takes an attribute that spec.attributes doesn't have: add it there, or correct the name"),
    validation = Rule::new("!has(self.servers) || self.servers.map(server, server.replicas).sum() <= self.quota.pods")
        .message("the replicas of all servers together are more than quota.pods: raise the quota or lower the replicas"),
    validation = Rule::new("!has(self.agents) || (has(self.issuers) && self.issuers.size() > 0) || self.agents.all(agent, !has(agent.requiresPerson) || !agent.requiresPerson)")
        .message("an agent requires a person, and nobody could prove one: name the issuer of persons' tokens in spec.issuers"),
    validation = Rule::new("!has(self.agents) || self.agents.all(agent, !has(agent.clients) || agent.clients.all(client, has(self.issuers) && self.issuers.exists(issuer, issuer.name == client.issuer)))")
        .message("an agent's client is one of an issuer that spec.issuers doesn't have: add it there, or correct the name"),
    validation = Rule::new("!has(self.agents) || !has(self.issuers) || self.agents.all(agent, !has(agent.clients) || agent.clients.all(client, self.issuers.all(issuer, issuer.name != client.issuer || !(client.id in issuer.audiences))))")
        .message("an issuer's audience is also the id of an agent's client, and so ID tokens would be taken, which tell a client who logged in and give no access: have tokens issued for an audience of the servers' own")
)]
pub struct McpTenantSpec {
    /// How strongly the tenant's pods are separated from others.
    #[serde(default)]
    pub isolation: Isolation,
    /// Who the tenant is to the servers' data. Immutable, and claimed: no two tenants of a
    /// cluster have the same.
    pub identity: Identity,
    /// Further facts about the tenant that forced arguments may take. They may change and need not be unique.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::attributes")]
    pub attributes: BTreeMap<String, String>,
    /// Who may see the tenant and its servers' logs. Admins run nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub admins: Vec<Subject>,
    /// Who may run agents in the agents' namespace. Developers approve nothing and see nothing of the servers' namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub developers: Vec<Subject>,
    /// What the tenant's servers may use in total. What Bulkhead adds (sidecars, a rollout's
    /// surge, certificate renewal) comes on top and doesn't count. The agents' namespace gets the same again.
    pub quota: Quota,
    /// Lifetime of the tenant's leaf certificates.
    #[serde(default)]
    pub certificates: Certificates,
    /// TLS between the tenant's agents and its servers.
    #[serde(default)]
    pub tls: Tls,
    /// Whose tokens prove the persons that agents act for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub issuers: Vec<Issuer>,
    /// How much all agents together may ask of a server of the tenant, of all its replicas together, which divide it as they do
    /// an agent's. What counts is all that the agent's own limits let through, also what is refused afterwards for its token or
    /// for what it asks. An agent whose own `limits` aren't smaller can use up all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<RequestLimits>,
    /// The tenant's agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub agents: Vec<Agent>,
    /// The tenant's MCP servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub servers: Vec<Server>,
}

/// Who the tenant is to the servers' data.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The value that `forced: {…: {identity: tenantId}}` sets. Never changed, never shared.
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[a-z0-9]([a-z0-9._:-]*[a-z0-9])?$")
    )]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("tenantId is immutable: rows in the servers' stores belong to it; make a new tenant for another one"),
        validation = Rule::new("!self.replace('-', '').matches('^[0-9a-f]{32}$') || self.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')")
            .message("a UUID is written as 8-4-4-4-12 hex digits: another way to write it would be the same tenant to a database"),
        validation = Rule::new("!self.matches('^0[0-9]+$')")
            .message("a number is written without leading zeros: with them it would be the same tenant to a database")
    )]
    pub tenant_id: String,
}

/// A user or group of the cluster's authentication.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// `User` or `Group`.
    pub kind: SubjectKind,
    /// Name as the API server's authenticator gives it.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!self.startsWith('system:')")
        .message("names that start with 'system:' are the cluster's own and mean far more than this tenant's people: name a user or group of your identity provider"))]
    pub name: String,
}

/// Kind of a [`Subject`].
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
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
    #[schemars(schema_with = "schema::quantity")]
    pub cpu: String,
    /// Memory limit of all server containers together, for example `4Gi`.
    #[schemars(schema_with = "schema::quantity")]
    pub memory: String,
    /// Ephemeral storage limit of all server containers together, for example `20Gi`: logs and `emptyDir` volumes. Left
    /// out: `1Gi` for each of `pods`, or what the servers' limits need if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub ephemeral_storage: Option<String>,
    /// Number of server pods.
    #[schemars(range(min = 1, max = 1024))]
    pub pods: u32,
}

/// Lifetime of leaf certificates, as Go durations (`24h`, `90m`).
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.duration) >= duration('1h') && duration(self.duration) <= duration('2160h')")
        .message("duration must be from 1h to 2160h (90 days)"),
    validation = Rule::new("duration(self.renewBefore) >= duration('5m') && duration(self.duration) - duration(self.renewBefore) >= duration('10m')")
        .message("renewBefore must be at least 5m, and at least 10m less than duration: a leaf that is renewed as soon as it is issued is issued without end")
)]
pub struct Certificates {
    /// How long a leaf is valid. At least 1h, cert-manager's minimum.
    #[serde(default = "default_duration")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    pub duration: String,
    /// How long before its end a leaf is renewed. At least 5m, and at least 10m less than `duration`.
    #[serde(default = "default_renew_before")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    pub renew_before: String,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            duration: default_duration(),
            renew_before: default_renew_before(),
        }
    }
}

fn default_duration() -> String {
    "24h".into()
}

fn default_renew_before() -> String {
    "8h".into()
}

/// Both namespaces are named after the tenant: 56 characters and `-agents` are the 63 of a DNS label.
const NAME_IS_LABEL: &str =
    "self.metadata.name.size() <= 56 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";
const NAME_IS_LABEL_MESSAGE: &str = "the tenant's name must be a DNS label of at most 56 characters: lower-case letters, digits and '-', no dots";

/// Names that a cluster or what is commonly installed in it uses for its own namespaces.
const NAME_IS_FREE: &str = "!self.metadata.name.matches('-(agents|system)$|^(kube|bulkhead|openshift|istio|linkerd)(-|$)|^(default|cert-manager|ingress-nginx|argocd|monitoring)$')";
const NAME_IS_FREE_MESSAGE: &str = "this name is reserved for the cluster's own namespaces: choose one that isn't default, cert-manager, \
     ingress-nginx, argocd or monitoring, doesn't start with kube-, bulkhead, openshift-, istio- or linkerd-, and \
     doesn't end in -agents or -system";

/// A pod's search list turns `github.com` into `github.com.svc.<cluster domain>` first, so a
/// Service `github` in a namespace `com` would answer for it, cluster-wide.
const NAME_IS_NO_DOMAIN: &str = "!self.metadata.name.matches('^[a-z]{2}$') && !(self.metadata.name in ['arpa', 'com', 'net', 'org', 'edu', 'gov', 'mil', 'int', 'info', 'biz', 'dev', 'app', 'cloud', 'online', 'site', 'tech', 'store', 'shop', 'svc', 'pod', 'cluster', 'local', 'internal', 'localhost', 'test', 'lan', 'home', 'corp'])";
const NAME_IS_NO_DOMAIN_MESSAGE: &str = "this name is also a top-level domain, and Services in a namespace of that name would answer for hosts outside \
     the cluster: choose a longer one";

const SERVERS_DIAL_OTHERS: &str = "!has(self.spec.servers) || self.spec.servers.all(server, !has(server.egress) || server.egress.all(rule, !has(rule.to.__namespace__) || (rule.to.__namespace__ != self.metadata.name && !(rule.to.__namespace__.endsWith('-agents') && rule.to.__namespace__.substring(0, rule.to.__namespace__.size() - 7) == self.metadata.name))))";
const AGENTS_DIAL_OTHERS: &str = "!has(self.spec.agents) || self.spec.agents.all(agent, !has(agent.egress) || agent.egress.all(rule, !has(rule.to.__namespace__) || (rule.to.__namespace__ != self.metadata.name && !(rule.to.__namespace__.endsWith('-agents') && rule.to.__namespace__.substring(0, rule.to.__namespace__.size() - 7) == self.metadata.name))))";
const DIAL_OTHERS_MESSAGE: &str = "egress must not name the tenant's own namespaces: agents reach its servers anyway, through their sidecars, and \
     nothing else of it may be dialled";
