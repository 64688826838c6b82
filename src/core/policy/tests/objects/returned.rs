//! What comes back from the server: lists, contents, results that carry handles, and what it says and asks besides.

use super::*;

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
        Answer::ListChanged => panic!("a list changed"),
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
    let bare = told(&super::super::document(), LATEST, asked, &message).unwrap();
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

/// The URI of a resource can be the name of somebody else's record.
#[test]
fn of_what_a_filtered_template_stands_for_nothing_is_told_but_what_is_read() {
    let plain = document();
    let mut filtered = document();
    filtered["resources"][1]["results"] =
        json!({"owned": {"path": "$", "field": "tenant", "equals": {"string": "acme"}}});
    let handbook = json!({"uri": "docs://handbook"});
    let listed = json!({"resources": [handbook, {"uri": "crm://acme/1"}]});
    let templates = json!({"resourceTemplates": [{"uriTemplate": "crm://{tenant}/{id}"}]});
    let update = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "crm://acme/1"}});
    let subscribe = ("resources/subscribe", r#""uri":"crm://acme/1""#);
    let read = ("resources/read", r#""uri":"crm://acme/1""#);
    let complete = (
        "completion/complete",
        r#""ref":{"type":"ref/resource","uri":"crm://acme/{id}"},"argument":{"name":"id","value":"1"}"#,
    );
    let answer = |result: &Value| json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string();
    let list = |document: &Value| told(document, LATEST, ("resources/list", ""), &answer(&listed)).unwrap();
    let asked = |document: &Value, (method, params): (&str, &str)| {
        params_of(&decided(document, LATEST, method, params)).map(drop)
    };
    let updated =
        |document: &Value| told(document, LATEST, ("tools/list", ""), &update.to_string()).map(drop);

    assert_eq!(list(&plain)["result"], listed, "the control");
    assert_eq!(list(&filtered)["result"], json!({"resources": [handbook]}));
    for document in [&plain, &filtered] {
        let shown = told(
            document,
            LATEST,
            ("resources/templates/list", ""),
            &answer(&templates),
        )
        .unwrap();
        assert_eq!(
            shown["result"]["resourceTemplates"][0]["uriTemplate"],
            "crm://acme/{id}"
        );
        assert_eq!(asked(document, read), Ok(()));
    }
    for request in [subscribe, complete] {
        assert_eq!(asked(&plain, request), Ok(()), "the control: {}", request.0);
        assert_eq!(
            asked(&filtered, request),
            Err(Reason::ResourceNotGranted),
            "{}",
            request.0
        );
    }
    assert_eq!(updated(&plain), Ok(()), "the control");
    assert_eq!(updated(&filtered), Err(Reason::ServerMessageDenied));
}

#[test]
fn a_result_may_ask_for_what_is_granted_and_carries_sealed_handles() {
    let call = ("tools/call", r#""name":"free""#);
    let ask = |method: &str| json!({"resultType": "input_required", "requestState": "st", "inputRequests": {"a": {"method": method, "params": {}}}});
    let passed = result(MODERN, call, &ask("elicitation/create")).unwrap();
    let sealed = passed["requestState"].as_str().unwrap();
    let handles = Handles::new(&HERE, "spiffe://acme/billing", None);
    let state = Handle::State {
        method: "tools/call".into(),
        name: "free".into(),
        value: "st".into(),
    };
    assert_eq!(handles.open(Kind::State, sealed).unwrap().handle, state);
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
    assert_eq!(handles.open(Kind::Task, sealed).unwrap().handle, handle);
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
        Answer::ListChanged
    ));
    assert!(matches!(
        on_stream("<html>"),
        Answer::Dropped(Reason::AnswerMalformed)
    ));
}
