//! The `Sandbox` tier: under an unknown runtime class nothing is made; under gVisor calls work.

use anyhow::{Result, bail};
use bulkhead_e2e::{Agent, Kubectl, Tenant, condition, eventually, tenant};
use serde_json::json;

#[test]
fn an_unknown_runtime_class_is_refused_with_a_condition_and_nothing_is_made() {
    let mut spec = tenant("nowhere");
    spec["spec"]["isolation"] = json!({"tier": "Sandbox", "sandbox": {"runtimeClassName": "no-such-class"}});
    let refused = Tenant::applied(&spec);
    let message = eventually("a refusal", || -> Result<String> {
        let tenant = Kubectl::admin().get(&["mcptenant", &refused.name])?;
        match condition(&tenant, "Accepted") {
            Some(accepted) if accepted["status"] == "False" => Ok(accepted.to_string()),
            _ => bail!("{}", tenant["status"]),
        }
    });
    assert!(message.contains("no-such-class"), "{message}");
    let outcome = Kubectl::admin()
        .outcome(&["get", "namespace", "nowhere"], None)
        .unwrap();
    assert!(outcome.stderr.contains("NotFound"), "{outcome:?}");
}

#[test]
fn with_gvisor_the_tenants_pods_run_under_it_and_calls_work() {
    let mut spec = tenant("sandboxed");
    spec["spec"]["isolation"] = json!({"tier": "Sandbox", "sandbox": {"runtimeClassName": "gvisor"}});
    let tenant = Tenant::ready(&spec);
    let pods = Kubectl::admin().get(&["pods", "-n", "sandboxed"]).unwrap();
    for pod in pods["items"].as_array().unwrap() {
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
    let kernel = Kubectl::admin()
        .run(&[
            "exec",
            "-n",
            "sandboxed",
            "deploy/ledger",
            "-c",
            "server",
            "--",
            "/usr/local/bin/ledger-mcp",
            "kernel",
        ])
        .unwrap();
    assert!(
        kernel.contains("4.4.0") || kernel.to_lowercase().contains("gvisor"),
        "gVisor's kernel: {kernel}"
    );
}
