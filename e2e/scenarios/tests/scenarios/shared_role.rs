//! One database role for all tenants: what forced arguments alone stop, and what they don't.

use bulkhead_e2e::{Agent, Ledger, Tenant, call_message, samples, tenant};
use serde_json::json;

const GLOBEX: &str = "2b61d6c4-58f0-4b9c-8f7e-6f0c5d7e0002";

#[test]
fn forced_arguments_hold_even_over_a_shared_role_but_a_leaky_tool_leaks() {
    samples();
    let mut spec = tenant("sharing");
    let mut leaky = spec["spec"]["servers"][0].clone();
    leaky["tools"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "export_all", "roles": ["auditor"]}));
    spec["spec"]["servers"] = json!([leaky]);
    spec["spec"]["agents"] = json!([
        {"name": "billing", "roles": ["reader"]},
        {"name": "auditor", "roles": ["auditor"]},
    ]);
    let tenant = Tenant::ready(&spec);

    // Stopped: asking for another tenant's rows through a tool with a forced argument.
    let billing = Agent::start("sharing", "billing");
    let answer = billing
        .call(
            &tenant.url(),
            "list_invoices",
            &json!({"tenant_id": GLOBEX, "status": "mark-shared"}),
        )
        .unwrap();
    assert!(!answer.to_string().contains("globex"), "{answer}");
    let asked = Ledger::of("sharing").asked_times("mark-shared", 1);
    assert_eq!(asked[0]["arguments"]["tenant_id"], "id-of-sharing");

    // Not stopped: a tool that takes no tenant and reads everything its credentials allow. This is
    // why the samples give every tenant a database role of its own.
    let auditor = Agent::start("sharing", "auditor");
    let leak = auditor
        .rpc(&tenant.url(), &[call_message("export_all", Some(&json!({})))])
        .unwrap();
    assert!(
        leak[0].to_string().contains("globex"),
        "the control of the next assertion: {leak:?}"
    );
}

#[test]
fn a_tenants_own_role_confines_even_a_leaky_tool() {
    samples();
    // acme's policy doesn't list export_all; this asks the database as acme's server would.
    let rows = bulkhead_e2e::Kubectl::admin()
        .run(&[
            "exec",
            "-n",
            "databases",
            "deploy/postgres",
            "--",
            "psql",
            "-h",
            "127.0.0.1",
            "postgres://acme_ledger:acme_ledger@127.0.0.1/ledger",
            "-Atc",
            "select distinct tenant_id from invoices",
        ])
        .unwrap();
    assert_eq!(
        rows.trim(),
        "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001",
        "row-level security shows acme its own rows only"
    );
}
