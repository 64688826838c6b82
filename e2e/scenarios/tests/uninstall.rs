//! Upgrade and uninstall of the chart: tenants survive both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a scenario fails by panicking"
)]

use anyhow::bail;
use bulkhead_e2e::{Agent, Kubectl, call_message, eventually, object, objects, samples, setting};
use serde_json::{Value, json};

fn helm(args: &[&str]) {
    let outcome = Kubectl::helm(&[&["-n", "bulkhead-system"], args].concat()).unwrap();
    assert!(outcome.ok, "helm {args:?}: {}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn tenants_and_their_calls_survive_an_upgrade_an_uninstall_and_a_new_install() {
    let [acme, _] = samples();
    let body = call_message("list_invoices", Some(&json!({})));
    let uid = || object("mcptenant", "", "acme").map(|tenant| tenant["metadata"]["uid"].clone());
    let before: Value = uid().unwrap();
    let chart = setting("BULKHEAD_E2E_CHART");
    let values = setting("BULKHEAD_E2E_VALUES");

    let load = Agent::load("acme", "billing", &acme.url, &body, "\"result\"");
    helm(&[
        "upgrade",
        "bulkhead",
        &chart,
        "-f",
        &values,
        "--set",
        "operator.resync=7m",
        "--wait",
        "--timeout=3m",
    ]);
    helm(&["uninstall", "bulkhead", "--wait", "--timeout=3m"]);
    eventually("no operator", || match objects("pods", "bulkhead-system", "")? {
        pods if pods.is_empty() => Ok(()),
        pods => bail!("{pods:?}"),
    });
    assert_eq!(uid().unwrap(), before, "the tenant is still there");
    let agent = Agent::start("acme", "ops");
    agent
        .tools(&acme.url)
        .expect("and takes calls without an operator");
    agent
        .dial("ledger.globex.svc:8443")
        .expect_err("and its walls stand");

    helm(&[
        "install",
        "bulkhead",
        &chart,
        "-f",
        &values,
        "--wait",
        "--timeout=3m",
    ]);
    eventually("Ready again", || {
        let tenant = object("mcptenant", "", "acme")?;
        match bulkhead_e2e::condition(&tenant, "Ready") {
            Some(ready) if ready["status"] == "True" => Ok(()),
            ready => bail!("{ready:?}"),
        }
    });
    assert_eq!(uid().unwrap(), before);
    let report = load.end();
    assert_eq!(report["failed"], 0, "{report}");
}
