//! What there is of a tenant, as its conditions need it: gathered from the watch caches, then pure.

use bulkhead_api::tenant::ServerStatus;

use crate::{
    apply::Applied,
    cache::{Cache, DeploymentState, PodState, Report},
    kinds::Kind,
};

/// What there is of a tenant.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Certificates that aren't ready, as `namespace/name`, with cert-manager's words.
    pub certificates_missing: Vec<(String, Option<String>)>,
    /// Whether both CAs' roots are known and published.
    pub trust_known: bool,
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
    pub pods: Vec<PodState>,
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

    /// Pods that are ready and whose sidecar enforces the current policy.
    pub fn enforcing(&self) -> usize {
        self.pods
            .iter()
            .filter(|pod| {
                pod.ready
                    && pod.sidecar.started
                    && pod.policy_revision.as_deref() == Some(self.revision.as_str())
            })
            .count()
    }
}

impl View {
    /// Looks up what there is.
    pub fn gather(
        cache: &Cache,
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
                        Some(PodState::clone(pod))
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
            })
            .collect()
    }
}
