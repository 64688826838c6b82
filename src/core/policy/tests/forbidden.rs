//! Arguments that nobody may give: in calls, prompts, completions and mirrored headers, and out of the lists.

use super::*;

fn forbidding() -> CompiledPolicy {
    let mut document = document();
    document["tools"] = json!([
        {"name": "search", "roles": ["reader"], "forbidden": ["all_tenants"]},
        {"name": "free", "roles": ["reader"]},
    ]);
    document["prompts"] = json!([{"name": "summary", "roles": ["reader"], "forbidden": ["raw"]}]);
    compile(&document)
}

fn decided(body: &str) -> Decision {
    decide(&forbidding(), "billing", LEGACY, body, &Inventory::default())
}

#[test]
fn a_forbidden_argument_refuses_the_call_whatever_its_value() {
    for given in [
        r#"{"all_tenants":true}"#,
        r#"{"all_tenants":false}"#,
        r#"{"q":"x","all_tenants":null}"#,
        r#"{"all_\u0074enants":1}"#,
    ] {
        let decision = decided(&call("search", given));
        assert_eq!(outcome(&decision), Err(Reason::ArgumentForbidden), "{given}");
        assert_eq!(
            decision.rule.as_deref(),
            Some("tools[search].forbidden[all_tenants]")
        );
        let told = decision.outcome.unwrap_err().body();
        let told: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["result"]["isError"], true, "{told}");
        assert_eq!(
            told["result"]["content"][0]["text"],
            "Argument all_tenants must not be given."
        );
        // Where no rule says so, it passes.
        let body = call("free", given);
        assert_eq!(outcome(&decided(&body)), Ok(body));
    }
    let variant = call("search", r#"{"All_Tenants":true}"#);
    assert_eq!(outcome(&decided(&variant)), Err(Reason::CaseVariant));
    for given in [
        "null",
        "{}",
        r#"{"q":"all_tenants"}"#,
        r#"{"filter":{"all_tenants":true}}"#,
    ] {
        let body = call("search", given);
        assert_eq!(outcome(&decided(&body)), Ok(body), "{given}");
    }
}

#[test]
fn it_is_forbidden_in_prompts_and_what_completes_them() {
    let decision = decided(&request(
        "prompts/get",
        r#"{"name":"summary","arguments":{"raw":"1"}}"#,
    ));
    assert_eq!(outcome(&decision), Err(Reason::ArgumentForbidden));
    // A prompt has no result to tell it in.
    let told: Value = serde_json::from_slice(&decision.outcome.unwrap_err().body()).unwrap();
    assert_eq!(told["error"]["code"], -32602, "{told}");

    let complete = |argument: &str, context: &str| {
        let params = format!(
            r#"{{"ref":{{"type":"ref/prompt","name":"summary"}},"argument":{{"name":"{argument}","value":""}},"context":{{"arguments":{context}}}}}"#
        );
        outcome(&decided(&request("completion/complete", &params))).map(drop)
    };
    assert_eq!(complete("style", r#"{"tone":"short"}"#), Ok(()));
    assert_eq!(complete("raw", "{}"), Err(Reason::InvalidParams));
    assert_eq!(
        complete("style", r#"{"raw":"1"}"#),
        Err(Reason::ArgumentForbidden)
    );
    assert_eq!(complete("style", r#"{"RAW":"1"}"#), Err(Reason::CaseVariant));
}

#[test]
fn no_list_shows_it_and_a_tool_that_requires_it_is_not_offered() {
    let policy = forbidding();
    let listed = |method: &str, result: &Value| {
        let permitted = decided(&request(method, "{}")).outcome.unwrap();
        let body = Bytes::from(json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string());
        let channel = Channel::Answer(permitted.expected().unwrap());
        let caller = policy.agent("spiffe://acme/billing");
        match policy.answer(caller, channel, &body, context(&Inventory::default())) {
            Answer::Final(answer) => answer,
            refused => panic!("{refused:?}"),
        }
    };
    let tool = |required: &[&str]| {
        json!({"tools": [{"name": "search", "inputSchema": {"type": "object", "required": required,
            "properties": {"q": {"type": "string"}, "all_tenants": {"type": "boolean"}}}}]})
    };
    let offered: Value = serde_json::from_slice(&listed("tools/list", &tool(&["q"])).body).unwrap();
    let schema = &offered["result"]["tools"][0]["inputSchema"];
    assert_eq!(schema["properties"], json!({"q": {"type": "string"}}));
    assert_eq!(schema["required"], json!(["q"]));

    let answer = listed("tools/list", &tool(&["q", "all_tenants"]));
    assert_eq!(answer.dropped[0].reason, Reason::ArgumentEntangled);
    assert!(!String::from_utf8_lossy(&answer.body).contains("search"));

    let prompts =
        json!({"prompts": [{"name": "summary", "arguments": [{"name": "raw"}, {"name": "style"}]}]});
    let offered: Value = serde_json::from_slice(&listed("prompts/list", &prompts).body).unwrap();
    assert_eq!(
        offered["result"]["prompts"][0]["arguments"],
        json!([{"name": "style"}])
    );
}

#[test]
fn no_mirrored_header_says_it_instead() {
    let headers: Headers<'_> = &[
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "search"),
        ("mcp-param-all-tenants", "true"),
    ];
    let sent = |tool: &str, headers: Headers<'_>| {
        let body = modern("tools/call", &format!(r#""name":"{tool}""#));
        let decision = decide(&forbidding(), "billing", headers, &body, &Inventory::default());
        let permitted = decision.outcome.unwrap();
        permitted
            .headers()
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("mcp-param-all-tenants"))
    };
    assert!(!sent("search", headers));
    let free = [headers[0], headers[1], ("mcp-name", "free"), headers[3]];
    assert!(sent("free", &free));
}
