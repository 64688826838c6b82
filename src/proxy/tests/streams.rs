//! Streams: what a server says and asks on them, taking one up again, and who ends them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bulkhead_core::{
    handles::{Handle, Handles, Kind},
    policy::document::{ElicitationMode, Resource},
};
use bulkhead_proxy::testing::{
    Answer, Client, Protocol, RecordingUpstream, Setup, Stream, Streams, TestSidecar, sidecar::spiffe, until,
    upstream,
};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};

struct Fixture {
    /// What the server lists as its tools.
    tools: Arc<Mutex<Value>>,
    upstream: RecordingUpstream,
    sidecar: TestSidecar,
    streams: Streams,
    setup: bulkhead_core::policy::PolicyDocument,
}

async fn start() -> Fixture {
    start_with(false).await
}

/// The same; with `inventory` the sidecar looks at the server's lists itself.
async fn start_with(inventory: bool) -> Fixture {
    let streams = Streams::default();
    let tools = Arc::new(Mutex::new(upstream::tools()));
    let (answering, listed) = (streams.clone(), Arc::clone(&tools));
    let upstream = RecordingUpstream::answering(move |request| {
        if request.method != "POST" || request.json()["method"] != "tools/list" {
            return answering.answer(request);
        }
        let result = json!({"tools": *listed.lock().unwrap()});
        Answer::json(&json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": result}))
    })
    .await;
    let mut setup = Setup::new(upstream.port());
    setup.inventory = inventory;
    setup.policy.client_features.elicitation = BTreeSet::from([ElicitationMode::Form]);
    setup.policy.client_features.logging = true;
    setup.policy.resources = vec![Resource {
        uri: "docs://{page}".into(),
        roles: BTreeSet::from(["reader".to_owned()]),
        forced: [].into(),
        results: None,
    }];
    setup.limits.keep_alive = Duration::from_millis(50);
    setup.limits.streams_per_agent = 2;
    let policy = setup.policy.clone();
    Fixture {
        tools,
        sidecar: TestSidecar::start(setup).await,
        upstream,
        streams,
        setup: policy,
    }
}

/// One whose sidecar has looked at the server's lists.
async fn looked_at() -> Fixture {
    let fixture = start_with(true).await;
    until("the lists are known", || {
        let seen = fixture.upstream.seen_in_all();
        seen.last().is_some_and(|seen| seen.method == "DELETE")
    })
    .await;
    fixture
}

impl Fixture {
    /// A client with a session.
    async fn session(&self, agent: &str) -> (Client, String) {
        let mut client = self.sidecar.client(agent).await;
        let session = client.open_session().await;
        (client, session)
    }
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":"c1","method":"tools/call","params":{"name":"list_invoices"}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":"c1","result":{"content":[]}}"#;
const LOG: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;
const ASK: &str =
    r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"message":"?","requestedSchema":{}}}"#;
const SAMPLE: &str =
    r#"{"jsonrpc":"2.0","id":8,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}"#;

/// Outcomes by the method of their intent.
fn outcomes(sidecar: &TestSidecar, method: &str) -> Vec<String> {
    let audit = sidecar.audit();
    let calls: Vec<_> = audit
        .iter()
        .filter(|record| record["method"] == method && record["decision"] == "permit")
        .map(|record| record["call"].clone())
        .collect();
    audit
        .iter()
        .filter(|record| record["record"] == "outcome" && calls.contains(&record["call"]))
        .map(|record| record["outcome"].as_str().unwrap().to_owned())
        .collect()
}

const CHANGED: &str = "notifications/tools/list_changed";

#[tokio::test]
async fn an_agent_is_told_when_its_own_list_changed_and_others_are_not() {
    let fixture = looked_at().await;
    let (client, session) = fixture.session("support").await;
    let mut support = Stream::open(client, "GET", &[("mcp-session-id", &session)], "").await;
    let (client, session) = fixture.session("billing").await;
    let mut billing = Stream::open(client, "GET", &[("mcp-session-id", &session)], "").await;
    let updated = |page: u8| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"docs://{page}"}}}}"#
        )
    };
    let changed = json!({"jsonrpc": "2.0", "method": CHANGED}).to_string();
    // What the server says goes to nobody when nothing changed.
    fixture.streams.event("", &changed);
    // And when only another agent's tool did, to that one, whoever's stream it comes on.
    fixture.tools.lock().unwrap()[1]["description"] = json!("Deletes all");
    fixture.streams.event("", &changed);
    assert_eq!(
        support.message().await,
        json!({"jsonrpc": "2.0", "method": CHANGED})
    );
    fixture.streams.event("", &updated(1));
    assert_eq!(billing.message().await["params"]["uri"], "docs://1");
    // A policy changes lists as well.
    let mut policy = fixture.setup.clone();
    policy.tools[0].roles.clear();
    fixture.sidecar.mount_policy(&policy).await;
    assert_eq!(billing.message().await["method"], CHANGED);
    fixture.streams.event("", &updated(2));
    assert_eq!(billing.message().await["params"]["uri"], "docs://2");
}

#[tokio::test]
async fn a_server_asks_what_is_granted_and_gets_the_answer_of_whom_it_asked() {
    let fixture = start().await;
    let (client, session) = fixture.session("billing").await;
    let with = [("mcp-session-id", session.as_str())];
    let mut stream = Stream::open(client, "POST", &with, CALL).await;
    fixture.streams.event("", SAMPLE);
    fixture.streams.event("", ASK);
    let asked = stream.message().await;
    assert_eq!(asked["method"], "elicitation/create");

    let seen = fixture.upstream.seen().len();
    let answer =
        |id: &Value| json!({"jsonrpc": "2.0", "id": id, "result": {"action": "decline"}}).to_string();
    // Another agent's session, another id, no session at all.
    let (mut other, others) = fixture.session("support").await;
    let of_other = [("mcp-session-id", others.as_str())];
    let mut billing = fixture.sidecar.client("billing").await;
    for (of_billing, headers, id) in [
        (false, &of_other[..], &asked["id"]),
        (true, &with[..], &json!(7)),
        (true, &with[..], &json!("7")),
        (true, &[][..], &asked["id"]),
    ] {
        let client = if of_billing { &mut billing } else { &mut other };
        let reply = client.exchange("POST", headers, answer(id)).await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{headers:?} {id}");
        let audit = fixture.sidecar.audit();
        assert_eq!(audit.last().unwrap()["reason"], "response_unexpected");
    }
    // The handshake of the other session is all that came since.
    assert_eq!(fixture.upstream.seen().len(), seen + 1);
    let reply = billing
        .exchange("POST", &with, answer(&asked["id"]))
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let got = fixture.upstream.seen().pop().unwrap();
    assert_eq!(
        (&got.json()["id"], got.header("mcp-session-id")),
        (&json!(7), Some("upstream-session"))
    );

    fixture.streams.event("", RESULT);
    assert_eq!(
        stream.message().await,
        serde_json::from_str::<Value>(RESULT).unwrap()
    );
    assert_eq!(stream.next().await, None);
    assert_eq!(outcomes(&fixture.sidecar, "tools/call"), ["completed"]);
}

#[tokio::test]
async fn a_session_s_stream_has_notifications_and_no_answers() {
    let fixture = start().await;
    let (client, session) = fixture.session("billing").await;
    let mut stream = Stream::open(client, "GET", &[("mcp-session-id", &session)], "").await;
    let got = fixture.upstream.seen().pop().unwrap();
    assert_eq!(
        (
            got.method.as_str(),
            got.header("mcp-session-id"),
            got.header("mcp-protocol-version")
        ),
        ("GET", Some("upstream-session"), Some("2025-06-18"))
    );
    fixture.streams.event("", RESULT);
    let updated = |uri: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#
        )
    };
    fixture.streams.event("", &updated("secret://1"));
    fixture.streams.event("", &updated("docs://1"));
    assert_eq!(stream.message().await["params"]["uri"], "docs://1");

    // It goes on without a word, and is kept alive.
    let comment = tokio::time::timeout(Duration::from_secs(20), stream.body.frame()).await;
    assert_eq!(
        comment.unwrap().unwrap().unwrap().into_data().unwrap(),
        ": keep-alive\n\n"
    );
    // A foreign session has no stream, and an agent no more than its share.
    let (mut other, _) = fixture.session("support").await;
    let foreign = other
        .exchange("GET", &[("mcp-session-id", &session)], "")
        .await
        .unwrap();
    assert_eq!(foreign.reason(), "session_unknown");
    let second = fixture.sidecar.client("billing").await;
    let _second = Stream::open(second, "GET", &[("mcp-session-id", &session)], "").await;
    let mut third = fixture.sidecar.client("billing").await;
    let refused = third
        .exchange("GET", &[("mcp-session-id", &session)], "")
        .await
        .unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_stream_is_taken_up_again_by_its_agent_and_filtered_as_before() {
    let fixture = start().await;
    let (client, session) = fixture.session("billing").await;
    let with = [("mcp-session-id", session.as_str())];
    let mut stream = Stream::open(client, "POST", &with, CALL).await;
    // The server says where to come back to, and closes.
    fixture.streams.event("upstream-event-1", "");
    let (mark, data) = stream.next().await.unwrap();
    let mark = mark.unwrap();
    assert_eq!(data, "");
    assert!(!mark.contains("upstream-event-1"));
    fixture.streams.end();
    assert_eq!(stream.next().await, None);
    assert_eq!(
        outcomes(&fixture.sidecar, "tools/call"),
        [""; 0],
        "its outcome is still to come"
    );

    let seen = fixture.upstream.seen().len();
    let (mut other, others) = fixture.session("support").await;
    let mut billing = fixture.sidecar.client("billing").await;
    for (of_billing, session, event) in [
        (false, &others, mark.as_str()),
        (true, &session, "upstream-event-1"),
        (true, &session, session.as_str()),
    ] {
        let client = if of_billing { &mut billing } else { &mut other };
        let headers = [("mcp-session-id", session.as_str()), ("last-event-id", event)];
        let reply = client.exchange("GET", &headers, "").await.unwrap();
        assert_eq!(reply.reason(), "event_unknown");
    }
    assert_eq!(fixture.upstream.seen().len(), seen + 1);

    let headers = [
        ("mcp-session-id", session.as_str()),
        ("last-event-id", mark.as_str()),
    ];
    let mut stream = Stream::open(billing, "GET", &headers, "").await;
    assert_eq!(
        fixture.upstream.seen().pop().unwrap().header("last-event-id"),
        Some("upstream-event-1")
    );
    fixture.streams.event("e2", LOG);
    assert_eq!(stream.message().await["method"], "notifications/message");
    fixture.streams.event("e3", &RESULT.replace("c1", "c2"));
    // An answer to something else ends the stream with the refusal.
    let refused = stream.message().await;
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!("c1"), &json!(-32603))
    );
    until("the call is closed", || {
        outcomes(&fixture.sidecar, "tools/call") == ["failed"]
    })
    .await;
    assert_eq!(outcomes(&fixture.sidecar, "GET"), ["completed"]);
}

/// Calls are numbered from a sidecar's start, and handles outlive it.
#[tokio::test]
async fn a_mark_of_before_a_restart_closes_no_call_of_after_it() {
    let fixture = start().await;
    let (client, session) = fixture.session("billing").await;
    let with = [("mcp-session-id", session.as_str())];
    let mut stream = Stream::open(client, "POST", &with, CALL).await;
    fixture.streams.event("upstream-event-1", "");
    let (mark, _) = stream.next().await.unwrap();
    fixture.streams.end();
    assert_eq!(stream.next().await, None);

    let mark = mark.unwrap();
    let billing = spiffe("billing");
    let handles = Handles::new(
        &*fixture.sidecar.shared.keyring,
        &billing,
        Some("upstream-session"),
    );
    let mut handle = handles.open(Kind::Event, &mark).unwrap().handle;
    if let Handle::Event { run, .. } = &mut handle {
        *run ^= 1;
    }
    let before = handles.seal(&handle).unwrap();
    for (mark, expected) in [(before, vec![]), (mark, vec!["completed"])] {
        let headers = [with[0], ("last-event-id", mark.as_str())];
        let mut again = Stream::open(fixture.sidecar.client("billing").await, "GET", &headers, "").await;
        fixture.streams.event("e2", RESULT);
        assert_eq!(again.message().await["id"], "c1");
        assert_eq!(again.next().await, None);
        assert_eq!(outcomes(&fixture.sidecar, "tools/call"), expected);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_in_the_modern_era_only() {
    let fixture = start().await;
    let (client, session) = fixture.session("billing").await;
    let mut legacy = Stream::open(client, "POST", &[("mcp-session-id", &session)], CALL).await;
    fixture.streams.event("upstream-event-1", LOG);
    let (mark, _) = legacy.next().await.unwrap();
    drop(legacy);
    until("the server's stream is closed", || {
        fixture.streams.newest_is_closed()
    })
    .await;
    assert_eq!(outcomes(&fixture.sidecar, "tools/call"), [""; 0]);
    let headers = [
        ("mcp-session-id", session.as_str()),
        ("last-event-id", &mark.unwrap()),
    ];
    let mut again = Stream::open(fixture.sidecar.client("billing").await, "GET", &headers, "").await;
    fixture.streams.event("e2", RESULT);
    assert_eq!(again.message().await["id"], "c1");
    until("the call is closed", || {
        outcomes(&fixture.sidecar, "tools/call") == ["completed"]
    })
    .await;

    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let call = CALL.replace(r#""name""#, &format!(r#""_meta":{meta},"name""#));
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "list_invoices"),
    ];
    let mut modern = Stream::open(fixture.sidecar.client("billing").await, "POST", &headers, &call).await;
    fixture.streams.event("upstream-event-1", LOG);
    assert_eq!(
        modern.next().await.unwrap().0,
        None,
        "there is nothing to come back to"
    );
    drop(modern);
    until("the call is cancelled", || {
        outcomes(&fixture.sidecar, "tools/call") == ["completed", "cancelled"]
    })
    .await;
    assert!(fixture.streams.newest_is_closed());
}

#[tokio::test]
async fn a_subscription_ends_with_its_rights_or_its_connection_and_says_so() {
    let fixture = looked_at().await;
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let listen = format!(
        r#"{{"jsonrpc":"2.0","id":5,"method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true}},"_meta":{meta}}}}}"#
    );
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let leaf = fixture.sidecar.agents_ca.client(&[&spiffe("billing")]);
    let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/subscriptionId":5}}}"#;

    let client = fixture.sidecar.client_with(&leaf, Protocol::Http2).await;
    let mut stream = Stream::open(client, "POST", &headers, &listen).await;
    // What changes before the acknowledgement is told after it.
    let mut policy = fixture.setup.clone();
    policy.tools.retain(|tool| tool.name != "list_invoices");
    fixture.sidecar.mount_policy(&policy).await;
    fixture.streams.event("", acknowledged);
    assert_eq!(
        stream.message().await["method"],
        "notifications/subscriptions/acknowledged"
    );
    let told = stream.message().await;
    assert_eq!(
        (
            &told["method"],
            &told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]
        ),
        (&json!(CHANGED), &json!(5))
    );
    policy.agents.retain(|agent| agent.name != "billing");
    fixture.sidecar.mount_policy(&policy).await;
    let withdrawn = stream.message().await;
    assert_eq!(
        (&withdrawn["id"], &withdrawn["error"]["data"]["reason"]),
        (&json!(5), &json!("withdrawn"))
    );
    assert_eq!(fixture.sidecar.audit().pop().unwrap()["reason"], "agent_unknown");
    assert_eq!(stream.next().await, None);

    fixture.sidecar.mount_policy(&fixture.setup).await;
    let client = fixture.sidecar.client_with(&leaf, Protocol::Http2).await;
    let mut stream = Stream::open(client, "POST", &headers, &listen).await;
    let drain = Arc::clone(&fixture.sidecar.shared.drain);
    tokio::spawn(async move { drain.run(Duration::ZERO, Duration::from_mins(1)).await });
    let ended = stream.message().await;
    assert_eq!(
        (&ended["id"], &ended["result"]["resultType"]),
        (&json!(5), &json!("complete"))
    );
    assert_eq!(stream.next().await, None);
    assert_eq!(
        outcomes(&fixture.sidecar, "subscriptions/listen"),
        ["failed", "completed"]
    );
}
