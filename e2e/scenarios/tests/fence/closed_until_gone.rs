//! Who dials without end, in and out of a tenant, while it is moved to another tier and deleted.

use bulkhead_e2e::{Agent, Dialler, Kubectl, Open, Tenant, apply, eventually, gone, object, record, samples};
use serde_json::json;

/// A pod without walls that dials a tenant on every way there is: its pod's ports and its Service.
fn foreign(name: &str, tenant: &str) -> Agent {
    let pod = &Dialler::of(tenant).new_pods(1, &[])[0];
    let service = object("service", tenant, "dialler").unwrap();
    let service = format!("{}:8443", service["spec"]["clusterIP"].as_str().unwrap());
    let [sidecar, server] = [8443, 3000].map(|port| format!("{}:{port}", pod.ip));
    let dial = [
        "persist", "--dial", &sidecar, "--dial", &server, "--dial", &service,
    ];
    Agent::running("open", name, &dial)
}

#[test]
fn while_a_tenant_is_deleted_nobody_gets_in_and_nothing_gets_out() {
    samples();
    let target = Open::target("parting");
    // A hostile server: it dials on, and doesn't end when it is asked to.
    let tenant = Tenant::ready(&Dialler::tenant(
        "parting",
        1,
        &["--stubborn", "--dial", &target.address],
    ));
    let dialler = Dialler::of("parting");
    let pod = dialler.new_pods(1, &[])[0].clone();
    let foreign = foreign("into-parting", "parting");
    assert_eq!(dialler.successes(&pod), 0);
    assert_eq!(foreign.successes(), 0);

    // An administrator's shortcut would take the walls before the pods.
    for namespace in ["parting", "parting-agents"] {
        Kubectl::admin()
            .fenced(&["delete", "namespace", namespace], None)
            .unwrap();
    }
    drop(tenant);
    eventually("the tenant gone", || gone("mcptenant", "", "parting"));
    assert_eq!(foreign.successes(), 0, "in");
    let came = target.came_until("beside-parting");
    assert!(!came.contains(&pod.ip), "out: {came:?}");
    assert_eq!(came.len(), 1);
    record(
        "teardown in order, FenceNamespace",
        "dials in and out without end while the tenant is deleted",
        "0 connections",
        "a pod beside connects",
    );
}

#[test]
fn while_a_tenant_moves_to_another_tier_nobody_gets_in_and_nothing_gets_out() {
    samples();
    let target = Open::target("moving");
    let mut spec = Dialler::tenant("moving", 1, &["--dial", &target.address]);
    let _tenant = Tenant::ready(&spec);
    let dialler = Dialler::of("moving");
    let mut pods = dialler.new_pods(1, &[]);
    let foreign = foreign("into-moving", "moving");
    assert_eq!(foreign.successes(), 0);
    let mut addresses = vec![pods[0].ip.clone()];
    for isolation in [
        json!({"tier": "Sandbox", "sandbox": {"runtimeClassName": "gvisor"}}),
        json!({"tier": "Namespace"}),
    ] {
        spec["spec"]["isolation"] = isolation.clone();
        apply(&spec).unwrap();
        pods = dialler.new_pods(1, &pods);
        assert_eq!(
            pods[0].runtime_class.as_deref(),
            isolation["sandbox"]["runtimeClassName"].as_str()
        );
        assert_eq!(dialler.successes(&pods[0]), 0);
        addresses.push(pods[0].ip.clone());
    }
    assert_eq!(foreign.successes(), 0, "in");
    let came = target.came_until("beside-moving");
    assert!(addresses.iter().all(|ip| !came.contains(ip)), "out: {came:?}");
    assert_eq!(came.len(), 1);
    record(
        "NetworkPolicies, canary",
        "dials in and out without end while the tier changes, there and back",
        "0 connections",
        "a pod beside connects",
    );
}
