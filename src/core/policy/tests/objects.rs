//! Prompts, resources, completion, subscriptions, tasks, input, cursors, and what servers ask.

use super::*;
use crate::{
    handles::{Handle, Kind},
    policy::answer::Channel,
};

/// A policy with one of everything. `billing` is a reader, `root` an admin.
fn document() -> Value {
    let mut document = super::document();
    document["prompts"] = json!([
        {"name": "summary", "roles": ["reader"], "forced": {"tenant": {"string": "acme"}, "n": {"int": 7}}, "bounds": {"style": {"enum": ["short", "long"]}}},
        {"name": "purge", "roles": ["admin"]}
    ]);
    document["resources"] = json!([
        {"uri": "docs://handbook", "roles": ["reader"]},
        {"uri": "crm://{tenant}/{id}", "roles": ["reader"], "forced": {"tenant": {"string": "acme"}}},
        {"uri": "keys://{id}", "roles": ["admin"]}
    ]);
    document["clientFeatures"] = json!({"elicitation": ["form"], "logging": true});
    document
}

const MODERN: &str = "2026-07-28";

const TASKS: &str = r#"clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

/// Decides a request of `billing`, modern when `method` is sent with its headers.
fn decided(document: &Value, era: &str, method: &str, params: &str) -> Decision {
    let policy = compile(document);
    let (mut body, name);
    let mut headers = vec![("mcp-protocol-version", era)];
    if era == MODERN {
        body = modern(method, params);
        let members: Value = serde_json::from_str(&format!("{{{params}}}")).unwrap();
        name = ["name", "uri", "taskId"]
            .iter()
            .find_map(|key| members[*key].as_str())
            .unwrap_or_default()
            .to_owned();
        // What belongs to the extension of tasks is for those who declare it.
        if method.starts_with("tasks/") {
            body = body.replace("clientCapabilities\":{}", TASKS);
        }
        headers.push(("mcp-method", method));
        headers.push(("mcp-name", &name));
    } else {
        body = request(method, &format!("{{{params}}}"));
    }
    decide(&policy, "billing", &headers, &body, &Inventory::default())
}

fn params_of(decision: &Decision) -> Result<Value, Reason> {
    let sent: Value = serde_json::from_str(&outcome(decision)?).unwrap();
    let mut params = sent["params"].clone();
    if let Some(params) = params.as_object_mut() {
        params.remove("_meta");
    }
    Ok(params)
}

const LATEST: &str = "2025-11-25";

fn billing(seal: &Handle) -> String {
    Handles::new(&Plain, "spiffe://acme/billing", Some("s-1"))
        .seal(seal)
        .unwrap()
}

#[test]
fn what_is_granted_goes_up_and_the_rest_does_not_exist() {
    use Reason::*;
    let cases: &[(&str, &str, Result<Value, Reason>)] = &[
        (
            "prompts/get",
            r#""name":"summary","arguments":{"tenant":"globex","style":"short"}"#,
            Ok(json!({"name": "summary", "arguments": {"tenant": "acme", "style": "short", "n": "7"}})),
        ),
        (
            "prompts/get",
            r#""name":"summary""#,
            Ok(json!({"name": "summary", "arguments": {"tenant": "acme", "n": "7"}})),
        ),
        (
            "prompts/get",
            r#""name":"summary","arguments":{"style":"rude"}"#,
            Err(ArgumentOutOfBounds),
        ),
        ("prompts/get", r#""name":"purge""#, Err(PromptNotGranted)),
        ("prompts/get", r#""name":"list""#, Err(PromptUnknown)),
        ("tools/call", r#""name":"summary""#, Err(ToolUnknown)),
        (
            "resources/read",
            r#""uri":"docs://handbook""#,
            Ok(json!({"uri": "docs://handbook"})),
        ),
        (
            "resources/read",
            r#""uri":"crm://acme/7""#,
            Ok(json!({"uri": "crm://acme/7"})),
        ),
        (
            "resources/read",
            r#""uri":"crm://globex/7""#,
            Err(ResourceNotGranted),
        ),
        (
            "resources/read",
            r#""uri":"crm://acme/../globex""#,
            Err(ResourceNotGranted),
        ),
        ("resources/read", r#""uri":"keys://7""#, Err(ResourceNotGranted)),
        ("resources/read", r#""uri":7"#, Err(InvalidParams)),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"summary"},"argument":{"name":"style","value":"s"}"#,
            Ok(json!({
                "ref": {"type": "ref/prompt", "name": "summary"},
                "argument": {"name": "style", "value": "s"},
                "context": {"arguments": {"n": "7", "tenant": "acme"}}
            })),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"crm://acme/{id}"},"argument":{"name":"id","value":"1"},"context":{"arguments":{"tenant":"globex","x":"y"}}"#,
            Ok(json!({
                "ref": {"type": "ref/resource", "uri": "crm://{tenant}/{id}"},
                "argument": {"name": "id", "value": "1"},
                "context": {"arguments": {"x": "y", "tenant": "acme"}}
            })),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"crm://acme/{id}"},"argument":{"name":"Tenant","value":""}"#,
            Err(InvalidParams),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"crm://{tenant}/{id}"},"argument":{"name":"id","value":""}"#,
            Err(ResourceNotGranted),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"keys://{id}"},"argument":{"name":"id","value":""}"#,
            Err(ResourceNotGranted),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"purge"},"argument":{"name":"id","value":""}"#,
            Err(PromptNotGranted),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"summary","Name":"purge"},"argument":{"name":"style","value":""}"#,
            Err(CaseVariant),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/tool","name":"free"},"argument":{"name":"id","value":""}"#,
            Err(InvalidParams),
        ),
    ];
    for era in [LATEST, MODERN] {
        for (method, params, expected) in cases {
            let decision = decided(&document(), era, method, params);
            assert_eq!(&params_of(&decision), expected, "{era} {method} {params}");
        }
    }
}

#[test]
fn features_of_one_era_are_granted_or_not_there() {
    use Reason::*;
    let cases = [
        (LATEST, "logging/setLevel", r#""level":"info""#, None),
        (LATEST, "resources/subscribe", r#""uri":"crm://acme/7""#, None),
        (
            LATEST,
            "resources/subscribe",
            r#""uri":"crm://globex/7""#,
            Some(ResourceNotGranted),
        ),
        (
            LATEST,
            "resources/unsubscribe",
            r#""uri":"keys://7""#,
            Some(ResourceNotGranted),
        ),
        (
            MODERN,
            "resources/subscribe",
            r#""uri":"crm://acme/7""#,
            Some(MethodUnknown),
        ),
        (
            MODERN,
            "logging/setLevel",
            r#""level":"info""#,
            Some(MethodUnknown),
        ),
    ];
    for (era, method, params, reason) in cases {
        let decision = decided(&document(), era, method, params);
        assert_eq!(outcome(&decision).err(), reason, "{era} {method}");
    }
    let mut silent = document();
    silent["clientFeatures"]["logging"] = json!(false);
    let decision = decided(&silent, LATEST, "logging/setLevel", r#""level":"info""#);
    assert_eq!(outcome(&decision), Err(FeatureNotGranted));
    assert_eq!(decision.rule.as_deref(), Some("clientFeatures.logging"));
}

#[test]
fn a_subscription_names_what_exists_only() {
    let asked = r#""notifications":{"toolsListChanged":true,"resourceSubscriptions":["crm://acme/7","crm://globex/7","docs://handbook","keys://1"],"taskIds":["x"]}"#;
    let decision = decided(&document(), MODERN, "subscriptions/listen", asked);
    let kept = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["crm://acme/7", "docs://handbook"]}});
    assert_eq!(params_of(&decision), Ok(kept));
    for bad in [
        "",
        r#""notifications":{"toolsListChanged":1}"#,
        r#""notifications":{"resourceSubscriptions":"a"}"#,
        r#""notifications":{"resourceSubscriptions":[1]}"#,
    ] {
        let decision = decided(&document(), MODERN, "subscriptions/listen", bad);
        assert_eq!(outcome(&decision), Err(Reason::InvalidParams), "{bad}");
    }
    let variant = r#""notifications":{"ResourceSubscriptions":["keys://1"]}"#;
    let decision = decided(&document(), MODERN, "subscriptions/listen", variant);
    assert_eq!(outcome(&decision), Err(Reason::CaseVariant));
}

#[test]
fn a_handle_goes_up_as_the_server_s_own_value() {
    use Reason::*;
    let cursor = |method: &str| {
        billing(&Handle::Cursor {
            method: method.into(),
            value: "p\"2".into(),
        })
    };
    let task = |tool: &str| {
        billing(&Handle::Task {
            tool: tool.into(),
            id: "t-1".into(),
        })
    };
    let state = |name: &str| {
        billing(&Handle::State {
            method: "tools/call".into(),
            name: name.into(),
            value: "st".into(),
        })
    };
    let text = |handle: String| serde_json::to_string(&handle).unwrap();
    let cases: Vec<(&str, String, Result<Value, Reason>)> = vec![
        (
            "tools/list",
            format!(r#""cursor":{}"#, text(cursor("tools/list"))),
            Ok(json!({"cursor": "p\"2"})),
        ),
        (
            "prompts/list",
            format!(r#""cursor":{}"#, text(cursor("tools/list"))),
            Err(HandleUnknown),
        ),
        ("tools/list", r#""cursor":"p2""#.into(), Err(HandleUnknown)),
        (
            "tools/list",
            format!(r#""cursor":{}"#, text(task("free"))),
            Err(HandleUnknown),
        ),
        (
            "tasks/get",
            format!(r#""taskId":{}"#, text(task("free"))),
            Ok(json!({"taskId": "t-1"})),
        ),
        (
            "tasks/cancel",
            format!(r#""taskId":{}"#, text(task("delete"))),
            Err(ToolNotGranted),
        ),
        ("tasks/get", r#""taskId":"t-1""#.into(), Err(HandleUnknown)),
        (
            "tools/call",
            format!(
                r#""name":"free","requestState":{},"inputResponses":{{}}"#,
                text(state("free"))
            ),
            Ok(json!({"name": "free", "requestState": "st", "inputResponses": {}})),
        ),
        (
            "tools/call",
            format!(r#""name":"free","requestState":{}"#, text(state("list"))),
            Err(HandleUnknown),
        ),
        (
            "prompts/get",
            format!(r#""name":"summary","requestState":{}"#, text(state("summary"))),
            Err(HandleUnknown),
        ),
        (
            "tools/call",
            r#""name":"free","requestState":"st""#.into(),
            Err(HandleUnknown),
        ),
        (
            "tools/call",
            r#""name":"free","requestState":7"#.into(),
            Err(InvalidParams),
        ),
    ];
    for (method, params, expected) in cases {
        let decision = decided(&document(), MODERN, method, &params);
        assert_eq!(params_of(&decision), expected, "{method} {params}");
    }
    let undeclared = modern("tasks/get", r#""taskId":"t-1""#);
    let headers = [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tasks/get"),
        ("mcp-name", "t-1"),
    ];
    let refused = decide(
        &compile(&document()),
        "billing",
        &headers,
        &undeclared,
        &Inventory::default(),
    );
    assert_eq!(outcome(&refused), Err(CapabilityMissing));
    // The header that names the task goes up with the server's own id as well.
    let decision = decided(
        &document(),
        MODERN,
        "tasks/get",
        &format!(r#""taskId":{}"#, text(task("free"))),
    );
    assert_eq!(decision.target, Some(Target::Tool("free".into())));
    let headers = decision.outcome.unwrap();
    let headers = headers.headers();
    assert!(
        headers.contains(&("Mcp-Name".into(), "t-1".to_owned())),
        "{headers:?}"
    );
}

/// What `billing` gets of a message of the server, in answer to a request of its.
fn told(document: &Value, era: &str, asked: (&str, &str), message: &str) -> Result<Value, Reason> {
    let decision = decided(document, era, asked.0, asked.1);
    let permitted = decision.outcome.unwrap();
    let policy = compile(document);
    let body = Bytes::copy_from_slice(message.as_bytes());
    let answer = policy.answer(
        policy.agent("spiffe://acme/billing"),
        Channel::Answer(permitted.expected().unwrap()),
        &body,
        context(&Inventory::default()),
    );
    let body = match answer {
        Answer::Final(answer) => answer.body,
        Answer::Event(body) => body,
        Answer::Dropped(reason) => return Err(reason),
        Answer::Refused(refusal) => return Err(refusal.reason),
    };
    Ok(serde_json::from_slice(&body).unwrap())
}

fn result(era: &str, asked: (&str, &str), result: &Value) -> Result<Value, Reason> {
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string();
    told(&document(), era, asked, &message).map(|answer| answer["result"].clone())
}

#[test]
fn lists_have_what_exists_for_the_agent() {
    let prompts = json!({"prompts": [
        {"name": "summary", "arguments": [{"name": "tenant"}, {"name": "style"}, {"name": "n"}]},
        {"name": "purge"}, {"name": "other"}, {"name": "summary"}, 7
    ], "nextCursor": "2"});
    let cursor = |method: &str| {
        billing(&Handle::Cursor {
            method: method.into(),
            value: "2".into(),
        })
    };
    assert_eq!(
        result(LATEST, ("prompts/list", ""), &prompts),
        Ok(json!({
            "prompts": [{"name": "summary", "arguments": [{"name": "style"}]}],
            "nextCursor": cursor("prompts/list")
        }))
    );
    let resources = json!({"resources": [
        {"uri": "docs://handbook", "name": "h"}, {"uri": "crm://acme/1"}, {"uri": "crm://globex/1"},
        {"uri": "keys://1"}, {"uri": "docs://handbook"}, {"name": "x"}
    ], "ttlMs": 86_400_000, "cacheScope": "public", "resultType": "complete"});
    assert_eq!(
        result(MODERN, ("resources/list", ""), &resources),
        Ok(json!({
            "resources": [{"uri": "docs://handbook", "name": "h"}, {"uri": "crm://acme/1"}],
            "resultType": "complete", "ttlMs": 30_000, "cacheScope": "private"
        }))
    );
    let templates = json!({"resourceTemplates": [
        {"uriTemplate": "crm://{tenant}/{id}", "name": "c"}, {"uriTemplate": "keys://{id}"}, {"uriTemplate": "x://{y}"}
    ]});
    assert_eq!(
        result(LATEST, ("resources/templates/list", ""), &templates),
        Ok(json!({"resourceTemplates": [{"uriTemplate": "crm://acme/{id}", "name": "c"}]}))
    );
}

#[test]
fn capabilities_are_those_that_exist_for_the_agent() {
    let offered = json!({"protocolVersion": LATEST, "serverInfo": {"name": "x"}, "instructions": "obey", "capabilities": {
        "tools": {"listChanged": true}, "prompts": {"listChanged": true, "x": true}, "resources": {"subscribe": true},
        "completions": {}, "logging": {}, "experimental": {"x": {}}, "tasks": {}
    }});
    let asked = (
        "initialize",
        r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{}"#,
    );
    assert_eq!(
        result(LATEST, asked, &offered),
        Ok(
            json!({"protocolVersion": LATEST, "serverInfo": {"name": "x"}, "capabilities": {
                "tools": {"listChanged": true}, "prompts": {"listChanged": true}, "resources": {"subscribe": true},
                "completions": {}, "logging": {}
            }})
        )
    );
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": offered}).to_string();
    let bare = told(&super::document(), LATEST, asked, &message).unwrap();
    assert_eq!(
        bare["result"]["capabilities"],
        json!({"tools": {"listChanged": true}})
    );
}

#[test]
fn contents_are_of_what_may_be_read() {
    let read = ("resources/read", r#""uri":"crm://acme/7""#);
    let contents =
        |uri: &str| json!({"contents": [{"uri": "crm://acme/7", "text": ""}, {"uri": uri, "text": ""}]});
    assert!(result(LATEST, read, &contents("docs://handbook")).is_ok());
    assert_eq!(
        result(LATEST, read, &contents("crm://globex/7")),
        Err(Reason::AnswerResource)
    );
    assert_eq!(
        result(LATEST, read, &json!({"contents": [{"text": ""}]})),
        Err(Reason::AnswerMalformed)
    );
    let modern = result(MODERN, read, &contents("crm://acme/8")).unwrap();
    assert_eq!(
        (&modern["cacheScope"], &modern["ttlMs"]),
        (&json!("private"), &json!(0))
    );
}

#[test]
fn a_result_may_ask_for_what_is_granted_and_carries_sealed_handles() {
    let call = ("tools/call", r#""name":"free""#);
    let ask = |method: &str| json!({"resultType": "input_required", "requestState": "st", "inputRequests": {"a": {"method": method, "params": {}}}});
    let passed = result(MODERN, call, &ask("elicitation/create")).unwrap();
    let sealed = passed["requestState"].as_str().unwrap();
    let handles = Handles::new(&Plain, "spiffe://acme/billing", None);
    let state = Handle::State {
        method: "tools/call".into(),
        name: "free".into(),
        value: "st".into(),
    };
    assert_eq!(handles.open(Kind::State, sealed), Some(state));
    for method in ["sampling/createMessage", "roots/list", "ping", "tools/call"] {
        assert_eq!(
            result(MODERN, call, &ask(method)),
            Err(Reason::AnswerFeature),
            "{method}"
        );
    }
    let task = result(
        MODERN,
        call,
        &json!({"resultType": "task", "taskId": "t-1", "status": "working"}),
    )
    .unwrap();
    let sealed = task["taskId"].as_str().unwrap();
    let handle = Handle::Task {
        tool: "free".into(),
        id: "t-1".into(),
    };
    assert_eq!(handles.open(Kind::Task, sealed), Some(handle));
    let get = format!(r#""taskId":{}"#, serde_json::to_string(sealed).unwrap());
    let working = json!({"resultType": "complete", "taskId": "t-1", "status": "working"});
    assert_eq!(
        result(MODERN, ("tasks/get", &get), &working).unwrap()["taskId"],
        json!(sealed)
    );
    let nameless = json!({"resultType": "task", "taskId": ""});
    assert_eq!(result(MODERN, call, &nameless), Err(Reason::AnswerHandle));
}

#[test]
fn a_server_tells_and_asks_what_is_granted() {
    use Reason::*;
    let call = ("tools/call", r#""name":"free""#);
    let listen = ("subscriptions/listen", r#""notifications":{}"#);
    let notify = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}}}}}"#)
    };
    let of = |id: u8| format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
    let updated = |uri: &str, id: u8| {
        notify(
            "notifications/resources/updated",
            &format!(r#""uri":"{uri}",{}"#, of(id)),
        )
    };
    let acknowledged = |uri: &str| {
        let listened =
            format!(r#""notifications":{{"toolsListChanged":true,"resourceSubscriptions":["{uri}"]}}"#);
        notify(
            "notifications/subscriptions/acknowledged",
            &format!("{listened},{}", of(1)),
        )
    };
    let cases: Vec<(&str, (&str, &str), String, Option<Reason>)> = vec![
        (
            LATEST,
            call,
            notify("notifications/message", r#""level":"info","data":"x""#),
            None,
        ),
        (LATEST, call, notify("notifications/tools/list_changed", ""), None),
        (
            LATEST,
            call,
            notify("notifications/resources/updated", r#""uri":"crm://acme/7""#),
            None,
        ),
        (
            LATEST,
            call,
            notify("notifications/resources/updated", r#""uri":"crm://globex/7""#),
            Some(ServerMessageDenied),
        ),
        (
            LATEST,
            call,
            notify("notifications/elicitation/complete", r#""elicitationId":"e""#),
            Some(ServerMessageDenied),
        ),
        (
            LATEST,
            call,
            notify("notifications/vendor", ""),
            Some(ServerMessageDenied),
        ),
        (
            MODERN,
            call,
            notify("notifications/tools/list_changed", ""),
            Some(ServerMessageDenied),
        ),
        (
            MODERN,
            call,
            notify("notifications/message", r#""level":"info","data":"x""#),
            None,
        ),
        (
            MODERN,
            listen,
            notify("notifications/tools/list_changed", &of(1)),
            None,
        ),
        (
            MODERN,
            listen,
            notify("notifications/tools/list_changed", &of(2)),
            Some(ServerMessageDenied),
        ),
        (
            MODERN,
            listen,
            notify("notifications/tools/list_changed", ""),
            Some(ServerMessageDenied),
        ),
        (MODERN, listen, updated("crm://acme/7", 1), None),
        (
            MODERN,
            listen,
            updated("crm://globex/7", 1),
            Some(ServerMessageDenied),
        ),
        (MODERN, listen, acknowledged("crm://acme/7"), None),
        (
            MODERN,
            listen,
            acknowledged("keys://1"),
            Some(ServerMessageDenied),
        ),
        (
            MODERN,
            call,
            acknowledged("crm://acme/7"),
            Some(ServerMessageDenied),
        ),
        // A name is words too.
        (
            MODERN,
            listen,
            acknowledged("crm://acme/7").replace("toolsListChanged", "globex"),
            Some(ServerMessageDenied),
        ),
    ];
    for (era, asked, message, reason) in cases {
        assert_eq!(
            told(&document(), era, asked, &message).err(),
            reason,
            "{era} {} {message}",
            asked.0
        );
    }
}

#[test]
fn a_request_of_the_server_is_answered_by_whom_it_was_asked() {
    let ask = |method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":"q\u0037","method":"{method}","params":{{"message":"?"}}}}"#)
    };
    let call = ("tools/call", r#""name":"free""#);
    let passed = told(&document(), LATEST, call, &ask("elicitation/create")).unwrap();
    let id = serde_json::to_string(&passed["id"]).unwrap();
    assert_eq!(
        told(&document(), LATEST, call, &ask("roots/list")).err(),
        Some(Reason::ServerMessageDenied)
    );
    assert_eq!(
        told(&document(), MODERN, call, &ask("elicitation/create")).err(),
        Some(Reason::ServerMessageDenied)
    );
    // The server takes it back: the client knows it by the same id.
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q\u0037"}}"#;
    let cancelled = told(&document(), LATEST, call, cancel).unwrap();
    assert_eq!(cancelled["params"]["requestId"], passed["id"]);

    let answer = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"action":"accept"}}}}"#);
    let respond = |document: &Value, agent: &str, era: &str, body: &str| {
        let headers = [("mcp-protocol-version", era)];
        outcome(&decide(
            &compile(document),
            agent,
            &headers,
            body,
            &Inventory::default(),
        ))
    };
    assert_eq!(
        respond(&document(), "billing", LATEST, &answer(&id)),
        Ok(answer(r#""q\u0037""#))
    );
    let unexpected = Err(Reason::ResponseUnexpected);
    assert_eq!(respond(&document(), "root", LATEST, &answer(&id)), unexpected);
    assert_eq!(respond(&document(), "billing", MODERN, &answer(&id)), unexpected);
    assert_eq!(
        respond(&document(), "billing", LATEST, &answer(r#""q7""#)),
        unexpected
    );
    assert_eq!(respond(&document(), "billing", LATEST, &answer("1")), unexpected);
    let mut withdrawn = document();
    withdrawn["clientFeatures"] = json!({});
    assert_eq!(respond(&withdrawn, "billing", LATEST, &answer(&id)), unexpected);
}

#[test]
fn a_session_s_own_stream_answers_nothing() {
    let policy = compile(&document());
    let version = mcp::ProtocolVersion::V20251125;
    let on_stream = |message: &str| {
        policy.answer(
            policy.agent("spiffe://acme/billing"),
            Channel::Session(version),
            &Bytes::copy_from_slice(message.as_bytes()),
            context(&Inventory::default()),
        )
    };
    assert!(matches!(
        on_stream(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        Answer::Dropped(Reason::AnswerMismatch)
    ));
    assert!(matches!(
        on_stream(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#),
        Answer::Event(_)
    ));
    assert!(matches!(
        on_stream("<html>"),
        Answer::Dropped(Reason::AnswerMalformed)
    ));
}
