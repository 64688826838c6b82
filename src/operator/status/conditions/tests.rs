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
    let cases: [(&str, Change, Said<&str>); 14] = [
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
