//! What a tenant was let reach is closed when it becomes the cluster's own or another tenant's, and nothing else changes.

use bulkhead_api::McpTenant;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    audit,
    fixture::{Fixture, tenant, until},
};

/// The peers of a network policy, as text.
async fn peers(fixture: &Fixture, namespace: &str, policy: &str, direction: &str) -> String {
    let policies = fixture.api("networking.k8s.io", "NetworkPolicy", Some(namespace));
    let policy = policies.get_opt(policy).await.unwrap();
    policy.map_or_else(
        || "no policy".to_owned(),
        |policy| policy.data["spec"][direction].to_string(),
    )
}

async fn until_peers(
    fixture: &Fixture,
    (namespace, policy, direction): (&str, &str, &str),
    holds: &[&str],
    not: &[&str],
) {
    until(
        &format!("{policy} lets {direction} {holds:?}, not {not:?}"),
        async || {
            let peers = peers(fixture, namespace, policy, direction).await;
            if holds.iter().all(|peer| peers.contains(peer)) && !not.iter().any(|peer| peers.contains(peer)) {
                Ok(())
            } else {
                Err(peers)
            }
        },
    )
    .await;
}

/// Waits until both Deployments are there and nothing more is written. Answers how much was written by then.
async fn settled(fixture: &Fixture, tenant: &str) -> usize {
    fixture.until_condition(tenant, "Accepted", "True", "Valid").await;
    let deployments = fixture.api("apps", "Deployment", Some(tenant));
    for server in ["notes", "files"] {
        until("its Deployment is there", async || {
            let found = deployments.get_opt(server).await.unwrap();
            found.map(drop).ok_or_else(|| "not there".to_owned())
        })
        .await;
    }
    fixture.until_quiet().await;
    audit::writes(&fixture.requests()).len()
}

/// What was written since to objects of a tenant, besides what is told of it.
fn written_since(fixture: &Fixture, tenant: &str, since: usize) -> Vec<(String, String)> {
    let writes = audit::writes(&fixture.requests());
    let mut written: Vec<_> = writes[since..]
        .iter()
        .filter(|write| write.resource != "events" && write.resource != "mcptenants/status")
        .filter(|write| write.namespace == tenant || write.namespace == format!("{tenant}-agents"))
        .map(|write| (write.resource.clone(), write.name.clone()))
        .collect();
    written.dedup();
    written
}

async fn told(fixture: &Fixture, tenant: &str) -> String {
    let status = fixture.tenant(tenant).await.unwrap().status.unwrap();
    let accepted = status
        .conditions
        .into_iter()
        .find(|said| said.type_ == "Accepted");
    accepted.unwrap().message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_in_a_declared_range_closes_it_until_it_leaves() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    let wall = ("umbra-agents", "agent-scout", "egress");
    let before = settled(&fixture, "umbra").await;
    until_peers(&fixture, wall, &["203.0.113.0/24"], &[]).await;

    let nodes = fixture.api("", "Node", None);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "newcomer"}});
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
        .await
        .unwrap();
    let at = json!({"status": {"addresses": [{"type": "InternalIP", "address": "203.0.113.7"}]}});
    nodes
        .patch_status("newcomer", &PatchParams::default(), &Patch::Merge(&at))
        .await
        .unwrap();
    fixture
        .until_condition("umbra", "Accepted", "False", "ForbiddenPeer")
        .await;
    until_peers(&fixture, wall, &[], &["203.0.113.0/24"]).await;
    let message = told(&fixture, "umbra").await;
    assert!(
        message.contains("spec.agents[0].egress[0].to.cidr") && message.contains("nodes"),
        "{message}"
    );
    fixture.until_quiet().await;
    let only_the_wall = [("networkpolicies".to_owned(), "agent-scout".to_owned())];
    assert_eq!(written_since(&fixture, "umbra", before), only_the_wall);

    // A restart finds it closed and writes nothing.
    let before = audit::writes(&fixture.requests()).len();
    operator.stop().await;
    let operator = fixture.operator(&[]).await;
    fixture.until_quiet().await;
    assert_eq!(written_since(&fixture, "umbra", before), []);

    nodes.delete("newcomer", &DeleteParams::default()).await.unwrap();
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    until_peers(&fixture, wall, &["203.0.113.0/24"], &[]).await;
    fixture.until_quiet().await;
    assert_eq!(written_since(&fixture, "umbra", before), only_the_wall);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_own_ranges_are_refused_from_the_start() {
    let fixture = Fixture::start().await;
    // Of the API server itself: the range of its Services, and its own address.
    let services = fixture.api("networking.k8s.io", "ServiceCIDR", None);
    let range = services.get("kubernetes").await.unwrap().data["spec"]["cidrs"][0].clone();
    // Kept by the API server, where it has an address that others reach. The other is somebody's of the same name.
    for (namespace, address) in [("default", "192.0.2.200"), ("databases", "192.0.2.201")] {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": [{"addresses": [address]}], "ports": [{"name": "https", "port": 6443}],
        });
        let slices = fixture.api("discovery.k8s.io", "EndpointSlice", Some(namespace));
        let slice = serde_json::from_value(slice).unwrap();
        slices.create(&PostParams::default(), &slice).await.unwrap();
    }
    let operator = fixture
        .operator(&["--pod-cidrs", "192.0.2.0/25", "--node-cidrs", "198.51.100.0/28"])
        .await;
    for (name, cidr, whose) in [
        ("one", range, "Services"),
        ("two", json!("192.0.2.200/32"), "API server"),
        ("three", json!("192.0.2.0/24"), "pods"),
        ("four", json!("198.51.100.1/32"), "nodes"),
    ] {
        let mut tenant = tenant(name, name);
        tenant["spec"]["servers"][0]["egress"] = json!([{"to": {"cidr": cidr}, "ports": [443]}]);
        fixture.apply(&tenant).await;
        fixture
            .until_condition(name, "Accepted", "False", "ForbiddenPeer")
            .await;
        let message = told(&fixture, name).await;
        assert!(message.contains(whose), "{cidr}: {message}");
        assert!(
            fixture
                .api("", "Namespace", None)
                .get_opt(name)
                .await
                .unwrap()
                .is_none()
        );
    }
    let mut outside = tenant("five", "five");
    outside["spec"]["servers"][0]["egress"] = json!([{"to": {"cidr": "192.0.2.201/32"}, "ports": [443]}]);
    fixture.apply(&outside).await;
    fixture.until_condition("five", "Accepted", "True", "Valid").await;
    operator.stop().await;
}

/// A tenant whose first server dials pods of these namespaces and lets them in.
fn with_peers(namespaces: &[&str]) -> Value {
    let mut tenant = tenant("umbra", "u-1");
    let labels = json!({"app": "x"});
    let server = &mut tenant["spec"]["servers"][0];
    server["egress"] = namespaces
        .iter()
        .map(|namespace| json!({"to": {"namespace": namespace, "podLabels": labels}, "ports": [443]}))
        .collect();
    server["clients"] = namespaces
        .iter()
        .map(|namespace| json!({"namespace": namespace, "podLabels": labels}))
        .collect();
    tenant
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_becomes_a_tenants_is_closed_until_that_tenant_is_gone() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    let whole = with_peers(&["penumbra", "antumbra", "databases"]);
    fixture.apply(&whole).await;
    let (out, into) = (
        ("umbra", "server-notes", "egress"),
        ("umbra", "server-notes", "ingress"),
    );
    let before = settled(&fixture, "umbra").await;
    for wall in [out, into] {
        until_peers(&fixture, wall, &["penumbra", "antumbra", "databases"], &[]).await;
    }

    fixture.apply(&tenant("penumbra", "p-1")).await;
    fixture
        .until_condition("umbra", "Accepted", "False", "ForbiddenPeer")
        .await;
    for wall in [out, into] {
        until_peers(&fixture, wall, &["antumbra", "databases"], &["penumbra"]).await;
    }
    until_peers(&fixture, into, &["umbra-agents"], &[]).await;
    let message = told(&fixture, "umbra").await;
    assert!(
        !message.contains("tenant"),
        "it doesn't say whose it is: {message}"
    );
    settled(&fixture, "penumbra").await;
    let only_the_wall = [("networkpolicies".to_owned(), "server-notes".to_owned())];
    assert_eq!(written_since(&fixture, "umbra", before), only_the_wall);

    // Refused for another reason, by a specification that names nobody any more: what stands is closed all the same.
    let mut refused = with_peers(&[]);
    refused["spec"]["isolation"] = json!({"tier": "Sandbox", "sandbox": {"runtimeClassName": "nowhere"}});
    fixture.apply(&refused).await;
    fixture
        .until_condition("umbra", "Accepted", "False", "RuntimeClassNotFound")
        .await;
    until_peers(&fixture, out, &["antumbra"], &[]).await;
    fixture.apply(&tenant("antumbra", "a-1")).await;
    for wall in [out, into] {
        until_peers(&fixture, wall, &["databases"], &["penumbra", "antumbra"]).await;
    }

    let tenants: Api<McpTenant> = Api::all(fixture.admin.clone());
    for name in ["penumbra", "antumbra"] {
        tenants.delete(name, &DeleteParams::default()).await.unwrap();
    }
    fixture.apply(&whole).await;
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    for wall in [out, into] {
        until_peers(&fixture, wall, &["penumbra", "antumbra", "databases"], &[]).await;
    }
    operator.stop().await;
}
