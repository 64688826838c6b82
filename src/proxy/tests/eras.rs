//! What is special to a protocol version: the oldest one that is spoken, from its handshake to its end, and the newest, in
//! which servers ask nothing by themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use bulkhead_core::policy::document::ElicitationMode;
use bulkhead_proxy::testing::{
    Client, RecordingUpstream, Setup, Stream, Streams, TestSidecar, sidecar::TENANT_ID,
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

struct Fixture {
    upstream: RecordingUpstream,
    sidecar: TestSidecar,
    streams: Streams,
}

/// A server that may ask whatever can be granted.
async fn start() -> Fixture {
    let streams = Streams::default();
    let answering = streams.clone();
    let upstream = RecordingUpstream::answering(move |request| answering.answer(request)).await;
    let mut setup = Setup::new(upstream.port());
    let features = &mut setup.policy.client_features;
    features.elicitation = BTreeSet::from([ElicitationMode::Form]);
    (features.sampling, features.roots, features.logging) = (true, true, true);
    Fixture {
        upstream,
        sidecar: TestSidecar::start(setup).await,
        streams,
    }
}

const OLDEST: &str = "2025-03-26";
const CALL: &str = r#"{"jsonrpc":"2.0","id":"c1","method":"tools/call","params":{"name":"list_invoices","_meta":{"progressToken":"p"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
const READY: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":"c1","result":{"content":[]}}"#;
const LOG: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;

/// A request of a client of 2025-03-26: that one has no header for the version, which came with the next.
fn oldest(
    client: &Client,
    method: &str,
    header: Option<&str>,
    session: Option<&str>,
    body: &str,
) -> Request<Full<Bytes>> {
    let session = session.map(|session| ("mcp-session-id", session));
    let mut request = client.request(method, session.as_slice(), body.to_owned());
    let headers = request.headers_mut();
    headers.remove("mcp-protocol-version");
    if let Some(version) = header {
        headers.insert("mcp-protocol-version", version.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_session_of_2025_03_26_works_from_its_beginning_to_its_end() {
    // Some clients of it send the header all the same.
    for header in [None, Some(OLDEST)] {
        let fixture = start().await;
        let (sidecar, upstream) = (&fixture.sidecar, &fixture.upstream);
        let mut client = sidecar.client("billing").await;
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": OLDEST, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
        let request = oldest(&client, "POST", header, None, &initialize.to_string());
        let reply = client.read(request).await.unwrap();
        assert_eq!(reply.json()["result"]["protocolVersion"], OLDEST);
        assert_eq!(upstream.only().json()["params"]["protocolVersion"], OLDEST);
        let session = reply.headers["mcp-session-id"].to_str().unwrap().to_owned();
        let of_session =
            |client: &Client, method: &str, body: &str| oldest(client, method, header, Some(&session), body);
        let request = of_session(&client, "POST", READY);
        let reply = client.read(request).await.unwrap();
        assert_eq!(reply.status, StatusCode::ACCEPTED);

        // A call is forced, and streamed.
        let request = of_session(&client, "POST", CALL);
        let mut answer = Stream::asked(client, request).await;
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.arguments()["tenant_id"], TENANT_ID);
        assert_eq!(seen.header("mcp-session-id"), Some("upstream-session"));
        assert_ne!(seen.header("mcp-protocol-version"), Some("2026-07-28"));
        fixture.streams.event("", LOG);
        assert_eq!(answer.message().await["method"], "notifications/message");
        fixture.streams.event("", RESULT);
        assert_eq!(
            answer.message().await,
            serde_json::from_str::<Value>(RESULT).unwrap()
        );
        assert_eq!(answer.next().await, None);
        // Of a server no batch passes either: it is no answer.
        let client = sidecar.client("billing").await;
        let request = of_session(&client, "POST", CALL);
        let mut answer = Stream::asked(client, request).await;
        fixture.streams.event("", &format!("[{RESULT}]"));
        let refused = answer.message().await;
        assert_eq!(
            (&refused["id"], refused["error"].is_object()),
            (&json!("c1"), true)
        );
        assert_eq!(sidecar.audit().pop().unwrap()["reason"], "answer_malformed");

        // What isn't granted isn't there.
        let mut client = sidecar.client("billing").await;
        let seen = upstream.seen().len();
        let request = of_session(&client, "POST", &CALL.replace("list_", "delete_"));
        let reply = client.read(request).await.unwrap();
        assert!(reply.json()["error"].is_object());
        assert_eq!(sidecar.audit().pop().unwrap()["reason"], "tool_unknown");

        // Batches are 2025-03-26's own: of calls, of what is no call, of answers, of nothing.
        for batch in [
            format!("[{CALL}]"),
            format!("[{LIST},{CALL}]"),
            format!("[{READY}]"),
            format!("[{RESULT}]"),
            "[]".to_owned(),
        ] {
            let request = of_session(&client, "POST", &batch);
            let reply = client.read(request).await.unwrap();
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{batch}");
            let record = sidecar.audit().pop().unwrap();
            assert_eq!(
                (&record["decision"], &record["reason"]),
                (&json!("refuse"), &json!("batch")),
                "{batch}"
            );
        }
        assert_eq!(upstream.seen().len(), seen);

        let getting = sidecar.client("billing").await;
        let request = of_session(&getting, "GET", "");
        let mut stream = Stream::asked(getting, request).await;
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.header("mcp-session-id")),
            ("GET", Some("upstream-session"))
        );
        fixture.streams.event("", &format!("[{LOG}]"));
        fixture.streams.event("", LOG);
        assert_eq!(stream.message().await["params"]["data"], "x");
        fixture.streams.end();
        assert_eq!(stream.next().await, None);

        let request = of_session(&client, "DELETE", "");
        let reply = client.read(request).await.unwrap();
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.header("mcp-session-id")),
            ("DELETE", Some("upstream-session"))
        );
    }
}

/// What servers of the legacy era ask their clients.
fn questions() -> [Value; 4] {
    let asks =
        |method: &str, params: Value| json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    [
        asks(
            "elicitation/create",
            json!({"message": "?", "requestedSchema": {}}),
        ),
        asks("sampling/createMessage", json!({"messages": [], "maxTokens": 1})),
        asks("roots/list", json!({})),
        asks("ping", json!({})),
    ]
}

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;

/// There a server asks inside of a result (SEP-2322), whatever is granted.
#[tokio::test]
async fn what_a_server_asks_by_itself_reaches_nobody_in_the_newest_version() {
    let fixture = start().await;
    let call = CALL.replace(r#"{"progressToken""#, &format!(r#"{META},"progressToken""#));
    let listen = format!(
        r#"{{"jsonrpc":"2.0","id":"c1","method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true}},"_meta":{META}}}}}}}"#
    );
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
        "progressToken": "p", "progress": 1}});
    let acknowledged = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {
        "notifications": {"toolsListChanged": true}, "_meta": {"io.modelcontextprotocol/subscriptionId": "c1"}}});
    let ended = json!({"jsonrpc": "2.0", "id": "c1", "result": {"resultType": "complete"}});
    let modern = |method| {
        [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
            ("mcp-name", "list_invoices"),
        ]
    };
    let (calling, listening) = (modern("tools/call"), modern("subscriptions/listen"));
    for (round, (headers, body, passes, result)) in [
        (
            &calling[..],
            &call,
            progress,
            serde_json::from_str(RESULT).unwrap(),
        ),
        (&listening[..2], &listen, acknowledged, ended),
    ]
    .into_iter()
    .enumerate()
    {
        let client = fixture.sidecar.client("billing").await;
        let mut stream = Stream::open(client, "POST", headers, body).await;
        for question in questions() {
            fixture.streams.event("", &question.to_string());
        }
        fixture.streams.event("", &passes.to_string());
        assert_eq!(stream.message().await, passes, "what is right passes, and first");
        fixture.streams.event("", &questions()[0].to_string());
        fixture.streams.event("", &result.to_string());
        assert_eq!(stream.message().await, result);
        assert_eq!(stream.next().await, None);
        let dropped = format!(
            "bulkhead_dropped_messages_total{{kind=\"server_message_denied\"}} {}\n",
            5 * (round + 1)
        );
        assert!(
            fixture.sidecar.metrics().contains(&dropped),
            "{}",
            fixture.sidecar.metrics()
        );
        assert_eq!(fixture.sidecar.audit().pop().unwrap()["outcome"], "completed");
    }
    // Nor does an answer to one reach the server.
    let seen = fixture.upstream.seen().len();
    let mut client = fixture.sidecar.client("billing").await;
    let answer = json!({"jsonrpc": "2.0", "id": 7, "result": {"action": "decline"}});
    let headers = [("mcp-protocol-version", "2026-07-28")];
    let reply = client
        .exchange("POST", &headers, answer.to_string())
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        fixture.sidecar.audit().pop().unwrap()["reason"],
        "response_unexpected"
    );
    assert_eq!(fixture.upstream.seen().len(), seen);

    // The control: where servers ask by themselves, all of it is asked.
    let client = fixture.sidecar.client("billing").await;
    let mut stream = Stream::open(client, "POST", &[], CALL).await;
    for question in questions() {
        fixture.streams.event("", &question.to_string());
        let asked = stream.message().await;
        assert_eq!(asked["method"], question["method"]);
        assert_ne!(asked["id"], question["id"], "the client gets a handle");
    }
}
