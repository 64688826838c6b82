use bulkhead_api::{McpTenant, cert_manager::Certificate};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    exit,
    fetch::{Access, Objects},
    table, tree,
    view::view,
};
use crate::exit::Exit;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn tenant(ready: &str, observed: i64) -> McpTenant {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastTransitionTime": "2026-11-22T09:00:00Z"})
    };
    read(json!({
        "apiVersion": "bulkhead.dev/v1alpha1",
        "kind": "McpTenant",
        "metadata": {"name": "acme", "generation": 2, "creationTimestamp": "2026-11-19T10:00:00Z"},
        "spec": {
            "identity": {"tenantId": "t"},
            "quota": {"cpu": "1", "memory": "1Gi", "pods": 4},
            "agents": [{"name": "billing", "roles": ["reader", "auditor"]}, {"name": "idle"}],
            "servers": [
                {"name": "crm", "image": "i", "http": {"port": 3000}},
                {"name": "new", "image": "i", "http": {"port": 3000}},
            ],
        },
        "status": {
            "observedGeneration": observed,
            "conditions": [
                condition("Ready", ready, "ServersNotReady", "1 of 2 pods of server crm is ready"),
                condition("Accepted", "True", "Accepted", ""),
            ],
            "servers": [{
                "name": "crm", "url": "https://crm.acme.svc:8443/mcp", "replicas": 2, "readyReplicas": 1,
                "policyRevision": "aaaabbbbccccdddd",
                "withheld": [{
                    "kind": "Tool", "name": "list", "reason": "definition_changed", "protocolVersion": "2025-11-25",
                    "definition": "sha256:00",
                }],
                "reported": [{"rule": "tools[find].bounds[limit]", "reason": "argument_out_of_bounds"}],
            }],
        },
    }))
}

fn pod(name: &str, revision: &str, server: &Value, ready: bool) -> Pod {
    let status = |name: &str, state: &Value, ready: bool, restarts: i32| {
        json!({"name": name, "image": "", "imageID": "", "ready": ready, "started": true,
               "restartCount": restarts, "state": state})
    };
    read(json!({
        "metadata": {"name": name, "labels": {"bulkhead.dev/server": "crm"}},
        "spec": {
            "nodeName": "node-1",
            "containers": [],
            "initContainers": [{"name": "bulkhead-proxy", "env": [{"name": "BULKHEAD_POLICY_REVISION", "value": revision}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "initContainerStatuses": [status("bulkhead-proxy", &json!({"running": {}}), true, 0)],
            "containerStatuses": [status("server", server, ready, 1)],
        },
    }))
}

fn certificate(namespace: &str, name: &str, status: &Value) -> Certificate {
    read(json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "duration": "24h", "renewBefore": "8h", "usages": [], "secretName": name, "revisionHistoryLimit": 2,
            "privateKey": {"algorithm": "ECDSA", "size": 256, "encoding": "PKCS8", "rotationPolicy": "Always"},
            "issuerRef": {"name": "i", "kind": "Issuer", "group": "cert-manager.io"},
        },
        "status": status,
    }))
}

fn issued(namespace: &str, name: &str) -> Certificate {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"conditions": ready, "notAfter": "2026-11-23T06:00:00Z", "renewalTime": "2026-11-22T22:00:00Z"});
    certificate(namespace, name, &status)
}

fn objects(ready: &str, observed: i64) -> Objects {
    let crash = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    Objects {
        tenant: Access::Read(tenant(ready, observed)),
        pods: Access::Read(vec![
            pod("crm-1", "aaaabbbbccccdddd", &json!({"running": {}}), true),
            pod("crm-2", "0000111122223333", &crash, false),
        ]),
        server_certificates: Access::Read(vec![
            issued("acme", "servers-ca"),
            certificate("acme", "crm-tls", &json!({"conditions": []})),
        ]),
        agent_certificates: Access::Read(vec![
            issued("acme-agents", "agents-ca"),
            issued("acme-agents", "billing-tls"),
        ]),
    }
}

/// The tree without its colours.
fn shown(objects: &Objects, wide: bool) -> String {
    let tree = tree::render(&view("acme", objects, now()), wide);
    anstream::adapter::strip_str(&tree).to_string()
}

#[test]
fn a_tree_shows_conditions_servers_agents_and_certificates() {
    let expected = "\
tenant acme  not ready (ServersNotReady)  tier Namespace  age 3d
├─ conditions
│  ├─ Ready     False    ServersNotReady  1 of 2 pods of server crm is ready
│  └─ Accepted  True     Accepted
├─ servers
│  ├─ crm  1/2 ready  https://crm.acme.svc:8443/mcp  policy aaaabbbbccccdddd
│  │  ├─ tool list  withheld (definition_changed)  2025-11-25  sha256:00
│  │  ├─ rule tools[find].bounds[limit]  reports argument_out_of_bounds
│  │  ├─ pod crm-1  Running  sidecar ready  server ready  1 restart  on node-1
│  │  └─ pod crm-2  Running  sidecar ready  server CrashLoopBackOff  1 restart  older policy 0000111122223333  on node-1
│  └─ new  not reported yet
├─ agents
│  ├─ billing  roles reader, auditor  certificate expires in 20h, renews in 12h
│  └─ idle  no roles
└─ certificates
   ├─ acme/servers-ca  certificate expires in 20h, renews in 12h
   ├─ acme/crm-tls  certificate not issued, not ready
   └─ acme-agents/agents-ca  certificate expires in 20h, renews in 12h
";
    assert_eq!(shown(&objects("False", 2), false), expected);
}

#[test]
fn a_wide_tree_adds_addresses_revisions_and_times() {
    let text = shown(&objects("False", 2), true);
    for addition in [
        "policy aaaabbbbccccdddd  on node-1  10.0.0.7",
        "expires in 20h (2026-11-23T06:00:00Z)",
    ] {
        assert!(text.contains(addition), "{addition}: {text}");
    }
}

#[test]
fn what_may_not_be_read_is_said_where_it_would_stand() {
    let nothing = Objects {
        tenant: Access::NotPermitted,
        pods: Access::NotPermitted,
        server_certificates: Access::Missing,
        agent_certificates: Access::NotPermitted,
    };
    let expected = "\
tenant acme  not permitted
├─ servers
│  └─ pods: not permitted
├─ agents
│  └─ certificates of the agents: not permitted
└─ certificates
   ├─ certificates of the servers: not installed
   └─ certificates of the agents: not permitted
";
    assert_eq!(shown(&nothing, false), expected);
    assert_eq!(exit(&view("acme", &nothing, now())), Exit::Failure);
}

#[test]
fn a_person_who_sees_pods_and_no_tenant_sees_the_servers_of_the_pods() {
    let pods = Objects {
        tenant: Access::NotPermitted,
        ..objects("True", 2)
    };
    let text = shown(&pods, false);
    assert!(
        text.contains("crm  not reported yet") && text.contains("pod crm-1"),
        "{text}"
    );
}

#[test]
fn only_a_ready_tenant_of_the_current_generation_is_ready() {
    let table = [
        ("True", 2, Exit::Success),
        ("False", 2, Exit::NotReady),
        ("Unknown", 2, Exit::NotReady),
        ("True", 1, Exit::NotReady),
    ];
    for (ready, observed, code) in table {
        assert_eq!(
            exit(&view("acme", &objects(ready, observed), now())),
            code,
            "{ready} {observed}"
        );
    }
    assert!(shown(&objects("True", 1), false).contains("generation 2, the operator has seen 1"));
}

#[test]
fn the_document_has_what_programs_ask_for() {
    let document = serde_json::to_value(view("acme", &objects("False", 2), now())).unwrap();
    let table = [
        ("/name", json!("acme")),
        ("/ready", json!(false)),
        ("/conditions/0/type", json!("Ready")),
        ("/servers/0/url", json!("https://crm.acme.svc:8443/mcp")),
        ("/servers/0/pods/1/current", json!(false)),
        ("/agents/0/certificate/renewalTime", json!("2026-11-22T22:00:00Z")),
        ("/agents/0/certificate/expiresInSeconds", json!(72_000)),
        ("/certificates/1/ready", json!(false)),
    ];
    for (pointer, value) in table {
        assert_eq!(document.pointer(pointer), Some(&value), "{pointer}");
    }
    assert_eq!(document.get("unread"), None);
}

#[test]
fn tenants_are_a_table() {
    let rows = [
        table::row(&tenant("False", 2), now()),
        table::row(&tenant("True", 2), now()),
    ];
    let words = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let text = table::render(&rows, false);
    let lines: Vec<_> = text.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "READY", "REASON", "TIER", "SERVERS", "AGE"]);
    assert_eq!(
        lines[1],
        ["acme", "False", "ServersNotReady", "Namespace", "0/2", "3d"]
    );
    assert_eq!(lines[2][1], "True");
    let wide = table::render(&rows, true);
    assert!(
        wide.contains("MESSAGE") && wide.contains("1 of 2 pods of server crm is ready"),
        "{wide}"
    );
}
