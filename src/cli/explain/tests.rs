use serde_json::{Value, json};

use super::*;
use crate::offline::{outcome::Fate, tests::ACME};

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices","arguments":{"tenant_id": "globex", "limit": 5}}}"#;

fn outcome(agent: &str, request: &str, reply: Option<&str>) -> Outcome {
    let acme = Tenant::parse(ACME).unwrap();
    let policy = acme.server(None).unwrap();
    let request = Bytes::from(request.to_owned());
    let reply = reply.map(|reply| Bytes::from(reply.to_owned()));
    let agent = policy.agent(Some(agent)).unwrap();
    let caller = policy.caller(agent, None).unwrap();
    outcome::of(policy, &caller, &request, &Headers::of(&request), reply.as_ref())
}

fn plain(outcome: &Outcome) -> String {
    anstream::adapter::strip_str(&text::of(outcome, "list_invoices")).to_string()
}

#[test]
fn a_permitted_call_shows_role_forced_values_and_the_very_bytes() {
    let outcome = outcome("billing", CALL, None);
    assert_eq!(outcome.decision, Verdict::Permit);
    assert_eq!(exit(&outcome), Exit::Success);
    let sent = CALL.replace(
        r#"{"tenant_id": "globex", "limit": 5}"#,
        r#"{"tenant_id": "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001", "limit": 5,"location_id":"nyc-01"}"#,
    );
    assert_eq!(outcome.upstream.as_ref().unwrap().body, sent);
    let text = plain(&outcome);
    for line in [
        "permit  tools/call list_invoices, billing to acme/ledger, policy ",
        "  rule       tools[list_invoices], role reader\n",
        "  forced     location_id: (not given) → \"nyc-01\"\n",
        "  forced     tenant_id: \"globex\" → \"7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001\"\n",
        "  upstream   POST http://127.0.0.1:3000/mcp\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_refused_call_shows_reason_rule_and_that_nothing_goes_upstream() {
    let request = CALL.replace("list_invoices", "delete_invoice");
    let outcome = outcome("billing", &request, None);
    assert_eq!(exit(&outcome), Exit::Refused);
    assert_eq!(outcome.upstream, None);
    let text = plain(&outcome);
    for line in [
        "refuse  tools/call delete_invoice",
        "  reason     tool_not_granted: ",
        "  rule       tools[delete_invoice].roles, which are admin; none of them is the agent's\n",
        "  upstream   nothing\n",
        "Unknown tool: delete_invoice",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn every_kind_of_decision_has_its_exit_code() {
    let table = [
        (CALL.to_owned(), None, Exit::Success),
        (
            CALL.replace('5', "500"),
            Some("argument_out_of_bounds"),
            Exit::ToolError,
        ),
        (
            CALL.replace("list_invoices", "export_all"),
            Some("tool_unknown"),
            Exit::Refused,
        ),
        (
            CALL.replace("tools/call", "tools/drop"),
            Some("method_unknown"),
            Exit::Refused,
        ),
        ("{".to_owned(), Some("malformed_json"), Exit::Refused),
        (format!("[{CALL}]"), Some("batch"), Exit::Refused),
    ];
    for (request, reason, code) in table {
        let outcome = outcome("billing", &request, None);
        assert_eq!((outcome.reason, exit(&outcome)), (reason, code), "{request}");
    }
}

#[test]
fn the_era_is_the_requests_own() {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots":{}}},"name""#;
    let modern = outcome("billing", &CALL.replace(r#""name""#, meta), None);
    assert_eq!((modern.decision, modern.era), (Verdict::Permit, Some("modern")));
    let upstream = modern.upstream.unwrap();
    assert_eq!(upstream.headers["Mcp-Name"], "list_invoices");
    assert!(
        upstream.body.contains(r#"clientCapabilities":{}"#),
        "{}",
        upstream.body
    );
    assert_eq!(outcome("billing", CALL, None).era, Some("legacy"));
    let unknown = outcome(
        "billing",
        &CALL.replace(r#""name""#, &meta.replace("2026", "2030")),
        None,
    );
    assert_eq!(unknown.reason, Some("unsupported_version"));
}

#[test]
fn a_list_shows_what_is_left_of_it() {
    let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object", "properties": {"tenant_id": {}, "location_id": {}}}});
    let tools = ["list_invoices", "delete_invoice", "export_all"].map(tool);
    let broken = json!({"name": "get_invoice", "inputSchema": {"type": "object"}});
    let tools: Vec<Value> = tools.into_iter().chain([broken]).collect();
    let reply = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string();
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let outcome = outcome("billing", list, Some(&reply));
    let answer = outcome.answer.as_ref().unwrap();
    assert_eq!(answer.outcome, Fate::Answered);
    assert_eq!(answer.tools.as_deref(), Some(&["list_invoices".to_owned()][..]));
    assert_eq!(answer.hidden, ["delete_invoice", "export_all"]);
    assert_eq!(answer.dropped["get_invoice"], "forced_argument_undeclared");
    assert!(!answer.body.as_ref().unwrap().contains("tenant_id"));
    assert!(plain(&outcome).contains("  hidden     delete_invoice, export_all\n"));
}

#[test]
fn a_document_has_everything() {
    let document = serde_json::to_value(outcome("billing", CALL, None)).unwrap();
    assert_eq!(document["decision"], "permit");
    assert_eq!(document["roles"], json!(["reader"]));
    assert_eq!(
        document["forced"][1],
        json!({"argument": "tenant_id", "given": "globex", "forced": "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001", "overridden": true})
    );
}

#[test]
fn a_request_that_is_missing_or_empty_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("request.json");
    assert!(format!("{:#}", bytes(&file).unwrap_err()).contains("request.json"));
    std::fs::write(&file, "\n").unwrap();
    assert!(bytes(&file).unwrap_err().to_string().contains("is empty"));
    std::fs::write(&file, "{}\r\n\n").unwrap();
    assert_eq!(bytes(&file).unwrap(), "{}");
}
