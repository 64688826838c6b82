//! A tenant's agents, and what agents and servers may dial.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An agent: a `ServiceAccount` and a client certificate (Secret `<name>-tls`) in the agents' namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Name of the agent, of its `ServiceAccount`, and in its SPIFFE ID.
    pub name: String,
    /// Roles that tools are granted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Facts about the agent that forced arguments may take.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What pods labelled `bulkhead.dev/agent: <name>` may dial besides the tenant's servers and the cluster's DNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// A peer that may be dialled, and on which ports.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// The peer.
    pub to: EgressPeer,
    /// TCP ports.
    pub ports: Vec<u16>,
}

/// Pods of a namespace (namespace *and* labels), or a range of addresses outside the cluster.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressPeer {
    /// Namespace of the pods. Never a tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels of the pods. Required with `namespace`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// IPv4 or IPv6 range, for example `203.0.113.0/24`. It must not meet the cluster's own ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
}
