//! What `status` knows about one tenant, as plain data: `-o json` and `-o yaml` are this, the tree is made of it.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::{
    McpTenant,
    cert_manager::Certificate,
    conditions::types::READY,
    tenant::{ServerStatus, Tier},
};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;

use super::{
    fetch::{Access, Objects},
    pods::{PodView, pod, server_of},
};
use crate::paint::seconds_between;

/// One tenant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantView {
    /// Name.
    pub name: String,
    /// The resource itself.
    #[serde(flatten)]
    pub tenant: Option<Summary>,
    /// Its servers.
    pub servers: Vec<ServerView>,
    /// Its agents.
    pub agents: Vec<AgentView>,
    /// Certificates that are no agent's: both CAs, the servers'.
    pub certificates: Vec<CertificateView>,
    /// What couldn't be read, and why: `tenant`, `pods`, `serverCertificates`, `agentCertificates`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<&'static str, &'static str>,
}

/// What the `McpTenant` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Whether it is ready, and the operator has seen its latest specification.
    pub ready: bool,
    /// Reason of the condition `Ready`.
    pub reason: String,
    /// Isolation tier.
    pub tier: String,
    /// Number of the specification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The specification that the operator last saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Seconds since it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<i64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its conditions.
    pub conditions: Vec<ConditionView>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionView {
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerView {
    /// Name.
    pub name: String,
    /// What the operator reports of it.
    #[serde(flatten)]
    pub status: Option<ServerStatus>,
    /// Its pods, if they may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Vec<PodView>>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentView {
    /// Name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its certificate, if that may be read and exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateView>,
}

/// A certificate, from cert-manager's status: no Secret is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whether it is issued and current.
    pub ready: bool,
    /// End of its validity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Seconds until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<i64>,
    /// When it is renewed next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Timestamp>,
    /// Seconds until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renews_in_seconds: Option<i64>,
}

/// Makes the view of what was read.
pub fn view(name: &str, objects: &Objects, now: Timestamp) -> TenantView {
    let tenant = objects.tenant.read();
    let agent_certificates = certificates(&objects.agent_certificates, now);
    let agents = agents(tenant, &agent_certificates);
    let names: BTreeSet<_> = agents
        .iter()
        .filter_map(|agent| Some(&agent.certificate.as_ref()?.name))
        .collect();
    let others = agent_certificates
        .iter()
        .filter(|certificate| !names.contains(&certificate.name));
    let mut all = certificates(&objects.server_certificates, now);
    all.extend(others.cloned());
    let unread = [
        ("tenant", objects.tenant.why_not()),
        ("pods", objects.pods.why_not()),
        ("serverCertificates", objects.server_certificates.why_not()),
        ("agentCertificates", objects.agent_certificates.why_not()),
    ];
    TenantView {
        name: name.to_owned(),
        tenant: tenant.map(|tenant| summary(tenant, now)),
        servers: servers(objects),
        agents,
        certificates: all,
        unread: unread
            .into_iter()
            .filter_map(|(what, why)| Some((what, why?)))
            .collect(),
    }
}

/// What the resource says about itself.
pub fn summary(tenant: &McpTenant, now: Timestamp) -> Summary {
    let status = tenant.status.clone().unwrap_or_default();
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == READY);
    let generation = tenant.metadata.generation;
    // A status about an earlier specification says nothing about this one.
    let current = status.observed_generation == generation;
    Summary {
        ready: current && ready.is_some_and(|ready| ready.status == "True"),
        reason: match ready {
            Some(_) if !current => "NotObservedYet".into(),
            Some(ready) => ready.reason.clone(),
            None => "NoStatusYet".into(),
        },
        tier: match tenant.spec.isolation.tier {
            Tier::Namespace => "Namespace".into(),
            Tier::Sandbox => "Sandbox".into(),
        },
        generation,
        observed_generation: status.observed_generation,
        age_seconds: tenant
            .creation_timestamp()
            .map(|created| seconds_between(created.0, now)),
        deleting: tenant.metadata.deletion_timestamp.is_some(),
        conditions: status
            .conditions
            .into_iter()
            .map(|condition| ConditionView {
                kind: condition.type_,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
            })
            .collect(),
    }
}

/// Every server that the specification, the status or a pod names.
fn servers(objects: &Objects) -> Vec<ServerView> {
    let tenant = objects.tenant.read();
    let reported = tenant
        .and_then(|tenant| tenant.status.clone())
        .unwrap_or_default()
        .servers;
    let revision = |name: &str| {
        let status = reported.iter().find(|status| status.name == name)?;
        Some(status.policy_revision.clone())
    };
    let mut names: BTreeSet<String> = reported.iter().map(|status| status.name.clone()).collect();
    names.extend(
        tenant
            .into_iter()
            .flat_map(|tenant| &tenant.spec.servers)
            .map(|server| server.name.clone()),
    );
    names.extend(objects.pods.read().into_iter().flatten().filter_map(server_of));
    names
        .into_iter()
        .map(|name| ServerView {
            status: reported.iter().find(|status| status.name == name).cloned(),
            pods: objects.pods.read().map(|pods| {
                let mine = pods.iter().filter(|pod| server_of(pod).as_ref() == Some(&name));
                mine.map(|one| pod(one, revision(&name).as_deref())).collect()
            }),
            name,
        })
        .collect()
}

fn agents(tenant: Option<&McpTenant>, certificates: &[CertificateView]) -> Vec<AgentView> {
    let agents = tenant.into_iter().flat_map(|tenant| &tenant.spec.agents);
    agents
        .map(|agent| {
            let certificate = format!("{}-tls", agent.name);
            AgentView {
                name: agent.name.clone(),
                roles: agent.roles.clone(),
                certificate: certificates
                    .iter()
                    .find(|candidate| candidate.name == certificate)
                    .cloned(),
            }
        })
        .collect()
}

fn certificates(read: &Access<Vec<Certificate>>, now: Timestamp) -> Vec<CertificateView> {
    read.read()
        .into_iter()
        .flatten()
        .map(|one| certificate(one, now))
        .collect()
}

fn certificate(certificate: &Certificate, now: Timestamp) -> CertificateView {
    let status = certificate.status.clone().unwrap_or_default();
    let time = |text: Option<String>| text.and_then(|text| text.parse::<Timestamp>().ok());
    let (not_after, renewal_time) = (time(status.not_after), time(status.renewal_time));
    CertificateView {
        namespace: certificate.namespace().unwrap_or_default(),
        name: certificate.name_any(),
        ready: status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        not_after,
        expires_in_seconds: not_after.map(|end| seconds_between(now, end)),
        renewal_time,
        renews_in_seconds: renewal_time.map(|renewal| seconds_between(now, renewal)),
    }
}
