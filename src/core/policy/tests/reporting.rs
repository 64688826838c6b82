//! Rules that are tried out: what they would do is known, and nothing else is done.

use super::*;

fn reporting() -> CompiledPolicy {
    let mut document = document();
    document["tools"][0]["bounds"]["limit"]["enforcement"] = json!("report");
    document["tools"][2]["results"] = json!({
        "owned": {"path": "$.rows", "field": "tenant", "equals": {"string": "acme"}},
        "maxRecords": 2, "maxBytes": 300, "enforcement": "report",
    });
    document["prompts"] = json!([
        {"name": "summary", "roles": ["reader"], "bounds": {"style": {"maxLength": 3, "enforcement": "report"}}},
    ]);
    compile(&document)
}

#[test]
fn a_bound_that_only_reports_refuses_nothing_and_is_named() {
    let cases = [
        (
            call("list", r#"{"limit":101}"#),
            vec!["tools[list].bounds[limit]"],
            Ok(()),
        ),
        (call("list", r#"{"limit":100}"#), vec![], Ok(())),
        // Another rule refuses as ever.
        (
            call("capped", r#"{"limit":101}"#),
            vec![],
            Err(Reason::ArgumentOutOfBounds),
        ),
        (
            request(
                "prompts/get",
                r#"{"name":"summary","arguments":{"style":"long"}}"#,
            ),
            vec!["prompts[summary].bounds[style]"],
            Ok(()),
        ),
    ];
    for (body, reported, expected) in cases {
        let decision = decide(&reporting(), "billing", LEGACY, &body, &Inventory::default());
        let named: Vec<_> = decision.reported.iter().map(AsRef::as_ref).collect();
        assert_eq!(
            (named, outcome(&decision).map(drop)),
            (reported, expected),
            "{body}"
        );
    }
    // What is forced is forced all the same.
    let body = call("list", r#"{"limit":101,"tenant":"globex"}"#);
    let decision = decide(&reporting(), "billing", LEGACY, &body, &Inventory::default());
    assert_eq!(
        outcome(&decision),
        Ok(call("list", r#"{"limit":101,"tenant":"acme"}"#))
    );
}

#[test]
fn a_filter_that_only_reports_takes_nothing_out_and_says_what_it_would() {
    let policy = reporting();
    let agent = policy.agent("spiffe://acme/billing");
    let called = decide(
        &policy,
        "billing",
        LEGACY,
        &call("free", "{}"),
        &Inventory::default(),
    );
    let permitted = called.outcome.unwrap();
    let channel = Channel::Answer(permitted.expected().unwrap());
    let rows = |rows: Value| json!({"structuredContent": {"rows": rows, "total": 9}, "content": [{"type": "text", "text": "words"}]});
    let own = json!({"tenant": "acme"});
    let foreign = json!({"tenant": "globex"});
    let cases = [
        (rows(json!([own])), None, Some((1, 0))),
        (
            rows(json!([own, foreign])),
            Some(Reason::RecordsForeign),
            Some((1, 1)),
        ),
        (
            rows(json!([own, own, own])),
            Some(Reason::AnswerTooManyRecords),
            None,
        ),
        (
            rows(json!([{"tenant": "acme", "text": "x".repeat(300)}])),
            Some(Reason::AnswerTooLong),
            None,
        ),
        (
            json!({"content": [{"type": "text", "text": "words"}]}),
            Some(Reason::AnswerUnfiltered),
            None,
        ),
        (json!({"content": [], "isError": true}), None, None),
    ];
    for (result, reported, records) in cases {
        let body = Bytes::from(json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string());
        let answer = policy.answer(agent, channel, &body, context(&Inventory::default()));
        let Answer::Final(answer) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(answer.body, body, "{result}");
        assert_eq!(answer.failed, result["isError"] == true);
        assert_eq!(answer.reported, reported, "{result}");
        assert_eq!(
            answer.records.map(|records| (records.kept, records.removed)),
            records,
            "{result}"
        );
    }
    // What the server says besides passes as well.
    let words = Bytes::from(r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":{"_meta":{"x":"globex"}}}"#);
    let Answer::Event(told) = policy.answer(agent, channel, &words, context(&Inventory::default())) else {
        panic!("a ping passes")
    };
    assert!(told.windows(6).any(|window| window == b"globex"));
}

#[test]
fn what_a_rule_would_have_done_is_on_record() {
    let policy = reporting();
    let body = Bytes::from(call("list", r#"{"limit":101}"#));
    let message = mcp::read(&body, Limits::default()).unwrap();
    let decision = decide(
        &policy,
        "billing",
        LEGACY,
        &call("list", r#"{"limit":101}"#),
        &Inventory::default(),
    );
    let call = crate::audit::Call {
        time: "t",
        call: 1,
        spiffe_id: "s",
        certificate_serial: "c",
        token: "j",
        pod: None,
        session: None,
        traceparent: None,
    };
    let record = crate::audit::IntentRecord::decided(
        &policy,
        policy.agent("spiffe://acme/billing"),
        &call,
        &message,
        &decision,
    );
    let record: Value = serde_json::from_slice(&record.line()).unwrap();
    assert_eq!(record["reportedRules"], json!(["tools[list].bounds[limit]"]));
    assert_eq!(record["decision"], "permit");
}

#[test]
fn what_grants_or_forces_can_not_be_tried_out() {
    for at in ["/tools/0", "/tools/0/forced/tenant", "/agents/0"] {
        let mut document = document();
        document.pointer_mut(at).unwrap()["enforcement"] = json!("report");
        let compiled = CompiledPolicy::from_json(document.to_string().as_bytes());
        assert!(matches!(compiled, Err(CompileError::Shape(_))), "{at}");
    }
}
