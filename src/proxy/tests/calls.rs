//! What goes through and what the server sees: tools, arguments, headers, sessions, answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bulkhead_core::policy::document::{Forced, Owned, Results};
use bulkhead_proxy::testing::{
    Answer, PATIENCE, Protocol, RecordingUpstream, Reply, Seen, Setup, TestSidecar,
    sidecar::{TENANT_ID, spiffe},
    upstream,
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, time::timeout};

async fn start() -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    (upstream, sidecar)
}

async fn start_answering(
    handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
) -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::answering(handler).await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    (upstream, sidecar)
}

fn text_of(reply: &Reply) -> String {
    reply.json()["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn forced_arguments_reach_the_server_whatever_the_caller_gives() {
    for given in [
        Some(json!({"tenant_id": "globex", "limit": 5})),
        Some(json!({"tenant_id": null})),
        Some(json!({})),
        Some(Value::Null),
        None,
    ] {
        let (upstream, sidecar) = start().await;
        let reply = sidecar
            .client("billing")
            .await
            .call("list_invoices", given.clone())
            .await;
        assert_eq!(reply.status, StatusCode::OK, "{given:?}");
        assert_eq!(upstream.only().arguments()["tenant_id"], TENANT_ID, "{given:?}");
        let audit = sidecar.audit();
        assert_eq!(
            (&audit[0]["decision"], &audit[0]["tool"]),
            (&json!("permit"), &json!("list_invoices"))
        );
        assert_eq!(audit[1]["record"], "outcome");
        assert_eq!(
            (&audit[1]["call"], &audit[1]["outcome"]),
            (&audit[0]["call"], &json!("completed"))
        );
    }
}

#[tokio::test]
async fn tools_that_are_not_granted_are_neither_listed_nor_callable() {
    let (upstream, sidecar) = start().await;
    let mut client = sidecar.client("billing").await;
    let listed = client
        .post(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}))
        .await
        .json();
    let tools = listed["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["list_invoices"]);
    assert!(tools[0]["inputSchema"]["properties"].get("tenant_id").is_none());

    let mut bodies = Vec::new();
    for tool in ["delete_invoice", "drop_database", "no_such_tool"] {
        let reply = client.call(tool, Some(json!({}))).await;
        bodies.push(
            String::from_utf8(reply.body.to_vec())
                .unwrap()
                .replace(tool, "TOOL"),
        );
    }
    assert!(
        bodies
            .iter()
            .all(|body| *body == bodies[0] && body.contains("error")),
        "{bodies:?}"
    );
    assert_eq!(upstream.seen().len(), 1, "only the list reached the server");
    let reasons: Vec<_> = sidecar
        .audit()
        .iter()
        .filter_map(|r| r["reason"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(reasons, ["tool_not_granted", "tool_unknown", "tool_unknown"]);
}

#[tokio::test]
async fn a_bound_is_a_tool_error_and_the_server_sees_nothing() {
    let (upstream, sidecar) = start().await;
    let mut client = sidecar.client("billing").await;
    let reply = client.call("list_invoices", Some(json!({"limit": 101}))).await;
    assert_eq!(reply.json()["result"]["isError"], true);
    assert_eq!(upstream.seen().len(), 0);
    let reply = client.call("list_invoices", Some(json!({"limit": 100}))).await;
    assert_eq!(reply.json()["result"]["isError"], Value::Null);
    assert_eq!(upstream.only().arguments()["limit"], 100);
}

#[tokio::test]
async fn bodies_that_parsers_disagree_on_are_refused() {
    let (upstream, sidecar) = start().await;
    let mut client = sidecar.client("billing").await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices"}}"#;
    for (body, reason) in [
        (format!("[{call}]"), "batch"),
        (
            call.replace(r#""name":"#, r#""name":"drop_database","name":"#),
            "duplicate_key",
        ),
        (
            call.replace(
                r#""name":"list_invoices""#,
                r#""name":"list_invoices","arguments":{"a":1,"a":2}"#,
            ),
            "duplicate_key",
        ),
        (call.replace("\"method\"", "\"Method\""), "case_variant"),
        (format!("{call}x"), "trailing_bytes"),
        (format!("\u{feff}{call}"), "byte_order_mark"),
        ("{".to_owned(), "malformed_json"),
    ] {
        let reply = client.exchange("POST", &[], body.clone()).await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(sidecar.audit().last().unwrap()["reason"], reason, "{body}");
    }
    assert_eq!(
        client.exchange("POST", &[], call).await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn the_edge_refuses_before_a_body_is_read() {
    let (upstream, sidecar) = start().await;
    for (method, headers, reason) in [
        ("POST", ("host", "evil.example"), "host_not_allowed"),
        ("POST", ("host", "127.0.0.1"), "host_not_allowed"),
        ("POST", ("origin", "https://evil.example"), "origin_not_allowed"),
        ("POST", ("content-type", "text/plain"), "content_type"),
        ("POST", ("content-encoding", "gzip"), "content_encoding"),
        ("GET", ("accept", "text/event-stream"), "session_missing"),
        ("GET", ("accept", "application/json"), "not_acceptable"),
        ("GET", ("mcp-protocol-version", "2026-07-28"), "legacy_method"),
        ("DELETE", ("mcp-protocol-version", "2026-07-28"), "legacy_method"),
        (
            "GET",
            ("mcp-protocol-version", "2024-11-05"),
            "unsupported_version",
        ),
        ("PUT", ("accept", "*/*"), "method_not_allowed"),
        ("DELETE", ("accept", "*/*"), "session_missing"),
    ] {
        let mut client = sidecar.client("billing").await;
        let reply = client.exchange(method, &[headers], "{}").await.unwrap();
        assert_eq!(reply.reason(), reason, "{method} {headers:?}");
        assert_eq!(sidecar.audit().last().unwrap()["reason"], reason);
    }
    let reply = sidecar
        .client("billing")
        .await
        .exchange("GET", &[("mcp-protocol-version", "2026-07-28")], "")
        .await
        .unwrap();
    assert_eq!(
        (reply.status, &reply.headers["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_and_without_its_length() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.body_bytes = 1000;
    let sidecar = TestSidecar::start(setup).await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = sidecar.client_with(&leaf, protocol).await;
        let reply = client.exchange("POST", &[], "x".repeat(1001)).await.unwrap();
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
        );
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn nothing_that_looks_like_identity_reaches_the_server() {
    let (upstream, sidecar) = start().await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    let mut client = sidecar.client_with(&leaf, Protocol::Http1).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-client-cert", "URI=spiffe://x"),
        ("x-real-ip", "1.2.3.4"),
        ("x-remote-user", "root"),
        ("x-auth-request-user", "root"),
        ("x-bulkhead-agent", "support"),
        ("x-anything", "else"),
        ("baggage", "user=root"),
        ("last-event-id", "7"),
        ("mcp-param-tenant_id", "globex"),
        ("traceparent", trace),
    ];
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices"}}"#;
    assert_eq!(
        client.exchange("POST", &headers, body).await.unwrap().status,
        StatusCode::OK
    );
    let seen = upstream.only();
    let mut names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            // The sidecar's own credential.
            "authorization",
            "content-length",
            "content-type",
            "host",
            "mcp-protocol-version",
            "traceparent"
        ]
    );
    assert_ne!(seen.header("authorization"), Some("Bearer x"));
    assert_eq!(
        seen.header("host"),
        Some(format!("127.0.0.1:{}", upstream.port()).as_str())
    );
    assert_eq!(seen.header("traceparent"), Some(trace));
}

#[tokio::test]
async fn a_session_is_its_agent_s_alone() {
    let (upstream, sidecar) = start().await;
    let mut billing = sidecar.client("billing").await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let reply = billing.post(&initialize).await;
    let session = reply.headers["mcp-session-id"].to_str().unwrap().to_owned();
    assert!(!session.contains("upstream-session"));

    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let with = [("mcp-session-id", session.as_str())];
    assert_eq!(
        billing.exchange("POST", &with, list).await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!(
        upstream.seen().last().unwrap().header("mcp-session-id"),
        Some("upstream-session")
    );

    let mut support = sidecar.client("support").await;
    for (of_billing, handle) in [
        (false, session.as_str()),
        (true, "upstream-session"),
        (true, "AAAA"),
    ] {
        let client = if of_billing { &mut billing } else { &mut support };
        let foreign = [("mcp-session-id", handle)];
        for method in ["POST", "DELETE"] {
            let reply = client.exchange(method, &foreign, list).await.unwrap();
            assert_eq!(
                (reply.status, reply.reason().as_str()),
                (StatusCode::NOT_FOUND, "session_unknown")
            );
        }
    }
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(
        billing.exchange("DELETE", &with, "").await.unwrap().status,
        StatusCode::NO_CONTENT
    );
    let seen = upstream.seen().pop().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.header("mcp-session-id")),
        ("DELETE", Some("upstream-session"))
    );
    let audit = sidecar.audit();
    let [.., intent, outcome] = audit.as_slice() else {
        panic!("the end of a session must be recorded: {audit:?}")
    };
    assert_eq!(
        (&intent["decision"], &intent["method"], &intent["agent"]),
        (&json!("permit"), &json!("DELETE"), &json!("billing"))
    );
    assert_eq!(
        (&outcome["call"], &outcome["outcome"]),
        (&intent["call"], &json!("completed"))
    );

    sidecar.break_audit();
    let reply = billing.exchange("DELETE", &with, "").await.unwrap();
    assert_eq!(reply.reason(), "audit_unavailable");
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn what_was_permitted_is_not_recorded_as_refused_when_the_server_fails() {
    let (_upstream, sidecar) = start_answering(|request| match request.method.as_str() {
        "POST" if request.header("mcp-session-id").is_none() && request.json()["id"].is_number() => {
            upstream::plain(request)
        }
        _ => Answer::Whole(404, vec![], String::new()),
    })
    .await;
    let mut client = sidecar.client("billing").await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let reply = client.post(&initialize).await;
    let session = reply.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let with = [("mcp-session-id", session.as_str())];
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    for (method, headers, body, reason) in [
        ("POST", &with[..], list, "session_unknown"),
        ("DELETE", &with[..], "", "session_unknown"),
        ("POST", &[], ready, "upstream_failed"),
    ] {
        let reply = client.exchange(method, headers, body).await.unwrap();
        assert_eq!(reply.reason(), reason, "{method} {body}");
        let audit = sidecar.audit();
        let [.., intent, outcome] = audit.as_slice() else {
            panic!("{audit:?}")
        };
        assert_eq!(intent["decision"], "permit", "{method} {body}");
        assert_eq!(
            (&outcome["outcome"], &outcome["call"]),
            (&json!("failed"), &intent["call"])
        );
    }
}

#[tokio::test]
async fn a_server_that_answers_before_it_reads_holds_up_no_other_call() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            open.push(stream);
        }
    });
    let mut setup = Setup::new(port);
    setup.limits.body_bytes = 64 << 20;
    (setup.limits.memory, setup.limits.memory_per_agent) = (64 << 20, 64 << 20);
    let sidecar = TestSidecar::start(setup).await;
    let mut client = sidecar.client("billing").await;
    // More than the sockets' buffers hold, so that the request can't have been written to its end.
    let large = Some(json!({"text": "x".repeat(32 << 20)}));
    let reply = client.call("list_invoices", large).await;
    assert_eq!(reply.json()["result"]["content"], json!([]));
    let second = timeout(PATIENCE, client.call("list_invoices", None)).await;
    let second = second.expect("a connection that never gets ready must not be waited for");
    assert_eq!(second.json()["result"]["content"], json!([]));
    serving.abort();
}

#[tokio::test]
async fn of_an_event_stream_only_the_answer_and_comments_pass() {
    let (_upstream, sidecar) = start_answering(|request| {
        let id = &request.json()["id"];
        Answer::events(vec![
            "id: 1\ndata: \n\n: secret\n\n".to_owned(),
            r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"secret"}}"#
                .to_owned()
                + "\n\n",
            r#"data: {"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{}}"#.to_owned()
                + "\n\n",
            "event: endpoint\ndata: /secret\n\n".to_owned(),
            format!(
                "data: {}\r\n\r\n",
                json!({"jsonrpc": "2.0", "id": id, "result": {"tools": upstream::tools()}})
            ),
            format!(
                "data: {}\n\n",
                json!({"jsonrpc": "2.0", "id": id, "result": {"secret": true}})
            ),
        ])
    })
    .await;
    let reply = sidecar
        .client("billing")
        .await
        .post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
        .await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(
        !text.contains("secret") && text.contains(": keep-alive"),
        "{text}"
    );
    let result = reply.json();
    assert_eq!(result["result"]["tools"].as_array().unwrap().len(), 1);
    for kind in ["server_message_denied", "answer_feature"] {
        let dropped = format!("bulkhead_dropped_messages_total{{kind=\"{kind}\"}} 1");
        assert!(sidecar.metrics().contains(&dropped), "{dropped}");
    }
    assert_eq!(sidecar.audit().last().unwrap()["outcome"], "completed");
}

#[tokio::test]
async fn what_is_no_answer_to_the_request_does_not_pass() {
    for (status, content_type, body, expected) in [
        (
            200,
            "application/json",
            r#"{"jsonrpc":"2.0","id":2,"result":{"secret":1}}"#,
            "answer_mismatch",
        ),
        (200, "application/json", r#"{"secret":1}"#, "answer_malformed"),
        (200, "text/html", "<p>secret</p>", ""),
        (500, "text/plain", "secret stack trace", ""),
        (302, "text/plain", "secret", ""),
    ] {
        let (_upstream, sidecar) = start_answering(move |_| {
            let headers = vec![
                ("content-type", content_type.to_owned()),
                ("location", "http://10.0.0.1/".into()),
            ];
            Answer::Whole(status, headers, body.to_owned())
        })
        .await;
        let reply = sidecar.client("billing").await.call("list_invoices", None).await;
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(
            (&reply.json()["id"], reply.json()["error"].is_object()),
            (&json!(1), true),
            "{text}"
        );
        let outcome = sidecar.audit().pop().unwrap();
        assert_eq!(
            (
                &outcome["outcome"],
                outcome["reason"].as_str().unwrap_or_default()
            ),
            (&json!("failed"), expected)
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_such() {
    let upstream = RecordingUpstream::start().await;
    let port = upstream.port();
    drop(upstream);
    let sidecar = TestSidecar::start(Setup::new(port)).await;
    let reply = sidecar.client("billing").await.call("list_invoices", None).await;
    assert_eq!(reply.reason(), "upstream_unavailable");
    assert_eq!(sidecar.audit().pop().unwrap()["outcome"], "failed");
}

#[tokio::test]
async fn without_its_record_a_call_is_not_made() {
    let (upstream, sidecar) = start().await;
    sidecar.break_audit();
    let reply = sidecar.client("billing").await.call("list_invoices", None).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable")
    );
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn an_error_of_the_server_and_text_pass_as_they_are() {
    let (_upstream, sidecar) = start().await;
    let reply = sidecar
        .client("billing")
        .await
        .call("list_invoices", Some(json!({"text": "é\u{1F600}"})))
        .await;
    let echoed: Value = serde_json::from_str(&text_of(&reply)).unwrap();
    assert_eq!(echoed, json!({"tenant_id": TENANT_ID, "text": "é\u{1F600}"}));
}

#[tokio::test]
async fn of_a_filtered_result_the_agent_s_own_records_pass_and_the_others_are_counted() {
    let upstream = RecordingUpstream::answering(|request| {
        let rows = json!([{"tenant": TENANT_ID, "n": 1}, {"tenant": "globex", "n": 2}]);
        Answer::json(&json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {
            "content": [{"type": "text", "text": "globex too"}], "structuredContent": {"rows": rows, "total": 2}}}))
    })
    .await;
    let mut setup = Setup::new(upstream.port());
    setup.policy.tools[0].results = Some(Results {
        owned: Some(Owned {
            path: "$.rows".into(),
            field: "tenant".into(),
            equals: Forced::String(TENANT_ID.into()),
        }),
        max_records: Some(5),
        max_bytes: None,
    });
    let sidecar = TestSidecar::start(setup).await;
    let reply = sidecar.client("billing").await.call("list_invoices", None).await;
    let left = json!({"rows": [{"tenant": TENANT_ID, "n": 1}]});
    assert_eq!(reply.json()["result"]["structuredContent"], left);
    assert_eq!(text_of(&reply), left.to_string());
    let outcome = sidecar.audit().pop().unwrap();
    assert_eq!(
        (&outcome["recordsKept"], &outcome["recordsRemoved"]),
        (&json!(1), &json!(1))
    );
    let removed = "bulkhead_owned_records_total{result=\"removed\"} 1";
    assert!(sidecar.metrics().contains(removed), "{}", sidecar.metrics());
    // The control: of a tool without the filter everything passes.
    let reply = sidecar.client("support").await.call("delete_invoice", None).await;
    assert_eq!(text_of(&reply), "globex too");
}
