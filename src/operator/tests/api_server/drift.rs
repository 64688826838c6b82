//! Whatever somebody does to a tenant's objects is undone.

use bulkhead_api::McpTenant;
use bulkhead_operator::kinds::Kind;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, agent_pod, tenant, until},
    rights,
};

/// What the operator made, of this kind in the servers' namespace.
async fn made(fixture: &Fixture, kind: Kind) -> (Api<DynamicObject>, DynamicObject) {
    let resource = kind.api_resource();
    let api = if kind.is_cluster_scoped() {
        Api::all_with(fixture.admin.clone(), &resource)
    } else {
        Api::namespaced_with(fixture.admin.clone(), "umbra", &resource)
    };
    let name = until(&format!("a {}", kind.name()), async || {
        let all = api
            .list(&ListParams::default().labels("bulkhead.dev/tenant=umbra"))
            .await
            .unwrap();
        all.items
            .first()
            .map(ResourceExt::name_any)
            .ok_or_else(|| "none".to_owned())
    })
    .await;
    let object = api.get(&name).await.unwrap();
    (api, object)
}

/// The object without what changes at every write.
fn essence(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap();
    for field in [
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "generation",
        "managedFields",
    ] {
        value["metadata"].as_object_mut().unwrap().remove(field);
    }
    // Addresses are given anew.
    for field in ["clusterIP", "clusterIPs"] {
        value["spec"].as_object_mut().map(|spec| spec.remove(field));
    }
    value.as_object_mut().unwrap().remove("status");
    value
}

async fn restored(api: &Api<DynamicObject>, what: &str, before: &DynamicObject) {
    let wanted = essence(before);
    until(what, async || {
        let now = api
            .get_opt(&before.name_any())
            .await
            .unwrap()
            .ok_or("it is not there")?;
        let strangers: Vec<_> = now
            .metadata
            .managed_fields
            .iter()
            .flatten()
            .filter(|entry| entry.subresource.is_none())
            .filter_map(|entry| entry.manager.clone())
            .filter(|manager| manager == "stranger")
            .collect();
        let found = essence(&now);
        if found == wanted && strangers.is_empty() {
            Ok(())
        } else {
            Err(format!("{found}\n{wanted}\n{strangers:?}"))
        }
    })
    .await;
}

/// A change of each kind's content by a stranger.
fn edit(kind: Kind) -> Value {
    match kind {
        Kind::Namespace => {
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}})
        }
        Kind::ResourceQuota => json!({"spec": {"hard": {"pods": "1000"}}}),
        Kind::LimitRange => json!({"spec": {"limits": []}}),
        Kind::ServiceAccount => json!({"automountServiceAccountToken": true}),
        Kind::RoleBinding | Kind::ClusterRoleBinding => {
            json!({"subjects": [{"kind": "Group", "name": "everybody", "apiGroup": "rbac.authorization.k8s.io"}]})
        }
        Kind::ClusterRole => {
            json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]})
        }
        Kind::NetworkPolicy => json!({"spec": {"ingress": [{}], "egress": [{}]}}),
        Kind::Issuer => json!({"spec": {"selfSigned": null, "ca": {"secretName": "mine"}}}),
        Kind::Certificate => json!({"spec": {"dnsNames": ["evil.example.com"]}}),
        Kind::ConfigMap => json!({"data": {"ca.pem": "mine", "policy.json": "mine"}}),
        Kind::Service => json!({"spec": {"selector": {"app": "mine"}}}),
        Kind::PodDisruptionBudget => json!({"spec": {"maxUnavailable": 2}}),
        Kind::Deployment => json!({"spec": {"replicas": 0}}),
        Kind::PersistentVolumeClaim
        | Kind::CertificateRequest
        | Kind::Pod
        | Kind::RuntimeClass
        | Kind::Node
        | Kind::ServiceCidr
        | Kind::EndpointSlice => json!({}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_child_is_restored() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    made(&fixture, Kind::Deployment).await;
    fixture.until_quiet().await;
    let stranger = PatchParams {
        field_manager: Some("stranger".into()),
        ..PatchParams::default()
    };
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_child()) {
        let (api, before) = made(&fixture, kind).await;
        let name = before.name_any();
        let about = |what: &str| format!("{} {name}: {what}", kind.name());

        if kind != Kind::PersistentVolumeClaim {
            api.patch(&name, &stranger, &Patch::Merge(&edit(kind)))
                .await
                .unwrap();
            restored(&api, &about("edited"), &before).await;
            let added =
                json!({"metadata": {"annotations": {"stranger": "was here"}, "labels": {"stranger": "x"}}});
            api.patch(&name, &stranger, &Patch::Merge(&added)).await.unwrap();
            restored(&api, &about("added to"), &before).await;
            // Under our own name, by apply: only what the name owns tells.
            let mut forged = json!({
                "apiVersion": before.types.as_ref().unwrap().api_version, "kind": kind.name(),
                "metadata": {"name": name, "annotations": {"stranger": "as the operator"}},
            });
            if matches!(kind, Kind::RoleBinding | Kind::ClusterRoleBinding) {
                forged["roleRef"] = before.data["roleRef"].clone();
            }
            if matches!(kind, Kind::ClusterRole | Kind::ClusterRoleBinding) {
                // Without its owner it would be nobody's.
                forged["metadata"]["ownerReferences"] = json!(before.metadata.owner_references);
            }
            if !matches!(
                kind,
                Kind::Deployment | Kind::Certificate | Kind::Issuer | Kind::Service | Kind::NetworkPolicy
            ) {
                let ours = PatchParams::apply("bulkhead-operator").force();
                api.patch(&name, &ours, &Patch::Apply(&forged)).await.unwrap();
                restored(&api, &about("applied under our name"), &before).await;
            }
        }
        let stripped = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
        api.patch(&name, &stranger, &Patch::Merge(&stripped))
            .await
            .unwrap();
        if kind != Kind::PersistentVolumeClaim {
            restored(&api, &about("stripped of its label"), &before).await;
        }
        if !matches!(kind, Kind::Namespace | Kind::PersistentVolumeClaim) {
            api.delete(&name, &DeleteParams::background()).await.unwrap();
            restored(&api, &about("deleted"), &before).await;
        }
    }

    // What proves that a namespace is ours can be taken from it, not from the tenant's status.
    let (namespaces, before) = made(&fixture, Kind::Namespace).await;
    let orphaned = json!({"metadata": {"ownerReferences": null}});
    namespaces
        .patch("umbra", &stranger, &Patch::Merge(&orphaned))
        .await
        .unwrap();
    restored(&namespaces, "a namespace without its owner", &before).await;

    added_objects_are_removed(&fixture).await;

    // By now it has done everything that it ever does, but for the end, which an agent's pod sees too.
    let pods: Api<DynamicObject> =
        Api::namespaced_with(fixture.admin.clone(), "umbra-agents", &Kind::Pod.api_resource());
    pods.patch("agent", &PatchParams::apply("test"), &Patch::Apply(&agent_pod()))
        .await
        .unwrap();
    let tenants: Api<McpTenant> = Api::all(fixture.admin.clone());
    tenants.delete("umbra", &DeleteParams::default()).await.unwrap();
    until("the tenant is gone", async || {
        match fixture.tenant("umbra").await {
            None => Ok(()),
            Some(tenant) => Err(serde_json::to_string(&tenant.status).unwrap()),
        }
    })
    .await;
    operator.stop().await;
    rights::used_is_granted(&fixture).await;
}

async fn added_objects_are_removed(fixture: &Fixture) {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "open"},
        "spec": {"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]},
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "open"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "Group", "name": "everybody", "apiGroup": "rbac.authorization.k8s.io"}],
    });
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}});
    for namespace in ["umbra", "umbra-agents"] {
        for (kind, object) in [(Kind::NetworkPolicy, &policy), (Kind::RoleBinding, &binding)] {
            let api: Api<DynamicObject> =
                Api::namespaced_with(fixture.admin.clone(), namespace, &kind.api_resource());
            let object = serde_json::from_value(object.clone()).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap();
            until(
                &format!("an added {} in {namespace} is removed", kind.name()),
                async || {
                    let found = api.get_opt("open").await.unwrap();
                    if found.is_none() {
                        Ok(())
                    } else {
                        Err("still there".to_owned())
                    }
                },
            )
            .await;
        }
        // Elsewhere, and of another kind, a stranger's objects are its own.
        let api: Api<DynamicObject> =
            Api::namespaced_with(fixture.admin.clone(), namespace, &Kind::ConfigMap.api_resource());
        api.create(
            &PostParams::default(),
            &serde_json::from_value(config_map.clone()).unwrap(),
        )
        .await
        .unwrap();
    }
    let elsewhere: Api<DynamicObject> = Api::namespaced_with(
        fixture.admin.clone(),
        "databases",
        &Kind::NetworkPolicy.api_resource(),
    );
    elsewhere
        .create(&PostParams::default(), &serde_json::from_value(policy).unwrap())
        .await
        .unwrap();
    fixture.until_quiet().await;
    assert!(elsewhere.get_opt("open").await.unwrap().is_some());

    // What the tenant no longer is goes; what it stored stays.
    let mut smaller = tenant("umbra", "u-1");
    smaller["spec"]["servers"].as_array_mut().unwrap().truncate(1);
    smaller["spec"]["servers"][0]["replicas"] = 1.into();
    for people in ["admins", "developers"] {
        smaller["spec"][people] = json!([]);
    }
    fixture.apply(&smaller).await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    until("the Deployment of a server that was taken out goes", async || {
        let found = deployments.get_opt("files").await.unwrap();
        if found.is_none() {
            Ok(())
        } else {
            Err("still there".to_owned())
        }
    })
    .await;
    for kind in [Kind::ClusterRoleBinding, Kind::ClusterRole] {
        let api: Api<DynamicObject> = Api::all_with(fixture.admin.clone(), &kind.api_resource());
        until(
            "the people's last way to read the tenant goes",
            async || match api.get_opt("bulkhead:tenant:view:umbra").await.unwrap() {
                None => Ok(()),
                Some(_) => Err(format!("there is still a {}", kind.name())),
            },
        )
        .await;
    }
    fixture.until_quiet().await;
    let claims = fixture.api("", "PersistentVolumeClaim", Some("umbra"));
    assert!(claims.get_opt("files-data").await.unwrap().is_some());
    assert!(
        fixture
            .api("", "ConfigMap", Some("umbra"))
            .get_opt("theirs")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_behind_a_wall_that_does_not_stay_as_it_was_applied() {
    let fixture = Fixture::start().await;
    let meddling = json!({
        "metadata": {"name": "meddling"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["networkpolicies"],
            }]},
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
                "expression": "[JSONPatch{op: 'add', path: '/spec/podSelector/matchLabels', value: {'meddled': 'with'}}]",
            }}],
        },
    });
    let policies: Api<MutatingAdmissionPolicy> = Api::all(fixture.admin.clone());
    let meddling = serde_json::from_value(meddling).unwrap();
    policies.create(&PostParams::default(), &meddling).await.unwrap();
    let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(fixture.admin.clone());
    let binding = json!({"metadata": {"name": "meddling"}, "spec": {"policyName": "meddling"}});
    let binding = serde_json::from_value(binding).unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let elsewhere = fixture.api("networking.k8s.io", "NetworkPolicy", Some("databases"));
    until("the mutation is in force", async || {
        let closed = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        });
        let dry_run = PatchParams {
            dry_run: true,
            ..PatchParams::apply("test")
        };
        let closed = elsewhere
            .patch("closed", &dry_run, &Patch::Apply(&closed))
            .await
            .map_err(|error| error.to_string())?;
        closed.data["spec"]["podSelector"]
            .get("matchLabels")
            .map(drop)
            .ok_or_else(|| "not yet".to_owned())
    })
    .await;

    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "Ready", "False", "ReconcileFailed")
        .await;
    let status = serde_json::to_string(&fixture.tenant("umbra").await.unwrap().status).unwrap();
    assert!(status.contains("NetworkPolicy umbra"), "it says which: {status}");
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    assert!(
        deployments
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );

    bindings
        .delete("meddling", &DeleteParams::default())
        .await
        .unwrap();
    made(&fixture, Kind::Deployment).await;
    operator.stop().await;
}
