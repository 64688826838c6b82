//! What there is of a tenant, as its conditions need it: gathered from the watch caches, then pure.

use std::{collections::BTreeSet, sync::Arc};

use bulkhead_api::tenant::{ReportedRule, ServerStatus, WithheldOffer};
use bulkhead_core::mcp::Fingerprint;

use crate::{
    apply::Applied,
    cache::{Cache, DeploymentState, PodState, Report},
    control::{InForce, Offer, Sidecars},
    kinds::Kind,
};

/// Entries of a list in the status.
const LISTED: usize = 16;

/// What there is of a tenant.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Certificates that aren't ready, as `namespace/name`, with cert-manager's words.
    pub certificates_missing: Vec<(String, Option<String>)>,
    /// Whether both CAs' roots are known and published.
    pub trust_known: bool,
    /// The tenant's issuers of persons' tokens, by name.
    pub issuers: BTreeSet<String>,
    /// Issuers of persons' tokens whose keys aren't known, and why not, once they were asked.
    pub issuers_unknown: Vec<(String, Option<String>)>,
    /// Somebody else's object in the place of the tenant's `ClusterRole` or of its binding.
    pub taken: Option<String>,
    /// Its servers.
    pub servers: Vec<ServerView>,
}

/// What there is of a server.
#[derive(Clone, Debug, Default)]
pub struct ServerView {
    /// Its name.
    pub name: String,
    /// Where agents reach it.
    pub url: String,
    /// Revision of its policy.
    pub revision: String,
    /// Pods that should run.
    pub replicas: u32,
    /// Whether its Deployment waits for what it mounts.
    pub held_back: bool,
    /// How far its Deployment is. None: there is none.
    pub deployment: Option<DeploymentState>,
    /// Its pods that haven't ended.
    pub pods: Vec<PodView>,
    /// Its tools and prompts.
    pub offers: BTreeSet<Offer>,
    /// Paths of its rules that only report.
    pub reporting: BTreeSet<String>,
    /// Stands for what it is held to.
    pub definitions: Option<Fingerprint>,
    /// What was confirmed under the leader before, while sidecars may not have had the time to report to this one.
    pub before: Option<ServerStatus>,
}

/// A pod, and what its sidecar says.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    /// The pod.
    pub state: PodState,
    /// What its sidecar says is in force. None: it says nothing.
    pub in_force: Option<Arc<InForce>>,
}

impl ServerView {
    /// A server as it is specified, before anything of it was looked up.
    pub fn new(name: &str, url: String, revision: String, replicas: u32) -> Self {
        Self {
            name: name.to_owned(),
            url,
            revision,
            replicas,
            ..Self::default()
        }
    }

    /// Pods that are ready and whose sidecar says that it enforces the current policy.
    pub fn enforcing(&self) -> usize {
        let enforcing = |pod: &&PodView| {
            pod.state.ready && pod.state.sidecar.started && self.revision_of(pod) == Some(&self.revision)
        };
        self.pods.iter().filter(enforcing).count()
    }

    /// The revision of the policy in force in a pod, as far as somebody said so.
    pub fn revision_of<'p>(&'p self, pod: &'p PodView) -> Option<&'p str> {
        match &pod.in_force {
            Some(in_force) => Some(&in_force.policy_revision),
            None => self.before.as_ref().map(|before| &*before.policy_revision),
        }
    }

    /// Whether nobody says anything of a pod.
    pub fn is_silent(&self, pod: &PodView) -> bool {
        pod.in_force.is_none() && self.before.is_none()
    }

    /// What the server shows and nobody is offered, and how many more there are than are listed.
    pub fn withheld(&self) -> (Vec<WithheldOffer>, usize) {
        let said = self.pods.iter().filter_map(|pod| pod.in_force.as_ref());
        let mut all: BTreeSet<_> = said
            .clone()
            .flat_map(|in_force| &in_force.withheld)
            // A sidecar has no say in what else its tenant is told.
            .filter(|withheld| self.offers.contains(&withheld.offer))
            .map(|withheld| WithheldOffer {
                kind: withheld.offer.kind,
                name: withheld.offer.name.clone(),
                reason: withheld.reason.clone(),
                protocol_version: withheld.version.as_str().to_owned(),
                definition: withheld.definition.to_string(),
            })
            .collect();
        if self.is_carried_over() {
            all.extend(self.before.iter().flat_map(|before| before.withheld.clone()));
        }
        let unsaid = said.map(|in_force| in_force.withheld_beyond).max().unwrap_or(0);
        let beyond = all.len().saturating_sub(LISTED) + usize::try_from(unsaid).unwrap_or(usize::MAX);
        (all.into_iter().take(LISTED).collect(), beyond)
    }

    /// Rules that only report, and would have refused or changed something.
    fn reported(&self) -> Vec<ReportedRule> {
        let said = self.pods.iter().filter_map(|pod| pod.in_force.as_ref());
        let mut all: BTreeSet<_> = said
            .flat_map(|in_force| &in_force.reported)
            .filter(|(rule, _)| self.reporting.contains(rule))
            .map(|(rule, reason)| ReportedRule {
                rule: rule.clone(),
                reason: reason.clone(),
            })
            .collect();
        if self.is_carried_over() {
            all.extend(self.before.iter().flat_map(|before| before.reported.clone()));
        }
        all.into_iter().take(LISTED).collect()
    }

    /// Whether some pod's sidecar may yet say what it said to the leader before.
    fn is_carried_over(&self) -> bool {
        self.before.is_some() && self.pods.iter().any(|pod| pod.in_force.is_none())
    }
}

impl View {
    /// Looks up what there is.
    pub fn gather(
        (cache, sidecars): (&Cache, &Sidecars),
        applied: &Applied,
        certificates: &[(String, String)],
        mut servers: Vec<ServerView>,
        trust_known: bool,
    ) -> Self {
        let Some(namespace) = applied
            .namespaces
            .first()
            .map(|namespace| namespace.name.as_str())
        else {
            return Self {
                servers,
                ..Self::default()
            };
        };
        let pods = cache.of_kind(Kind::Pod, namespace);
        for server in &mut servers {
            server.held_back = applied.held_back.contains(&server.name);
            server.deployment = cache
                .get(Kind::Deployment, namespace, &server.name)
                .and_then(|live| match &live.report {
                    Report::Deployment(state) => Some(state.clone()),
                    _ => None,
                });
            server.pods = pods
                .iter()
                .filter(|live| !live.deleting)
                .filter_map(|live| match &live.report {
                    Report::Pod(pod)
                        if !pod.finished && pod.server.as_deref() == Some(server.name.as_str()) =>
                    {
                        Some(PodView {
                            state: PodState::clone(pod),
                            in_force: sidecars.in_force(&live.uid),
                        })
                    }
                    _ => None,
                })
                .collect();
        }
        let certificates_missing = certificates
            .iter()
            .filter_map(|(namespace, name)| {
                let live = cache.get(Kind::Certificate, namespace, name);
                let state = live.as_ref().and_then(|live| match &live.report {
                    Report::Certificate(state) => Some(state),
                    _ => None,
                });
                (!state.is_some_and(|state| state.ready)).then(|| {
                    (
                        format!("{namespace}/{name}"),
                        state.and_then(|state| state.message.clone()),
                    )
                })
            })
            .collect();
        Self {
            certificates_missing,
            trust_known,
            issuers: BTreeSet::new(),
            issuers_unknown: Vec::new(),
            taken: applied.taken.clone(),
            servers,
        }
    }

    /// The servers as the status has them.
    pub fn server_statuses(&self) -> Vec<ServerStatus> {
        self.servers
            .iter()
            .map(|server| ServerStatus {
                name: server.name.clone(),
                url: server.url.clone(),
                replicas: server.replicas,
                ready_replicas: u32::try_from(server.enforcing()).unwrap_or(u32::MAX),
                policy_revision: server.revision.clone(),
                definitions: server.definitions.map(|all| all.to_string()),
                withheld: server.withheld().0,
                reported: server.reported(),
            })
            .collect()
    }
}
