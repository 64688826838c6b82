//! What may talk to what. Everything is denied to and from every pod of both namespaces; each
//! further policy opens one thing.
//!
//! An empty selector in a peer would mean every namespace or every pod, and a rule without ports
//! all of them: no rule here has either.

use std::{collections::BTreeSet, fmt::Write as _};

use bulkhead_api::tenant::Dns;
use bulkhead_core::{control, pod};
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::meta::{Labels, agent_labels, meta, selector, server_labels, server_selector, tenant_labels};
use crate::{
    names::{
        AGENTS_POLICY, DEFAULT_DENY, LABEL_AGENT, LABEL_NAME, LABEL_NAMESPACE_NAME, LABEL_SERVER, OPERATOR,
    },
    settings::Settings,
    validate::{Agent, EgressPeer, EgressRule, PodPeer, Server, ValidatedTenant},
};

pub(super) fn network_policies(tenant: &ValidatedTenant, settings: &Settings) -> Vec<NetworkPolicy> {
    let mut policies = vec![default_deny(tenant, tenant.name.servers_namespace())];
    policies.extend(
        tenant
            .servers
            .iter()
            .map(|server| of_server(tenant, server, settings)),
    );
    policies.push(default_deny(tenant, tenant.name.agents_namespace()));
    policies.push(of_agents(tenant));
    policies.extend(
        tenant
            .agents
            .iter()
            .filter(|agent| !agent.egress.is_empty())
            .map(|agent| of_agent(tenant, agent)),
    );
    policies
}

/// The revision of what a network policy lets in and out; the order in which it says so is no matter.
///
/// It is part of the pod template: a network plugin lets a connection live on that an earlier policy let begin, so what
/// was closed is closed for good only once the pods are others.
pub(super) fn revision(policy: &NetworkPolicy) -> String {
    let mut opened = BTreeSet::new();
    let mut open =
        |way: &str, peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>| {
            for peer in peers.into_iter().flatten() {
                for port in ports.into_iter().flatten() {
                    opened.insert(json!([way, peer, port]).to_string());
                }
            }
        };
    if let Some(spec) = &policy.spec {
        for rule in spec.ingress.iter().flatten() {
            open("in", rule.from.as_ref(), rule.ports.as_ref());
        }
        for rule in spec.egress.iter().flatten() {
            open("out", rule.to.as_ref(), rule.ports.as_ref());
        }
    }
    let mut digest = Sha256::new();
    for one in &opened {
        digest.update(one);
        digest.update([0]);
    }
    let mut revision = String::new();
    for byte in &digest.finalize()[..8] {
        // Writing to a text never fails.
        let _ = write!(revision, "{byte:02x}");
    }
    revision
}

fn default_deny(tenant: &ValidatedTenant, namespace: String) -> NetworkPolicy {
    NetworkPolicy {
        metadata: meta(namespace, DEFAULT_DENY, tenant_labels(tenant)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ..NetworkPolicySpec::default()
        }),
    }
}

/// In: the sidecar's mTLS port, for the tenant's agents and declared clients. Out: what is
/// declared, and the operator. In and out: the port on which the server's own replicas reach each other. The sidecar's port for the kubelet is open to nobody; the kubelet isn't subject to policies.
pub(super) fn of_server(tenant: &ValidatedTenant, server: &Server, settings: &Settings) -> NetworkPolicy {
    let mut from = vec![whole_namespace(&tenant.name.agents_namespace())];
    from.extend(server.clients.iter().map(pods));
    let mut ingress = vec![NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![port("TCP", pod::MTLS_PORT)]),
    }];
    if let Some(namespace) = &settings.proxy_metrics_namespace {
        ingress.push(NetworkPolicyIngressRule {
            from: Some(vec![whole_namespace(namespace)]),
            ports: Some(vec![port("TCP", pod::METRICS_PORT)]),
        });
    }
    let replicas = NetworkPolicyPeer {
        namespace_selector: Some(selector([(
            LABEL_NAMESPACE_NAME,
            &tenant.name.servers_namespace(),
        )])),
        pod_selector: Some(server_selector(tenant, &server.name)),
        ip_block: None,
    };
    let peers = vec![port("TCP", pod::PEERS_PORT)];
    ingress.push(NetworkPolicyIngressRule {
        from: Some(vec![replicas.clone()]),
        ports: Some(peers.clone()),
    });
    let mut egress = vec![
        NetworkPolicyEgressRule {
            to: Some(vec![replicas]),
            ports: Some(peers),
        },
        reports(settings),
    ];
    egress.extend(server.egress.iter().map(declared));
    if server.dns == Dns::Cluster {
        egress.push(cluster_dns());
    }
    NetworkPolicy {
        metadata: meta(
            tenant.name.servers_namespace(),
            server.name.network_policy(),
            server_labels(tenant, &server.name),
        ),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(server_selector(tenant, &server.name)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

/// The operator, which sidecars tell what is in force.
fn reports(settings: &Settings) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(selector([(LABEL_NAMESPACE_NAME, &*settings.namespace)])),
            pod_selector: Some(selector([(LABEL_NAME, OPERATOR)])),
            ip_block: None,
        }]),
        ports: Some(vec![port("TCP", control::PORT)]),
    }
}

/// Out of every pod of the agents' namespace: the tenant's sidecars and the cluster's DNS.
fn of_agents(tenant: &ValidatedTenant) -> NetworkPolicy {
    let sidecars = NetworkPolicyPeer {
        namespace_selector: Some(selector([(
            LABEL_NAMESPACE_NAME,
            &tenant.name.servers_namespace(),
        )])),
        pod_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: LABEL_SERVER.to_owned(),
                operator: "Exists".to_owned(),
                values: None,
            }]),
            match_labels: None,
        }),
        ip_block: None,
    };
    egress_only(
        tenant,
        AGENTS_POLICY.to_owned(),
        tenant_labels(tenant),
        LabelSelector::default(),
        vec![
            NetworkPolicyEgressRule {
                to: Some(vec![sidecars]),
                ports: Some(vec![port("TCP", pod::MTLS_PORT)]),
            },
            cluster_dns(),
        ],
    )
}

/// Out of one agent's pods, besides: what is declared for it.
fn of_agent(tenant: &ValidatedTenant, agent: &Agent) -> NetworkPolicy {
    egress_only(
        tenant,
        agent.name.network_policy(),
        agent_labels(tenant, &agent.name),
        selector([(LABEL_AGENT, agent.name.as_str())]),
        agent.egress.iter().map(declared).collect(),
    )
}

fn egress_only(
    tenant: &ValidatedTenant,
    name: String,
    labels: Labels,
    pod_selector: LabelSelector,
    egress: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    NetworkPolicy {
        metadata: meta(tenant.name.agents_namespace(), name, labels),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pod_selector),
            policy_types: Some(vec!["Egress".to_owned()]),
            egress: Some(egress),
            ingress: None,
        }),
    }
}

fn declared(rule: &EgressRule) -> NetworkPolicyEgressRule {
    let peer = match &rule.to {
        EgressPeer::Pods(peer) => pods(peer),
        EgressPeer::Range(range) => NetworkPolicyPeer {
            ip_block: Some(IPBlock {
                cidr: range.to_string(),
                except: None,
            }),
            ..NetworkPolicyPeer::default()
        },
    };
    NetworkPolicyEgressRule {
        to: Some(vec![peer]),
        ports: Some(rule.ports.iter().map(|number| port("TCP", *number)).collect()),
    }
}

fn cluster_dns() -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(selector([(LABEL_NAMESPACE_NAME, "kube-system")])),
            pod_selector: Some(selector([("k8s-app", "kube-dns")])),
            ip_block: None,
        }]),
        ports: Some(vec![port("UDP", 53), port("TCP", 53)]),
    }
}

fn pods(peer: &PodPeer) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(selector([(LABEL_NAMESPACE_NAME, &peer.namespace)])),
        pod_selector: Some(LabelSelector {
            match_labels: Some(peer.labels.clone()),
            ..LabelSelector::default()
        }),
        ip_block: None,
    }
}

fn whole_namespace(namespace: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(selector([(LABEL_NAMESPACE_NAME, namespace)])),
        pod_selector: None,
        ip_block: None,
    }
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(i32::from(number))),
        end_port: None,
    }
}
