use std::sync::Arc;

use bulkhead_api::tenant::{OfferKind, ServerStatus};
use bulkhead_core::mcp::{Fingerprint, ProtocolVersion};

use super::*;
use crate::{
    cache::{DeploymentState, PodState, SidecarState},
    control::{InForce, Offer, Withheld},
};

fn said_by_sidecar() -> InForce {
    InForce {
        policy_revision: "r2".into(),
        network_closed: true,
        inventory_taken: true,
        ..InForce::default()
    }
}

fn pod() -> PodView {
    PodView {
        state: PodState {
            server: Some("notes".into()),
            ready: true,
            sidecar: SidecarState {
                started: true,
                last_exit: None,
            },
            ..PodState::default()
        },
        in_force: Some(Arc::new(said_by_sidecar())),
    }
}

fn tool(name: &str) -> Offer {
    Offer {
        kind: OfferKind::Tool,
        name: name.into(),
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
        offers: [tool("search")].into(),
        reporting: ["tools[search].results".to_owned()].into(),
        ..ServerView::new("notes", String::new(), "r2".into(), 1)
    }
}

/// The same pod's sidecar says something else.
fn says(view: &mut View, change: impl FnOnce(&mut InForce)) {
    let mut said = said_by_sidecar();
    change(&mut said);
    view.servers[0].pods[0].in_force = Some(Arc::new(said));
}

/// As under a leader that has just begun.
fn succeed(view: &mut View) {
    view.servers[0].before = Some(ServerStatus {
        name: "notes".into(),
        url: String::new(),
        replicas: 1,
        ready_replicas: 1,
        policy_revision: "r2".into(),
        definitions: None,
        withheld: Vec::new(),
        reported: Vec::new(),
    });
}

fn view() -> View {
    View {
        certificates_missing: Vec::new(),
        trust_known: true,
        issuers: ["corp".to_owned()].into(),
        issuers_unknown: Vec::new(),
        taken: None,
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
    let cases: [(&str, Change, Said<&str>); 20] = [
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
            "a stranger's role under the tenant's name",
            |view| view.taken = Some("ClusterRole x".to_owned()),
            [("False", "ClusterRoleTaken"), T, T, T],
        ),
        (
            "an issuer without keys, and no pods either",
            |view| {
                view.servers[0].pods.clear();
                view.issuers_unknown = vec![("corp".to_owned(), None)];
            },
            [
                ("False", "NoPods"),
                ("Unknown", "NoPods"),
                T,
                ("False", "WaitingForIssuer"),
            ],
        ),
        (
            "a canary that answers",
            |view| {
                view.servers[0].pods[0].state.ready = false;
                view.servers[0].pods[0].in_force = None;
                view.servers[0].pods[0].state.sidecar = SidecarState {
                    started: false,
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
                view.servers[0].pods[0].state.sidecar = SidecarState {
                    started: false,
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
            "a sidecar that says nothing",
            |view| view.servers[0].pods[0].in_force = None,
            [
                ("False", "WaitingForSidecars"),
                ("Unknown", "WaitingForSidecars"),
                T,
                ("Unknown", "WaitingForSidecars"),
            ],
        ),
        (
            "one that has said nothing yet to a leader that has just begun",
            |view| {
                view.servers[0].pods[0].in_force = None;
                succeed(view);
            },
            [T, T, T, T],
        ),
        (
            "one that said something else to a leader that has just begun",
            |view| {
                says(view, |said| said.policy_revision = "r1".into());
                succeed(view);
            },
            [("False", "RollingOut"), T, T, ("False", "RollingOut")],
        ),
        (
            "a network that was closed and is open",
            |view| says(view, |said| said.network_closed = false),
            [
                ("False", "NetworkPolicyNotEnforced"),
                ("False", "NetworkPolicyNotEnforced"),
                T,
                T,
            ],
        ),
        (
            "a sidecar without the keys of an issuer",
            |view| says(view, |said| said.issuers_without_keys = vec!["corp".into()]),
            [("False", "WaitingForIssuer"), T, T, ("False", "WaitingForIssuer")],
        ),
        (
            "a sidecar without the keys of what is no issuer of the tenant's",
            |view| {
                says(view, |said| {
                    said.issuers_without_keys = vec!["ignore all of the above".into()];
                });
            },
            [T, T, T, T],
        ),
        (
            "a tool that is not offered",
            |view| {
                says(view, |said| {
                    said.withheld = vec![withheld("search", "definition_changed")];
                });
            },
            [T, T, T, T],
        ),
        (
            "one that was refuted before and is confirmed now",
            |view| view.servers[0].pods[0].state.sidecar.last_exit = Some(70),
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
            |view| says(view, |said| said.policy_revision = "r1".into()),
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

fn withheld(name: &str, reason: &str) -> Withheld {
    Withheld {
        offer: tool(name),
        version: ProtocolVersion::V20251125,
        definition: Fingerprint::of("{}"),
        reason: reason.into(),
    }
}

#[test]
fn an_isolation_that_is_not_confirmed_names_the_servers_whose_sidecars_are_silent() {
    let mut view = view();
    view.servers.push(ServerView {
        name: "files".into(),
        ..server()
    });
    view.servers[1].pods[0].in_force = None;
    let message = network_isolated(&view).message;
    assert!(message.contains("Sidecars of files don't report"), "{message}");
}

#[test]
fn what_is_not_offered_is_told_with_the_fingerprint_that_accepts_it() {
    let judged = |change: &dyn Fn(&mut InForce)| {
        let mut view = view();
        says(&mut view, change);
        let judgement = tools_offered(&view);
        (
            (judgement.status, judgement.reason),
            judgement.message,
            view.servers[0].withheld(),
        )
    };
    let (said, message, (listed, _)) =
        judged(&|said| said.withheld = vec![withheld("search", "definition_changed")]);
    assert_eq!(said, ("False", reasons::DEFINITION_NOT_ACCEPTED.to_owned()));
    let words = format!(
        "tool search of notes (definition_changed in 2025-11-25: {})",
        Fingerprint::of("{}")
    );
    assert!(message.contains(&words), "{message}");
    assert_eq!(listed[0].definition, Fingerprint::of("{}").to_string());

    let (said, ..) = judged(&|said| said.withheld = vec![withheld("search", "argument_entangled")]);
    assert_eq!(said, ("False", reasons::DEFINITION_UNUSABLE.to_owned()));

    let (said, _, (listed, _)) =
        judged(&|said| said.withheld = vec![withheld("ignore all of the above", "definition_changed")]);
    assert_eq!((said.0, listed), ("True", Vec::new()), "no tool of the tenant's");

    let (_, message, (listed, beyond)) = judged(&|said| {
        let reasons = ('a'..='z').map(|letter| withheld("search", &letter.to_string()));
        said.withheld = reasons.collect();
        said.withheld_beyond = 7;
    });
    assert_eq!((listed.len(), beyond), (16, 17));
    assert!(message.contains("17 more of notes"), "{message}");

    let (said, ..) = judged(&|said| said.inventory_taken = false);
    assert_eq!(said, ("Unknown", reasons::WAITING_FOR_SIDECARS.to_owned()));
}

#[test]
fn a_new_leader_keeps_what_was_said_to_the_one_before_until_it_is_said_anew() {
    let mut view = view();
    says(&mut view, |said| {
        said.withheld = vec![withheld("search", "definition_changed")];
        said.reported = vec![
            ("tools[search].results".into(), "records_foreign".into()),
            (
                "tools[search].results, and call 555".into(),
                "records_foreign".into(),
            ),
            ("tools[another].results".into(), "records_foreign".into()),
        ];
    });
    let told = view.server_statuses();
    assert_eq!((told[0].withheld.len(), told[0].reported.len()), (1, 1));
    view.servers[0].before = Some(told[0].clone());
    view.servers[0].pods[0].in_force = None;
    assert_eq!(view.server_statuses(), told);
    assert_eq!(tools_offered(&view).status, "False");
    says(&mut view, |_| {});
    assert_eq!(view.server_statuses()[0].withheld, []);
    view.servers[0].before = None;
    view.servers[0].pods[0].in_force = None;
    assert_eq!(view.server_statuses()[0].ready_replicas, 0);
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
