//! Results that are filtered by owner, however they come back: at once, on a stream, on one that is taken up again, and as
//! what a task came to. Each time nothing of another tenant is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bulkhead_core::policy::{
    PolicyDocument,
    document::{Enforcement, Forced, Owned, Results},
};
use bulkhead_proxy::testing::{
    Answer, Client, RecordingUpstream, Reply, Setup, Stream, Streams, TestSidecar, sidecar::TENANT_ID, until,
    upstream::plain,
};
use serde_json::{Value, json};

/// A policy by which `list_invoices` is filtered, and `delete_invoice` isn't.
fn filtered(port: u16) -> Setup {
    let mut setup = Setup::new(port);
    setup.policy.tools[0].results = Some(Results {
        owned: Some(Owned {
            path: "$.rows".into(),
            field: "tenant".into(),
            equals: Forced::String(TENANT_ID.into()),
        }),
        max_records: None,
        max_bytes: None,
        enforcement: Enforcement::Enforce,
    });
    setup.policy.client_features.logging = true;
    setup
}

/// Records of two tenants, in every form in which a result can have them.
fn mixed() -> Value {
    let rows = json!([{"tenant": TENANT_ID, "n": 1}, {"tenant": "globex", "n": 2}, {"n": 3}]);
    let structure = json!({"rows": rows, "total": 3, "next": "globex-2"});
    json!({
        "content": [
            {"type": "text", "text": structure.to_string()},
            {"type": "text", "text": "globex has one too"},
            {"type": "resource_link", "uri": "docs://globex", "name": "globex"},
        ],
        "structuredContent": structure,
        "_meta": {"owners": ["globex"]},
    })
}

/// That of [`mixed`] only the agent's own record is left.
fn assert_clean(result: &Value) {
    let left = json!({"rows": [{"tenant": TENANT_ID, "n": 1}]});
    assert_eq!(result["structuredContent"], left);
    assert_eq!(
        result["content"],
        json!([{"type": "text", "text": left.to_string()}])
    );
    assert!(!result.to_string().contains("globex"), "{result}");
    assert!(!result.to_string().contains("total"), "{result}");
}

/// The end of the newest call, with what the filter found.
fn last_outcome(sidecar: &TestSidecar) -> (Value, Value, Value) {
    let outcome = sidecar.audit().pop().unwrap();
    let member = |name: &str| outcome[name].clone();
    (member("outcome"), member("recordsKept"), member("recordsRemoved"))
}

struct Fixture {
    upstream: RecordingUpstream,
    sidecar: TestSidecar,
    streams: Streams,
    policy: PolicyDocument,
}

/// Each answer to a call is a stream. Of `delete_invoice` too.
async fn streaming() -> Fixture {
    let streams = Streams::default();
    let answering = streams.clone();
    let upstream = RecordingUpstream::answering(move |request| answering.answer(request)).await;
    let setup = filtered(upstream.port());
    let policy = setup.policy.clone();
    Fixture {
        upstream,
        sidecar: TestSidecar::start(setup).await,
        streams,
        policy,
    }
}

impl Fixture {
    /// A session of the agent, and the stream of a call in it.
    async fn call(&self, agent: &str, tool: &str) -> (String, Stream) {
        let mut client = self.sidecar.client(agent).await;
        let session = client.open_session().await;
        let call = json!({"jsonrpc": "2.0", "id": "c1", "method": "tools/call", "params": {
            "name": tool, "_meta": {"progressToken": "p"}}});
        let with = [("mcp-session-id", session.as_str())];
        let stream = Stream::open(client, "POST", &with, &call.to_string()).await;
        (session, stream)
    }

    /// The stream taken up again after the mark.
    async fn resume(&self, agent: &str, session: &str, mark: &str) -> Stream {
        let headers = [("mcp-session-id", session), ("last-event-id", mark)];
        Stream::open(self.sidecar.client(agent).await, "GET", &headers, "").await
    }

    /// The server says where to come back to, and closes: the mark that the client has.
    async fn mark(&self, stream: &mut Stream) -> String {
        self.streams.event("upstream-event-1", "");
        let (mark, _) = stream.next().await.unwrap();
        self.streams.end();
        assert_eq!(stream.next().await, None);
        mark.unwrap()
    }

    /// What a server says in the course of a call, and its answer.
    fn say_all(&self) {
        let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {
            "level": "info", "data": "globex"}});
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
            "progressToken": "p", "progress": 1, "message": "globex"}});
        let answer = json!({"jsonrpc": "2.0", "id": "c1", "result": mixed()});
        for (id, message) in [("e2", log), ("e3", progress), ("e4", answer)] {
            self.streams.event(id, &message.to_string());
        }
    }
}

#[tokio::test]
async fn what_is_resumed_after_a_mark_is_filtered_as_the_call_is() {
    let fixture = streaming().await;
    let (session, mut stream) = fixture.call("billing", "list_invoices").await;
    let mark = fixture.mark(&mut stream).await;

    // Another agent has no use for the mark.
    let seen = fixture.upstream.seen().len();
    let (others, _open) = fixture.call("support", "delete_invoice").await;
    for (agent, session, reason) in [
        ("support", &others, "event_unknown"),
        ("support", &session, "session_unknown"),
        ("billing", &others, "session_unknown"),
    ] {
        let mut client = fixture.sidecar.client(agent).await;
        let headers = [("mcp-session-id", session.as_str()), ("last-event-id", &mark)];
        let reply = client.exchange("GET", &headers, "").await.unwrap();
        assert_eq!(reply.reason(), reason, "{agent}");
    }
    assert_eq!(fixture.upstream.seen().len(), seen + 2, "its own call alone");

    // A server may give what was said after a mark to whoever asks, and as often.
    for _ in 0..2 {
        let mut again = fixture.resume("billing", &session, &mark).await;
        let seen = fixture.upstream.seen().pop().unwrap();
        assert_eq!(seen.header("last-event-id"), Some("upstream-event-1"));
        fixture.say_all();
        let progress = again.message().await;
        assert_eq!(progress["params"], json!({"progressToken": "p", "progress": 1}));
        let (later, answer) = again.next().await.unwrap();
        assert_clean(&serde_json::from_str::<Value>(&answer).unwrap()["result"]);
        assert_eq!(again.next().await, None);
        // The first time it is the call's end, and then it isn't once more.
        let ended = fixture.sidecar.audit();
        let ended = ended
            .iter()
            .filter(|record| record["recordsRemoved"] == 2 && record["outcome"] == "completed");
        assert_eq!(ended.count(), 1);

        // What is said after a later mark is no other stream.
        let mut later = fixture.resume("billing", &session, &later.unwrap()).await;
        fixture.say_all();
        later.message().await;
        assert_clean(&later.message().await["result"]);
    }

    // By the rules that are in force when it is resumed: without the tool there is no answer of it.
    let mut policy = fixture.policy.clone();
    policy.tools.remove(0);
    fixture.sidecar.mount_policy(&policy).await;
    let mut withdrawn = fixture.resume("billing", &session, &mark).await;
    fixture.say_all();
    withdrawn.message().await;
    let refused = withdrawn.message().await;
    assert!(refused["error"].is_object(), "{refused}");
    assert!(!refused.to_string().contains("globex"), "{refused}");
    assert_eq!(withdrawn.next().await, None);
}

/// The control: of a tool without the filter all of it passes, also after a mark.
#[tokio::test]
async fn what_is_resumed_of_a_tool_without_a_filter_passes_as_it_is() {
    let fixture = streaming().await;
    let (session, mut stream) = fixture.call("support", "delete_invoice").await;
    let mark = fixture.mark(&mut stream).await;
    let mut again = fixture.resume("support", &session, &mark).await;
    fixture.say_all();
    assert_eq!(again.message().await["params"]["data"], "globex");
    assert_eq!(again.message().await["params"]["message"], "globex");
    assert_eq!(again.message().await["result"], mixed());
}

/// On a session's own stream it can't be told which call a message is about.
#[tokio::test]
async fn a_session_s_stream_has_no_words_about_others_records() {
    let fixture = streaming().await;
    let mut free = filtered(fixture.upstream.port()).policy;
    free.tools[0].results = None;
    // Whether the agent has the tool or not. The control is a policy that filters nothing.
    for (agent, tool, passes) in [
        ("support", "delete_invoice", false),
        ("billing", "list_invoices", false),
        ("billing", "list_invoices", true),
    ] {
        if passes {
            fixture.sidecar.mount_policy(&free).await;
        }
        let (session, _call) = fixture.call(agent, tool).await;
        let with = [("mcp-session-id", session.as_str())];
        let client = fixture.sidecar.client(agent).await;
        let mut stream = Stream::open(client, "GET", &with, "").await;
        fixture.say_all();
        if passes {
            assert_eq!(stream.message().await["params"]["data"], "globex");
        }
        // The answer doesn't pass there, whoever has the tool. What comes next shows that nothing did before.
        let ping = json!({"jsonrpc": "2.0", "id": 9, "method": "ping"});
        fixture.streams.event("e5", &ping.to_string());
        assert_eq!(stream.message().await["method"], "ping", "{agent}");
    }
}

/// Answers calls at once, or in the newer era as a task when it is asked to; and says what a task came to.
async fn answering() -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::answering(|request| {
        let message = request.json();
        let task = |status: &str| json!({"taskId": "task-1", "status": status, "statusMessage": "globex"});
        let mut result = match message["method"].as_str() {
            Some("tools/call") if message["params"]["arguments"]["text"] == "later" => task("working"),
            Some("tools/call") => mixed(),
            Some("tasks/get") => task("completed"),
            _ => return plain(request),
        };
        match message["method"].as_str() {
            Some("tasks/get") => result["result"] = mixed(),
            // It was done before the filter has seen it.
            _ if result["taskId"].is_string() => result["result"] = mixed(),
            _ => {}
        }
        result["resultType"] = match result["status"].as_str() {
            Some("working") => json!("task"),
            _ => json!("complete"),
        };
        Answer::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    })
    .await;
    let sidecar = TestSidecar::start(filtered(upstream.port())).await;
    (upstream, sidecar)
}

/// A request of the newer era; `name` is what it names.
async fn ask(client: &mut Client, method: &str, name: &str, mut params: Value) -> Reply {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    });
    let body = json!({"jsonrpc": "2.0", "id": 3, "method": method, "params": params}).to_string();
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", method),
        ("mcp-name", name),
    ];
    client.exchange("POST", &headers, body).await.unwrap()
}

#[tokio::test]
async fn a_plain_answer_is_filtered_in_both_eras() {
    let (_upstream, sidecar) = answering().await;
    let mut billing = sidecar.client("billing").await;
    let call = |tool: &str| json!({"name": tool});
    for modern in [false, true] {
        let reply = if modern {
            ask(&mut billing, "tools/call", "list_invoices", call("list_invoices")).await
        } else {
            billing.call("list_invoices", None).await
        };
        assert_clean(&reply.json()["result"]);
        assert_eq!(
            last_outcome(&sidecar),
            (json!("completed"), json!(1), json!(2)),
            "{modern}"
        );
    }
    // The control.
    let mut support = sidecar.client("support").await;
    let reply = ask(
        &mut support,
        "tools/call",
        "delete_invoice",
        call("delete_invoice"),
    )
    .await;
    assert_eq!(
        reply.json()["result"]["structuredContent"],
        mixed()["structuredContent"]
    );
    assert_eq!(last_outcome(&sidecar).2, Value::Null);
}

#[tokio::test]
async fn what_a_task_came_to_is_filtered_whenever_it_is_looked_at() {
    let (upstream, sidecar) = answering().await;
    let mut tasks = Vec::new();
    for (agent, tool) in [("billing", "list_invoices"), ("support", "delete_invoice")] {
        let mut client = sidecar.client(agent).await;
        let call = json!({"name": tool, "arguments": {"text": "later"}});
        let made = ask(&mut client, "tools/call", tool, call).await.json();
        assert_eq!(made["result"]["resultType"], "task", "{made}");
        assert_eq!(made.to_string().contains("globex"), agent == "support", "{made}");
        tasks.push((client, made["result"]["taskId"].as_str().unwrap().to_owned()));
    }
    let [(mut billing, filtered), (mut support, free)]: [_; 2] =
        tasks.try_into().unwrap_or_else(|_| unreachable!());
    for _ in 0..2 {
        let done = ask(&mut billing, "tasks/get", &filtered, json!({"taskId": filtered})).await;
        let result = &done.json()["result"];
        assert_eq!(
            (&result["status"], &result["taskId"]),
            (&json!("completed"), &json!(filtered))
        );
        assert_clean(&result["result"]);
        assert!(!result.to_string().contains("globex"), "{result}");
        until("the record", || {
            last_outcome(&sidecar) == (json!("completed"), json!(1), json!(2))
        })
        .await;
    }
    // The control.
    let done = ask(&mut support, "tasks/get", &free, json!({"taskId": free})).await;
    assert_eq!(done.json()["result"]["result"], mixed());

    // Nobody looks at the other one's, in either direction.
    let seen = upstream.seen().len();
    for (client, task) in [(&mut billing, &free), (&mut support, &filtered)] {
        let refused = ask(client, "tasks/get", task, json!({"taskId": task})).await;
        assert!(refused.json()["error"].is_object());
        assert_eq!(sidecar.audit().pop().unwrap()["reason"], "handle_unknown");
    }
    assert_eq!(upstream.seen().len(), seen);
}
