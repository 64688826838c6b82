//! `status` by the program itself, against a real API server: what people of different rights see, and the exit codes.
#![allow(clippy::unwrap_used, reason = "helpers of tests are outside of #[test]")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use bulkhead_cluster::{ApiServer, Paths, program};
use serde_json::{Value, json};

const CRD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds");
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/bulkhead");
const ACME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/samples/acme.yaml");
const GLOBEX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/samples/globex.yaml");

/// A user with the right to get these tenants by name, and no other.
fn user(server: &ApiServer, name: &str, tenants: &[&str]) -> PathBuf {
    if !tenants.is_empty() {
        let names = tenants.iter().map(|tenant| format!("--resource-name={tenant}"));
        let role = [
            "create",
            "clusterrole",
            name,
            "--verb=get",
            "--resource=mcptenants.bulkhead.dev",
        ];
        kubectl(server, role.map(ToOwned::to_owned).into_iter().chain(names));
        let (role, user) = (format!("--clusterrole={name}"), format!("--user={name}"));
        kubectl(
            server,
            ["create", "clusterrolebinding", name, &role, &user].map(ToOwned::to_owned),
        );
    }
    server.user_kubeconfig(name, &[]).unwrap()
}

fn kubectl(server: &ApiServer, args: impl IntoIterator<Item = String>) {
    let output = server.kubectl().unwrap().args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes the kind known, and waits until it is served. `kubectl wait` fails at once on a definition that has no conditions yet
/// (kubernetes/kubernetes issue 66439), so it is asked again.
fn define(server: &ApiServer) {
    kubectl(server, ["apply", "-f", CRD].map(ToOwned::to_owned));
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let wait = ["wait", "--for=condition=established", "crd", "--all"];
        let output = server.kubectl().unwrap().args(wait).output().unwrap();
        if output.status.success() {
            return;
        }
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < deadline, "{why}");
        sleep(Duration::from_millis(100));
    }
}

/// Exit code, stdout and stderr of `status` with these arguments.
fn status(kubeconfig: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bulkhead"));
    let output = command
        .arg("status")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn names(kubeconfig: &Path) -> Vec<String> {
    let (code, stdout, stderr) = status(kubeconfig, &["-o", "json"]);
    assert_eq!(code, 0, "{stderr}");
    let tenants: Value = serde_json::from_str(&stdout).unwrap();
    tenants
        .as_array()
        .unwrap()
        .iter()
        .map(|tenant| tenant["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn people_see_what_their_rights_show_and_the_exit_code_tells_the_state() {
    let server = ApiServer::start().unwrap();
    let admin = server.kubeconfig_path();
    let (code, _, stderr) = status(&admin, &[]);
    assert!(code == 1 && stderr.contains("is Bulkhead installed?"), "{stderr}");

    define(&server);
    kubectl(
        &server,
        ["apply", "-f", ACME, "-f", GLOBEX].map(ToOwned::to_owned),
    );
    let ready = json!({"status": {"observedGeneration": 1, "conditions": [
        {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-11-22T10:00:00Z"},
    ]}});
    let patch = [
        "patch",
        "mcptenant",
        "acme",
        "--subresource=status",
        "--type=merge",
        "-p",
        &ready.to_string(),
    ];
    kubectl(&server, patch.map(ToOwned::to_owned));

    assert_eq!(names(&admin), ["acme", "globex"]);
    assert_eq!(names(&user(&server, "jo", &["acme", "gone"])), ["acme"]);
    assert_eq!(names(&user(&server, "nobody", &[])), Vec::<String>::new());

    for (tenant, code) in [("acme", 0), ("globex", 3), ("initech", 4)] {
        let (exit, stdout, stderr) = status(&admin, &[tenant]);
        assert_eq!(exit, code, "{tenant}: {stdout}{stderr}");
    }
    // Without the right to get it, a tenant that doesn't exist looks like one that does.
    let nobody = user(&server, "nobody", &[]);
    for tenant in ["acme", "initech"] {
        let (code, stdout, _) = status(&nobody, &[tenant]);
        assert!(
            code == 1 && stdout.contains("not permitted"),
            "{tenant}: {stdout}"
        );
    }

    let jo = server.user_kubeconfig("jo", &[]).unwrap();
    let (code, stdout, stderr) = status(&jo, &["acme", "-o", "json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let view: Value = serde_json::from_str(&stdout).unwrap();
    let unread = json!({"pods": "not permitted", "serverCertificates": "not permitted", "agentCertificates": "not permitted"});
    assert_eq!(view["unread"], unread);
    assert!(!stdout.contains('\u{1b}'), "colours in a pipe");
}

/// Applies what a tenant's people get: what the tenant is rendered to, and the roles of the chart.
fn grant(server: &ApiServer, tenant: &str) {
    let render = Command::new(env!("CARGO_BIN_EXE_kubectl-bulkhead"))
        .args(["render", "-o", "json", "-f", tenant])
        .output()
        .unwrap();
    let mut rendered: Value = serde_json::from_slice(&render.stdout).unwrap();
    let kinds = ["Namespace", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    rendered["items"]
        .as_array_mut()
        .unwrap()
        .retain(|object| kinds.contains(&object["kind"].as_str().unwrap()));
    let helm = Command::new(program(&Paths::from_env().unwrap(), "helm").unwrap())
        .args([
            "template",
            "bulkhead",
            CHART,
            "--show-only",
            "templates/rbac/tenant.yaml",
        ])
        .output()
        .unwrap();
    for objects in [rendered.to_string().into_bytes(), helm.stdout] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), objects).unwrap();
        let path = file.path().to_str().unwrap();
        kubectl(server, ["apply", "-f", path].map(ToOwned::to_owned));
    }
}

#[test]
fn a_tenants_admin_sees_their_tenant_whole_and_asks_for_nothing_that_is_refused() {
    let server = ApiServer::start().unwrap();
    define(&server);
    kubectl(
        &server,
        ["apply", "-f", ACME, "-f", GLOBEX].map(ToOwned::to_owned),
    );
    grant(&server, ACME);
    let boss = server.user_kubeconfig("boss", &["acme-admins"]).unwrap();
    let view = || -> Value {
        let (code, stdout, stderr) = status(&boss, &["acme", "-o", "json"]);
        assert!(code == 1 || code == 3, "{stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    // The authorizer learns of new bindings a moment later. cert-manager isn't there: its lists are permitted and empty.
    let all = json!({"serverCertificates": "not installed", "agentCertificates": "not installed"});
    let deadline = Instant::now() + Duration::from_mins(1);
    while view()["unread"] != all {
        assert!(Instant::now() < deadline, "{}", view());
    }
    let refused = || {
        let log = std::fs::read_to_string(server.audit_log()).unwrap();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["user"]["username"] == "boss" && event["responseStatus"]["code"] == 403)
            .count()
    };
    let before = refused();
    let (code, _, stderr) = status(&boss, &["acme"]);
    assert_eq!(
        (code, stderr.as_str()),
        (3, ""),
        "it is nobody's to reconcile here"
    );
    assert_eq!(refused(), before, "asked for more than an admin may have");

    assert_eq!(names(&boss), ["acme"]);
    let (code, stdout, _) = status(&boss, &["globex"]);
    assert!(code == 1 && stdout.contains("not permitted"), "{stdout}");
}
