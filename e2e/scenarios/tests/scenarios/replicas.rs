//! Two replicas of one server: to an agent they are one.

use anyhow::{Result, ensure};
use bulkhead_e2e::{Agent, PROOF, Tenant, call_message, eventually, objects, said, tenant};
use serde_json::{Value, json};

/// The decisions about this tool that each pod has recorded.
fn decided(pods: &[Value], tool: &str) -> Result<Vec<usize>> {
    let decided = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let records = said("twofold", name, "bulkhead-proxy")?;
        let about = records
            .iter()
            .filter(|record| record["record"] == "decision" && record["tool"] == tool);
        Ok(about.count())
    };
    pods.iter().map(decided).collect()
}

#[test]
fn a_session_goes_on_whichever_replica_is_asked() {
    let mut spec = tenant("twofold");
    spec["spec"]["servers"][0]["replicas"] = json!(2);
    let tenant = Tenant::ready(&spec);
    let agent = Agent::start("twofold", "billing");
    let pods = objects("pods", "twofold", "bulkhead.dev/server=ledger").unwrap();
    assert_eq!(pods.len(), 2);
    let addresses: Vec<String> = pods
        .iter()
        .map(|pod| format!("{}:8443", pod["status"]["podIP"].as_str().unwrap()))
        .collect();

    let call = call_message("list_invoices", Some(&json!({}))).to_string();
    let url = tenant.url();
    let mut args = vec!["rpc", "--url", &url];
    args.extend(PROOF);
    args.extend(addresses.iter().flat_map(|address| ["--via", address.as_str()]));
    args.extend([call.as_str(); 6]);
    let answers = agent.probe(&args).unwrap();
    assert_eq!(answers.len(), 6);
    for answer in &answers {
        assert!(answer["body"]["result"].is_object(), "{answer}");
    }
    // The session lives in one of them, and is recorded there.
    eventually("six records in one replica", || {
        let mut counts = decided(&pods, "list_invoices")?;
        counts.sort_unstable();
        ensure!(counts == [0, 6], "{counts:?}");
        Ok(())
    });
}
