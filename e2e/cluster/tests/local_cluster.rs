//! A local cluster from nothing to nothing. It takes root and a minute.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping, in its helpers too"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use bulkhead_cluster::{Cluster, UpOptions, install_cert_manager};

const DENY: &str = r#"{
  "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
  "metadata": {"name": "deny", "namespace": "kube-system"},
  "spec": {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}, "policyTypes": ["Ingress"]}
}"#;

#[test]
fn a_cluster_comes_up_works_and_leaves_nothing() {
    let before = traces();
    let cluster = Cluster::local("selftest").unwrap();
    let _gone = Down(&cluster);
    cluster
        .up(&UpOptions {
            gvisor: true,
            ..UpOptions::default()
        })
        .unwrap();
    assert_eq!(cluster.nodes().unwrap(), ["selftest-0", "selftest-1"]);

    // Of the status only what runs: a node's age is another one a second later.
    let processes = || {
        let (mut lines, healthy) = cluster.status().unwrap();
        assert!(healthy);
        lines.retain(|line| line.contains(" pid "));
        assert!(!lines.is_empty());
        lines
    };
    let running = processes();
    cluster.up(&UpOptions::default()).unwrap();
    assert_eq!(processes(), running, "a cluster that is up is left alone");

    install_cert_manager(&cluster).unwrap();
    policies_are_enforced_between_nodes(&cluster);
    pods_run_under_gvisor(&cluster);
    users_have_names_and_groups(&cluster);
    a_lost_program_is_started_again(&cluster);
    an_existing_context_is_used_as_it_is(&cluster);

    let other = Cluster::local("selftest-2").unwrap();
    let _other_gone = Down(&other);
    other
        .up(&UpOptions {
            nodes: Some(1),
            no_network_policy: true,
            ..UpOptions::default()
        })
        .unwrap();
    assert_ne!(server(&cluster), server(&other));
    other.down().unwrap();
    assert_eq!(
        kubectl(&cluster, &["get", "nodes", "-o", "name"]).lines().count(),
        2,
        "the neighbour is untouched"
    );

    cluster.down().unwrap();
    assert_eq!(traces(), before);
}

fn policies_are_enforced_between_nodes(cluster: &Cluster) {
    let pod = |field: &str| {
        let path = format!("jsonpath={{.items[0].{field}}}");
        kubectl(
            cluster,
            &[
                "get",
                "pods",
                "-n",
                "kube-system",
                "-l",
                "k8s-app=kube-dns",
                "-o",
                &path,
            ],
        )
    };
    let other = if pod("spec.nodeName") == "selftest-0" {
        "selftest-1"
    } else {
        "selftest-0"
    };
    let probe = format!("timeout 2 bash -c '</dev/tcp/{}/8080'", pod("status.podIP"));
    let reaches = || {
        cluster
            .exec(other, &["sh", "-c", &probe])
            .unwrap()
            .status
            .success()
    };
    assert!(reaches());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), DENY).unwrap();
    kubectl(cluster, &["apply", "-f", file.path().to_str().unwrap()]);
    eventually("the policy holds", || !reaches());
    kubectl(cluster, &["delete", "-f", file.path().to_str().unwrap()]);
    eventually("the policy is gone", reaches);
}

fn pods_run_under_gvisor(cluster: &Cluster) {
    let images = cluster
        .exec("selftest-0", &["ctr", "images", "ls", "-q"])
        .unwrap();
    let images = String::from_utf8(images.stdout).unwrap();
    let image = images.lines().find(|image| image.contains("/pause:")).unwrap();
    let sandbox = r#"{"spec": {"runtimeClassName": "gvisor", "nodeName": "selftest-0"}}"#;
    kubectl(
        cluster,
        &["run", "sandboxed", "--image", image, "--overrides", sandbox],
    );
    kubectl(
        cluster,
        &["wait", "--for=condition=Ready", "pod/sandboxed", "--timeout=60s"],
    );
    let containers = cluster.exec("selftest-0", &["ctr", "containers", "ls"]).unwrap();
    assert!(
        String::from_utf8(containers.stdout)
            .unwrap()
            .contains("io.containerd.runsc.v1")
    );
}

fn users_have_names_and_groups(cluster: &Cluster) {
    let jane = cluster.user_kubeconfig("jane", &["people", "admins"]).unwrap();
    let said = kubectl(
        cluster,
        &[
            "--kubeconfig",
            jane.to_str().unwrap(),
            "auth",
            "whoami",
            "-o",
            "json",
        ],
    );
    assert!(
        said.contains(r#""jane""#) && said.contains(r#""people""#) && said.contains(r#""admins""#),
        "{said}"
    );
    let audit = fs::read_to_string(cluster.audit_log().unwrap()).unwrap();
    assert!(audit.contains(r#""username":"jane""#));
}

fn a_lost_program_is_started_again(cluster: &Cluster) {
    let kubelet = || {
        let (lines, up) = cluster.status().unwrap();
        let line = lines
            .into_iter()
            .find(|line| line.contains("node-1-kubelet"))
            .unwrap();
        (line.split_whitespace().last().unwrap().to_owned(), up)
    };
    let (pid, _) = kubelet();
    assert!(
        std::process::Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    eventually("the loss is seen", || !kubelet().1);
    cluster.up(&UpOptions::default()).unwrap();
    assert_ne!(kubelet(), (pid, true));
}

/// The other backend, pointed at this cluster by what its owner would name: a kubeconfig, a context, a command.
fn an_existing_context_is_used_as_it_is(cluster: &Cluster) {
    let tool = env!("CARGO_BIN_EXE_bulkhead-cluster");
    let load = format!("{tool} --name selftest load-image");
    let existing = |words: &[&str]| {
        let output = std::process::Command::new(tool)
            .env("KUBECONFIG", cluster.kubeconfig().unwrap())
            .args(["--context", "selftest", "--load", &load])
            .args(words)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (up, said) = existing(&["up"]);
    assert!(up, "{said}");

    let images = cluster.paths().cache.join("images");
    let archive = fs::read_dir(images)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("cert-manager-controller-"))
        .unwrap();
    let (loaded, reference) = existing(&["load-image", archive.to_str().unwrap()]);
    assert!(loaded, "{reference}");
    let present = cluster
        .exec("selftest-1", &["ctr", "images", "ls", "-q"])
        .unwrap();
    let present = String::from_utf8(present.stdout).unwrap();
    let reference = reference.lines().last().unwrap();
    assert!(
        present.lines().any(|image| image == reference),
        "{reference} in {present}"
    );

    let (made, said) = existing(&["up", "--nodes", "3"]);
    assert!(
        !made && said.contains("as it is"),
        "what can't be had is refused: {said}"
    );
    let (ended, said) = existing(&["down"]);
    assert!(ended, "{said}");
    assert!(
        cluster.status().unwrap().1,
        "and ending nothing is what its `down` does"
    );
}

/// What clusters leave outside their namespaces while they run.
fn traces() -> Vec<String> {
    let named = |folder: &str, prefix: &str| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path().display().to_string());
        names
            .filter(|path| path.starts_with(&format!("{folder}/{prefix}")))
            .collect()
    };
    let mut traces = named("/run/bulkhead-cluster", "");
    traces.extend(named("/sys/class/net", "bulkhead"));
    for hierarchy in named("/sys/fs/cgroup", "") {
        traces.extend(named(&hierarchy, "bulkhead-"));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    traces.extend(
        mounts
            .lines()
            .filter(|line| line.contains("/clusters/"))
            .map(str::to_owned),
    );
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.contains("/clusters/selftest") {
            traces.push(command);
        }
    }
    traces.sort();
    traces
}

fn kubectl(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.kubectl().unwrap().args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn server(cluster: &Cluster) -> String {
    let path = "jsonpath={.clusters[0].cluster.server}";
    kubectl(cluster, &["config", "view", "-o", path])
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A failed test leaves nothing either.
struct Down<'a>(&'a Cluster);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = self.0.down();
    }
}
