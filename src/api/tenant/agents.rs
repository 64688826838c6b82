//! A tenant's agents, and what agents and servers may dial.

use std::{collections::BTreeMap, num::NonZeroU32};

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{issuers::AgentClient, schema};

/// An agent: a `ServiceAccount` and a client certificate (Secret `<name>-tls`) in the agents' namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Name of the agent, of its `ServiceAccount`, and in its SPIFFE ID.
    #[schemars(length(min = 1, max = 40), regex(pattern = schema::DNS_LABEL))]
    #[x_kube(validation = Rule::new("!(self in ['default', 'agents-ca', 'selfsigned', 'bulkhead-trust']) && !self.endsWith('-tls')")
        .message("this name is taken by an object of Bulkhead's in the agents' namespace: choose another (not default, agents-ca, selfsigned, bulkhead-trust or *-tls)"))]
    pub name: String,
    /// Roles that tools are granted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::roles")]
    pub roles: Vec<String>,
    /// Facts about the agent that forced arguments may take.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::attributes")]
    pub attributes: BTreeMap<String, String>,
    /// How much it may ask of a server of the tenant, of all its replicas together: they divide it by what each is asked for,
    /// and equally while the operator can't be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<RequestLimits>,
    /// What it is to the tenant's issuers: the OAuth clients whose tokens of persons it may present. One client is one
    /// agent's. Not needed for tokens that are bound to its certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub clients: Vec<AgentClient>,
    /// Whether it may do nothing for itself, but only for persons: its own token is refused then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requires_person: bool,
    /// What pods labelled `bulkhead.dev/agent: <name>` may dial besides the tenant's servers and the cluster's DNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<EgressRule>,
}

/// How much may be asked of one server.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestLimits {
    /// Requests in a minute; so many may come at once after a quiet minute. More are refused with 429 and `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests under way at once, streams included. At most, and when left out, a replica has 64 of one agent and 256 in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrent: Option<NonZeroU32>,
}

/// A peer that may be dialled, and on which ports.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// The peer.
    pub to: EgressPeer,
    /// TCP ports.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 65535)), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<u16>,
}

/// Pods of a namespace (namespace *and* labels), or a range of addresses outside the cluster.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.__namespace__) != has(self.cidr)")
        .message("a peer is either namespace with podLabels, or cidr: give exactly one of namespace and cidr"),
    validation = Rule::new("has(self.__namespace__) == has(self.podLabels)")
        .message("namespace and podLabels belong together: say which pods of the namespace may be dialled")
)]
pub struct EgressPeer {
    /// Namespace of the pods. Never a tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub namespace: Option<String>,
    /// Labels of the pods. Required with `namespace`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::pod_labels")]
    pub pod_labels: BTreeMap<String, String>,
    /// IPv4 or IPv6 range, for example `203.0.113.0/24`. It must not meet the cluster's own ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 43))]
    #[x_kube(
        validation = Rule::new("isCIDR(self) && cidr(self) == cidr(self).masked()")
            .message("must be an IPv4 or IPv6 range without host bits, for example '203.0.113.0/24' or '2001:db8::/32'"),
        validation = Rule::new(NO_SPECIAL_RANGE)
            .message("must not meet the unspecified, loopback, link-local or multicast ranges or contain them, as 0.0.0.0/0 does: name the ranges that are needed")
    )]
    pub cidr: Option<String>,
}

/// Ranges that mean the node, the metadata service or nobody. Ranges of the cluster itself are
/// known to the operator alone, which refuses them.
const NO_SPECIAL_RANGE: &str = "!isCIDR(self) || \
    ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '::/96', 'fe80::/10', 'ff00::/8'].all(range, \
    !cidr(range).containsCIDR(self) && !cidr(self).containsCIDR(range))";
