//! A tool that isn't listed, or is another role's, is neither visible nor callable.

use bulkhead_e2e::{Agent, Ledger, samples};
use serde_json::{Value, json};

fn names(tools: &[Value]) -> Vec<&str> {
    let mut names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn each_role_sees_its_tools_and_nobody_the_unlisted_one() {
    let [acme, _] = samples();
    let billing = Agent::start("acme", "billing").tools(&acme.url).unwrap();
    let ops = Agent::start("acme", "ops").tools(&acme.url).unwrap();
    assert_eq!(names(&billing), ["get_invoice", "list_invoices", "search_notes"]);
    assert_eq!(
        names(&ops),
        ["delete_invoice", "get_invoice", "list_invoices", "search_notes"]
    );
}

#[test]
fn a_hidden_tool_and_one_that_does_not_exist_answer_alike_and_reach_nobody() {
    let [acme, _] = samples();
    let agent = Agent::start("acme", "billing");
    let answer = |tool: &str| {
        let arguments = json!({"invoice_id": "mark-hidden"});
        agent
            .call(&acme.url, tool, &arguments)
            .unwrap()
            .to_string()
            .replace(tool, "TOOL")
    };
    let unknown = answer("no_such_tool");
    assert!(unknown.contains("error"), "{unknown}");
    assert_eq!(answer("delete_invoice"), unknown, "another role's");
    assert_eq!(answer("export_all"), unknown, "the server's, but not listed");
    agent
        .call(&acme.url, "search_notes", &json!({"query": "mark-after"}))
        .unwrap();
    Ledger::of("acme").asked_times("mark-after", 1);
    assert!(
        Ledger::of("acme").asked("mark-hidden").unwrap().is_empty(),
        "the server saw nothing"
    );

    for tool in ["delete_invoice", "export_all"] {
        Ledger::of("acme").recorded(tool, |record| {
            record["tool"] == tool && record["agent"] == "billing" && record["decision"] == "refuse"
        });
    }
}

#[test]
fn the_role_that_has_the_tool_can_call_it() {
    let [acme, _] = samples();
    let ops = Agent::start("acme", "ops");
    let answer = ops
        .call(
            &acme.url,
            "delete_invoice",
            &json!({"invoice_id": "mark-allowed"}),
        )
        .unwrap();
    assert!(answer.get("result").is_some(), "{answer}");
    assert_eq!(Ledger::of("acme").asked_times("mark-allowed", 1).len(), 1);
}
