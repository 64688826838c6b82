//! Decides whether a tenant may be built: what the API's schema and CEL rules can't see
//! (references, quantities, expressions, ranges, the state of the cluster). All that is wrong is
//! told at once.

mod issuers;
mod model;
mod offers;
mod peers;
mod servers;

use std::{collections::BTreeSet, fmt};

use bulkhead_api::{
    McpTenant,
    tenant::{Quota as QuotaSpec, Tier},
};
use bulkhead_core::policy::compile::{CompileError, CompiledPolicy};

use crate::{
    build::{self, Observed},
    duration::GoDuration,
    names::{AgentName, TenantName},
    quantity::Quantity,
    settings::Settings,
};

pub use model::{
    Agent, Amounts, EgressPeer, EgressRule, Issuer, Lifetime, PodPeer, Quota, Resources, Server,
    ValidatedTenant, Volume, VolumeSource,
};
pub use offers::Offers;
pub use peers::Closed;

/// One thing that is wrong with a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What kind of wrong; stable.
    pub reason: Reason,
    /// Where: a path in the resource, for example `spec.servers[0].egress[1].to.cidr`.
    pub path: String,
    /// What, and what to do about it. Names no other tenant.
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why a tenant is refused: the reason of `Accepted=False`. Part of the API, never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A name isn't one, is reserved, or its derived names collide.
    InvalidName,
    /// Two things of the same name.
    DuplicateName,
    /// A value out of range or of the wrong form.
    InvalidValue,
    /// A text that must be a quantity isn't, or requests exceed limits.
    InvalidResources,
    /// Certificate lifetimes don't fit each other.
    InvalidCertificateLifetime,
    /// A reference to an attribute that doesn't exist.
    UnknownReference,
    /// Rules about arguments that a sidecar would refuse: they contradict each other, bound
    /// nothing, or have an expression that doesn't compile.
    InvalidToolRule,
    /// A peer or range that may not be dialled or let in.
    ForbiddenPeer,
    /// The servers need more than the quota gives.
    QuotaTooSmall,
    /// A reference to an object of Bulkhead's own.
    ReservedObject,
    /// The runtime class doesn't exist.
    RuntimeClassNotFound,
}

impl Reason {
    /// As it is in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidName => "InvalidName",
            Self::DuplicateName => "DuplicateName",
            Self::InvalidValue => "InvalidValue",
            Self::InvalidResources => "InvalidResources",
            Self::InvalidCertificateLifetime => "InvalidCertificateLifetime",
            Self::UnknownReference => "UnknownReference",
            Self::InvalidToolRule => "InvalidToolRule",
            Self::ForbiddenPeer => "ForbiddenPeer",
            Self::QuotaTooSmall => "QuotaTooSmall",
            Self::ReservedObject => "ReservedObject",
            Self::RuntimeClassNotFound => "RuntimeClassNotFound",
        }
    }
}

/// Checks a tenant. `observed` is what the cluster showed; what it doesn't know isn't checked.
pub fn validate(
    tenant: &McpTenant,
    settings: &Settings,
    observed: &Observed,
) -> Result<ValidatedTenant, Vec<Invalid>> {
    let mut findings = Findings::default();
    let checked = check(tenant, settings, observed, &mut findings);
    if let (Some(checked), true) = (&checked, findings.0.is_empty()) {
        compile(checked, settings, &mut findings);
    }
    match checked {
        Some(valid) if findings.0.is_empty() => Ok(valid),
        _ => Err(findings.0),
    }
}

/// Compiles each policy as its sidecars will: none that they would refuse is ever mounted.
fn compile(tenant: &ValidatedTenant, settings: &Settings, findings: &mut Findings) {
    for (index, server) in tenant.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        let document = build::policy(tenant, server, settings);
        match CompiledPolicy::from_json(document.json.as_bytes()) {
            Ok(_) => {}
            Err(CompileError::Invalid { part, problem }) => {
                findings.add(Reason::InvalidToolRule, format!("{path}.{part}"), problem);
            }
            Err(error) => findings.add(Reason::InvalidToolRule, path, error.to_string()),
        }
    }
}

fn check(
    tenant: &McpTenant,
    settings: &Settings,
    observed: &Observed,
    findings: &mut Findings,
) -> Option<ValidatedTenant> {
    let spec = &tenant.spec;
    let name = tenant_name(
        tenant.metadata.name.as_deref().unwrap_or_default(),
        settings,
        findings,
    );
    if spec.identity.tenant_id.is_empty() {
        findings.add(
            Reason::InvalidValue,
            "spec.identity.tenantId",
            "must not be empty",
        );
    }
    let runtime_class = runtime_class(tenant, observed, findings);
    let certificates = lifetime(tenant, findings);

    let issuers = issuers::issuers(tenant, findings);
    let peers = peers::Peers::new(tenant, settings, observed);
    findings.unique("spec.agents", spec.agents.iter().map(|agent| agent.name.as_str()));
    let mut agents = Vec::new();
    for (index, agent) in spec.agents.iter().enumerate() {
        let path = format!("spec.agents[{index}]");
        let name = findings.take(
            AgentName::new(&agent.name),
            Reason::InvalidName,
            &format!("{path}.name"),
        );
        let egress = peers.egress(&agent.egress, &format!("{path}.egress"), findings);
        agents.extend(name.map(|name| Agent {
            name,
            roles: agent.roles.iter().cloned().collect(),
            attributes: agent.attributes.clone(),
            limits: agent.limits.unwrap_or_default(),
            clients: agent.clients.iter().map(issuers::client).collect(),
            requires_person: agent.requires_person,
            egress,
        }));
    }

    findings.unique(
        "spec.servers",
        spec.servers.iter().map(|server| server.name.as_str()),
    );
    let mut servers = Vec::new();
    for (index, server) in spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        servers.extend(servers::server(server, tenant, &peers, &path, findings));
    }
    let quota = quota(&spec.quota, &servers, findings);

    Some(ValidatedTenant {
        name: name?,
        uid: tenant.metadata.uid.clone(),
        tenant_id: spec.identity.tenant_id.clone(),
        runtime_class,
        admins: spec.admins.clone(),
        developers: spec.developers.clone(),
        quota,
        certificates: certificates?,
        key_exchange: spec.tls.key_exchange,
        issuers,
        limits: spec.limits.unwrap_or_default(),
        agents,
        servers,
    })
}

/// A tenant's namespaces are named after it, so its name must be neither another part's nor the operator's.
fn tenant_name(text: &str, settings: &Settings, findings: &mut Findings) -> Option<TenantName> {
    let name = findings.take(TenantName::new(text), Reason::InvalidName, "metadata.name")?;
    if [name.servers_namespace(), name.agents_namespace()].contains(&settings.namespace) {
        findings.add(
            Reason::InvalidName,
            "metadata.name",
            format!("`{name}` is reserved: choose another name for the tenant"),
        );
        return None;
    }
    Some(name)
}

fn runtime_class(tenant: &McpTenant, observed: &Observed, findings: &mut Findings) -> Option<String> {
    let isolation = &tenant.spec.isolation;
    match (isolation.tier, &isolation.sandbox) {
        (Tier::Namespace, None) => None,
        (Tier::Namespace, Some(_)) => {
            let message = "belongs to tier Sandbox: set isolation.tier to Sandbox, or remove it";
            findings.add(Reason::InvalidValue, "spec.isolation.sandbox", message);
            None
        }
        (Tier::Sandbox, None) => {
            let message = "tier Sandbox needs sandbox.runtimeClassName";
            findings.add(Reason::InvalidValue, "spec.isolation.sandbox", message);
            None
        }
        (Tier::Sandbox, Some(sandbox)) => {
            let class = &sandbox.runtime_class_name;
            if observed
                .runtime_classes
                .as_ref()
                .is_some_and(|classes| !classes.contains_key(class))
            {
                findings.add(
                    Reason::RuntimeClassNotFound,
                    "spec.isolation.sandbox.runtimeClassName",
                    format!("the cluster has no RuntimeClass `{class}`: create it, or name one that exists"),
                );
            }
            Some(class.clone())
        }
    }
}

fn lifetime(tenant: &McpTenant, findings: &mut Findings) -> Option<Lifetime> {
    let certificates = &tenant.spec.certificates;
    let reason = Reason::InvalidCertificateLifetime;
    let duration: GoDuration = findings.take(
        certificates.duration.parse(),
        reason,
        "spec.certificates.duration",
    )?;
    let renew_before: GoDuration = findings.take(
        certificates.renew_before.parse(),
        reason,
        "spec.certificates.renewBefore",
    )?;
    if duration < GoDuration::hours(1) {
        findings.add(
            reason,
            "spec.certificates.duration",
            "must be at least 1h, cert-manager's minimum",
        );
    }
    // A leaf that is renewed as soon as it is issued would keep cert-manager busy with this tenant alone.
    let lived = duration.as_secs().saturating_sub(renew_before.as_secs());
    if renew_before < GoDuration::minutes(5) || lived < GoDuration::minutes(10).as_secs() {
        let message = "must be at least 5m, cert-manager's minimum, and at least 10m less than duration";
        findings.add(reason, "spec.certificates.renewBefore", message);
    }
    Some(Lifetime {
        duration,
        renew_before,
    })
}

/// What all replicas may use together must fit the quota, or some pod would never be made.
fn quota(given: &QuotaSpec, servers: &[Server], findings: &mut Findings) -> Quota {
    let pods = servers
        .iter()
        .fold(0_u32, |sum, server| sum.saturating_add(server.replicas));
    let needed = |amount: fn(&Amounts) -> Quantity| -> Quantity {
        servers
            .iter()
            .map(|server| amount(&server.resources.limits) * server.replicas)
            .sum()
    };
    let cpu = needed(|limits| limits.cpu);
    let memory = needed(|limits| limits.memory);
    let ephemeral_storage = needed(|limits| limits.ephemeral_storage);
    let quota = Quota {
        cpu: findings.quantity(&given.cpu, "spec.quota.cpu"),
        memory: findings.quantity(&given.memory, "spec.quota.memory"),
        ephemeral_storage: match &given.ephemeral_storage {
            Some(amount) => findings.quantity(amount, "spec.quota.ephemeralStorage"),
            None => (Quantity::gibibytes(1) * given.pods).max(ephemeral_storage),
        },
        pods: given.pods,
    };
    let amounts = [
        ("cpu", cpu, quota.cpu),
        ("memory", memory, quota.memory),
        ("ephemeralStorage", ephemeral_storage, quota.ephemeral_storage),
    ];
    let amounts =
        amounts.map(|(name, needed, given)| (name, needed <= given, needed.to_string(), given.to_string()));
    let pods = (
        "pods",
        pods <= quota.pods,
        pods.to_string(),
        quota.pods.to_string(),
    );
    for (name, fits, needed, given) in amounts.into_iter().chain([pods]) {
        if !fits {
            findings.add(
                Reason::QuotaTooSmall,
                format!("spec.quota.{name}"),
                format!(
                    "the servers' limits times their replicas need {needed}, the quota gives {given}: \
                     raise the quota, or lower replicas or limits"
                ),
            );
        }
    }
    quota
}

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Findings(Vec<Invalid>);

impl Findings {
    fn add(&mut self, reason: Reason, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Invalid {
            reason,
            path: path.into(),
            message: message.into(),
        });
    }

    /// The value, or a finding and none.
    fn take<T, E: fmt::Display>(&mut self, result: Result<T, E>, reason: Reason, path: &str) -> Option<T> {
        result
            .map_err(|error| self.add(reason, path, error.to_string()))
            .ok()
    }

    /// A quantity greater than nothing. Zero stands for one that is wrong: validation fails anyway.
    fn quantity(&mut self, text: &str, path: &str) -> Quantity {
        let quantity = self.take(text.parse(), Reason::InvalidResources, path);
        if quantity.is_some_and(Quantity::is_zero) {
            self.add(Reason::InvalidResources, path, "must be greater than 0");
        }
        quantity.unwrap_or(Quantity::ZERO)
    }

    /// Each name once.
    fn unique<'a>(&mut self, path: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.enumerate() {
            if !seen.insert(name) {
                let message = format!("`{name}` is there twice: give each a name of its own");
                self.add(Reason::DuplicateName, format!("{path}[{index}]"), message);
            }
        }
    }
}

#[cfg(test)]
mod tests;
