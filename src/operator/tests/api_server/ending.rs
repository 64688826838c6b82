//! The end of a tenant: closed until it is gone.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::{
    audit::{self, Request},
    fixture::{Fixture, NAMESPACE, agent_pod, tenant, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_ends_in_order_and_completely_also_over_a_restart_and_without_cert_manager() {
    let mut fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture.apply(&tenant("penumbra", "p-1")).await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    for server in ["notes", "files"] {
        until("its Deployment is there", async || {
            deployments
                .get_opt(server)
                .await
                .unwrap()
                .map(drop)
                .ok_or_else(|| "not there".to_owned())
        })
        .await;
    }
    // An agent's pod, without any label, which something holds.
    let pods = fixture.api("", "Pod", Some("umbra-agents"));
    let mut pod = agent_pod();
    pod["metadata"]["finalizers"] = json!(["example.com/hold"]);
    until("the agents' namespace takes a pod", async || {
        let applied = pods
            .patch("agent", &PatchParams::apply("test"), &Patch::Apply(&pod))
            .await;
        applied.map(drop).map_err(|error| error.to_string())
    })
    .await;
    fixture.until_quiet().await;
    fixture.stop_issuing();

    let tenants = kube::Api::<bulkhead_api::McpTenant>::all(fixture.admin.clone());
    tenants.delete("umbra", &DeleteParams::default()).await.unwrap();
    fixture
        .until_condition("umbra", "Ready", "False", "Terminating")
        .await;
    until("it says what it waits for", async || {
        let status = serde_json::to_string(&fixture.tenant("umbra").await.unwrap().status).unwrap();
        if status.contains("1 in umbra-agents") {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    closed(&fixture).await;
    quota_deleted(&fixture).await;
    closed(&fixture).await;
    let namespaces = fixture.api("", "Namespace", None);

    operator.stop().await;
    let operator = fixture.operator(&[]).await;
    pods.patch(
        "agent",
        &PatchParams::default(),
        &Patch::Merge(&json!({"metadata": {"finalizers": null}})),
    )
    .await
    .unwrap();
    until("the tenant is gone", async || {
        match fixture.tenant("umbra").await {
            None => Ok(()),
            Some(tenant) => Err(serde_json::to_string(&tenant.status).unwrap()),
        }
    })
    .await;
    for namespace in ["umbra", "umbra-agents"] {
        assert!(namespaces.get_opt(namespace).await.unwrap().is_none());
    }
    let claims = fixture.api("", "ConfigMap", Some(NAMESPACE));
    let left = claims
        .list(&ListParams::default().labels("bulkhead.dev/tenant=umbra"))
        .await
        .unwrap();
    assert!(left.items.is_empty());
    let others = claims
        .list(&ListParams::default().labels("bulkhead.dev/tenant=penumbra"))
        .await
        .unwrap();
    assert_eq!(others.items.len(), 3, "the other tenant keeps its claims");
    assert!(
        namespaces
            .get("penumbra")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );
    in_order(&audit::writes(&fixture.requests()));

    // Its name and identity are free again.
    fixture.start_issuing();
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    operator.stop().await;
}

/// Somebody deletes the quota in the middle, and there is another.
async fn quota_deleted(fixture: &Fixture) {
    let quotas = fixture.api("", "ResourceQuota", Some("umbra-agents"));
    quotas.delete("bulkhead", &DeleteParams::default()).await.unwrap();
    until("the quota is there again", async || {
        match quotas.get_opt("bulkhead").await.unwrap() {
            Some(_) => Ok(()),
            None => Err("it is missing".to_owned()),
        }
    })
    .await;
}

/// Closed, then empty, then gone, then free.
fn in_order(writes: &[Request]) {
    let at = |verb: &str, resource: &str, namespace: &str| {
        let found = writes.iter().rposition(|write| {
            write.verb == verb
                && write.resource == resource
                && (write.namespace == namespace || write.name == namespace)
        });
        found.unwrap_or_else(|| panic!("no {verb} of {resource} in {namespace}"))
    };
    let closed = at("patch", "deployments", "umbra");
    let ended = at("deletecollection", "pods", "umbra-agents");
    let deleted = at("delete", "namespaces", "umbra");
    let released = at("delete", "configmaps", NAMESPACE);
    let gone = at("patch", "mcptenants", "umbra");
    assert!(closed < ended && ended < deleted && deleted < released && released < gone);
}

/// No replica wanted, no pod admitted, and the walls stand.
async fn closed(fixture: &Fixture) {
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    let namespaces = fixture.api("", "Namespace", None);
    assert_eq!(
        deployments.get("notes").await.unwrap().data["spec"]["replicas"],
        0
    );
    let quota = fixture
        .api("", "ResourceQuota", Some("umbra-agents"))
        .get("bulkhead")
        .await
        .unwrap();
    assert_eq!(quota.data["spec"]["hard"]["pods"], "0");
    let policies = fixture.api("networking.k8s.io", "NetworkPolicy", Some("umbra-agents"));
    assert!(policies.get_opt("default-deny").await.unwrap().is_some());
    for namespace in ["umbra", "umbra-agents"] {
        assert!(
            namespaces
                .get(namespace)
                .await
                .unwrap()
                .metadata
                .deletion_timestamp
                .is_none()
        );
    }
}
