//! What a tenant must hold alone.

use kube::api::{ListParams, PostParams};
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
