//! A cluster whose network enforces nothing and whose fences were taken away: what holds elsewhere doesn't hold here.
//! It is a cluster of its own, made for this and removed after it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a scenario fails by panicking"
)]

use anyhow::{Result, bail};
use bulkhead_e2e::{
    Agent, Dialler, Kubectl, Open, Tenant, condition, eventually, object, objects, record, setting,
};
use serde_json::{Value, json};

#[test]
fn fence_without_walls_no_server_starts_and_without_the_canary_every_attack_succeeds() {
    let target = Open::target("anything");
    let spec = Dialler::tenant("unwalled", 1, &["--first", &target.address]);
    let tenant = Tenant::applied(&spec);
    no_server_ever_starts(&target);
    drop(tenant);

    // Now the canary is an address where nothing listens: the last thing that kept servers from starting is gone.
    let nothing = format!("{}:9", api_server_host());
    let [chart, values] = ["BULKHEAD_E2E_CHART", "BULKHEAD_E2E_VALUES"].map(setting);
    let canary = format!("canary={nothing}");
    let upgrade = [
        "-n",
        "bulkhead-system",
        "upgrade",
        "bulkhead",
        &chart,
        "-f",
        &values,
        "--set",
        &canary,
    ];
    let outcome = Kubectl::helm(&[&upgrade[..], &["--wait", "--timeout=3m"]].concat()).unwrap();
    assert!(outcome.ok, "{outcome:?}");
    let mut attacked = Dialler::tenant("attacked", 1, &["--first", &target.address]);
    attacked["spec"]["identity"]["tenantId"] = json!("another");
    let _attacked = Tenant::ready(&attacked);
    every_network_attack_succeeds(&target);
    and_every_write();
}

/// The sidecar finds that its canary can be reached, says so, and the server waits for ever.
fn no_server_ever_starts(target: &Open) {
    let told = eventually(
        "the condition says that nothing is enforced",
        || -> Result<Value> {
            let tenant = object("mcptenant", "", "unwalled")?;
            match condition(&tenant, "NetworkIsolated") {
                Some(isolated) if isolated["reason"] == "NetworkPolicyNotEnforced" => Ok(tenant),
                _ => bail!("{}", tenant["status"]["conditions"]),
            }
        },
    );
    assert_eq!(condition(&told, "NetworkIsolated").unwrap()["status"], "False");
    assert_ne!(condition(&told, "Ready").unwrap()["status"], "True");
    let pods = objects("pods", "unwalled", "").unwrap();
    assert!(!pods.is_empty());
    for pod in pods {
        let server = &pod["status"]["containerStatuses"][0];
        assert_eq!(server["name"], "server");
        assert!(server["state"]["waiting"].is_object(), "{server}");
        assert!(
            server["containerID"].is_null() && server["restartCount"] == 0,
            "{server}"
        );
        assert!(
            server["lastState"]
                .as_object()
                .is_none_or(serde_json::Map::is_empty),
            "{server}"
        );
    }
    assert_eq!(target.came(), [""; 0], "and so nobody has dialled");
    record(
        "canary",
        "a cluster that enforces no NetworkPolicy",
        "no server container starts; NetworkPolicyNotEnforced",
        "servers run, see below",
    );
}

fn every_network_attack_succeeds(target: &Open) {
    let pod = Dialler::of("attacked").new_pods(1, &[])[0].clone();
    eventually("the server's first dial is heard", || {
        if target.came().contains(&pod.ip) {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    record(
        "NetworkPolicies",
        "a server dials what it didn't declare",
        "refused (egress, closed_before_it_runs)",
        "connects",
    );
    let foreign = Agent::bystander("open", "foreign");
    for (port, what) in [(8443, "a sidecar's port"), (3000, "a server's own port")] {
        foreign.dial(&format!("{}:{port}", pod.ip)).expect(what);
        record(
            "NetworkPolicies",
            &format!("another namespace's pod dials {what}"),
            "refused (crossing, closed_until_gone)",
            "connects",
        );
    }
}

/// What the fences refuse, the cluster's administrator does once they are gone.
fn and_every_write() {
    let kubectl = Kubectl::admin();
    let open = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "open", "namespace": "attacked"}, "spec": {"podSelector": {}, "ingress": [{}]},
    })
    .to_string();
    let create = ["create", "--dry-run=server", "-f", "-"];
    let delete = ["delete", "--dry-run=server", "namespace", "attacked"];
    kubectl.fenced(&create, Some(&open)).unwrap();
    kubectl.fenced(&delete, None).unwrap();
    let fences = [
        "delete",
        "validatingadmissionpolicybindings",
        "-l",
        "app.kubernetes.io/part-of=bulkhead",
    ];
    kubectl.run(&fences).unwrap();
    for (attack, args, stdin) in [
        ("a NetworkPolicy for everybody", &create[..], Some(&*open)),
        ("a tenant's namespace deleted", &delete, None),
    ] {
        eventually(attack, || match kubectl.outcome(args, stdin) {
            Ok(outcome) if outcome.ok => Ok(()),
            outcome => Err(format!("{outcome:?}")),
        });
        record("fences", attack, "refused", "succeeds");
    }
}

/// An address of this cluster's own where something answers, and nothing listens on port 9.
fn api_server_host() -> String {
    let config: Value =
        serde_json::from_str(&Kubectl::admin().run(&["config", "view", "-o", "json"]).unwrap()).unwrap();
    let url = config["clusters"][0]["cluster"]["server"]
        .as_str()
        .unwrap()
        .to_owned();
    let host = url
        .trim_start_matches("https://")
        .split(':')
        .next()
        .unwrap()
        .to_owned();
    assert!(host.parse::<std::net::IpAddr>().is_ok(), "{url}");
    host
}
