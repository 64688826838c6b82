//! A tenant is built in order, reported, and then left alone.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
};

use bulkhead_control::SidecarReport;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    audit::{self, Request},
    fixture::{Fixture, Operator, tenant, until},
    sidecar::{Papers, Sidecar},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_built_in_order_and_then_nothing_is_written() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&["--resync", "1s"]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "CertificatesReady", "True", "AsSpecified")
        .await;
    until("both Deployments are there", async || deployments(&fixture).await).await;
    fixture.until_quiet().await;
    in_order(&audit::writes(&fixture.requests()));

    // Three resyncs of one second each, seen in the metrics, and nothing written.
    let writes = audit::writes(&fixture.requests());
    let before = reconciles(&operator);
    until("three resyncs", async || {
        let now = reconciles(&operator);
        if now >= before + 3 {
            Ok(())
        } else {
            Err(format!("{before} → {now}"))
        }
    })
    .await;
    operator.stop().await;
    let operator = fixture.operator(&["--resync", "1s"]).await;
    until("three reconciles after a restart", async || {
        let now = reconciles(&operator);
        if now >= 3 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    assert_eq!(audit::writes(&fixture.requests())[writes.len()..], []);

    let sidecars = what_runs_is_reported(&fixture, &operator).await;
    let told = fixture
        .api("events.k8s.io", "Event", Some("umbra"))
        .list(&ListParams::default())
        .await
        .unwrap();
    let reasons: BTreeSet<_> = told
        .items
        .iter()
        .filter_map(|event| event.data["reason"].as_str())
        .collect();
    assert!(
        reasons.contains("AsSpecified") && reasons.contains("Valid"),
        "{reasons:?}"
    );
    // Over a restart what was confirmed stays so, for as long as sidecars need to say it again.
    fixture.until_quiet().await;
    let writes = audit::writes(&fixture.requests()).len();
    operator.stop().await;
    for sidecar in sidecars {
        sidecar.ended().await.expect("told to call the next leader");
    }
    let operator = fixture.operator(&["--resync", "1s"]).await;
    until("three reconciles after a restart", async || {
        let now = reconciles(&operator);
        if now >= 3 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    assert_eq!(audit::writes(&fixture.requests())[writes..], []);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_waits_for_what_it_mounts() {
    let mut fixture = Fixture::start().await;
    fixture.stop_issuing();
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "Ready", "False", "WaitingForCertificates")
        .await;
    fixture.until_quiet().await;
    assert_eq!(deployments(&fixture).await, Err("[]".to_owned()));
    fixture.start_issuing();
    until("both Deployments are there", async || deployments(&fixture).await).await;

    // An administrator deletes a namespace. It comes back, with everything in it, and is another.
    let namespaces = fixture.api("", "Namespace", None);
    let before = namespaces.get("umbra").await.unwrap().metadata.uid;
    namespaces
        .delete("umbra", &DeleteParams::default())
        .await
        .unwrap();
    until("the status has the new namespace", async || {
        let status = fixture.tenant("umbra").await.unwrap().status.unwrap();
        let now = status
            .namespaces
            .into_iter()
            .find(|namespace| namespace.name == "umbra")
            .map(|now| now.uid);
        if now.is_none() || now == before {
            Err(format!("{:?}", status.conditions))
        } else {
            Ok(())
        }
    })
    .await;
    until("both Deployments are there again", async || {
        deployments(&fixture).await
    })
    .await;
    operator.stop().await;
}

/// Walls before pods, what is mounted before what mounts it.
fn in_order(writes: &[Request]) {
    let first = |resource: &str| {
        let found = writes.iter().position(|write| {
            write.resource == resource
                && (write.namespace.starts_with("umbra") || write.name.ends_with(":umbra"))
        });
        found.unwrap_or_else(|| panic!("{resource} was never written"))
    };
    let order = [
        "resourcequotas",
        "limitranges",
        "serviceaccounts",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
        "networkpolicies",
        "issuers",
        "certificates",
        "configmaps",
        "services",
        "persistentvolumeclaims",
        "poddisruptionbudgets",
        "deployments",
    ];
    for pair in order.windows(2) {
        assert!(first(pair[0]) < first(pair[1]), "{} before {}", pair[0], pair[1]);
    }
    let claims = writes
        .iter()
        .rposition(|write| write.resource == "configmaps" && write.verb == "create")
        .unwrap();
    let namespaces = writes
        .iter()
        .position(|write| write.resource == "namespaces" && write.verb == "create")
        .unwrap();
    assert!(claims < namespaces && namespaces < first("resourcequotas"));
}

/// Plays kubelet and Deployment controller, and reads the status.
async fn what_runs_is_reported(fixture: &Fixture, operator: &Operator) -> Vec<Sidecar> {
    fixture
        .until_condition("umbra", "NetworkIsolated", "Unknown", "NoPods")
        .await;
    for server in ["notes", "files"] {
        run_pod(fixture, server, Some(70), false).await;
    }
    fixture
        .until_condition("umbra", "NetworkIsolated", "False", "NetworkPolicyNotEnforced")
        .await;
    fixture
        .until_condition("umbra", "Ready", "False", "NetworkPolicyNotEnforced")
        .await;
    for server in ["notes", "files"] {
        run_pod(fixture, server, None, true).await;
    }
    // Ready, and nobody has said anything: nothing is confirmed.
    fixture
        .until_condition("umbra", "PolicyEnforced", "Unknown", "WaitingForSidecars")
        .await;
    let mut sidecars = Vec::new();
    for server in ["notes", "files"] {
        sidecars.push(report(fixture, operator, server).await);
    }
    fixture
        .until_condition("umbra", "NetworkIsolated", "True", "AsSpecified")
        .await;
    fixture
        .until_condition("umbra", "PolicyEnforced", "True", "AsSpecified")
        .await;
    fixture
        .until_condition("umbra", "ToolsOffered", "True", "AsSpecified")
        .await;
    fixture
        .until_condition("umbra", "Ready", "False", "RollingOut")
        .await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    for (server, replicas) in [("notes", 2), ("files", 1)] {
        let generation = deployments.get(server).await.unwrap().metadata.generation;
        let status = json!({"status": {
            "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas,
        }});
        deployments
            .patch_status(server, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
    fixture
        .until_condition("umbra", "Ready", "True", "AsSpecified")
        .await;
    let status = fixture.tenant("umbra").await.unwrap().status.unwrap();
    assert_eq!(status.servers[0].url, "https://notes.umbra.svc:8443/mcp");
    assert_eq!(status.servers[0].ready_replicas, 1);
    assert_eq!(
        status
            .namespaces
            .iter()
            .map(|namespace| &*namespace.name)
            .collect::<Vec<_>>(),
        ["umbra", "umbra-agents"]
    );
    sidecars
}

/// The sidecar of a pod says that everything is in force.
pub async fn report(fixture: &Fixture, operator: &Operator, server: &str) -> Sidecar {
    let deployment = fixture.api("apps", "Deployment", Some("umbra")).get(server).await;
    let template = &deployment.unwrap().data["spec"]["template"]["metadata"];
    let revision = template["annotations"]["bulkhead.dev/policy-revision"]
        .as_str()
        .unwrap();
    let papers = Papers::of(fixture, "umbra", server, &format!("{server}-0")).await;
    let sidecar = Sidecar::call(fixture, operator, &papers).await;
    sidecar.says(SidecarReport {
        policy_revision: revision.to_owned(),
        network_closed: true,
        inventory_taken: true,
        ..SidecarReport::default()
    });
    sidecar
}

/// A pod of the Deployment's template, whose sidecar ended so or has started.
pub async fn run_pod(fixture: &Fixture, server: &str, exit: Option<i32>, started: bool) {
    let deployment = fixture
        .api("apps", "Deployment", Some("umbra"))
        .get(server)
        .await
        .unwrap();
    let mut pod = deployment.data["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = format!("{server}-0").into();
    let pods = fixture.api("", "Pod", Some("umbra"));
    let name = format!("{server}-0");
    pods.patch(&name, &PatchParams::apply("kubelet").force(), &Patch::Apply(&pod))
        .await
        .unwrap();
    let last = exit.map_or(json!({}), |code| json!({"terminated": {"exitCode": code}}));
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": if started { "True" } else { "False" }}],
        "initContainerStatuses": [{
            "name": "bulkhead-proxy", "image": "x", "imageID": "x", "restartCount": 0,
            "ready": started, "started": started, "lastState": last,
        }],
    }});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

pub async fn deployments(fixture: &Fixture) -> Result<(), String> {
    let found = fixture
        .api("apps", "Deployment", Some("umbra"))
        .list(&ListParams::default())
        .await
        .unwrap();
    let names: Vec<_> = found
        .items
        .into_iter()
        .filter_map(|deployment| deployment.metadata.name)
        .collect();
    if names == ["files", "notes"] {
        Ok(())
    } else {
        Err(format!("{names:?}"))
    }
}

/// How many reconciles succeeded, by the operator's metrics.
fn reconciles(operator: &Operator) -> u64 {
    let text = metrics(operator);
    let lines = text
        .lines()
        .filter(|line| line.starts_with(r#"bulkhead_operator_reconciles_total{result="ok""#));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

/// The operator's metrics, with the head of their answer.
pub fn metrics(operator: &Operator) -> String {
    let mut stream = std::net::TcpStream::connect(operator.address).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_specification_is_told_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    let mut bad = tenant("umbra", "u-1");
    bad["spec"]["isolation"] = json!({"tier": "Sandbox", "sandbox": {"runtimeClassName": "nowhere"}});
    fixture.apply(&bad).await;
    fixture
        .until_condition("umbra", "Accepted", "False", "RuntimeClassNotFound")
        .await;
    fixture
        .until_condition("umbra", "Ready", "False", "NotAccepted")
        .await;
    let message = |status: Value| status.to_string();
    let status = serde_json::to_value(fixture.tenant("umbra").await.unwrap().status).unwrap();
    assert!(message(status).contains("nowhere"));
    assert!(
        fixture
            .api("", "Namespace", None)
            .get_opt("umbra")
            .await
            .unwrap()
            .is_none()
    );

    // The class is made later, and that alone is enough.
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nowhere"}, "handler": "x"});
    let classes = fixture.api("node.k8s.io", "RuntimeClass", None);
    classes
        .patch("nowhere", &PatchParams::apply("test"), &Patch::Apply(&class))
        .await
        .unwrap();
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    operator.stop().await;
}
