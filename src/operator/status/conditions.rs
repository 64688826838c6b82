//! From what there is to what is said about it. Nothing is `True` that nobody confirmed.

use std::collections::BTreeSet;

use bulkhead_api::conditions::{reasons, types};
use bulkhead_core::{Reason, pod};

use super::{Outcome, PodView, ServerView, View};

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
                "The tenant is not accepted, so nothing is built or changed, but for network policies, from which peers that \
                 may no longer be reached are taken out; see the condition Accepted.",
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
            let offered = tools_offered(view);
            vec![ready, accepted(), isolated, certificates, enforced, offered]
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
                let sidecar = &pod.state.sidecar;
                !sidecar.started && sidecar.last_exit == Some(pod::EXIT_NETWORK_NOT_ENFORCED)
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
    let waiting = names(view, |server| {
        server.pods.iter().any(|pod| !pod.state.sidecar.started)
    });
    if !waiting.is_empty() {
        let message =
            format!("Waiting for the sidecars of {waiting} to see their forbidden address refused.");
        return Judgement::new(type_, "Unknown", reasons::WAITING_FOR_SIDECARS, message);
    }
    let opened = names(view, |server| {
        let opened = |pod: &PodView| pod.in_force.as_ref().is_some_and(|said| !said.network_closed);
        server.pods.iter().any(opened)
    });
    if !opened.is_empty() {
        let message = format!(
            "The sidecars of {opened} can reach an address that their network policies forbid, and take no calls. The \
             network was closed before: look at the CNI plugin of their nodes."
        );
        return Judgement::new(type_, "False", reasons::NETWORK_POLICY_NOT_ENFORCED, message);
    }
    if let Some(silent) = silent(type_, view) {
        return silent;
    }
    Judgement::as_specified(type_, "Every sidecar says that its forbidden address is refused.")
}

fn policy_enforced(view: &View) -> Judgement {
    let type_ = types::POLICY_ENFORCED;
    if let Some(waiting) = issuers_unknown(view) {
        return waiting;
    }
    if let Some(unknown) = no_pods(type_, view) {
        return unknown;
    }
    if let Some(silent) = silent(type_, view) {
        return silent;
    }
    let other = |server: &ServerView| {
        let other = |pod: &PodView| {
            pod.state.ready
                && server
                    .revision_of(pod)
                    .is_some_and(|revision| revision != server.revision)
        };
        server.pods.iter().any(other)
    };
    let stale = names(view, other);
    if !stale.is_empty() {
        let message = format!("Pods of {stale} still run with an earlier policy; they are being replaced.");
        return Judgement::new(type_, "False", reasons::ROLLING_OUT, message);
    }
    if let Some(waiting) = keys_missing(view) {
        return waiting;
    }
    let unconfirmed = names(view, |server| server.enforcing() == 0);
    if unconfirmed.is_empty() {
        Judgement::as_specified(
            type_,
            "Every ready sidecar says that it enforces the current policy.",
        )
    } else {
        let message = format!("Waiting for a sidecar of {unconfirmed} to be ready with the current policy.");
        Judgement::new(type_, "Unknown", reasons::WAITING_FOR_SIDECARS, message)
    }
}

/// Sidecars get keys by what they mount, which the kubelet brings up to date in its own time.
fn keys_missing(view: &View) -> Option<Judgement> {
    let without: BTreeSet<&str> = view
        .servers
        .iter()
        .flat_map(|server| &server.pods)
        .filter(|pod| pod.state.ready)
        .filter_map(|pod| pod.in_force.as_ref())
        .flat_map(|said| &said.issuers_without_keys)
        .map(String::as_str)
        // A sidecar has no say in what else its tenant is told.
        .filter(|issuer| view.issuers.contains(*issuer))
        .collect();
    let names: Vec<_> = without.into_iter().collect();
    (!names.is_empty()).then(|| {
        let message = format!(
            "Sidecars don't have the keys yet by which they verify tokens of {}, and refuse them; the kubelet brings them \
             within about a minute.",
            names.join(", ")
        );
        Judgement::new(types::POLICY_ENFORCED, "False", reasons::WAITING_FOR_ISSUER, message)
    })
}

/// Sidecars that have started, and of which nothing was heard for a while.
fn silent(type_: &'static str, view: &View) -> Option<Judgement> {
    let silent = names(view, |server| {
        let is_silent = |pod: &PodView| pod.state.sidecar.started && server.is_silent(pod);
        server.pods.iter().any(is_silent)
    });
    (!silent.is_empty()).then(|| {
        let message = format!(
            "Sidecars of {silent} don't report to the operator. They enforce what they have; what that is, isn't known. Their \
             logs say what keeps them from it."
        );
        Judgement::new(type_, "Unknown", reasons::WAITING_FOR_SIDECARS, message)
    })
}

/// What servers show and nobody is offered. Nobody can use it, so it keeps nothing else from being ready.
fn tools_offered(view: &View) -> Judgement {
    let type_ = types::TOOLS_OFFERED;
    if let Some(unknown) = no_pods(type_, view) {
        return unknown;
    }
    let mut words = Vec::new();
    let mut unusable = None;
    for server in &view.servers {
        let (withheld, beyond) = server.withheld();
        for offer in withheld {
            if !is_acceptable(&offer.reason) {
                unusable.get_or_insert(reasons::DEFINITION_UNUSABLE);
            }
            words.push(format!(
                "{} {} of {} ({} in {}: {})",
                offer.kind.as_str().to_lowercase(),
                offer.name,
                server.name,
                offer.reason,
                offer.protocol_version,
                offer.definition
            ));
        }
        if beyond > 0 {
            words.push(format!("{beyond} more of {}", server.name));
        }
    }
    if !words.is_empty() {
        let reason = unusable.unwrap_or(reasons::DEFINITION_NOT_ACCEPTED);
        let message = format!(
            "Not offered to anybody: {}. Look at what the server shows; what is good can be accepted by its fingerprint, in \
             `definitions`.",
            words.join(", ")
        );
        return Judgement::new(type_, "False", reason, message);
    }
    if let Some(silent) = silent(type_, view) {
        return silent;
    }
    let unread = names(view, |server| {
        let unread = |pod: &PodView| pod.in_force.as_ref().is_some_and(|said| !said.inventory_taken);
        server.pods.iter().any(unread)
    });
    if unread.is_empty() {
        let message = "Every tool and prompt that is named here and that its server shows is offered.";
        return Judgement::as_specified(type_, message);
    }
    let message = format!("The lists of {unread} are not read yet.");
    Judgement::new(type_, "Unknown", reasons::WAITING_FOR_SIDECARS, message)
}

/// Whether the tenant can accept the definition.
fn is_acceptable(reason: &str) -> bool {
    [Reason::DefinitionChanged, Reason::DefinitionNotAccepted]
        .map(Reason::as_str)
        .contains(&reason)
}

fn issuers_unknown(view: &View) -> Option<Judgement> {
    if view.issuers_unknown.is_empty() {
        return None;
    }
    let issuers = view.issuers_unknown.iter().map(|(name, problem)| match problem {
        Some(problem) => format!("{name} ({problem})"),
        None => name.clone(),
    });
    let message = format!(
        "Persons' tokens are refused until there are keys to verify them with, of the issuers {}.",
        issuers.collect::<Vec<_>>().join(", ")
    );
    let reason = reasons::WAITING_FOR_ISSUER;
    Some(Judgement::new(types::POLICY_ENFORCED, "False", reason, message))
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
    if let Some(taken) = &view.taken {
        let message = format!(
            "{taken} exists and is not this tenant's, so it is left alone and the tenant's people can't read their \
             McpTenant. Look at what it grants and to whom, then delete it; the tenant's own is made in its place."
        );
        return Judgement::new(type_, "False", reasons::CLUSTER_ROLE_TAKEN, message);
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
        if let Some(problem) = server.pods.iter().find_map(|pod| pod.state.problem.as_deref()) {
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
mod tests;
