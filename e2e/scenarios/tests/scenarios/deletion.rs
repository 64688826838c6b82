//! A tenant is deleted: nothing of it is left, and the other never noticed.

use anyhow::anyhow;
use bulkhead_e2e::{Agent, Tenant, call_message, delete, eventually, gone, object, objects, samples, tenant};
use serde_json::json;

#[test]
fn a_deleted_tenant_leaves_nothing_and_disturbs_nobody() {
    let [_, globex] = samples();
    let body = call_message("list_invoices", Some(&json!({})));
    let claims = || {
        objects("configmaps", "bulkhead-system", "").map(|claims| {
            claims
                .iter()
                .filter(|item| item.to_string().contains("leaving"))
                .count()
        })
    };
    let leaving = Tenant::ready(&tenant("leaving"));
    assert!(
        claims().unwrap() >= 3,
        "the identity and both namespaces are claimed"
    );
    Agent::start("leaving", "billing")
        .tools(&leaving.url())
        .expect("it works before");

    let load = Agent::load("globex", "billing", &globex.url, &body, "\"result\"");
    delete("mcptenant", "", "leaving").unwrap();
    eventually("the tenant gone", || gone("mcptenant", "", "leaving"));
    for namespace in ["leaving", "leaving-agents"] {
        gone("namespace", "", namespace).unwrap();
    }
    assert_eq!(claims().unwrap(), 0, "its claims are released");
    let report = load.end();
    assert_eq!(report["failed"], 0, "{report}");
}

#[test]
fn what_a_deleted_tenant_held_can_be_claimed_again() {
    let first = Tenant::ready(&tenant("reborn"));
    let identity = object("mcptenant", "", &first.name).unwrap()["spec"]["identity"].clone();
    delete("mcptenant", "", "reborn").unwrap();
    eventually("the first one gone", || gone("mcptenant", "", "reborn"));
    let mut again = tenant("reborn");
    again["spec"]["identity"] = identity;
    let again = Tenant::ready(&again);
    eventually("the new one answers", || {
        let answer = Agent::start("reborn", "billing").tools(&again.url())?;
        if answer.is_empty() {
            Err(anyhow!("no tools"))
        } else {
            Ok(())
        }
    });
}
