//! The `Sandbox` tier: under an unknown runtime class nothing is made; under gVisor calls work.

use anyhow::{Result, bail};
use bulkhead_e2e::{Agent, Kubectl, Tenant, condition, eventually, gone, object, objects, setting, tenant};
use serde_json::json;

#[test]
fn an_unknown_runtime_class_is_refused_with_a_condition_and_nothing_is_made() {
    let mut spec = tenant("nowhere");
    spec["spec"]["isolation"] = json!({"tier": "Sandbox", "sandbox": {"runtimeClassName": "no-such-class"}});
    let refused = Tenant::applied(&spec);
    let message = eventually("a refusal", || -> Result<String> {
        let tenant = object("mcptenant", "", &refused.name)?;
        match condition(&tenant, "Accepted") {
            Some(accepted) if accepted["status"] == "False" => Ok(accepted.to_string()),
            _ => bail!("{}", tenant["status"]),
        }
    });
    assert!(message.contains("no-such-class"), "{message}");
    gone("namespace", "", "nowhere").unwrap();
}

#[test]
fn with_gvisor_the_tenants_pods_run_under_it_and_calls_work() {
    let mut spec = tenant("sandboxed");
    spec["spec"]["isolation"] = json!({"tier": "Sandbox", "sandbox": {"runtimeClassName": "gvisor"}});
    let witness = json!({
        "name": "witness", "image": setting("BULKHEAD_E2E_IMAGE_PROBE"), "args": ["listen", "--mcp", "3000"], "http": {"port": 3000},
    });
    spec["spec"]["servers"].as_array_mut().unwrap().push(witness);
    let tenant = Tenant::ready(&spec);
    for pod in objects("pods", "sandboxed", "").unwrap() {
        assert_eq!(
            pod["spec"]["runtimeClassName"], "gvisor",
            "{}",
            pod["metadata"]["name"]
        );
    }

    let agent = Agent::start("sandboxed", "billing");
    let answer = agent
        .call(&tenant.url(), "list_invoices", &json!({"limit": 3}))
        .unwrap();
    assert!(answer.get("result").is_some(), "{answer}");

    let nodes = objects("nodes", "", "").unwrap();
    let nodes_kernel = nodes[0]["status"]["nodeInfo"]["kernelVersion"].as_str().unwrap();
    let exec = [
        "exec",
        "-n",
        "sandboxed",
        "deploy/witness",
        "-c",
        "server",
        "--",
        "/usr/local/bin/bulkhead-probe",
        "kernel",
    ];
    let kernel = Kubectl::break_glass().run(&exec).unwrap();
    assert!(kernel.contains("version"), "{kernel}");
    assert!(
        !kernel.contains(nodes_kernel),
        "a kernel of its own, not the node's: {kernel}"
    );
}
