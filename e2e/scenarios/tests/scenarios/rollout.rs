//! Pods of a server are replaced one after the other, sidecar and server together, while calls flow.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use bulkhead_e2e::{Agent, Tenant, apply, call_message, eventually, objects, tenant};
use serde_json::json;

/// UIDs of the server's pods that are there, those that are on their way out too.
fn pods(tenant: &str) -> Result<BTreeSet<String>> {
    let pods = objects("pods", tenant, "bulkhead.dev/server=ledger")?;
    let uids = pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str());
    Ok(uids.map(str::to_owned).collect())
}

#[test]
fn no_call_fails_while_pods_are_replaced() {
    for replicas in [1, 2] {
        let name = format!("rolling-{replicas}");
        let mut spec = tenant(&name);
        spec["spec"]["quota"]["pods"] = json!(8);
        spec["spec"]["servers"][0]["replicas"] = json!(replicas);
        let rolling = Tenant::ready(&spec);
        let body = call_message("list_invoices", Some(&json!({})));
        let load = Agent::load(&name, "billing", &rolling.url(), &body, "\"result\"");
        for release in ["second", "third"] {
            let before = pods(&name).unwrap();
            assert_eq!(before.len(), replicas);
            let ok = load.so_far().unwrap()["ok"].as_u64();
            let env = &mut spec["spec"]["servers"][0]["env"];
            env.as_array_mut()
                .unwrap()
                .retain(|variable| variable["name"] != "RELEASE");
            env.as_array_mut()
                .unwrap()
                .push(json!({"name": "RELEASE", "value": release}));
            apply(&spec).unwrap();
            eventually(&format!("{release}: other pods, and none of before"), || {
                let now = pods(&name)?;
                ensure!(
                    now.len() == replicas && now.is_disjoint(&before),
                    "{now:?}, before {before:?}"
                );
                Ok(())
            });
            eventually("calls by the new ones", || {
                let report = load.so_far()?;
                ensure!(report["ok"].as_u64() > ok.map(|ok| ok + 50), "{report}");
                Ok(())
            });
        }
        let report = load.end();
        assert_eq!(report["failed"], 0, "{replicas}: {report}");
    }
}
