//! Results with an ownership filter, and bounds of results, in every form in which they come back.

mod contents;

use super::*;
use crate::policy::Records;

/// `search` is filtered, `dump` bounded in bytes, `free` neither.
fn owned() -> CompiledPolicy {
    compile(&owned_document())
}

fn owned_document() -> Value {
    let mut document = document();
    document["tools"] = json!([
        {"name": "search", "roles": ["reader"], "results": {"maxRecords": 2, "maxBytes": 500,
            "owned": {"path": "$.rows", "field": "tenant", "equals": {"string": "acme"}}}},
        {"name": "dump", "roles": ["reader"], "results": {"maxBytes": 60}},
        {"name": "free", "roles": ["reader"]},
    ]);
    document["clientFeatures"] = json!({"logging": true, "elicitation": ["form"], "sampling": true});
    document
}

const TASKS: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}"#;

/// What becomes of a server's message on the answer to a request that names something.
fn on(policy: &CompiledPolicy, modern: bool, method: &str, name: (&str, &str), message: &str) -> Answer {
    let (key, name) = name;
    let meta = if modern { TASKS } else { r#"{"progressToken":"p"}"# };
    let asked = request(method, &format!(r#"{{"{key}":"{name}","_meta":{meta}}}"#));
    let headers: Headers<'_> = if modern {
        &[
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
            ("mcp-name", name),
        ]
    } else {
        LEGACY
    };
    let permitted = decide(policy, "billing", headers, &asked, &Inventory::default())
        .outcome
        .unwrap();
    policy.answer(
        policy.agent("spiffe://acme/billing"),
        Channel::Answer(permitted.expected().unwrap()),
        &Bytes::copy_from_slice(message.as_bytes()),
        context(&Inventory::default()),
    )
}

/// The same on the answer to a call of a tool.
fn on_call(modern: bool, tool: &str, message: &str) -> Answer {
    on(&owned(), modern, "tools/call", ("name", tool), message)
}

fn answered(modern: bool, tool: &str, result: &Value) -> Answer {
    on_call(
        modern,
        tool,
        &json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string(),
    )
}

/// The client's message, or why it gets none.
fn told(answer: &Answer) -> Result<Value, Reason> {
    match answer {
        Answer::Final(FinalAnswer { body, .. }) | Answer::Event(body) => {
            Ok(serde_json::from_slice(body).unwrap())
        }
        Answer::ListChanged => panic!("a list changed"),
        Answer::Dropped(reason) => Err(*reason),
        Answer::Refused(refusal) => Err(refusal.reason),
    }
}

fn rows() -> Value {
    json!([{"tenant": "acme", "n": 1}, {"tenant": "globex", "n": 2}, {"n": 3}])
}

#[test]
fn of_a_filtered_result_only_owned_records_are_left_and_the_text_is_made_of_them() {
    let structure = json!({"rows": rows(), "total": 3, "next": "globex"});
    let left = json!({"rows": [{"tenant": "acme", "n": 1}]});
    let copy = json!([{"type": "text", "text": left.to_string()}]);
    let prose = json!([
        {"type": "text", "text": "globex has one too"},
        {"type": "image", "data": "Z2xvYmV4", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "docs://globex", "name": "globex"},
        {"type": "text", "text": structure.to_string()},
    ]);
    for modern in [false, true] {
        for (result, structured) in [
            (
                json!({"content": prose, "structuredContent": structure, "_meta": {"x": "globex"}, "extra": "globex"}),
                true,
            ),
            // Servers that know no structured content put it into a text.
            (json!({"content": prose}), false),
            (
                json!({"content": prose, "structuredContent": null, "isError": false}),
                false,
            ),
        ] {
            let answer = answered(modern, "search", &result);
            let message = told(&answer).unwrap();
            let mut expected = json!({"content": copy});
            if modern {
                expected["resultType"] = json!("complete");
            }
            if structured {
                expected["structuredContent"] = left.clone();
            }
            assert_eq!(message["result"], expected, "{result}");
            let Answer::Final(answer) = answer else { panic!() };
            assert_eq!(answer.records, Some(Records { kept: 1, removed: 2 }));
            assert!(!answer.failed);
        }
    }
    // The control: without a filter all of it passes.
    let result = json!({"content": prose, "structuredContent": structure});
    assert_eq!(told(&answered(false, "free", &result)).unwrap()["result"], result);
}

#[test]
fn what_can_not_be_filtered_does_not_pass() {
    for result in [
        json!({}),
        json!({"content": []}),
        json!({"content": [{"type": "text", "text": "globex has one"}]}),
        json!({"content": [{"type": "text", "text": "{\"rows\":[{\"tenant\":\"globex\"}]"}]}),
        json!({"content": [{"type": "text", "text": "{\"rows\":[],\"rows\":[{\"tenant\":\"globex\"}]}"}]}),
        json!({"content": [], "structuredContent": {"other": [{"tenant": "globex"}]}}),
        json!({"content": [], "structuredContent": [{"tenant": "globex"}]}),
        json!({"content": [], "structuredContent": {"rows": "globex"}}),
    ] {
        assert_eq!(
            told(&answered(false, "search", &result)),
            Err(Reason::AnswerUnfiltered),
            "{result}"
        );
    }
}

#[test]
fn errors_of_a_filtered_tool_keep_their_kind_and_lose_their_words() {
    let tool_error = json!({"content": [{"type": "text", "text": "globex is locked"}], "isError": true});
    let answer = answered(false, "search", &tool_error);
    let message = told(&answer).unwrap();
    assert_eq!(message["result"]["isError"], true);
    assert!(!message.to_string().contains("globex"), "{message}");
    assert!(matches!(answer, Answer::Final(FinalAnswer { failed: true, .. })));

    let error =
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32011,"message":"globex","data":{"tenant":"globex"}}}"#;
    let message = told(&on_call(false, "search", error)).unwrap();
    assert_eq!(message["error"]["code"], -32011);
    assert!(!message.to_string().contains("globex"), "{message}");
    assert_eq!(
        told(&on_call(false, "free", error)).unwrap(),
        serde_json::from_str::<Value>(error).unwrap()
    );
}

#[test]
fn bounds_of_results_are_told_as_tool_errors() {
    let own = |count| json!({"rows": vec![json!({"tenant": "acme"}); count]});
    let long = json!({"rows": [{"tenant": "acme", "text": "x".repeat(500)}]});
    let text = |length| json!([{"type": "text", "text": "x".repeat(length)}]);
    for (tool, result, reason) in [
        (
            "search",
            json!({"content": [], "structuredContent": own(2)}),
            None,
        ),
        (
            "search",
            json!({"content": [], "structuredContent": own(3)}),
            Some(Reason::AnswerTooManyRecords),
        ),
        // Others' records don't count.
        (
            "search",
            json!({"content": [], "structuredContent": {"rows": vec![json!({"tenant": "globex"}); 9]}}),
            None,
        ),
        (
            "search",
            json!({"content": [], "structuredContent": long}),
            Some(Reason::AnswerTooLong),
        ),
        ("dump", json!({"content": text(5)}), None),
        ("dump", json!({"content": text(60)}), Some(Reason::AnswerTooLong)),
        ("free", json!({"content": text(5000)}), None),
    ] {
        let answer = answered(false, tool, &result);
        assert_eq!(told(&answer).err(), reason, "{tool} {result}");
        if let Answer::Refused(refusal) = answer {
            let body: Value = serde_json::from_slice(&refusal.body()).unwrap();
            assert_eq!(body["result"]["isError"], true, "{body}");
        }
    }
}

#[test]
fn what_a_server_says_meanwhile_is_left_out_too() {
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1,"total":900,"message":"globex"}}"#;
    let bare = json!({"progressToken": "p", "progress": 1});
    assert_eq!(told(&on_call(false, "search", progress)).unwrap()["params"], bare);
    let free: Value = serde_json::from_str(progress).unwrap();
    assert_eq!(told(&on_call(false, "free", progress)).unwrap(), free);

    for message in [
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"globex"}}"#,
        r#"{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"message":"globex?","requestedSchema":{"type":"object","properties":{}}}}"#,
        r#"{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":5}}"#,
    ] {
        assert_eq!(
            told(&on_call(false, "search", message)),
            Err(Reason::AnswerUnfiltered),
            "{message}"
        );
        assert!(told(&on_call(false, "free", message)).is_ok(), "{message}");
        // On a session's own stream it can't be told what a message is about: nobody hears it there, whatever their roles.
        let channel = Channel::Session(mcp::ProtocolVersion::parse("2025-11-25").unwrap());
        let heard = |policy: &CompiledPolicy| {
            let body = Bytes::copy_from_slice(message.as_bytes());
            let caller = policy.agent("spiffe://acme/billing");
            told(&policy.answer(caller, channel, &body, context(&Inventory::default()))).map(drop)
        };
        let mut document = owned_document();
        assert_eq!(
            heard(&compile(&document)),
            Err(Reason::AnswerUnfiltered),
            "{message}"
        );
        document["tools"][0]["roles"] = json!(["keeper"]);
        assert_eq!(
            heard(&compile(&document)),
            Err(Reason::AnswerUnfiltered),
            "{message}"
        );
        document["tools"][0]["results"] = Value::Null;
        assert_eq!(heard(&compile(&document)), Ok(()), "the control: {message}");
    }
    let asks = json!({"resultType": "input_required", "inputRequests": {"a": {"method": "elicitation/create",
        "params": {"message": "globex?", "requestedSchema": {"type": "object", "properties": {}}}}}});
    assert_eq!(
        told(&answered(true, "search", &asks)),
        Err(Reason::AnswerUnfiltered)
    );
    assert!(told(&answered(true, "free", &asks)).is_ok());
}

#[test]
fn a_task_is_filtered_when_it_is_made_and_whenever_it_is_looked_at() {
    let policy = owned();
    // A result that comes with it has not been read by the filter.
    let made = json!({"resultType": "task", "taskId": "t-1", "status": "working", "statusMessage": "globex",
        "_meta": {"x": "globex"}, "result": {"content": [{"type": "text", "text": "globex"}]}});
    let message = told(&answered(true, "search", &made)).unwrap();
    assert!(!message.to_string().contains("globex"), "{message}");
    let handle = message["result"]["taskId"].as_str().unwrap().to_owned();

    let asked = request(
        "tasks/get",
        &format!(r#"{{"taskId":{},"_meta":{TASKS}}}"#, json!(handle)),
    );
    let headers: Headers<'_> = &[
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tasks/get"),
        ("mcp-name", &handle),
    ];
    let permitted = decide(&policy, "billing", headers, &asked, &Inventory::default())
        .outcome
        .unwrap();
    let caller = policy.agent("spiffe://acme/billing");
    let look = |result: Value| {
        let body = Bytes::from(json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string());
        let channel = Channel::Answer(permitted.expected().unwrap());
        told(&policy.answer(caller, channel, &body, context(&Inventory::default())))
    };
    let task = |more: Value| {
        let mut task = json!({"resultType": "complete", "taskId": "t-1", "status": "completed", "statusMessage": "globex"});
        task.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        task
    };
    let done = look(task(
        json!({"result": {"content": [], "structuredContent": {"rows": rows(), "total": 3}}}),
    ))
    .unwrap();
    assert_eq!(
        done["result"]["result"]["structuredContent"],
        json!({"rows": [{"tenant": "acme", "n": 1}]})
    );
    assert!(!done.to_string().contains("globex"), "{done}");
    let failed = look(task(
        json!({"status": "failed", "error": {"code": -1, "message": "globex"}}),
    ))
    .unwrap();
    assert!(!failed.to_string().contains("globex"), "{failed}");
    let many = look(task(
        json!({"result": {"content": [], "structuredContent": {"rows": vec![json!({"tenant": "acme"}); 3]}}}),
    ))
    .unwrap();
    assert_eq!(many["result"]["result"]["isError"], true);
    assert_eq!(
        look(task(
            json!({"result": {"content": [{"type": "text", "text": "globex"}]}})
        )),
        Err(Reason::AnswerUnfiltered)
    );
    assert_eq!(
        look(task(json!({"status": "input_required", "inputRequests": {}}))),
        Err(Reason::AnswerUnfiltered)
    );
}

#[test]
fn what_is_done_to_a_filtered_task_is_acknowledged_without_words() {
    let policy = owned();
    for (tool, expected) in [
        ("search", json!({"resultType": "complete"})),
        (
            "free",
            json!({"resultType": "complete", "statusMessage": "globex"}),
        ),
    ] {
        let made = json!({"resultType": "task", "taskId": "t-1", "status": "working"});
        let message = told(&answered(true, tool, &made)).unwrap();
        let handle = message["result"]["taskId"].as_str().unwrap();
        for (method, more) in [("tasks/cancel", ""), ("tasks/update", r#","inputResponses":{}"#)] {
            let asked = request(
                method,
                &format!(r#"{{"taskId":{}{more},"_meta":{TASKS}}}"#, json!(handle)),
            );
            let headers: Headers<'_> = &[
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", method),
                ("mcp-name", handle),
            ];
            let permitted = decide(&policy, "billing", headers, &asked, &Inventory::default())
                .outcome
                .unwrap();
            let result = json!({"resultType": "complete", "statusMessage": "globex"});
            let body = Bytes::from(json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string());
            let caller = policy.agent("spiffe://acme/billing");
            let channel = Channel::Answer(permitted.expected().unwrap());
            let answer = policy.answer(caller, channel, &body, context(&Inventory::default()));
            assert_eq!(told(&answer).unwrap()["result"], expected, "{tool} {method}");
        }
    }
}

/// What a server may still say during a filtered call says no more than that it is said.
#[test]
fn what_may_be_said_during_a_filtered_call_is_said_without_words() {
    let ping = r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":{"_meta":{"x":"globex"}}}"#;
    let cancelled =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5,"reason":"globex"}}"#;
    let odd = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":"globex"}}"#;
    let bare = told(&on_call(false, "search", ping)).unwrap();
    assert!(!bare.to_string().contains("globex"), "{bare}");
    let free = told(&on_call(false, "free", ping)).unwrap();
    assert!(free.to_string().contains("globex"), "{free}");
    assert_eq!(
        told(&on_call(false, "search", cancelled)),
        Err(Reason::AnswerUnfiltered)
    );
    assert!(told(&on_call(false, "free", cancelled)).is_ok());
    let bare = told(&on_call(false, "search", odd)).unwrap();
    assert!(!bare.to_string().contains("globex"), "{bare}");
    // The legacy era has no type of results, and so nothing to say with it.
    let result = json!({"resultType": "globex", "content": [], "structuredContent": {"rows": []}});
    let legacy = told(&answered(false, "search", &result)).unwrap();
    assert!(!legacy.to_string().contains("globex"), "{legacy}");
}

#[test]
fn a_subscription_ends_without_words() {
    let asked = request(
        "subscriptions/listen",
        &format!(r#"{{"notifications":{{}},"_meta":{TASKS}}}"#),
    );
    let headers: Headers<'_> = &[
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let subscription = "io.modelcontextprotocol/subscriptionId";
    let meta = json!({subscription: 1, "x": "globex"});
    let end = json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete", "_meta": meta}});
    let failed = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "globex"}});
    let owned = owned();
    let mut document = document();
    document["tools"] = json!([{"name": "free", "roles": ["reader"]}]);
    let free = compile(&document);
    for message in [end, failed] {
        let body = Bytes::from(message.to_string());
        for (policy, bare) in [(&owned, true), (&free, false)] {
            let permitted = decide(policy, "billing", headers, &asked, &Inventory::default())
                .outcome
                .unwrap();
            let channel = Channel::Answer(permitted.expected().unwrap());
            let caller = policy.agent("spiffe://acme/billing");
            let told = told(&policy.answer(caller, channel, &body, context(&Inventory::default()))).unwrap();
            assert_eq!(!told.to_string().contains("globex"), bare, "{told}");
            if message["error"].is_null() {
                assert!(told.to_string().contains(subscription), "{told}");
            }
        }
    }
}

#[test]
fn the_list_promises_no_structure_that_is_filtered() {
    let policy = owned();
    let schema = json!({"type": "object", "required": ["total"]});
    let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}, "outputSchema": schema});
    let listed = decide(
        &policy,
        "billing",
        LEGACY,
        &request("tools/list", "{}"),
        &Inventory::default(),
    );
    let permitted = listed.outcome.unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [tool("search"), tool("free")]}});
    let channel = Channel::Answer(permitted.expected().unwrap());
    let caller = policy.agent("spiffe://acme/billing");
    let answer = policy.answer(
        caller,
        channel,
        &Bytes::from(body.to_string()),
        context(&Inventory::default()),
    );
    let tools = told(&answer).unwrap()["result"]["tools"].clone();
    assert_eq!(
        tools[0],
        json!({"name": "search", "inputSchema": {"type": "object"}})
    );
    assert_eq!(tools[1], tool("free"));
}

#[test]
fn an_answer_to_a_tool_that_was_lost_meanwhile_does_not_pass() {
    let before = owned();
    let asked = call("search", "{}");
    let permitted = decide(&before, "billing", LEGACY, &asked, &Inventory::default())
        .outcome
        .unwrap();
    let mut document = document();
    document["tools"] = json!([{"name": "search", "roles": ["admin"]}]);
    let after = compile(&document);
    let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#);
    let channel = Channel::Answer(permitted.expected().unwrap());
    let answer = after.answer(
        after.agent("spiffe://acme/billing"),
        channel,
        &body,
        context(&Inventory::default()),
    );
    assert_eq!(told(&answer), Err(Reason::ToolNotGranted));
}

#[test]
fn rules_that_make_no_sense_do_not_compile() {
    for results in [
        json!({"maxRecords": 5}),
        json!({"owned": {"path": "rows", "field": "t", "equals": {"string": "a"}}}),
        json!({"owned": {"path": "$", "field": "", "equals": {"string": "a"}}}),
        json!({"owned": {"path": "$", "field": "t", "equals": {"agent": ""}}}),
        json!({"unknown": 1}),
    ] {
        let mut document = document();
        document["tools"][0]["results"] = results.clone();
        assert!(
            CompiledPolicy::from_json(document.to_string().as_bytes()).is_err(),
            "{results}"
        );
    }
    let mut document = document();
    document["prompts"] = json!([{"name": "p", "roles": [], "results": {"maxBytes": 5}}]);
    assert!(CompiledPolicy::from_json(document.to_string().as_bytes()).is_err());
}
