//! The operator is killed and comes back.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use anyhow::bail;
use bulkhead_e2e::{Agent, Kubectl, call_message, eventually, object, objects, samples};
use serde_json::{Value, json};

/// How long the new leader is watched.
const OBSERVED: Duration = Duration::from_secs(20);

/// Kinds of children. Leaves of built-in controllers (pods, replica sets, endpoints) aren't ours.
const KINDS: [&str; 10] = [
    "resourcequotas",
    "limitranges",
    "serviceaccounts",
    "rolebindings",
    "networkpolicies",
    "issuers",
    "certificates",
    "configmaps",
    "services",
    "deployments",
];

/// `kind/namespace/name` → UID, generation, and what the operator wrote last and when.
fn children() -> BTreeMap<String, Value> {
    let mut children = BTreeMap::new();
    for namespace in ["acme", "acme-agents", "globex", "globex-agents"] {
        let of_kind = |kind| {
            objects(kind, namespace, "")
                .unwrap()
                .into_iter()
                .map(move |object| (kind, object))
        };
        for (kind, object) in KINDS.into_iter().flat_map(of_kind) {
            let key = format!("{kind}/{namespace}/{}", object["metadata"]["name"]);
            let managers: Vec<_> = object["metadata"]["managedFields"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ours: Vec<_> = managers
                .into_iter()
                .filter(|entry| entry["manager"] == "bulkhead-operator")
                .collect();
            if object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "bulkhead" {
                assert!(!ours.is_empty(), "{key} shows when the operator wrote it");
            }
            children.insert(
                key,
                json!([object["metadata"]["uid"], object["metadata"]["generation"], ours]),
            );
        }
    }
    children
}

#[test]
fn killed_operators_come_back_rewrite_nothing_and_calls_keep_flowing() {
    let [acme, _] = samples();
    let body = call_message("list_invoices", Some(&json!({})));
    let load = Agent::load("acme", "ops", &acme.url, &body, "\"result\"");
    let before = children();
    assert!(before.len() > 40, "{}", before.len());

    let kubectl = Kubectl::admin();
    let selector = "app.kubernetes.io/name=bulkhead-operator";
    let lease = || object("lease", "bulkhead-system", "bulkhead-operator");
    let holder = lease().unwrap()["spec"]["holderIdentity"].clone();
    kubectl
        .run(&[
            "delete",
            "pods",
            "-n",
            "bulkhead-system",
            "-l",
            selector,
            "--grace-period=0",
            "--force",
        ])
        .unwrap();
    eventually("a new leader", || {
        match lease()?["spec"]["holderIdentity"].clone() {
            new if new != holder && new.is_string() && new != "" => Ok(()),
            same => bail!("{same}"),
        }
    });
    kubectl
        .run(&[
            "rollout",
            "status",
            "-n",
            "bulkhead-system",
            "deploy",
            "--timeout=120s",
        ])
        .unwrap();

    // What must not happen has no end to wait for: time for the new leader to look at everything.
    sleep(OBSERVED);
    let report = load.end();
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(children(), before, "nothing was rewritten");
}
