//! A declared target that is taken back.

use anyhow::{Result, bail};
use bulkhead_e2e::{Dialler, Open, Tenant, apply, eventually, record};
use serde_json::json;

#[test]
fn a_target_that_is_no_longer_declared_is_left_also_by_who_was_connected() {
    let target = Open::target("declared");
    let mut spec = Dialler::tenant("narrowed", 1, &["--hold", &target.address]);
    let declared = json!([{"to": {"namespace": "open", "podLabels": {"bulkhead.dev/agent": "default"}}, "ports": [7000]}]);
    spec["spec"]["servers"][0]["egress"] = declared;
    let _tenant = Tenant::ready(&spec);
    let dialler = Dialler::of("narrowed");
    let pods = dialler.new_pods(1, &[]);
    eventually("the declared target is connected", || -> Result<()> {
        let said = dialler.said(&pods[0])?;
        if said.iter().any(|line| line["held"] == *target.address) {
            return Ok(());
        }
        bail!("{said:?}")
    });
    eventually("as the target saw", || match target.came() {
        came if came.contains(&pods[0].ip) => Ok(()),
        came => bail!("{came:?}"),
    });

    spec["spec"]["servers"][0]["egress"] = json!([]);
    apply(&spec).unwrap();
    let new = dialler.new_pods(1, &pods);
    eventually("the connection from before has ended", || -> Result<()> {
        if target.ended(&pods[0].ip)? {
            Ok(())
        } else {
            bail!("it is still there")
        }
    });
    let came = target.came_until("beside-narrowed");
    assert!(!came.contains(&new[0].ip), "and there is no new one: {came:?}");
    record(
        "NetworkPolicies, rollout",
        "a connection to a target that is no longer declared",
        "ends, and no new one is made",
        "was made while it was declared",
    );
}
