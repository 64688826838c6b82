//! Two replicas behind one Service: what one keeps is found by way of the other, and by its owner alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "replicas/door.rs"]
mod door;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bulkhead_core::policy::document::{ElicitationMode, RequestLimits};
use bulkhead_proxy::testing::{
    Answer, Client, Leaf, Protocol, RecordingUpstream, Reply, Seen, Setup, Stream, Streams, TestSidecar,
    sidecar::{HOST, PATH, SPIFFE_ID, TENANT_ID, spiffe},
    until,
    upstream::plain,
};
use http::StatusCode;
use serde_json::{Value, json};

struct Replica {
    upstream: RecordingUpstream,
    sidecar: TestSidecar,
}

impl Replica {
    /// How many requests reached the server.
    fn seen(&self) -> usize {
        self.upstream.seen().len()
    }

    /// What was decided here, without the end of it.
    fn decisions(&self) -> Vec<Value> {
        let audit = self.sidecar.audit();
        audit
            .into_iter()
            .filter(|record| record["record"] == "decision")
            .collect()
    }

    fn last_reason(&self) -> String {
        self.decisions().last().unwrap()["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

fn setup(upstream: &RecordingUpstream) -> Setup {
    let mut setup = Setup::new(upstream.port());
    setup.policy.client_features.elicitation = BTreeSet::from([ElicitationMode::Form]);
    setup.policy.client_features.logging = true;
    setup
}

/// Replicas of one server. The first answers as it is told, the others plainly.
async fn replicas<const N: usize>(first: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> [Replica; N] {
    let mut all = Vec::new();
    let upstream = RecordingUpstream::answering(first).await;
    let sidecar = TestSidecar::start(setup(&upstream)).await;
    all.push(Replica { upstream, sidecar });
    for _ in 1..N {
        let upstream = RecordingUpstream::start().await;
        let sidecar = all[0].sidecar.replica(setup(&upstream)).await;
        all.push(Replica { upstream, sidecar });
    }
    all.try_into().unwrap_or_else(|_| unreachable!())
}

/// A session of the agent in the replica.
async fn session(replica: &Replica, agent: &str) -> String {
    replica.sidecar.client(agent).await.open_session().await
}

fn call(tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": "c1", "method": "tools/call", "params": {"name": tool}}).to_string()
}

const ASK: &str =
    r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"message":"?","requestedSchema":{}}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":"c1","result":{"content":[]}}"#;

#[tokio::test]
async fn a_session_is_reached_by_way_of_another_replica() {
    let [first, second] = replicas(plain).await;
    let session = session(&first, "billing").await;
    let with = [("mcp-session-id", session.as_str())];
    let leaf = first.sidecar.agents_ca.client(&[&spiffe("billing")]);
    for (round, protocol) in [Protocol::Http1, Protocol::Http2].into_iter().enumerate() {
        let mut client = second.sidecar.client_with(&leaf, protocol).await;
        let reply = client
            .exchange("POST", &with, call("list_invoices"))
            .await
            .unwrap();
        assert_eq!(reply.text(), r#"{"tenant_id":"7f9c0d5e"}"#);
        let seen = first.upstream.seen().pop().unwrap();
        assert_eq!(seen.header("mcp-session-id"), Some("upstream-session"));
        assert!(
            !seen.headers.contains_key("client-cert"),
            "nothing of it goes to the server"
        );
        // Recorded where it was done, as the agent's.
        let decided = first.decisions().pop().unwrap();
        assert_eq!(
            (&decided["agent"], &decided["tool"], &decided["decision"]),
            (&json!("billing"), &json!("list_invoices"), &json!("permit"))
        );
        assert_eq!(decided["certificateSerial"], format!("{:02x}", leaf.serial));
        assert_eq!(
            first.decisions().len(),
            2 + round,
            "the handshake, and each call once"
        );
    }
    let mut client = second.sidecar.client("billing").await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c1"}}"#;
    let reply = client.exchange("POST", &with, cancel).await.unwrap();
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let seen = first.upstream.seen().pop().unwrap().json();
    assert_eq!(
        (&seen["method"], &seen["params"]["requestId"]),
        (&json!("notifications/cancelled"), &json!("c1"))
    );
    let ended = client.exchange("DELETE", &with, "").await.unwrap();
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert_eq!(first.upstream.seen().pop().unwrap().method, "DELETE");

    assert_eq!((second.seen(), second.decisions().len()), (0, 0));
    assert!(
        second
            .sidecar
            .metrics()
            .contains("bulkhead_relayed_total{result=\"ok\"} 4")
    );
}

#[tokio::test]
async fn what_is_refused_goes_no_further() {
    let [first, second] = replicas(plain).await;
    let (billing, support) = (session(&first, "billing").await, session(&first, "support").await);
    let before = first.seen();
    let mut client = second.sidecar.client("billing").await;
    for (session, body, reason) in [
        (&support, call("list_invoices"), "session_unknown"),
        (&billing, call("delete_invoice"), "tool_not_granted"),
        (&billing, call("nothing"), "tool_unknown"),
    ] {
        let headers = [("mcp-session-id", session.as_str())];
        client.exchange("POST", &headers, body).await.unwrap();
        assert_eq!(second.last_reason(), reason);
    }
    for method in ["GET", "DELETE"] {
        let headers = [("mcp-session-id", support.as_str())];
        let reply = client.exchange(method, &headers, "").await.unwrap();
        assert_eq!(
            (reply.status, reply.reason()),
            (StatusCode::NOT_FOUND, "session_unknown".into())
        );
    }
    assert_eq!((first.seen(), second.seen()), (before, 0));
    assert_eq!(first.decisions().len(), 2, "the two handshakes");
    assert!(!second.sidecar.metrics().contains("relayed_total{"));
}

#[tokio::test]
async fn with_its_replica_a_session_is_gone() {
    let [first, second] = replicas(plain).await;
    let session = session(&first, "billing").await;
    drop(first);
    let mut client = second.sidecar.client("billing").await;
    for (method, body) in [
        ("POST", call("list_invoices")),
        ("GET", String::new()),
        ("DELETE", String::new()),
    ] {
        let headers = [("mcp-session-id", session.as_str())];
        let reply = client.exchange(method, &headers, body).await.unwrap();
        assert_eq!(
            (reply.status, reply.reason()),
            (StatusCode::NOT_FOUND, "session_unknown".into())
        );
        assert_eq!(second.last_reason(), "session_unknown");
    }
    assert_eq!(second.seen(), 0);
    assert!(
        second
            .sidecar
            .metrics()
            .contains("bulkhead_relayed_total{result=\"gone\"} 3")
    );
}

/// A list with a second page, and a tool that becomes a task, or asks first when it is told to.
fn unfinished(request: &Seen) -> Answer {
    let message = request.json();
    let result = match message["method"].as_str() {
        Some("tools/list") if message["params"]["cursor"].is_null() => {
            json!({"resultType": "complete", "tools": [], "nextCursor": "page-2"})
        }
        Some("tools/list") => json!({"resultType": "complete", "tools": []}),
        Some("tools/call") if message["params"]["arguments"]["text"] == "ask" => {
            let asked =
                json!({"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}});
            json!({"resultType": "input_required", "requestState": "state-1", "inputRequests": {"a": asked}})
        }
        Some("tools/call") if message["params"]["requestState"].is_string() => {
            json!({"resultType": "complete", "content": []})
        }
        Some("tools/call") => json!({"resultType": "task", "taskId": "task-1", "status": "working"}),
        Some("tasks/update" | "tasks/cancel") => json!({"resultType": "complete"}),
        Some("tasks/get") => json!({"resultType": "complete", "taskId": "task-1", "status": "working"}),
        _ => return plain(request),
    };
    Answer::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

/// A request of the newer era; `name` is what it names.
async fn ask(client: &mut Client, method: &str, name: &str, mut params: Value) -> Reply {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    });
    let body = json!({"jsonrpc": "2.0", "id": 3, "method": method, "params": params}).to_string();
    let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    if !name.is_empty() {
        headers.push(("mcp-name", name));
    }
    client.exchange("POST", &headers, body).await.unwrap()
}

#[tokio::test]
async fn a_handle_in_a_message_leads_to_its_replica_too() {
    let [first, second, third] = replicas(unfinished).await;
    // The other agent may call the tool too: what it is refused, it is refused for the handle.
    for replica in [&first, &second, &third] {
        let mut policy = setup(&replica.upstream).policy;
        policy.tools[0].roles.insert("admin".to_owned());
        replica.sidecar.mount_policy(&policy).await;
    }
    let mut here = first.sidecar.client("billing").await;
    let reply = ask(&mut here, "tools/list", "", json!({})).await;
    let cursor = reply.json()["result"]["nextCursor"].as_str().unwrap().to_owned();
    let reply = ask(
        &mut here,
        "tools/call",
        "list_invoices",
        json!({"name": "list_invoices"}),
    )
    .await;
    let task = reply.json()["result"]["taskId"].as_str().unwrap().to_owned();
    assert_ne!(task, "task-1");
    let tool = "list_invoices";
    let asking = json!({"name": tool, "arguments": {"text": "ask"}});
    let reply = ask(&mut here, "tools/call", tool, asking).await;
    let state = reply.json()["result"]["requestState"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(state, "state-1");
    let responses = json!({"a": {"action": "decline"}});
    let own_task = json!({"taskId": "task-1"});
    // What is asked, and what the server must see of it: its own handle, and what the client says besides.
    let asked = [
        (
            "tools/list",
            "",
            json!({"cursor": cursor}),
            json!({"cursor": "page-2"}),
        ),
        (
            "tasks/get",
            task.as_str(),
            json!({"taskId": task}),
            own_task.clone(),
        ),
        (
            "tasks/update",
            task.as_str(),
            json!({"taskId": task, "inputResponses": responses}),
            json!({"taskId": "task-1", "inputResponses": responses}),
        ),
        ("tasks/cancel", task.as_str(), json!({"taskId": task}), own_task),
        (
            "tools/call",
            tool,
            json!({"name": tool, "requestState": state, "inputResponses": responses}),
            json!({"name": tool, "requestState": "state-1", "inputResponses": responses,
                "arguments": {"tenant_id": TENANT_ID}}),
        ),
    ];

    let mut client = second.sidecar.client("billing").await;
    for (method, name, params, expected) in &asked {
        let reply = ask(&mut client, method, name, params.clone()).await;
        assert!(reply.json()["result"].is_object(), "{method}: {reply:?}");
        let mut seen = first.upstream.seen().pop().unwrap().json();
        seen["params"].as_object_mut().unwrap().remove("_meta");
        assert_eq!((&seen["method"], &seen["params"]), (&json!(method), expected));
    }

    let mut other = second.sidecar.client("support").await;
    let mut client = third.sidecar.client("billing").await;
    let mut foreign = Vec::new();
    let before = first.seen();
    for (method, name, params, _) in &asked {
        foreign.push(ask(&mut other, method, name, params.clone()).await);
    }
    assert_eq!(first.seen(), before, "nothing of it reached the server");
    drop(first);
    for ((method, name, params, _), foreign) in asked.iter().zip(foreign) {
        let gone = ask(&mut client, method, name, params.clone()).await;
        assert_eq!(foreign.body, gone.body, "another agent's, and one that is gone");
        assert_eq!(
            (&gone.json()["id"], third.last_reason()),
            (&json!(3), "handle_unknown".into())
        );
    }
    assert_eq!((second.seen(), third.seen()), (0, 0));
}

/// A session in the first of two replicas, and the stream of a call in it that was made by way of the second.
async fn streaming() -> (Streams, [Replica; 2], String, Stream) {
    let streams = Streams::default();
    let answering = streams.clone();
    let replicas: [Replica; 2] = replicas(move |request| answering.answer(request)).await;
    let session = session(&replicas[0], "billing").await;
    let client = replicas[1].sidecar.client("billing").await;
    let with = [("mcp-session-id", session.as_str())];
    let stream = Stream::open(client, "POST", &with, &call("list_invoices")).await;
    (streams, replicas, session, stream)
}

#[tokio::test]
async fn streams_questions_and_their_answers_pass_between_replicas() {
    let (streams, [first, second], session, mut stream) = streaming().await;
    let with = [("mcp-session-id", session.as_str())];
    streams.event("", ASK);
    let asked = stream.message().await;
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}}).to_string();
    let mut client = second.sidecar.client("billing").await;
    let reply = client.exchange("POST", &with, answer).await.unwrap();
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!(first.upstream.seen().pop().unwrap().json()["id"], 7);

    // The client goes away, and takes the stream up again by way of the other replica.
    streams.event("upstream-event-1", "");
    let mark = stream.next().await.unwrap().0.unwrap();
    drop(stream);
    until("the server's stream is closed", || streams.newest_is_closed()).await;
    let headers = [("mcp-session-id", session.as_str()), ("last-event-id", &mark)];
    let mut stream = Stream::open(client, "GET", &headers, "").await;
    assert_eq!(
        first.upstream.seen().pop().unwrap().header("last-event-id"),
        Some("upstream-event-1")
    );
    streams.event("e2", RESULT);
    assert_eq!(stream.message().await["id"], "c1");

    // A stream without an end ends with the sidecar that it passes through, and with the one that it comes from.
    for replica in [&second, &first] {
        let client = second.sidecar.client("billing").await;
        let mut stream = Stream::open(client, "GET", &with, "").await;
        let drain = Arc::clone(&replica.sidecar.shared.drain);
        tokio::spawn(async move { drain.run(Duration::ZERO, Duration::from_mins(1)).await });
        assert_eq!(stream.next().await, None);
        until("the server's stream is closed", || streams.newest_is_closed()).await;
    }
    assert_eq!(second.seen(), 0);
}

#[tokio::test]
async fn rights_that_are_withdrawn_where_a_session_lives_end_its_streams_elsewhere() {
    let (_streams, [first, _second], _, mut stream) = streaming().await;
    let mut policy = setup(&first.upstream).policy;
    policy.agents.retain(|agent| agent.name != "billing");
    first.sidecar.mount_policy(&policy).await;
    assert_eq!(stream.message().await["error"]["data"]["reason"], "withdrawn");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_request_that_is_handed_on_counts_once() {
    let [first, second] = replicas(plain).await;
    let session = session(&first, "billing").await;
    let with = [("mcp-session-id", session.as_str())];
    let two = RequestLimits {
        requests_per_minute: std::num::NonZeroU32::new(2),
        concurrent: None,
    };
    for (of_all, reason) in [(true, "tenant_rate_limited"), (false, "rate_limited")] {
        for replica in [&first, &second] {
            let mut policy = setup(&replica.upstream).policy;
            if of_all {
                policy.limits = two;
            } else {
                policy.agents.iter_mut().for_each(|agent| agent.limits = two);
            }
            replica.sidecar.mount_policy(&policy).await;
        }
        for replica in [&second, &first] {
            let mut client = replica.sidecar.client("billing").await;
            let mut ask = async || {
                let reply = client.exchange("POST", &with, call("list_invoices")).await;
                let reply = reply.unwrap();
                (reply.status, reply.reason())
            };
            for _ in 0..2 {
                assert_eq!(ask().await.0, StatusCode::OK);
            }
            assert_eq!(ask().await, (StatusCode::TOO_MANY_REQUESTS, reason.to_owned()));
        }
    }
}

#[tokio::test]
async fn between_replicas_certificates_change_without_a_failed_request() {
    let [first, second] = replicas(plain).await;
    let session = session(&first, "billing").await;
    let with = [("mcp-session-id", session.as_str())];
    let mut client = second.sidecar.client("billing").await;
    for replica in [&first, &second, &first] {
        let reply = client
            .exchange("POST", &with, call("list_invoices"))
            .await
            .unwrap();
        assert_eq!(reply.text(), r#"{"tenant_id":"7f9c0d5e"}"#);
        let before = replica.sidecar.shared.live.peers().unwrap();
        replica
            .sidecar
            .mount_leaf(&first.sidecar.servers_ca.server(&[HOST], SPIFFE_ID));
        until("the new certificate is in force", || {
            !Arc::ptr_eq(&before, &replica.sidecar.shared.live.peers().unwrap())
        })
        .await;
    }
    let reply = client
        .exchange("POST", &with, call("list_invoices"))
        .await
        .unwrap();
    assert_eq!(reply.text(), r#"{"tenant_id":"7f9c0d5e"}"#);
}
