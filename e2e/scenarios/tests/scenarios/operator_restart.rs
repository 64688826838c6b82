//! The operator is killed and comes back.

use std::collections::BTreeMap;

use anyhow::bail;
use bulkhead_e2e::{Agent, Kubectl, call_message, eventually, samples};
use serde_json::{Value, json};

/// Kinds of children. Leaves of built-in controllers (pods, replica sets, endpoints) aren't ours.
const KINDS: &str = "resourcequotas,limitranges,serviceaccounts,rolebindings,networkpolicies,issuers,certificates,configmaps,services,deployments";

/// `kind/namespace/name` → UID, generation, and what the operator wrote last and when.
fn children() -> BTreeMap<String, Value> {
    let mut children = BTreeMap::new();
    for namespace in ["acme", "acme-agents", "globex", "globex-agents"] {
        let list = Kubectl::admin()
            .get(&[KINDS, "-n", namespace, "--show-managed-fields"])
            .unwrap();
        for object in list["items"].as_array().unwrap() {
            let key = format!("{}/{namespace}/{}", object["kind"], object["metadata"]["name"]);
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
    let load = Agent::load("acme", "ops", &acme.url, &body, "\"result\"", 60);
    let before = children();
    assert!(before.len() > 40, "{}", before.len());

    let kubectl = Kubectl::admin();
    let selector = "app.kubernetes.io/name=bulkhead-operator";
    let lease = |kubectl: &Kubectl| kubectl.get(&["lease", "-n", "bulkhead-system", "bulkhead-operator"]);
    let holder = lease(&kubectl).unwrap()["spec"]["holderIdentity"].clone();
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
    eventually(
        "a new leader",
        || match lease(&kubectl)?["spec"]["holderIdentity"].clone() {
            new if new != holder && new.is_string() && new != "" => Ok(()),
            same => bail!("{same}"),
        },
    );
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

    let report = load.report();
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(children(), before, "nothing was rewritten");
}
