//! Forced arguments: what the server is asked, whatever the caller says.

use bulkhead_e2e::{Agent, Ledger, call_message, samples};
use serde_json::{Value, json};

const ACME: &str = "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001";
const GLOBEX: &str = "2b61d6c4-58f0-4b9c-8f7e-6f0c5d7e0002";

#[test]
fn the_tenant_is_forced_whatever_the_caller_gives() {
    let [acme, _] = samples();
    let agent = Agent::start("acme", "billing");
    let cases: [(&str, Value); 4] = [
        (
            "another tenant's",
            json!({"tenant_id": GLOBEX, "query": "mark-other"}),
        ),
        ("null", json!({"tenant_id": null, "query": "mark-null"})),
        ("none", json!({"query": "mark-none"})),
        (
            "not even a string",
            json!({"tenant_id": {"$ne": ""}, "query": "mark-object"}),
        ),
    ];
    for (case, arguments) in cases {
        let marker = arguments["query"].as_str().unwrap().to_owned();
        let answer = agent.call(&acme.url, "search_notes", &arguments).unwrap();
        assert!(answer.get("result").is_some(), "{case}: {answer}");
        let asked = Ledger::of("acme").asked_times(&marker, 1);
        assert_eq!(asked.len(), 1, "{case}: the server was asked once: {asked:?}");
        assert_eq!(asked[0]["arguments"]["tenant_id"], ACME, "{case}");
        assert!(!asked[0].to_string().contains(GLOBEX), "{case}: {asked:?}");
    }
}

#[test]
fn arguments_may_be_left_out_and_are_forced_all_the_same() {
    let [acme, _] = samples();
    let agent = Agent::start("acme", "billing");
    let before = Ledger::of("acme").asked("list_invoices").unwrap().len();
    let answers = agent
        .rpc(
            &acme.url,
            &[
                call_message("list_invoices", None),
                call_message("list_invoices", Some(&Value::Null)),
            ],
        )
        .unwrap();
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        assert!(answer["body"].get("result").is_some(), "{answer}");
    }
    let asked = Ledger::of("acme").asked_times("list_invoices", before + 2);
    for request in &asked {
        assert_eq!(request["arguments"]["tenant_id"], ACME, "{request}");
    }
}

#[test]
fn a_value_out_of_bounds_is_an_error_a_model_can_correct_and_the_server_is_not_asked() {
    let [acme, _] = samples();
    let agent = Agent::start("acme", "billing");
    let too_many = agent
        .call(&acme.url, "list_invoices", &json!({"limit": 70_707}))
        .unwrap();
    assert_eq!(too_many["result"]["isError"], true, "{too_many}");
    assert!(
        too_many["result"]["content"].to_string().contains("limit"),
        "{too_many}"
    );
    let enough = agent
        .call(
            &acme.url,
            "list_invoices",
            &json!({"limit": 7, "status": "mark-enough"}),
        )
        .unwrap();
    assert_ne!(enough["result"]["isError"], true, "{enough}");
    Ledger::of("acme").asked_times("mark-enough", 1);
    assert!(
        Ledger::of("acme").asked("70707").unwrap().is_empty(),
        "the server saw nothing"
    );
}

#[test]
fn the_forced_argument_is_not_in_the_schema_that_agents_see() {
    let [acme, _] = samples();
    let tools = Agent::start("acme", "billing").tools(&acme.url).unwrap();
    assert!(!tools.is_empty());
    for tool in &tools {
        let schema = &tool["inputSchema"];
        assert!(schema["properties"].get("tenant_id").is_none(), "{tool}");
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        assert!(!required.contains(&json!("tenant_id")), "{tool}");
    }
}

#[test]
fn ambiguous_messages_are_refused_and_the_server_sees_nothing() {
    let [acme, _] = samples();
    let agent = Agent::start("acme", "billing");
    let cases = [
        r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","arguments":{"query":"mark-bad"}}}]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","name":"export_all","arguments":{"query":"mark-bad"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","Name":"export_all","arguments":{"query":"mark-bad"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","arguments":{"query":"mark-bad","Tenant_Id":"x"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","arguments":["mark-bad"]}}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"search_notes","arguments":{"query":"mark-bad"}}}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"search_notes","arguments":{"query":"mark-bad"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","arguments":{"query":"mark-bad"}}} x"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","arguments":{"query":"\ud800 mark-bad"}}}"#,
    ];
    let control = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_notes","arguments":{"query":"mark-good"}}}"#;
    for body in cases {
        let answers = agent.raw(&acme.url, &[body]).unwrap();
        assert!(answers[0]["body"].get("result").is_none(), "{body}: {answers:?}");
        assert_ne!(answers[0]["status"], 202, "{body}: {answers:?}");
    }
    agent.raw(&acme.url, &[control]).unwrap();
    let ledger = Ledger::of("acme");
    assert_eq!(ledger.asked_times("mark-good", 1).len(), 1, "it saw the control");
    assert!(
        ledger.asked("mark-bad").unwrap().is_empty(),
        "the server saw none of them"
    );
}
