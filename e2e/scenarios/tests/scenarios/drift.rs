//! Any child deleted, edited or stripped is restored; what somebody adds is taken away. The fences refuse all of this to
//! an administrator, so what they let pass is done in the operator's name: drift is its own mistakes, or comes from before
//! the fences.

use anyhow::{Result, bail};
use bulkhead_e2e::{Agent, Kubectl, Tenant, eventually, gone, object, tenant};
use serde_json::{Value, json};

/// Kind, namespace suffix, name, and an edit that would open or break something and that no fence refuses the operator.
const CHILDREN: &[(&str, &str, &str, &str)] = &[
    (
        "resourcequota",
        "",
        "bulkhead",
        r#"{"spec":{"hard":{"pods":"999"}}}"#,
    ),
    (
        "limitrange",
        "",
        "bulkhead",
        r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":"nobody"}}}"#,
    ),
    (
        "serviceaccount",
        "",
        "ledger",
        r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":"nobody"}}}"#,
    ),
    (
        "serviceaccount",
        "-agents",
        "billing",
        r#"{"imagePullSecrets":[{"name":"more"}]}"#,
    ),
    (
        "networkpolicy",
        "",
        "default-deny",
        r#"{"spec":{"policyTypes":["Ingress"]}}"#,
    ),
    (
        "networkpolicy",
        "",
        "server-ledger",
        r#"{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"default"}}}],"ports":[{"port":3000}]}]}}"#,
    ),
    (
        "networkpolicy",
        "-agents",
        "agents",
        r#"{"spec":{"egress":[{"to":[{"ipBlock":{"cidr":"203.0.113.0/24"}}],"ports":[{"port":443}]}]}}"#,
    ),
    (
        "rolebinding",
        "",
        "bulkhead-admins",
        r#"{"subjects":[{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"intruders"}]}"#,
    ),
    (
        "issuer",
        "",
        "servers-ca",
        r#"{"spec":{"ca":{"secretName":"other"}}}"#,
    ),
    (
        "certificate",
        "",
        "ledger-tls",
        r#"{"spec":{"dnsNames":["evil.example"]}}"#,
    ),
    (
        "certificate",
        "-agents",
        "billing-tls",
        r#"{"spec":{"uris":["spiffe://globex.cluster.local/ns/globex-agents/sa/billing"]}}"#,
    ),
    (
        "configmap",
        "",
        "bulkhead-trust",
        r#"{"data":{"ca.pem":"nothing"}}"#,
    ),
    (
        "configmap",
        "",
        "ledger-policy",
        r#"{"data":{"policy.json":"{}"}}"#,
    ),
    (
        "service",
        "",
        "ledger",
        r#"{"spec":{"selector":{"bulkhead.dev/server":"other"}}}"#,
    ),
    ("deployment", "", "ledger", r#"{"spec":{"replicas":0}}"#),
    (
        "namespace",
        "",
        "",
        r#"{"metadata":{"labels":{"pod-security.kubernetes.io/enforce-version":"v1.24"}}}"#,
    ),
];

/// The part of an object that its owner decides.
fn wanted(object: &Value) -> Value {
    let labels = &object["metadata"]["labels"];
    let mut wanted = json!({"labels": labels, "owners": object["metadata"]["ownerReferences"]});
    for field in [
        "spec",
        "data",
        "subjects",
        "roleRef",
        "automountServiceAccountToken",
    ] {
        wanted[field] = object[field].clone();
    }
    // A Service that is made anew gets another address.
    if let Some(spec) = wanted["spec"].as_object_mut() {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    wanted
}

fn get(kind: &str, namespace: &str, name: &str) -> Result<Value> {
    object(
        kind,
        namespace,
        if kind == "namespace" { namespace } else { name },
    )
}

#[test]
fn children_are_restored_when_edited_deleted_or_stripped_and_strangers_are_removed() {
    let tenant = Tenant::ready(&tenant("drifting"));
    let kubectl = Kubectl::admin();
    for (kind, suffix, name, edit) in CHILDREN {
        let namespace = format!("drifting{suffix}");
        let what = format!("{kind} {namespace}/{name}");
        let before = get(kind, &namespace, name).unwrap();
        let restored = || match get(kind, &namespace, name)? {
            now if wanted(&now) == wanted(&before) => Ok(()),
            now => bail!("{}", wanted(&now)),
        };
        let target = if *kind == "namespace" {
            vec![*kind, &namespace]
        } else {
            vec![*kind, "-n", &namespace, name]
        };
        let patch = [&["patch", "--type=merge", "-p", edit], &target[..]].concat();
        kubectl.fenced(&patch, None).unwrap();
        Kubectl::operator().run(&patch).unwrap();
        eventually(&format!("{what} restored after an edit"), restored);
        // Deleting a namespace is a scenario of its own.
        if *kind != "namespace" {
            let delete = [&["delete"], &target[..]].concat();
            kubectl.fenced(&delete, None).unwrap();
            Kubectl::operator().run(&delete).unwrap();
            eventually(&format!("{what} restored after a deletion"), restored);
        }
    }
    stripped();
    added();
    eventually("calls work again", || {
        Agent::start("drifting", "billing").tools(&tenant.url())
    });
}

/// An owner reference that was stripped comes back.
fn stripped() {
    let kubectl = Kubectl::admin();
    for namespace in ["drifting", "drifting-agents"] {
        let before = object("namespace", "", namespace).unwrap();
        assert_eq!(before["metadata"]["ownerReferences"][0]["kind"], "McpTenant");
        let strip = r#"[{"op": "remove", "path": "/metadata/ownerReferences"}]"#;
        let patch = ["patch", "namespace", namespace, "--type=json", "-p", strip];
        kubectl.fenced(&patch, None).unwrap();
        Kubectl::operator().run(&patch).unwrap();
        eventually(&format!("{namespace} owned again"), || {
            match object("namespace", "", namespace)? {
                now if now["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"] => Ok(()),
                now => bail!("{}", now["metadata"]),
            }
        });
    }
}

/// What a stranger adds to a tenant's walls is taken away.
fn added() {
    let kubectl = Kubectl::admin();
    let everyone = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "open-sesame", "namespace": "drifting"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}], "ports": [{"port": 3000}],
        }]},
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "open-sesame", "namespace": "drifting"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bulkhead:tenant:admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "intruder"}],
    });
    for (kind, object) in [("networkpolicy", everyone), ("rolebinding", binding)] {
        kubectl
            .fenced(&["create", "-f", "-"], Some(&object.to_string()))
            .unwrap();
        let created = Kubectl::operator()
            .outcome(&["create", "-f", "-"], Some(&object.to_string()))
            .unwrap();
        assert!(created.ok, "{created:?}");
        eventually(&format!("the added {kind} gone"), || {
            gone(kind, "drifting", "open-sesame")
        });
    }
}
