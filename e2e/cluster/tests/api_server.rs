//! The API-server-only fixture, against the real programs.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping, in its helpers too"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use bulkhead_cluster::ApiServer;

#[test]
fn an_api_server_serves_audits_and_leaves() {
    let start = Instant::now();
    let server = ApiServer::start().unwrap().with_controller_manager().unwrap();
    eprintln!("ready after {:.1} s", start.elapsed().as_secs_f32());

    let kubectl = |args: &[&str]| server.kubectl().unwrap().args(args).status().unwrap().success();
    assert!(kubectl(&["create", "namespace", "left-over"]));
    // Only a controller removes the finalizer of a namespace.
    assert!(kubectl(&["delete", "namespace", "left-over", "--timeout=30s"]));
    let audit = fs::read_to_string(server.audit_log()).unwrap();
    assert!(
        audit
            .lines()
            .any(|line| line.contains(r#""verb":"create""#) && line.contains("left-over"))
    );

    let folder = server.kubeconfig_path().parent().unwrap().to_owned();
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn a_user_has_the_rights_of_its_groups_and_no_others() {
    let server = ApiServer::start().unwrap();
    for args in [
        &[
            "create",
            "clusterrole",
            "pod-lister",
            "--verb=list",
            "--resource=pods",
        ][..],
        &[
            "create",
            "clusterrolebinding",
            "auditors",
            "--clusterrole=pod-lister",
            "--group=auditors",
        ],
    ] {
        assert!(server.kubectl().unwrap().args(args).status().unwrap().success());
    }
    let may = |kubeconfig: &std::path::Path, verb: &str| {
        let mut kubectl = server.kubectl().unwrap();
        kubectl
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["auth", "can-i", verb, "pods"])
            .status()
            .unwrap()
            .success()
    };
    // The second group is the one bound: both have to arrive.
    let jane = server.user_kubeconfig("jane", &["people", "auditors"]).unwrap();
    // The authorizer learns of a new binding from its watch, a moment later.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !may(&jane, "list") {
        assert!(Instant::now() < deadline);
    }
    assert!(!may(&jane, "create"));
    let joe = server.user_kubeconfig("joe", &["people"]).unwrap();
    assert!(!may(&joe, "list"));
}
