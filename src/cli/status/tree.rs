//! One tenant as a tree.

use bulkhead_api::tenant::{ReportedRule, WithheldOffer};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use super::{
    pods::PodView,
    view::{AgentView, CertificateView, ConditionView, ServerView, Summary, TenantView},
};
use crate::paint;

/// A line and what is under it.
struct Node {
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn leaf(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            children: Vec::new(),
        }
    }

    fn branch(text: impl Into<String>, children: Vec<Node>) -> Self {
        Self {
            text: text.into(),
            children,
        }
    }

    fn write(&self, first: &str, rest: &str, out: &mut String) {
        out.push_str(first);
        out.push_str(&self.text);
        out.push('\n');
        for (index, child) in self.children.iter().enumerate() {
            let (branch, below) = if index + 1 == self.children.len() {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            child.write(&format!("{rest}{branch}"), &format!("{rest}{below}"), out);
        }
    }
}

/// The tree. `wide` adds addresses, revisions and times in full.
pub fn render(view: &TenantView, wide: bool) -> String {
    let mut sections = Vec::new();
    if let Some(tenant) = &view.tenant {
        sections.push(Node::branch(
            paint::strong("conditions"),
            conditions(&tenant.conditions),
        ));
    }
    sections.push(section(
        "servers",
        view,
        &["pods"],
        view.servers.iter().map(|one| server(one, wide)).collect(),
    ));
    let agents = view.agents.iter().map(|one| agent(one, wide)).collect();
    sections.push(section("agents", view, &["agentCertificates"], agents));
    let certificates = view.certificates.iter().map(|one| {
        Node::leaf(format!(
            "{}/{}  {}",
            one.namespace,
            one.name,
            certificate(one, wide)
        ))
    });
    let unread = ["serverCertificates", "agentCertificates"];
    sections.push(section("certificates", view, &unread, certificates.collect()));
    let mut out = String::new();
    Node::branch(headline(view), sections).write("", "", &mut out);
    out
}

/// A section, with a line for each thing that it should show and that couldn't be read.
fn section(title: &str, view: &TenantView, sources: &[&'static str], mut children: Vec<Node>) -> Node {
    let unread = sources
        .iter()
        .filter_map(|source| Some((words(source), view.unread.get(source)?)));
    children.extend(unread.map(|(what, why)| Node::leaf(paint::unclear(&format!("{what}: {why}")))));
    if children.is_empty() {
        children.push(Node::leaf("none"));
    }
    Node::branch(paint::strong(title), children)
}

fn words(source: &str) -> &str {
    match source {
        "serverCertificates" => "certificates of the servers",
        "agentCertificates" => "certificates of the agents",
        other => other,
    }
}

fn headline(view: &TenantView) -> String {
    let name = paint::strong(&format!("tenant {}", view.name));
    let Some(Summary {
        ready,
        reason,
        tier,
        generation,
        observed_generation,
        age_seconds,
        deleting,
        ..
    }) = &view.tenant
    else {
        let why = view.unread.get("tenant").unwrap_or(&"not read");
        return format!("{name}  {}", paint::unclear(why));
    };
    let state = if *ready {
        paint::good("ready")
    } else {
        paint::bad(&format!("not ready ({reason})"))
    };
    let age = age_seconds
        .map(|seconds| format!("  age {}", paint::span(seconds)))
        .unwrap_or_default();
    let deleting = if *deleting {
        paint::unclear("  being deleted")
    } else {
        String::new()
    };
    let behind = match (generation, observed_generation) {
        (Some(generation), observed) if Some(generation) != observed.as_ref() => {
            let observed = observed.map_or("none".into(), |observed| observed.to_string());
            paint::unclear(&format!(
                "  generation {generation}, the operator has seen {observed}"
            ))
        }
        _ => String::new(),
    };
    format!("{name}  {state}  tier {tier}{age}{deleting}{behind}")
}

fn conditions(conditions: &[ConditionView]) -> Vec<Node> {
    if conditions.is_empty() {
        return vec![Node::leaf("none yet: is the operator running?")];
    }
    let width = conditions
        .iter()
        .map(|condition| condition.kind.len())
        .max()
        .unwrap_or_default();
    conditions
        .iter()
        .map(
            |ConditionView {
                 kind,
                 status,
                 reason,
                 message,
             }| {
                let pad = " ".repeat("Unknown".len().saturating_sub(status.len()));
                Node::leaf(
                    format!(
                        "{kind:width$}  {}{pad}  {reason}  {message}",
                        paint::status(status)
                    )
                    .trim_end(),
                )
            },
        )
        .collect()
}

fn server(server: &ServerView, wide: bool) -> Node {
    let about = match &server.status {
        None => paint::unclear("not reported yet"),
        Some(status) => {
            let ready = format!("{}/{} ready", status.ready_replicas, status.replicas);
            let enough = status.ready_replicas >= status.replicas;
            let ready = if enough {
                paint::good(&ready)
            } else {
                paint::bad(&ready)
            };
            format!("{ready}  {}  policy {}", status.url, status.policy_revision)
        }
    };
    let withheld = server.status.iter().flat_map(|status| &status.withheld);
    let reported = server.status.iter().flat_map(|status| &status.reported);
    let pods = server.pods.iter().flatten();
    let children = withheld
        .map(offer)
        .chain(reported.map(rule))
        .chain(pods.map(|one| pod(one, wide)));
    Node::branch(
        format!("{}  {about}", server.name),
        children.map(Node::leaf).collect(),
    )
}

/// What the server shows and nobody is offered.
fn offer(withheld: &WithheldOffer) -> String {
    let WithheldOffer {
        kind,
        name,
        reason,
        protocol_version,
        definition,
    } = withheld;
    let kind = kind.as_str().to_lowercase();
    let why = paint::bad(&format!("withheld ({reason})"));
    format!("{kind} {name}  {why}  {protocol_version}  {definition}")
}

/// A rule that only reports, and has something to report.
fn rule(reported: &ReportedRule) -> String {
    let what = paint::unclear(&format!("reports {}", reported.reason));
    format!("rule {}  {what}", reported.rule)
}

fn pod(pod: &PodView, wide: bool) -> String {
    let state = |text: &str| {
        if text == "ready" {
            paint::good(text)
        } else {
            paint::unclear(text)
        }
    };
    let mut parts = vec![
        format!("pod {}", pod.name),
        pod.phase.clone(),
        format!("sidecar {}", state(&pod.sidecar)),
        format!("server {}", state(&pod.server)),
    ];
    parts.push(match pod.restarts {
        1 => "1 restart".into(),
        restarts => format!("{restarts} restarts"),
    });
    if pod.current == Some(false) {
        let revision = pod.policy_revision.as_deref().unwrap_or_default();
        parts.push(paint::unclear(&format!("older policy {revision}")));
    } else if let (true, Some(revision)) = (wide, &pod.policy_revision) {
        parts.push(format!("policy {revision}"));
    }
    parts.extend(pod.node.as_ref().map(|node| format!("on {node}")));
    if wide {
        parts.extend(pod.address.clone());
    }
    parts.join("  ")
}

fn agent(agent: &AgentView, wide: bool) -> Node {
    let roles = if agent.roles.is_empty() {
        "no roles".into()
    } else {
        format!("roles {}", agent.roles.join(", "))
    };
    let end = agent
        .certificate
        .as_ref()
        .map(|one| format!("  {}", certificate(one, wide)))
        .unwrap_or_default();
    Node::leaf(format!("{}  {roles}{end}", agent.name))
}

fn certificate(certificate: &CertificateView, wide: bool) -> String {
    let when = |time: Option<Timestamp>| match time {
        Some(time) if wide => format!(" ({})", whole_seconds(time)),
        _ => String::new(),
    };
    let expiry = match certificate.expires_in_seconds {
        None => paint::bad("not issued"),
        Some(seconds) if seconds <= 0 => paint::bad("expired"),
        Some(seconds) => format!(
            "expires in {}{}",
            paint::span(seconds),
            when(certificate.not_after)
        ),
    };
    let renewal = match certificate.renews_in_seconds {
        None => String::new(),
        Some(seconds) if seconds <= 0 => paint::unclear(", renewal due"),
        Some(seconds) => format!(
            ", renews in {}{}",
            paint::span(seconds),
            when(certificate.renewal_time)
        ),
    };
    let ready = if certificate.ready {
        String::new()
    } else {
        format!(", {}", paint::bad("not ready"))
    };
    format!("certificate {expiry}{renewal}{ready}")
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    time.round(
        TimestampRound::new()
            .smallest(Unit::Second)
            .mode(RoundMode::Trunc),
    )
    .unwrap_or(time)
}
