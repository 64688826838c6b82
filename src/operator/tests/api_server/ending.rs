//! The end of a tenant: closed until it is gone.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
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
    nobody_reads_it_any_more(&fixture).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_down_holds_up_what_it_refuses_and_nothing_else() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    until("its Deployments are there", async || {
        match deployments
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len()
        {
            2 => Ok(()),
            some => Err(some.to_string()),
        }
    })
    .await;
    let pods = fixture.api("", "Pod", Some("umbra-agents"));
    until("the agents' namespace takes a pod", async || {
        let pod = Patch::Apply(agent_pod());
        let applied = pods.patch("agent", &PatchParams::apply("test"), &pod).await;
        applied.map(drop).map_err(|error| error.to_string())
    })
    .await;
    fixture.until_quiet().await;
    fixture.kubectl_apply(DOWN);
    until("the webhook refuses", async || {
        let patch = Patch::Merge(json!({"spec": {"paused": true}}));
        match deployments
            .patch("notes", &PatchParams::default().dry_run(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.message.contains("webhook") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let tenants = kube::Api::<bulkhead_api::McpTenant>::all(fixture.admin.clone());
    tenants.delete("umbra", &DeleteParams::default()).await.unwrap();
    until(
        "what the webhook doesn't look at is done, and the rest said",
        async || {
            let status = serde_json::to_string(&fixture.tenant("umbra").await.unwrap().status).unwrap();
            let left = deployments
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .len();
            let agents = pods.list(&ListParams::default()).await.unwrap().items.len();
            let said = status.contains("Terminating")
            && status.contains("no pod can start in umbra-agents")
            && status.contains("failed calling webhook")
            // Nothing makes pods there any more, quota or not.
            && !status.contains("no pod can start in umbra.");
            if said && left == 0 && agents == 0 {
                Ok(())
            } else {
                Err(format!("{left} Deployments, {agents} agents' pods, {status}"))
            }
        },
    )
    .await;
    // A developer's controller could make pods again where agents run, so the walls stand.
    let policies = fixture.api("networking.k8s.io", "NetworkPolicy", Some("umbra-agents"));
    let wall = policies.get("default-deny").await.unwrap();
    assert_eq!(wall.metadata.deletion_timestamp, None);

    let webhooks = kube::Api::<ValidatingWebhookConfiguration>::all(fixture.admin.clone());
    webhooks.delete("down", &DeleteParams::default()).await.unwrap();
    until("the tenant is gone", async || {
        match fixture.tenant("umbra").await {
            None => Ok(()),
            Some(tenant) => Err(serde_json::to_string(&tenant.status).unwrap()),
        }
    })
    .await;
    operator.stop().await;
}

/// A webhook of somebody else's, which nobody serves.
const DOWN: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: down}
webhooks:
- name: down.example.com
  clientConfig: {url: "https://127.0.0.1:1/"}
  failurePolicy: Fail
  timeoutSeconds: 1
  sideEffects: None
  admissionReviewVersions: [v1]
  rules:
  - {apiGroups: [apps], apiVersions: ["*"], resources: [deployments], operations: [CREATE, UPDATE]}
  - {apiGroups: [""], apiVersions: ["*"], resources: [resourcequotas], operations: [CREATE, UPDATE]}
"#;

/// Whoever could still read it could read the next tenant of its name.
async fn nobody_reads_it_any_more(fixture: &Fixture) {
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        let api = fixture.api("rbac.authorization.k8s.io", kind, None);
        assert!(api.get_opt("bulkhead:tenant:view:umbra").await.unwrap().is_none());
        assert!(
            api.get_opt("bulkhead:tenant:view:penumbra")
                .await
                .unwrap()
                .is_some()
        );
    }
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
