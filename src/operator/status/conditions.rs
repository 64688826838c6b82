//! From what there is to what is said about it. Nothing is `True` that nobody confirmed.

use bulkhead_api::conditions::{reasons, types};
use bulkhead_core::pod;

use super::{Outcome, ServerView, View};

/// What is said about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The condition.
    pub type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Its reason.
    pub reason: String,
    /// What a person can do about it.
    pub message: String,
}

impl Judgement {
    fn new(type_: &'static str, status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    fn as_specified(type_: &'static str, message: &str) -> Self {
        Self::new(type_, "True", reasons::AS_SPECIFIED, message)
    }

    fn holds(&self) -> bool {
        self.status == "True"
    }
}

/// What an outcome lets say. A condition that isn't mentioned stays as it was.
pub fn judge(outcome: &Outcome) -> Vec<Judgement> {
    match outcome {
        Outcome::Refused { reason, message } => vec![
            Judgement::new(types::ACCEPTED, "False", reason, message),
            Judgement::new(
                types::READY,
                "False",
                reasons::NOT_ACCEPTED,
                "The tenant is not accepted, so nothing was built or changed; see the condition Accepted.",
            ),
        ],
        Outcome::Failed { reason, message } => {
            vec![accepted(), Judgement::new(types::READY, "False", reason, message)]
        }
        Outcome::Terminating { message } => {
            vec![Judgement::new(
                types::READY,
                "False",
                reasons::TERMINATING,
                message,
            )]
        }
        Outcome::Applied { view, .. } => {
            let certificates = certificates_ready(view);
            let isolated = network_isolated(view);
            let enforced = policy_enforced(view);
            let ready = ready(view, &[&isolated, &certificates, &enforced]);
            vec![ready, accepted(), isolated, certificates, enforced]
        }
    }
}

fn accepted() -> Judgement {
    Judgement::new(
        types::ACCEPTED,
        "True",
        reasons::VALID,
        "The specification is valid and the tenant holds its claims.",
    )
}

fn certificates_ready(view: &View) -> Judgement {
    if view.certificates_missing.is_empty() && view.trust_known {
        return Judgement::as_specified(
            types::CERTIFICATES_READY,
            "Both CAs and all leaf certificates are issued.",
        );
    }
    let missing: Vec<String> = view
        .certificates_missing
        .iter()
        .map(|(name, message)| match message {
            Some(message) => format!("{name} ({message})"),
            None => name.clone(),
        })
        .collect();
    let message = if missing.is_empty() {
        "Waiting for cert-manager to show the CAs' certificates.".to_owned()
    } else {
        format!("Waiting for cert-manager to issue {}.", missing.join(", "))
    };
    Judgement::new(
        types::CERTIFICATES_READY,
        "False",
        reasons::WAITING_FOR_CERTIFICATES,
        message,
    )
}

fn network_isolated(view: &View) -> Judgement {
    let type_ = types::NETWORK_ISOLATED;
    let refuted: Vec<&str> = view
        .servers
        .iter()
        .filter(|server| {
            server.pods.iter().any(|pod| {
                !pod.sidecar.started && pod.sidecar.last_exit == Some(pod::EXIT_NETWORK_NOT_ENFORCED)
            })
        })
        .map(|server| server.name.as_str())
        .collect();
    if !refuted.is_empty() {
        return Judgement::new(
            type_,
            "False",
            reasons::NETWORK_POLICY_NOT_ENFORCED,
            format!(
                "The sidecar of {} could reach an address that its network policies forbid, so no server was \
                 started. Use a CNI plugin that enforces NetworkPolicy.",
                refuted.join(", ")
            ),
        );
    }
    if let Some(unknown) = no_pods(type_, view) {
        return unknown;
    }
    let waiting = names(view, |server| server.pods.iter().any(|pod| !pod.sidecar.started));
    if !waiting.is_empty() {
        let message =
            format!("Waiting for the sidecars of {waiting} to see their forbidden address refused.");
        return Judgement::new(type_, "Unknown", reasons::WAITING_FOR_SIDECARS, message);
    }
    // A network that was closed may be open again: of that, too, a sidecar tells by not being ready.
    let unready = names(view, |server| server.pods.iter().any(|pod| !pod.sidecar.ready));
    if !unready.is_empty() {
        let message = format!(
            "The sidecars of {unready} have started but are not ready, so they don't confirm that the network \
             is closed; the pods' events and the sidecars' logs say why."
        );
        return Judgement::new(type_, "Unknown", reasons::WAITING_FOR_SIDECARS, message);
    }
    Judgement::as_specified(type_, "Every sidecar saw its forbidden address refused.")
}

fn policy_enforced(view: &View) -> Judgement {
    let type_ = types::POLICY_ENFORCED;
    if let Some(unknown) = no_pods(type_, view) {
        return unknown;
    }
    let other = |server: &ServerView| {
        server
            .pods
            .iter()
            .any(|pod| pod.ready && pod.policy_revision.as_deref() != Some(server.revision.as_str()))
    };
    let stale = names(view, other);
    if !stale.is_empty() {
        let message = format!("Pods of {stale} still run with an earlier policy; they are being replaced.");
        return Judgement::new(type_, "False", reasons::ROLLING_OUT, message);
    }
    let unconfirmed = names(view, |server| server.enforcing() == 0);
    if unconfirmed.is_empty() {
        Judgement::as_specified(type_, "Every ready sidecar enforces the current policy.")
    } else {
        let message = format!("Waiting for a sidecar of {unconfirmed} to be ready with the current policy.");
        Judgement::new(type_, "Unknown", reasons::WAITING_FOR_SIDECARS, message)
    }
}

fn no_pods(type_: &'static str, view: &View) -> Option<Judgement> {
    let without = names(view, |server| server.pods.is_empty());
    if view.servers.is_empty() {
        return Some(Judgement::new(
            type_,
            "Unknown",
            reasons::NO_PODS,
            "The tenant has no servers.",
        ));
    }
    (!without.is_empty()).then(|| {
        Judgement::new(
            type_,
            "Unknown",
            reasons::NO_PODS,
            format!("No pod runs of {without}."),
        )
    })
}

fn ready(view: &View, others: &[&Judgement]) -> Judgement {
    let type_ = types::READY;
    // What is plainly wrong comes before what only takes its time.
    if let Some(wrong) = others
        .iter()
        .find(|other| other.reason == reasons::NETWORK_POLICY_NOT_ENFORCED)
    {
        return Judgement::new(type_, "False", &wrong.reason, &wrong.message);
    }
    for server in &view.servers {
        let failure = server
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.failure.as_deref());
        if let Some(failure) = failure {
            let (reason, advice) = if failure.contains("exceeded quota") {
                (reasons::QUOTA_EXCEEDED, " Raise spec.quota or ask for less.")
            } else {
                (reasons::PODS_FAILING, "")
            };
            return Judgement::new(
                type_,
                "False",
                reason,
                format!("Pods of {}: {failure}{advice}", server.name),
            );
        }
    }
    if let Some(waiting) = others
        .iter()
        .find(|other| other.reason == reasons::WAITING_FOR_CERTIFICATES)
    {
        return Judgement::new(type_, "False", &waiting.reason, &waiting.message);
    }
    let held_back = names(view, |server| server.held_back);
    if !held_back.is_empty() {
        let message = format!("The Deployments of {held_back} wait for the certificates that they mount.");
        return Judgement::new(type_, "False", reasons::WAITING_FOR_TRUST, message);
    }
    for server in &view.servers {
        if let Some(problem) = server.pods.iter().find_map(|pod| pod.problem.as_deref()) {
            let message = format!("A pod of {} does not run: {problem}.", server.name);
            return Judgement::new(type_, "False", reasons::PODS_FAILING, message);
        }
    }
    if let Some(server) = view.servers.iter().find(|server| !has_rolled_out(server)) {
        let available = server
            .deployment
            .as_ref()
            .map_or(0, |deployment| deployment.available);
        let message = format!(
            "Server {}: {available} of {} pods are available.",
            server.name, server.replicas
        );
        return Judgement::new(type_, "False", reasons::ROLLING_OUT, message);
    }
    match others.iter().find(|other| !other.holds()) {
        Some(other) => Judgement::new(type_, "False", &other.reason, &other.message),
        None => Judgement::as_specified(type_, "The servers take calls."),
    }
}

fn has_rolled_out(server: &ServerView) -> bool {
    let wanted = i32::try_from(server.replicas).unwrap_or(i32::MAX);
    server.deployment.as_ref().is_some_and(|deployment| {
        deployment.current
            && deployment.wanted == wanted
            && deployment.updated >= wanted
            && deployment.total == deployment.updated
            && deployment.available >= wanted
    })
}

/// The names of the servers for which this holds, for a message.
fn names(view: &View, holds: impl Fn(&ServerView) -> bool) -> String {
    let names: Vec<_> = view
        .servers
        .iter()
        .filter(|server| holds(server))
        .map(|server| &*server.name)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{DeploymentState, PodState, SidecarState};

    fn pod() -> PodState {
        PodState {
            server: Some("notes".into()),
            policy_revision: Some("r2".into()),
            ready: true,
            sidecar: SidecarState {
                started: true,
                ready: true,
                last_exit: None,
            },
            ..PodState::default()
        }
    }

    fn server() -> ServerView {
        ServerView {
            deployment: Some(DeploymentState {
                current: true,
                wanted: 1,
                updated: 1,
                total: 1,
                available: 1,
                failure: None,
            }),
            pods: vec![pod()],
            ..ServerView::new("notes", String::new(), "r2".into(), 1)
        }
    }

    fn view() -> View {
        View {
            certificates_missing: Vec::new(),
            trust_known: true,
            servers: vec![server()],
        }
    }

    /// Status and reason of `Ready`, `NetworkIsolated`, `CertificatesReady`, `PolicyEnforced`.
    type Said<T> = [(&'static str, T); 4];

    fn said(view: View) -> Said<String> {
        let judgements = judge(&Outcome::Applied {
            namespaces: Vec::new(),
            view,
        });
        [
            types::READY,
            types::NETWORK_ISOLATED,
            types::CERTIFICATES_READY,
            types::POLICY_ENFORCED,
        ]
        .map(|type_| {
            let judgement = judgements
                .iter()
                .find(|judgement| judgement.type_ == type_)
                .unwrap();
            assert!(!judgement.message.is_empty());
            (judgement.status, judgement.reason.clone())
        })
    }

    const T: (&str, &str) = ("True", "AsSpecified");
    type Change = fn(&mut View);

    #[test]
    #[allow(clippy::too_many_lines)] // One table.
    fn each_condition_follows_what_was_confirmed() {
        let cases: [(&str, Change, Said<&str>); 12] = [
            ("all is well", |_| {}, [T, T, T, T]),
            (
                "no pods",
                |view| view.servers[0].pods.clear(),
                [
                    ("False", "NoPods"),
                    ("Unknown", "NoPods"),
                    T,
                    ("Unknown", "NoPods"),
                ],
            ),
            (
                "no servers",
                |view| view.servers.clear(),
                [
                    ("False", "NoPods"),
                    ("Unknown", "NoPods"),
                    T,
                    ("Unknown", "NoPods"),
                ],
            ),
            (
                "a canary that answers",
                |view| {
                    view.servers[0].pods[0].ready = false;
                    view.servers[0].pods[0].sidecar = SidecarState {
                        started: false,
                        ready: false,
                        last_exit: Some(70),
                    };
                },
                [
                    ("False", "NetworkPolicyNotEnforced"),
                    ("False", "NetworkPolicyNotEnforced"),
                    T,
                    ("Unknown", "WaitingForSidecars"),
                ],
            ),
            (
                "a sidecar that ended otherwise",
                |view| {
                    view.servers[0].pods[0].sidecar = SidecarState {
                        started: false,
                        ready: false,
                        last_exit: Some(1),
                    }
                },
                [
                    ("False", "WaitingForSidecars"),
                    ("Unknown", "WaitingForSidecars"),
                    T,
                    ("Unknown", "WaitingForSidecars"),
                ],
            ),
            (
                "a sidecar that started and is no longer ready",
                |view| view.servers[0].pods[0].sidecar.ready = false,
                [
                    ("False", "WaitingForSidecars"),
                    ("Unknown", "WaitingForSidecars"),
                    T,
                    T,
                ],
            ),
            (
                "one that was refuted before and is confirmed now",
                |view| view.servers[0].pods[0].sidecar.last_exit = Some(70),
                [T, T, T, T],
            ),
            (
                "a certificate missing",
                |view| view.certificates_missing.push(("umbra/notes-tls".into(), None)),
                [
                    ("False", "WaitingForCertificates"),
                    T,
                    ("False", "WaitingForCertificates"),
                    T,
                ],
            ),
            (
                "a root unknown",
                |view| view.trust_known = false,
                [
                    ("False", "WaitingForCertificates"),
                    T,
                    ("False", "WaitingForCertificates"),
                    T,
                ],
            ),
            (
                "an earlier policy",
                |view| view.servers[0].pods[0].policy_revision = Some("r1".into()),
                [("False", "RollingOut"), T, T, ("False", "RollingOut")],
            ),
            (
                "quota",
                |view| {
                    view.servers[0].deployment.as_mut().unwrap().failure =
                        Some("FailedCreate: exceeded quota".into());
                },
                [("False", "QuotaExceeded"), T, T, T],
            ),
            (
                "a rollout under way",
                |view| view.servers[0].deployment.as_mut().unwrap().current = false,
                [("False", "RollingOut"), T, T, T],
            ),
        ];
        for (name, change, expected) in cases {
            let mut view = view();
            change(&mut view);
            assert_eq!(
                said(view),
                expected.map(|(status, reason)| (status, reason.to_owned())),
                "{name}"
            );
        }
    }

    #[test]
    fn an_isolation_that_is_not_confirmed_names_the_servers_whose_sidecars_do_not() {
        let mut view = view();
        view.servers.push(ServerView {
            name: "files".into(),
            ..server()
        });
        view.servers[1].pods[0].sidecar.ready = false;
        let message = network_isolated(&view).message;
        assert!(
            message.contains("sidecars of files have started but are not ready"),
            "{message}"
        );
    }

    #[test]
    fn a_refused_tenant_is_neither_accepted_nor_ready() {
        let judgements = judge(&Outcome::Refused {
            reason: "IdentityTaken".into(),
            message: "m".into(),
        });
        let said: Vec<_> = judgements
            .iter()
            .map(|said| (said.type_, said.status, &*said.reason))
            .collect();
        assert_eq!(
            said,
            [
                ("Accepted", "False", "IdentityTaken"),
                ("Ready", "False", "NotAccepted")
            ]
        );
    }
}
