use super::*;
use crate::audit::{Call, IntentRecord};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn record(agent: &str, body: &str) -> Value {
    let policy = policy();
    let decision = decide(&policy, agent, LEGACY, body, &Inventory::default());
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let message = mcp::read(&bytes, Limits::default()).unwrap();
    let spiffe_id = format!("spiffe://acme/{agent}");
    let call = Call {
        time: "2026-11-22T10:00:00Z",
        call: 7,
        spiffe_id: &spiffe_id,
        certificate_serial: "0a",
        token: "t-1",
        pod: Some("agent-0"),
        session: None,
        traceparent: Some(TRACE),
    };
    let line = IntentRecord::decided(&policy, policy.agent(&spiffe_id), &call, &message, &decision).line();
    let text = String::from_utf8(line).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.ends_with('\n'));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_permit_is_recorded_with_what_was_overridden_and_no_value() {
    let expected = json!({
        "record": "decision", "time": "2026-11-22T10:00:00Z", "call": 7,
        "tenant": "acme", "tenantUid": "u-1", "server": "crm",
        "agent": "billing", "spiffeId": "spiffe://acme/billing", "certificateSerial": "0a", "token": "t-1", "pod": "agent-0",
        "requestId": "1", "method": "tools/call", "tool": "list", "rule": "tools[list]",
        "policyRevision": policy().revision().as_ref(), "decision": "permit",
        "overriddenArguments": ["tenant"], "traceparent": TRACE,
    });
    assert_eq!(
        record(
            "billing",
            &call("list", r#"{"tenant":"globex","secret":"s3cret"}"#)
        ),
        expected
    );
}

#[test]
fn a_refusal_is_recorded_with_the_reason_that_the_client_is_not_told() {
    let hidden = record("billing", &call("delete", "{}"));
    assert_eq!(
        (&hidden["decision"], &hidden["reason"], &hidden["rule"]),
        (
            &json!("refuse"),
            &json!("tool_not_granted"),
            &json!("tools[delete].roles")
        )
    );
    let unlisted = record("billing", &call("export", "{}"));
    assert_eq!(
        (&unlisted["reason"], &unlisted["rule"]),
        (&json!("tool_unknown"), &json!("tools"))
    );
    let unknown = record("nobody", &call("list", "{}"));
    assert_eq!(unknown["reason"], "agent_unknown");
    assert_eq!(unknown["spiffeId"], "spiffe://acme/nobody");
    assert_eq!(unknown.get("agent"), None);
}

#[test]
fn what_a_client_chose_is_bounded() {
    let long = "x".repeat(1000);
    let recorded = record("billing", &call(&long, "{}"));
    assert!(recorded["tool"].as_str().unwrap().chars().count() <= 129);
    assert!(recorded.to_string().len() < 1500);
}
