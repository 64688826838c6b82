//! What goes through and what the server sees: tools, arguments, headers, sessions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bulkhead_cluster::Port;
use bulkhead_core::policy::document::Forced;
use bulkhead_proxy::{
    policy::LoadedPolicy,
    testing::{
        PATIENCE, Protocol, RecordingUpstream, Setup, TestSidecar,
        sidecar::{TENANT_ID, policy, spiffe},
        until,
        upstream::plain,
    },
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

async fn start() -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    (upstream, sidecar)
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
        let record = sidecar.audit().pop().unwrap();
        assert_eq!(
            (&record["reason"], &record["pod"]),
            (&"body_too_large".into(), &"agent-0".into())
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
    assert_ne!(seen.header("authorization"), Some(client.authorization.as_str()));
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
    let session = billing.open_session().await;
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
async fn a_call_that_each_change_decides_anew_is_given_up() {
    for (method, body) in [
        ("POST", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#),
        ("GET", ""),
        ("DELETE", ""),
    ] {
        let (upstream, sidecar) = start().await;
        let mut billing = sidecar.client("billing").await;
        let session = billing.open_session().await;
        let (seen, records) = (upstream.seen().len(), sidecar.audit().len());
        let (live, same) = (
            Arc::clone(&sidecar.shared.live),
            policy(upstream.port()).to_json(),
        );
        // Each attempt leaves two.
        sidecar.each_time(8, move || {
            live.set_policy(LoadedPolicy::load(same.as_bytes()).unwrap());
        });
        let headers = [("mcp-session-id", session.as_str())];
        let reply = billing.exchange(method, &headers, body).await.unwrap();
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            "{method}"
        );
        assert_eq!(upstream.seen().len(), seen, "{method}");
        let reasons: Vec<_> = sidecar.audit()[records..]
            .iter()
            .map(|record| record["reason"].clone())
            .collect();
        let mut expected = [json!(null), json!("decided_again")]
            .into_iter()
            .cycle()
            .take(8)
            .collect::<Vec<_>>();
        expected.push(json!("overloaded"));
        assert_eq!(reasons, expected, "{method}");
    }
}

/// Whether it is closed is asked with a request's head, and its body or its record may take long.
#[tokio::test]
async fn a_network_that_opens_meanwhile_stops_a_call() {
    let (upstream, mut sidecar) = start().await;
    // What the canary would say is said below.
    let control = sidecar.control.take().unwrap();
    control.abort();
    let _ = control.await;
    let mut billing = sidecar.client("billing").await;
    for (closed, reason) in [(true, ""), (false, "network_open")] {
        let readiness = Arc::clone(&sidecar.shared.readiness);
        sidecar.meanwhile(move || readiness.network_is(closed));
        assert_eq!(billing.call("list_invoices", None).await.reason(), reason);
    }
    assert_eq!(upstream.seen().len(), 1);
    let audit = sidecar.audit();
    let [.., intent, outcome, refusal] = audit.as_slice() else {
        panic!("{audit:?}")
    };
    assert_eq!(
        (&outcome["call"], &outcome["outcome"], &outcome["reason"]),
        (&intent["call"], &json!("cancelled"), &json!("network_open"))
    );
    assert_eq!(refusal["reason"], "network_open");
}

#[tokio::test]
async fn what_changes_while_a_session_call_is_recorded_decides() {
    for method in ["GET", "DELETE"] {
        let (upstream, sidecar) = start().await;
        let mut withdrawn = policy(upstream.port());
        withdrawn.agents.remove(0);
        let mut billing = sidecar.client("billing").await;
        let session = billing.open_session().await;
        let seen = upstream.seen().len();
        let live = Arc::clone(&sidecar.shared.live);
        sidecar
            .meanwhile(move || live.set_policy(LoadedPolicy::load(withdrawn.to_json().as_bytes()).unwrap()));
        let headers = [("mcp-session-id", session.as_str())];
        let reply = billing.exchange(method, &headers, "").await.unwrap();
        assert_eq!(reply.reason(), "agent_unknown", "{method}");
        assert_eq!(upstream.seen().len(), seen, "{method}");
        let audit = sidecar.audit();
        let [.., intent, outcome, refusal] = audit.as_slice() else {
            panic!("{audit:?}")
        };
        assert_eq!(
            (&outcome["call"], &outcome["outcome"], &outcome["reason"]),
            (&intent["call"], &json!("cancelled"), &json!("decided_again")),
            "{method}"
        );
        assert_eq!(refusal["reason"], "agent_unknown", "{method}");
    }
}

/// A listener that has as many connections waiting as it may: a further one takes until some are accepted.
async fn full_listener(port: u16) -> (TcpListener, Vec<TcpStream>) {
    let mut listener = None;
    until("nobody else listens there any more", || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        let bound = socket.bind((Ipv4Addr::LOCALHOST, port).into());
        listener = bound.and_then(|()| socket.listen(1)).ok();
        listener.is_some()
    })
    .await;
    let listener = listener.unwrap();
    let mut waiting = Vec::new();
    let connect = async || {
        let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        timeout(Duration::from_millis(200), connecting).await
    };
    // A machine that is busy may be slow once.
    let mut in_vain = 0;
    while in_vain < 2 {
        match connect().await {
            Ok(connected) => waiting.push(connected.unwrap()),
            Err(_) => in_vain += 1,
        }
    }
    (listener, waiting)
}

#[tokio::test]
async fn what_changes_while_a_connection_to_the_server_is_made_decides() {
    for method in ["POST", "GET", "DELETE"] {
        let port = Port::reserve().unwrap();
        let first = RecordingUpstream::at(port.number(), plain).await;
        let mut setup = Setup::new(port.number());
        setup.limits.upstream_connect = PATIENCE;
        // No connection is kept.
        setup.limits.upstream_idle = 0;
        let mut withdrawn = setup.policy.clone();
        withdrawn.agents.remove(0);
        let sidecar = TestSidecar::start(setup).await;
        let mut billing = sidecar.client("billing").await;
        let session = billing.open_session().await;
        drop(first);

        let (listener, waiting) = full_listener(port.number()).await;
        let records = sidecar.audit().len();
        let call = tokio::spawn(async move {
            let headers = [("mcp-session-id", session.as_str())];
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
            billing
                .exchange(method, &headers, body.to_string())
                .await
                .unwrap()
        });
        until("the call is on record", || sidecar.audit().len() > records).await;
        let policy = LoadedPolicy::load(withdrawn.to_json().as_bytes()).unwrap();
        sidecar.shared.live.set_policy(policy);
        let second = RecordingUpstream::on(listener, plain);
        drop(waiting);
        assert_eq!(call.await.unwrap().reason(), "agent_unknown", "{method}");
        assert_eq!(second.seen().len(), 0, "{method}");
        let after = &sidecar.audit()[records..];
        assert_eq!(
            (&after[1]["call"], &after[1]["outcome"], &after[1]["reason"]),
            (&after[0]["call"], &json!("cancelled"), &json!("decided_again")),
            "{method}"
        );
    }
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
    let metrics = sidecar.metrics();
    // The intent's and the refusal's: what is no record has no outcome.
    assert!(metrics.contains("bulkhead_audit_failures_total 2\n"), "{metrics}");
}

/// The record of the intent is written together with others', so there is a moment between the two.
#[tokio::test]
async fn what_changes_before_the_record_is_written_decides() {
    let mut withdrawn = policy(0);
    withdrawn.tools.remove(0);
    let mut moved = policy(0);
    let forced = Forced::String("moved".into());
    moved.tools[0].forced.insert("tenant_id".into(), forced);

    for (mut changed, decisions, outcomes, reaches) in [
        (withdrawn, vec!["permit", "refuse"], vec!["cancelled"], None),
        (
            moved,
            vec!["permit", "permit"],
            vec!["cancelled", "completed"],
            Some("moved"),
        ),
    ] {
        let (upstream, sidecar) = start().await;
        changed.upstream.port = upstream.port();
        let live = Arc::clone(&sidecar.shared.live);
        sidecar.meanwhile(move || live.set_policy(LoadedPolicy::load(changed.to_json().as_bytes()).unwrap()));
        sidecar.client("billing").await.call("list_invoices", None).await;

        let seen = upstream.seen();
        let reached: Vec<_> = seen
            .iter()
            .map(|seen| seen.arguments()["tenant_id"].clone())
            .collect();
        assert_eq!(reached, reaches.into_iter().map(Value::from).collect::<Vec<_>>());
        let audit = sidecar.audit();
        let all = |member: &str| -> Vec<String> {
            let said = audit.iter().filter_map(|record| record[member].as_str());
            said.map(str::to_owned).collect()
        };
        assert_eq!(
            (all("decision"), all("outcome")),
            (
                decisions.into_iter().map(str::to_owned).collect(),
                outcomes.into_iter().map(str::to_owned).collect()
            )
        );
        assert_eq!(
            (&audit[1]["call"], &audit[1]["reason"]),
            (&audit[0]["call"], &json!("decided_again"))
        );
        assert_ne!(audit[2]["call"], audit[0]["call"]);
    }
}
