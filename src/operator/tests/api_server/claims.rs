//! What a tenant must hold alone.

use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::fixture::{Fixture, tenant, until};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tenants_with_one_identity_exactly_one_is_accepted() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    for round in 0..5 {
        let names = [format!("first{round}"), format!("second{round}")];
        let value = format!("shared-{round}");
        let tenants = [tenant(&names[0], &value), tenant(&names[1], &value)];
        tokio::join!(fixture.apply(&tenants[0]), fixture.apply(&tenants[1]));
        let loser = until("one is accepted and the other isn't", async || {
            let conditions = [
                fixture.condition(&names[0], "Accepted").await,
                fixture.condition(&names[1], "Accepted").await,
            ];
            let said = conditions
                .each_ref()
                .map(|said| said.as_ref().map(|(status, reason)| (&**status, &**reason)));
            match said {
                [Some(("True", _)), Some(("False", "IdentityTaken"))] => Ok(1),
                [Some(("False", "IdentityTaken")), Some(("True", _))] => Ok(0),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let status = fixture.tenant(&names[loser]).await.unwrap().status.unwrap();
        let told = serde_json::to_string(&status).unwrap();
        assert!(
            !told.contains(&names[1 - loser]),
            "the holder is never named: {told}"
        );
        assert!(
            fixture
                .api("", "Namespace", None)
                .get_opt(&names[loser])
                .await
                .unwrap()
                .is_none(),
            "nothing is built"
        );
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_exists_is_refused_and_left_alone() {
    let fixture = Fixture::start().await;
    let namespaces = fixture.api("", "Namespace", None);
    // With our labels on it, which prove nothing.
    let theirs = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "umbra-agents", "labels": {
        "app.kubernetes.io/managed-by": "bulkhead", "bulkhead.dev/tenant": "umbra",
    }}});
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(theirs).unwrap())
        .await
        .unwrap();
    let before = namespaces.get("umbra-agents").await.unwrap();
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "Accepted", "False", "NamespaceTaken")
        .await;
    fixture.until_quiet().await;
    assert_eq!(
        namespaces.get("umbra-agents").await.unwrap().metadata,
        before.metadata
    );
    assert!(namespaces.get_opt("umbra").await.unwrap().is_none());
    let policies = fixture.api("networking.k8s.io", "NetworkPolicy", Some("umbra-agents"));
    assert!(
        policies
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );

    // It goes, and the tenant comes.
    namespaces
        .delete("umbra-agents", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_tenant_comes_when_it_can_and_keeps_nobody_from_anything() {
    let fixture = Fixture::start().await;
    let namespaces = fixture.api("", "Namespace", None);
    // Without our labels, so that no watch tells its end.
    let theirs = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "penumbra-agents"}});
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(theirs).unwrap())
        .await
        .unwrap();
    let operator = fixture.operator(&["--resync", "1s"]).await;
    // A tenant of this name, whose namespace is somebody else's and stays a peer of others.
    let mut namesake = tenant("databases", "d-1");
    namesake["spec"]["servers"][0]["egress"] = json!([]);
    fixture.apply(&namesake).await;
    fixture.apply(&tenant("penumbra", "p-1")).await;
    for refused in ["databases", "penumbra"] {
        fixture
            .until_condition(refused, "Accepted", "False", "NamespaceTaken")
            .await;
    }
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    let dials_a_tenant = json!([{"to": {"namespace": "umbra", "podLabels": {"app": "x"}}, "ports": [443]}]);
    let mut other = tenant("antumbra", "a-1");
    other["spec"]["servers"][0]["egress"] = dials_a_tenant;
    fixture.apply(&other).await;
    fixture
        .until_condition("antumbra", "Accepted", "False", "ForbiddenPeer")
        .await;

    namespaces
        .delete("penumbra-agents", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    fixture
        .until_condition("penumbra", "Accepted", "True", "Valid")
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_a_tenant_from_being_looked_at_by_asking_without_end() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    // A ConfigMap of somebody else's that looks like a claim of the tenant and changes all the time.
    let config_maps = fixture.api("", "ConfigMap", Some("databases"));
    let flood = tokio::spawn(async move {
        for round in 0_u64.. {
            let lookalike = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lookalike", "labels": {
                    "app.kubernetes.io/managed-by": "bulkhead", "bulkhead.dev/claim": "tenantId",
                }},
                "data": {"tenant": "umbra", "uid": round.to_string()},
            });
            let parameters = PatchParams::apply("stranger");
            let _ = config_maps
                .patch("lookalike", &parameters, &Patch::Apply(&lookalike))
                .await;
        }
    });
    until("the flood has begun", async || {
        let lookalike = fixture
            .api("", "ConfigMap", Some("databases"))
            .get_opt("lookalike")
            .await;
        lookalike.unwrap().map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    flood.abort();
    operator.stop().await;
}
