//! A tenant whose every value was checked: nothing after validation handles raw text.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::tenant::{Dns, EnvVar, Http, KeyExchange, OnImageChange, Probes, RequestLimits, Subject};
use bulkhead_core::policy::document;
use ipnet::IpNet;

use super::Offers;
use crate::{
    duration::GoDuration,
    names::{AgentName, ClaimKind, ServerName, TenantName, VolumeName},
    quantity::Quantity,
};

/// A tenant that may be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedTenant {
    /// Its name.
    pub name: TenantName,
    /// UID of its `McpTenant`. None: rendered offline, where nothing can own anything.
    pub uid: Option<String>,
    /// `spec.identity.tenantId`.
    pub tenant_id: String,
    /// `RuntimeClass` of all its pods (tier `Sandbox`).
    pub runtime_class: Option<String>,
    /// Its admins.
    pub admins: Vec<Subject>,
    /// Its developers.
    pub developers: Vec<Subject>,
    /// What its servers may use in total.
    pub quota: Quota,
    /// Lifetime of its leaf certificates.
    pub certificates: Lifetime,
    /// How keys are agreed on between its agents and servers.
    pub key_exchange: KeyExchange,
    /// Whose tokens prove the persons that its agents act for.
    pub issuers: Vec<Issuer>,
    /// How much its agents together may ask of a server, of all its replicas together.
    pub limits: RequestLimits,
    /// Its agents.
    pub agents: Vec<Agent>,
    /// Its servers.
    pub servers: Vec<Server>,
}

impl ValidatedTenant {
    /// What it must hold, alone in the cluster, before anything is built.
    pub fn claims(&self) -> Vec<(ClaimKind, String)> {
        let mut claims = vec![
            (ClaimKind::TenantId, self.tenant_id.clone()),
            (ClaimKind::Namespace, self.name.servers_namespace()),
            (ClaimKind::Namespace, self.name.agents_namespace()),
        ];
        for Issuer { rules, .. } in &self.issuers {
            // No URL has a line feed.
            let pairs = rules
                .audiences
                .iter()
                .map(|audience| format!("{}\n{audience}", rules.url));
            claims.extend(pairs.map(|pair| (ClaimKind::Audience, pair)));
        }
        claims
    }
}

/// An issuer of persons' tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Which of its tokens are taken, and what they give.
    pub rules: document::Issuer,
    /// By whom its server is trusted, in PEM. None: the public authorities.
    pub certificate_authority: Option<String>,
}

/// What a tenant's servers may use in total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// CPU limits together.
    pub cpu: Quantity,
    /// Memory limits together.
    pub memory: Quantity,
    /// Ephemeral storage limits together.
    pub ephemeral_storage: Quantity,
    /// Pods.
    pub pods: u32,
}

/// Lifetime of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How long it is valid.
    pub duration: GoDuration,
    /// How long before its end it is renewed.
    pub renew_before: GoDuration,
}

/// An agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// Its roles.
    pub roles: BTreeSet<String>,
    /// Facts about it that forced arguments may take.
    pub attributes: BTreeMap<String, String>,
    /// How much it may ask of a server, of all its replicas together.
    pub limits: RequestLimits,
    /// What it is to the issuers.
    pub clients: Vec<document::Client>,
    /// Whether it may do nothing for itself.
    pub requires_person: bool,
    /// What it may dial besides the tenant's servers and the cluster's DNS.
    pub egress: Vec<EgressRule>,
}

/// A peer that may be dialled, on these TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    /// The peer.
    pub to: EgressPeer,
    /// TCP ports, at least one.
    pub ports: BTreeSet<u16>,
}

/// Pods, or a range of addresses outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressPeer {
    /// Pods of a namespace.
    Pods(PodPeer),
    /// A range of addresses.
    Range(IpNet),
}

/// Pods of a namespace, by labels, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPeer {
    /// Their namespace.
    pub namespace: String,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
}

/// An MCP server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: ServerName,
    /// Its image.
    pub image: String,
    /// Number of its pods.
    pub replicas: u32,
    /// Where it listens on loopback.
    pub http: Http,
    /// Entrypoint.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<EnvVar>,
    /// What it requests and is limited to.
    pub resources: Resources,
    /// Its user and group.
    pub run_as_user: i64,
    /// Secrets with registry credentials.
    pub image_pull_secrets: Vec<String>,
    /// Its writable places.
    pub volumes: Vec<Volume>,
    /// Its own probes.
    pub probes: Probes,
    /// Name resolution.
    pub dns: Dns,
    /// Names under which clients reach it, besides those that follow from its own.
    pub hostnames: Vec<String>,
    /// What it may dial.
    pub egress: Vec<EgressRule>,
    /// Pods besides the tenant's agents that may open its sidecar's port.
    pub clients: Vec<PodPeer>,
    /// What may be used on it, with the tenant's values already in place.
    pub offers: Offers,
    /// What a change of its image makes of the definitions that it is held to.
    pub on_image_change: OnImageChange,
}

impl Server {
    /// All names under which clients reach it; the first is the one to use.
    pub fn all_hostnames(&self, tenant: &TenantName, cluster_domain: &str) -> Vec<String> {
        let own = self.name.hostnames(tenant, cluster_domain).into_iter();
        own.chain(self.hostnames.iter().cloned()).collect()
    }

    /// Whether it has a volume that one pod at a time may mount.
    pub fn has_persistent_volume(&self) -> bool {
        self.volumes
            .iter()
            .any(|volume| matches!(volume.source, VolumeSource::Persistent { .. }))
    }
}

/// What a container requests and is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Guaranteed.
    pub requests: Amounts,
    /// At most.
    pub limits: Amounts,
}

/// An amount of each resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// CPU.
    pub cpu: Quantity,
    /// Memory.
    pub memory: Quantity,
    /// Ephemeral storage: logs and `emptyDir` volumes.
    pub ephemeral_storage: Quantity,
}

/// A writable volume of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// Where it is mounted.
    pub mount_path: String,
    /// What it is.
    pub source: VolumeSource,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeSource {
    /// An `emptyDir` of at most this size.
    Ephemeral(Quantity),
    /// A persistent volume claim.
    Persistent {
        /// Requested size.
        size: Quantity,
        /// Storage class; none: the cluster's default.
        storage_class: Option<String>,
    },
}
