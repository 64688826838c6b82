//! A quota that a tenant has filled takes nothing from what is Bulkhead's, and says so where it does stop something.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, agent_pod, tenant, until};

/// What a tenant's people may have of each kind beside what is Bulkhead's.
const SHARE: usize = 64;

/// Makes one object; how it was refused.
async fn make(fixture: &Fixture, group: &str, namespace: &str, object: &Value) -> Result<(), String> {
    let api = fixture.api(group, object["kind"].as_str().unwrap(), Some(namespace));
    let object = serde_json::from_value(object.clone()).unwrap();
    let made = api.create(&PostParams::default(), &object).await;
    made.map(drop).map_err(|error| error.to_string())
}

/// Makes so many objects of a kind under names of their own.
async fn fill(fixture: &Fixture, namespace: &str, kind: &str, name: &str, count: usize) {
    for number in 0..count {
        let object =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": format!("{name}-{number}")}});
        // The quota's first count takes a moment.
        until(&format!("{kind} {name}-{number} in {namespace}"), async || {
            make(fixture, "", namespace, &object).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_share_leaves_room_for_what_is_bulkheads() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    let there = |name: &'static str| {
        let deployments = deployments.clone();
        async move {
            until(&format!("Deployment {name}"), async || {
                let found = deployments.get_opt(name).await.unwrap();
                found.map(drop).ok_or_else(|| "not there".to_owned())
            })
            .await;
        }
    };
    there("notes").await;
    there("files").await;
    for namespace in ["umbra", "umbra-agents"] {
        for kind in ["Secret", "ConfigMap"] {
            fill(&fixture, namespace, kind, "theirs", SHARE).await;
        }
        // The CA's and each leaf's, and the next key of each.
        let leaves = if namespace == "umbra" { 2 } else { 1 };
        fill(&fixture, namespace, "Secret", "issued", 2 * (leaves + 1)).await;
    }

    // What is Bulkhead's comes back, and a server more is a server whole.
    let config_maps = fixture.api("", "ConfigMap", Some("umbra"));
    for lost in ["notes-policy", "bulkhead-trust"] {
        let before = config_maps.get(lost).await.unwrap().metadata.uid;
        config_maps.delete(lost, &DeleteParams::default()).await.unwrap();
        until(&format!("{lost} is back"), async || {
            let now = config_maps
                .get_opt(lost)
                .await
                .unwrap()
                .and_then(|now| now.metadata.uid);
            if now.is_some() && now != before {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
    }
    let mut renamed = tenant("umbra", "u-1");
    renamed["spec"]["servers"][0]["name"] = "books".into();
    renamed["spec"]["servers"][1]["volumes"][0]["name"] = "other".into();
    fixture.apply(&renamed).await;
    there("books").await;
    // What the volume of another name stored is still there, and takes nothing from this one.
    let claims = fixture.api("", "PersistentVolumeClaim", Some("umbra"));
    for claim in ["files-data", "files-other"] {
        until(claim, async || {
            let found = claims.get_opt(claim).await.unwrap();
            found.map(drop).ok_or_else(|| "not there".to_owned())
        })
        .await;
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_developers_run_is_bounded_in_every_way() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    let mut small = tenant("umbra", "u-1");
    small["spec"]["quota"] = json!({"cpu": "4", "memory": "4Gi", "ephemeralStorage": "1Gi", "pods": 3});
    fixture.apply(&small).await;
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    let agents = "umbra-agents";
    let mut greedy = agent_pod();
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "1025Mi"}});
    let container = agent_pod()["spec"]["containers"][0].clone();
    let workload = |kind: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "x"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "x", "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]},
            }},
        })
    };
    for (group, object, resource) in [
        ("", greedy, "limits.ephemeral-storage"),
        ("apps", workload("StatefulSet"), "count/statefulsets.apps"),
        ("apps", workload("DaemonSet"), "count/daemonsets.apps"),
    ] {
        until(&format!("{resource} is refused"), async || {
            match make(&fixture, group, agents, &object).await {
                Err(error) if error.contains("exceeded quota") && error.contains(resource) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    until("a pod within it is taken", async || {
        make(&fixture, "", agents, &agent_pod()).await
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_have_ended_do_not_use_up_the_quota() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    let template = until("its Deployment is there", async || {
        let found = deployments.get_opt("notes").await.unwrap();
        found
            .map(|found| found.data["spec"]["template"].clone())
            .ok_or_else(|| "not there".to_owned())
    })
    .await;
    let pods = fixture.api("", "Pod", Some("umbra"));
    // As many at once as the promised pods and a rollout's are, and more over time than the quota counts of both.
    for number in 0..100 {
        let name = format!("evicted-{number}");
        let mut pod = template.clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = name.clone().into();
        until(&name, async || make(&fixture, "", "umbra", &pod).await).await;
        let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted"}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&evicted))
            .await
            .unwrap();
    }
    let mut running = template;
    running["apiVersion"] = "v1".into();
    running["kind"] = "Pod".into();
    running["metadata"]["name"] = "running".into();
    until("one more", async || make(&fixture, "", "umbra", &running).await).await;
    until("few of those that ended are left", async || {
        let left = pods
            .list(&ListParams::default().fields("status.phase=Failed"))
            .await
            .unwrap()
            .items
            .len();
        if left <= 16 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    assert!(pods.get_opt("running").await.unwrap().is_some());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_refuses_is_told() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    until("its Deployment is there", async || {
        let found = deployments.get_opt("notes").await.unwrap();
        found.map(drop).ok_or_else(|| "not there".to_owned())
    })
    .await;
    fixture.until_quiet().await;

    // A quota of somebody else's, beside Bulkhead's, and more servers than it takes.
    let narrow = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "narrow"},
        "spec": {"hard": {"count/deployments.apps": "2"}}});
    make(&fixture, "", "umbra", &narrow).await.unwrap();
    let quotas = fixture.api("", "ResourceQuota", Some("umbra"));
    until("it counts", async || {
        let quota = quotas.get("narrow").await.unwrap();
        let used = &quota.data["status"]["used"]["count/deployments.apps"];
        if used == "2" {
            Ok(())
        } else {
            Err(quota.data["status"].to_string())
        }
    })
    .await;
    let mut more = tenant("umbra", "u-1");
    let mut third = more["spec"]["servers"][0].clone();
    third["name"] = "more".into();
    more["spec"]["servers"].as_array_mut().unwrap().push(third);
    fixture.apply(&more).await;
    fixture
        .until_condition("umbra", "Ready", "False", "QuotaExceeded")
        .await;
    quotas.delete("narrow", &DeleteParams::default()).await.unwrap();
    until("the third is there", async || {
        let found = deployments.get_opt("more").await.unwrap();
        found.map(drop).ok_or_else(|| "not there".to_owned())
    })
    .await;

    // As the Deployment's controller tells that no pod can be made.
    let failing = json!({"status": {"conditions": [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too long"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: bulkhead"},
    ]}});
    fixture.until_quiet().await;
    deployments
        .patch_status("notes", &PatchParams::default(), &Patch::Merge(&failing))
        .await
        .unwrap();
    fixture
        .until_condition("umbra", "Ready", "False", "QuotaExceeded")
        .await;
    operator.stop().await;
}
