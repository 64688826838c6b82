//! One database role for all tenants: what forced arguments alone stop, and what they don't.

use bulkhead_e2e::{Agent, Ledger, Tenant, call_message, exec, objects, samples, tenant};
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

/// A vector search over all tenants' chunks that forgets to ask whose: with an ownership filter nothing of others comes.
#[test]
fn an_ownership_filter_keeps_a_forgetful_vector_search_clean() {
    samples();
    let mut spec = tenant("searching");
    let mut server = spec["spec"]["servers"][0].clone();
    let owned = json!({"path": "$.notes", "field": "tenant_id", "equals": {"identity": "tenantId"}});
    server["tools"] = json!([
        {"name": "similar_notes", "roles": ["reader"], "results": {"owned": owned}},
        {"name": "export_all", "roles": ["auditor"]},
    ]);
    let mut open = server.clone();
    open["name"] = json!("open");
    open["tools"] = json!([{"name": "similar_notes", "roles": ["reader"]}]);
    spec["spec"]["servers"] = json!([server, open]);
    spec["spec"]["agents"] = json!([{"name": "billing", "roles": ["reader"]}]);
    let tenant = Tenant::ready(&spec);
    let billing = Agent::start("searching", "billing");
    let asked = json!({"text": "merger talks about the credit limit", "limit": 4});

    let unfiltered = billing
        .call(&tenant.url_of("open"), "similar_notes", &asked)
        .unwrap();
    assert!(
        unfiltered.to_string().contains("2b61d6c4"),
        "the control: the server forgets to filter, and globex's chunks are the nearest: {unfiltered}"
    );
    let answer = billing.call(&tenant.url(), "similar_notes", &asked).unwrap();
    let structure = &answer["result"]["structuredContent"];
    let notes = structure["notes"].as_array().unwrap();
    assert!(!notes.is_empty(), "{answer}");
    assert!(
        notes.iter().all(|note| note["tenant_id"] == "id-of-searching"),
        "{answer}"
    );
    assert!(structure.get("total").is_none(), "{answer}");
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(text).unwrap(),
        *structure,
        "the text says the same"
    );
    for foreign in ["2b61d6c4", "7f9c0d5e", "Merger talks are confidential"] {
        assert!(!answer.to_string().contains(foreign), "{answer}");
    }
}

#[test]
fn a_tenants_own_role_confines_even_a_leaky_tool() {
    samples();
    // acme's policy doesn't list export_all; this asks the database as acme's server would.
    let databases = objects("pods", "databases", "app=postgres").unwrap();
    let select = [
        "psql",
        "-h",
        "127.0.0.1",
        "postgres://acme_ledger:acme_ledger@127.0.0.1/ledger",
        "-Atc",
        "select distinct tenant_id from invoices",
    ];
    let database = databases[0]["metadata"]["name"].as_str().unwrap();
    let rows = exec("databases", database, &select).unwrap();
    assert_eq!(
        rows.trim(),
        "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001",
        "row-level security shows acme its own rows only"
    );
}
