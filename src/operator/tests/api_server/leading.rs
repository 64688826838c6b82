//! Two replicas, one leader.

use std::process::Command;

use bulkhead_cluster::ApiServer;
use bulkhead_operator::{lease, run::Ended};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, tenant, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_leader_that_goes_and_a_leader_that_lost_the_lease_ends() {
    let fixture = Fixture::start().await;
    let leases: Api<Lease> = Api::namespaced(fixture.admin.clone(), NAMESPACE);
    let held_by = async |identity: &str| {
        until(&format!("{identity} leads"), async || {
            let holder = leases
                .get_opt(lease::NAME)
                .await
                .unwrap()
                .and_then(|lease| lease.spec?.holder_identity);
            if holder.as_deref() == Some(identity) {
                Ok(())
            } else {
                Err(format!("{holder:?}"))
            }
        })
        .await;
    };
    let first = fixture.operator(&["--identity", "first"]).await;
    held_by("first").await;
    let second = fixture.operator(&["--identity", "second"]).await;
    first.stop().await;
    held_by("second").await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;

    let taken = json!({"spec": {"holderIdentity": "third"}});
    leases
        .patch(lease::NAME, &PatchParams::default(), &Patch::Merge(&taken))
        .await
        .unwrap();
    let ended = second.ended().await;
    assert!(matches!(ended, Err(Ended::Lost(_))), "{ended:?}");
}

#[test]
fn without_the_apis_that_it_needs_the_program_says_what_to_install() {
    let server = ApiServer::start().unwrap();
    let mut operator = Command::new(env!("CARGO_BIN_EXE_bulkhead-operator"));
    operator
        .args(["--listen", "127.0.0.1:0"])
        .env("KUBECONFIG", server.kubeconfig_path());
    let output = operator.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("kubectl apply --server-side -f crds/"),
        "{told}"
    );
}
