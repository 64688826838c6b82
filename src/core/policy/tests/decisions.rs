//! Which messages go up, with what changed, and which are refused.

mod eras;

use super::*;
use crate::mcp::{
    Fingerprint, ProtocolVersion,
    inventory::{Learned, Listing, ToolFacts},
    mirrors::Mirror,
};

fn legacy(agent: &str, body: &str) -> Result<String, Reason> {
    outcome(&decide(&policy(), agent, LEGACY, body, &Inventory::default()))
}

#[test]
fn calls_go_up_with_forced_arguments_and_otherwise_untouched() {
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":"#;
    let cases = [
        // Absent, null, empty.
        (
            r#"{"name":"list"}"#,
            r#"{"arguments":{"tenant":"acme"},"name":"list"}"#,
        ),
        (
            r#"{ "name" : "list" }"#,
            r#"{"arguments":{"tenant":"acme"}, "name" : "list" }"#,
        ),
        (
            r#"{"name":"list","arguments":null}"#,
            r#"{"name":"list","arguments":{"tenant":"acme"}}"#,
        ),
        (
            r#"{"name":"list","arguments":{ }}"#,
            r#"{"name":"list","arguments":{ "tenant":"acme"}}"#,
        ),
        // Another tenant's, null, another type, another spelling.
        (
            r#"{"arguments":{"tenant":"globex"},"name":"list"}"#,
            r#"{"arguments":{"tenant":"acme"},"name":"list"}"#,
        ),
        (
            r#"{"arguments":{"tenant":null},"name":"list"}"#,
            r#"{"arguments":{"tenant":"acme"},"name":"list"}"#,
        ),
        (
            r#"{"arguments":{"tenant":{"$ne":""}},"name":"list"}"#,
            r#"{"arguments":{"tenant":"acme"},"name":"list"}"#,
        ),
        (
            r#"{"arguments":{"t\u0065nant":"x"},"name":"list"}"#,
            r#"{"arguments":{"t\u0065nant":"acme"},"name":"list"}"#,
        ),
        // The rest keeps its bytes.
        (
            r#"{"name":"list","arguments":{"big":123456789012345678901234567890, "x" :1.0e0,"u":"\u00e9\/"}}"#,
            r#"{"name":"list","arguments":{"big":123456789012345678901234567890, "x" :1.0e0,"u":"\u00e9\/","tenant":"acme"}}"#,
        ),
        (
            r#"{"name":"list","arguments":{"nested":{"tenant":"globex"}}}"#,
            r#"{"name":"list","arguments":{"nested":{"tenant":"globex"},"tenant":"acme"}}"#,
        ),
        // Every kind of value, several at once, some there and some not.
        (
            r#"{"name":"placed","arguments":{"n":"8","z":1}}"#,
            r#"{"name":"placed","arguments":{"n":7,"z":1,"b":true,"place":"nyc \"01\""}}"#,
        ),
        // Nothing to do.
        (r#"{"name":"free"}"#, r#"{"name":"free"}"#),
        (
            r#"{"name":"fr\u0065e","arguments":null}"#,
            r#"{"name":"fr\u0065e","arguments":null}"#,
        ),
        (
            r#"{"name":"free","arguments":{"a":[1]}}"#,
            r#"{"name":"free","arguments":{"a":[1]}}"#,
        ),
    ];
    for (params, expected) in cases {
        let sent = format!("{head}{params}}}");
        assert_eq!(
            legacy("billing", &sent),
            Ok(format!("{head}{expected}}}")),
            "{params}"
        );
    }
}

#[test]
fn a_value_that_was_replaced_is_recorded_by_its_name() {
    let cases: &[(&str, &[&str])] = &[
        (r#"{"place":"nyc","n":7,"b":true}"#, &["place"]),
        (r#"{"place":"nyc \u002201\"","n":7.0,"b":false}"#, &["b"]),
        (r#"{"n":null}"#, &["n"]),
        ("{}", &[]),
        ("null", &[]),
    ];
    for (arguments, overridden) in cases {
        let decision = decide(
            &policy(),
            "billing",
            LEGACY,
            &call("placed", arguments),
            &Inventory::default(),
        );
        let mut names: Vec<&str> = decision.overridden.iter().map(AsRef::as_ref).collect();
        names.sort_unstable();
        assert!(decision.outcome.is_ok());
        assert_eq!(&names, overridden, "{arguments}");
        assert_eq!(decision.rule.as_deref(), Some("tools[placed]"));
    }
}

#[test]
fn what_is_not_allowed_is_refused() {
    use Reason::*;
    let cases: &[(&str, String, Reason)] = &[
        ("billing", call("delete", "{}"), ToolNotGranted),
        ("billing", call("drop", "{}"), ToolUnknown),
        ("billing", call("List", "{}"), ToolUnknown),
        ("billing", call("list ", "{}"), ToolUnknown),
        ("root", call("placed", "{}"), AgentAttributeMissing),
        ("nobody", call("free", "{}"), AgentUnknown),
        ("nobody", request("ping", "{}"), AgentUnknown),
        ("billing", call("free", "[1]"), ArgumentsNotObject),
        ("billing", call("list", "\"{}\""), ArgumentsNotObject),
        ("billing", call("list", "7"), ArgumentsNotObject),
        ("billing", call("list", r#"{"Tenant":"globex"}"#), CaseVariant),
        (
            "billing",
            call("list", r#"{"tenant":"acme","TENANT":"globex"}"#),
            CaseVariant,
        ),
        (
            "billing",
            call("list", r#"{"\u0054enant":"globex"}"#),
            CaseVariant,
        ),
        ("billing", call("list", r#"{"Limit":1}"#), CaseVariant),
        ("billing", call("list", r#"{"limit":101}"#), ArgumentOutOfBounds),
        ("billing", call("list", r#"{"limit":"1"}"#), ArgumentOutOfBounds),
        ("billing", request("tools/call", r#"{"name":7}"#), InvalidParams),
        ("billing", request("tools/call", "{}"), InvalidParams),
        (
            "billing",
            request("tools/call", r#"{"name":"free","Name":"delete"}"#),
            CaseVariant,
        ),
        (
            "billing",
            request("tools/call", r#"{"name":"list","Arguments":{}}"#),
            CaseVariant,
        ),
        (
            "billing",
            request("tools/call", r#"{"name":"free","_Meta":{}}"#),
            CaseVariant,
        ),
        (
            "billing",
            request("tools/call", r#"{"name":"free","_meta":[]}"#),
            InvalidParams,
        ),
        ("billing", request("tools/list", r#"{"cursor":7}"#), InvalidParams),
        (
            "billing",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#.into(),
            InvalidParams,
        ),
        (
            "billing",
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#.into(),
            InvalidParams,
        ),
        (
            "billing",
            request("initialize", r#"{"protocolVersion":1,"capabilities":{}}"#),
            InvalidParams,
        ),
        (
            "billing",
            request("initialize", r#"{"protocolVersion":"x"}"#),
            InvalidParams,
        ),
        (
            "billing",
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"free"}}"#.into(),
            WrongForm,
        ),
        (
            "billing",
            r#"{"jsonrpc":"2.0","method":"ping"}"#.into(),
            WrongForm,
        ),
        ("billing", request("notifications/initialized", "{}"), WrongForm),
        (
            "billing",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into(),
            ResponseUnexpected,
        ),
        (
            "billing",
            request("resources/read", r#"{"uri":"a:b"}"#),
            ResourceNotGranted,
        ),
        (
            "billing",
            request("tasks/get", r#"{"taskId":"a"}"#),
            MethodUnknown,
        ),
        (
            "billing",
            request("tools/Call", r#"{"name":"free"}"#),
            MethodUnknown,
        ),
        ("billing", request("server/discover", "{}"), MethodUnknown),
    ];
    for (agent, body, reason) in cases {
        assert_eq!(legacy(agent, body), Err(*reason), "{agent} {body}");
    }
}

#[test]
fn what_does_not_belong_to_a_method_is_left_out_and_recorded() {
    let cases = [
        (
            r#"{"name":"free","task":{"ttl":1}}"#,
            r#"{"name":"free"}"#,
            &["task"][..],
        ),
        (
            r#"{"requestState":"x","name":"list", "arguments" : {"limit":1},"inputResponses":{}}"#,
            r#"{"name":"list","arguments":{"limit":1,"tenant":"acme"}}"#,
            &["requestState", "inputResponses"],
        ),
    ];
    for (params, sent, removed) in cases {
        let body = request("tools/call", params);
        let decision = decide(&policy(), "billing", LEGACY, &body, &Inventory::default());
        assert_eq!(outcome(&decision), Ok(request("tools/call", sent)), "{params}");
        assert_eq!(decision.removed, removed, "{params}");
    }
}

#[test]
fn a_hidden_and_an_unknown_tool_give_the_same_bytes() {
    let told = |name: &str, inventory: &Inventory| {
        let refusal = decide(&policy(), "billing", LEGACY, &call(name, "[]"), inventory)
            .outcome
            .unwrap_err();
        (
            refusal.status(),
            String::from_utf8(refusal.body().to_vec())
                .unwrap()
                .replace(name, "NAME"),
        )
    };
    let unusable = Learned {
        listing: Listing::Tools,
        version: ProtocolVersion::V20251125,
        name: "list".to_owned(),
        fingerprint: Fingerprint::of("{}"),
        facts: Err(Reason::ArgumentEntangled),
    };
    let inventory = Inventory::default().learning(&[unusable]).unwrap();
    let unknown = told("drop", &Inventory::default());
    assert_eq!(unknown.0, 200);
    assert_eq!(told("delete", &Inventory::default()), unknown);
    assert_eq!(told("list", &inventory), unknown);
}

#[test]
fn a_bound_is_refused_with_its_rule_and_told_as_a_tool_error() {
    let body = call("list", r#"{"limit":100.00000000000000000001}"#);
    let decision = decide(&policy(), "billing", LEGACY, &body, &Inventory::default());
    let refusal = decision.outcome.unwrap_err();
    assert_eq!(decision.rule.as_deref(), Some("tools[list].bounds[limit]"));
    assert_eq!(refusal.status(), 200);
    assert_eq!(
        refusal.body(),
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"Argument limit must be at most 100."}],"isError":true}}"#
    );
}

#[test]
fn methods_without_a_grant_pass_as_the_table_says() {
    for (method, params) in [
        ("ping", "{}"),
        ("tools/list", "{}"),
        ("tools/list", r#"{"_meta":{"progressToken":1}}"#),
    ] {
        let body = request(method, params);
        assert_eq!(legacy("billing", &body), Ok(body.clone()));
    }
    for method in ["notifications/initialized", "notifications/cancelled"] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#);
        let decision = decide(&policy(), "billing", LEGACY, &body, &Inventory::default());
        assert_eq!(outcome(&decision), Ok(body));
        assert_eq!(decision.outcome.unwrap().expected(), None);
    }
}

#[test]
fn arguments_that_would_take_too_much_memory_are_refused_whether_or_not_the_tool_s_schema_is_known() {
    for (lists, refused) in [(10_000, false), (100_000, true)] {
        let arguments = format!(r#"{{"a":[{}]}}"#, vec!["[0.5]"; lists].join(","));
        let body = request(
            "tools/call",
            &format!(r#"{{"name":"list","arguments":{arguments}}}"#),
        );
        let decision = decide(&policy(), "billing", LEGACY, &body, &Inventory::default());
        let reason = decision.outcome.err().map(|refusal| refusal.reason);
        assert_eq!(reason, refused.then_some(Reason::ArgumentInvalid), "{lists}");
    }
}

#[test]
fn a_progress_token_is_a_short_string_or_an_integer() {
    let long = format!("\"{}\"", "t".repeat(300));
    for (token, passes) in [
        ("1", true),
        (r#""t1""#, true),
        ("1.5", false),
        ("null", false),
        ("[1]", false),
        (&*long, false),
    ] {
        let body = request("ping", &format!(r#"{{"_meta":{{"progressToken":{token}}}}}"#));
        let decision = decide(&policy(), "billing", LEGACY, &body, &Inventory::default());
        let reason = decision.outcome.err().map(|refusal| refusal.reason);
        assert_eq!(reason, (!passes).then_some(Reason::InvalidParams), "{token}");
    }
}

#[test]
fn a_handshake_offers_only_what_is_spoken_here() {
    let cases = [
        (
            r#""2025-06-18","capabilities":{}"#,
            r#""2025-06-18","capabilities":{}"#,
        ),
        (
            r#""2024-01-01","capabilities":{}"#,
            r#""2025-11-25","capabilities":{}"#,
        ),
        (
            r#""2099-01-01","capabilities":{"sampling":{},"roots":{}}"#,
            r#""2025-11-25","capabilities":{}"#,
        ),
        (
            r#""2026-07-28","capabilities":{ }"#,
            r#""2025-11-25","capabilities":{ }"#,
        ),
    ];
    for (asked, offered) in cases {
        let body = |rest: &str| {
            request(
                "initialize",
                &format!(r#"{{"protocolVersion":{rest},"clientInfo":{{"name":"x"}}}}"#),
            )
        };
        let decision = decide(&policy(), "billing", &[], &body(asked), &Inventory::default());
        assert_eq!(outcome(&decision), Ok(body(offered)), "{asked}");
        assert_eq!(decision.outcome.unwrap().headers(), []);
    }
}

#[test]
fn an_error_answers_the_request_that_it_refuses() {
    let refusal = |body: &str| {
        decide(&policy(), "billing", LEGACY, body, &Inventory::default())
            .outcome
            .unwrap_err()
    };
    let body = r#"{"jsonrpc":"2.0","id":"\u0061","method":"tasks/list"}"#;
    assert!(
        refusal(body)
            .body()
            .starts_with(br#"{"jsonrpc":"2.0","id":"\u0061","error""#)
    );
    let notification = refusal(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    assert_eq!(notification.status(), 400);
    // The id of a response is the server's, not the client's.
    assert!(
        refusal(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#)
            .body()
            .starts_with(br#"{"jsonrpc":"2.0","id":null"#)
    );
}
