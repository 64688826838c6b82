//! Start, probes, load, cancellation, drain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bulkhead_core::policy::document::RequestLimits;
use bulkhead_proxy::{
    drain::Drained,
    limits::RefusalPace,
    probe::{self, Probe},
    testing::{
        Answer, PATIENCE, Protocol, RecordingUpstream, Setup, TestSidecar, sidecar::spiffe, until, upstream,
    },
};
use http::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

/// A server that answers a tool call when the test lets it.
async fn held_back() -> (RecordingUpstream, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let upstream = RecordingUpstream::answering(move |request| {
        let (id, gate) = (request.json()["id"].clone(), Arc::clone(&opened));
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}});
        Answer::Events(Box::pin(futures::stream::once(async move {
            gate.acquire().await.unwrap().forget();
            format!("data: {answer}\n\n").into()
        })))
    })
    .await;
    (upstream, gate)
}

async fn get(address: std::net::SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text
}

#[tokio::test]
async fn the_probes_say_what_is_missing_and_pass_when_nothing_is() {
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.canary = Some(canary.local_addr().unwrap());
    setup.inventory = true;
    let sidecar = TestSidecar::start(setup).await;
    let error = probe::ask(&sidecar.admin_socket, Probe::Startup)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not proven closed"), "{error}");
    let waiting = tokio::spawn({
        let socket = sidecar.admin_socket.clone();
        async move { probe::await_start(&socket).await }
    });
    drop(canary);
    until("the canary was refused five times", || {
        sidecar.shared.readiness.network_is_closed()
    })
    .await;
    waiting.await.unwrap().unwrap();
    probe::ask(&sidecar.admin_socket, Probe::Ready).await.unwrap();
    drop(upstream);
    let error = probe::ask(&sidecar.admin_socket, Probe::Ready)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("MCP server does not accept"), "{error}");
    let (_, metrics) = probe::get(&sidecar.admin_socket, "/metrics").await.unwrap();
    assert!(
        metrics.contains("bulkhead_certificate_expiry_timestamp_seconds"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_canary_that_can_be_reached_holds_the_start_back() {
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.canary = Some(canary.local_addr().unwrap());
    let sidecar = TestSidecar::start(setup).await;
    for _ in 0..6 {
        canary.accept().await.unwrap();
    }
    assert!(!sidecar.shared.readiness.network_is_closed());
    let error = probe::await_start(&sidecar.admin_socket).await.unwrap_err();
    assert!(error.to_string().contains("not proven closed"), "{error}");
}

#[tokio::test]
async fn a_kept_connection_is_refused_while_the_network_is_open_and_served_when_it_is_closed() {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let mut client = sidecar.client("billing").await;
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);

    sidecar.shared.readiness.network_is(false);
    let reply = client.call("list_invoices", None).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "network_open")
    );
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(sidecar.audit().last().unwrap()["reason"], "network_open");
    assert!(sidecar.metrics().contains("reason=\"network_open\""));

    sidecar.shared.readiness.network_is(true);
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_metrics_port_serves_metrics_and_nothing_else() {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    assert!(
        get(sidecar.metrics_address, "GET /metrics")
            .await
            .contains("bulkhead_calls_in_flight")
    );
    for target in ["GET /readyz", "GET /startupz", "GET /drain", "GET /"] {
        assert!(
            get(sidecar.metrics_address, target)
                .await
                .starts_with("HTTP/1.1 404"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let (upstream, _gate) = held_back().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    let mut client = sidecar.client_with(&leaf, Protocol::Http2).await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
    let response = client
        .send(client.request("POST", &[], call.to_string()))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    drop(response);
    until("the outcome is recorded", || {
        sidecar
            .audit()
            .last()
            .is_some_and(|record| record["outcome"] == "cancelled")
    })
    .await;
    assert_eq!(sidecar.shared.drain.calls(), 0);
}

#[tokio::test]
async fn an_agent_over_its_bound_is_refused_and_another_is_served() {
    let (upstream, gate) = held_back().await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.calls_per_agent = 1;
    let sidecar = TestSidecar::start(setup).await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    let mut first = sidecar.client_with(&leaf, Protocol::Http1).await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
    let pending = first
        .send(first.request("POST", &[], call.to_string()))
        .await
        .unwrap();

    let reply = sidecar
        .client_with(&leaf, Protocol::Http1)
        .await
        .call("list_invoices", None)
        .await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "agent_busy")
    );
    gate.add_permits(2);
    assert_eq!(
        sidecar
            .client("support")
            .await
            .call("delete_invoice", None)
            .await
            .status,
        StatusCode::OK
    );
    drop(pending);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn an_agent_that_was_refused_too_often_is_not_read_from_and_others_are_served() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.refusals = RefusalPace {
        each: Duration::from_hours(1),
        at_once: 1,
        longest: Duration::from_hours(1),
    };
    let sidecar = TestSidecar::start(setup).await;
    let mut billing = sidecar.client("billing").await;
    // What counts against its limits has no pace of its own.
    for _ in 0..3 {
        assert!(billing.call("delete_invoice", None).await.json()["error"].is_object());
    }
    assert_eq!(billing.call("list_invoices", None).await.status, StatusCode::OK);
    // One is free, and one was read before it could be known that it is too many.
    for _ in 0..2 {
        let refused = billing.exchange("POST", &[("host", "elsewhere")], "{}").await;
        assert_eq!(refused.unwrap().reason(), "host_not_allowed");
    }
    // Not on another connection either, whatever is asked.
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
        let mut other = sidecar.client_with(&leaf, protocol).await;
        let held = tokio::spawn(async move { other.call("list_invoices", None).await });
        let reply = sidecar.client("support").await.call("delete_invoice", None).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(!held.is_finished());
        held.abort();
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn headers_of_http_2_and_connections_beyond_their_number_are_refused_on_record() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.connections_per_agent = 1;
    let most = setup.limits.headers;
    let sidecar = TestSidecar::start(setup).await;
    let last = || sidecar.audit().last().unwrap()["reason"].clone();
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    let mut client = sidecar.client_with(&leaf, Protocol::Http2).await;
    let names: Vec<_> = (0..most).map(|number| format!("x-{number}")).collect();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    for (count, status) in [
        (most - 20, StatusCode::OK),
        (most, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let headers: Vec<_> = names[..count].iter().map(|name| (name.as_str(), "x")).collect();
        let reply = client.exchange("POST", &headers, call.clone()).await.unwrap();
        assert_eq!(reply.status, status, "{count}");
    }
    assert_eq!(last(), "headers_too_many");

    let mut second = sidecar.client_with(&leaf, Protocol::Http2).await;
    assert!(second.exchange("POST", &[], call.clone()).await.is_err());
    until("the record", || last() == "connections_full").await;
    assert_eq!(
        client.exchange("POST", &[], call).await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn an_agent_over_its_limits_is_told_when_to_come_again_and_the_server_sees_nothing() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.policy.agents[0].limits.requests_per_minute = NonZeroU32::new(2);
    let mut policy = setup.policy.clone();
    let sidecar = TestSidecar::start(setup).await;
    let mut billing = sidecar.client("billing").await;
    for _ in 0..2 {
        assert_eq!(billing.call("list_invoices", None).await.status, StatusCode::OK);
    }
    let reply = billing.call("list_invoices", None).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limited")
    );
    let seconds: u32 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=31).contains(&seconds), "{seconds}");
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(sidecar.audit().last().unwrap()["reason"], "rate_limited");
    assert!(sidecar.metrics().contains("reason=\"rate_limited\""));

    let reply = sidecar.client("support").await.call("delete_invoice", None).await;
    assert_eq!(reply.status, StatusCode::OK);
    policy.agents[0].limits.requests_per_minute = None;
    sidecar.mount_policy(&policy).await;
    assert_eq!(billing.call("list_invoices", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn agents_together_over_the_tenants_limits_are_told_when_to_come_again_and_the_server_sees_nothing() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.policy.limits.requests_per_minute = NonZeroU32::new(2);
    let mut policy = setup.policy.clone();
    let sidecar = TestSidecar::start(setup).await;
    let mut billing = sidecar.client("billing").await;
    let mut support = sidecar.client("support").await;
    assert_eq!(billing.call("list_invoices", None).await.status, StatusCode::OK);
    assert_eq!(support.call("delete_invoice", None).await.status, StatusCode::OK);
    let reply = billing.call("list_invoices", None).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "tenant_rate_limited")
    );
    let seconds: u32 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=31).contains(&seconds), "{seconds}");
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(sidecar.audit().last().unwrap()["reason"], "tenant_rate_limited");
    assert!(sidecar.metrics().contains("reason=\"tenant_rate_limited\""));

    policy.limits = RequestLimits::default();
    sidecar.mount_policy(&policy).await;
    assert_eq!(billing.call("list_invoices", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn while_as_many_calls_are_under_way_as_all_agents_together_may_have_another_agent_s_is_refused() {
    let (upstream, gate) = held_back().await;
    let mut setup = Setup::new(upstream.port());
    setup.policy.limits.concurrent = NonZeroU32::new(1);
    let sidecar = TestSidecar::start(setup).await;
    let mut billing = sidecar.client("billing").await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
    let pending = billing
        .send(billing.request("POST", &[], call.to_string()))
        .await
        .unwrap();
    let mut support = sidecar.client("support").await;
    let reply = timeout(PATIENCE, support.call("delete_invoice", None)).await;
    let reply = reply.expect("there must be no room");
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "tenant_busy")
    );
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(sidecar.audit().last().unwrap()["reason"], "tenant_busy");
    assert_eq!(upstream.seen().len(), 1);
    gate.add_permits(2);
    http_body_util::BodyExt::collect(pending.into_body())
        .await
        .unwrap();
    until("the call has ended", || sidecar.shared.drain.calls() == 0).await;
    assert_eq!(support.call("delete_invoice", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_slow_body_times_out() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.body = Duration::from_millis(50);
    let sidecar = TestSidecar::start(setup).await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    let ca = sidecar.servers_ca.pem();
    let mut stream =
        bulkhead_proxy::testing::client::connect_tls(sidecar.address, "crm.acme.svc", &ca, Some(&leaf), None)
            .await
            .unwrap();
    let token = sidecar.issuer.token(&leaf.uri);
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: crm.acme.svc\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 9\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn a_drain_fails_no_call_and_ends_when_none_is_under_way() {
    let (upstream, gate) = held_back().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let mut client = sidecar.client("billing").await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
    let response = client
        .send(client.request("POST", &[], call.to_string()))
        .await
        .unwrap();

    // What is refused needs no server.
    let mut between = sidecar.client("support").await;
    let reply = between.call("no_such_tool", None).await;
    assert!(!reply.headers.contains_key("connection"));
    let address = sidecar.kubelet_address;
    let ready = get(address, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let hook = tokio::spawn(async move { get(address, "GET /drain").await });
    timeout(PATIENCE, sidecar.shared.drain.closing()).await.unwrap();
    // Who is between two calls hears of it with the answer to the next: there was no other way to tell it in time.
    let reply = between.call("no_such_tool", None).await;
    assert_eq!(reply.headers["connection"], "close");
    let error = probe::ask(&sidecar.admin_socket, Probe::Ready)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("draining"), "{error}");
    let unready = get(address, "GET /readyz").await;
    assert!(
        unready.starts_with("HTTP/1.1 503") && unready.contains("draining"),
        "{unready}"
    );
    assert!(!hook.is_finished(), "a call is under way");

    // A connection that was opened before endpoints propagated is still served.
    gate.add_permits(2);
    assert_eq!(
        sidecar
            .client("support")
            .await
            .call("delete_invoice", None)
            .await
            .status,
        StatusCode::OK
    );
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("\"result\""));
    assert!(hook.await.unwrap().starts_with("HTTP/1.1 200"));
    timeout(PATIENCE, client.connection)
        .await
        .expect("the connection must be closed")
        .unwrap();
    assert_eq!(
        sidecar.shared.drain.run(Duration::ZERO, Duration::ZERO).await,
        Drained::Idle
    );
}

#[tokio::test]
async fn the_kubelets_port_serves_nothing_else() {
    let upstream = RecordingUpstream::answering(upstream::plain).await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    for (target, status) in [
        ("POST /drain", "405"),
        ("GET /metrics", "404"),
        ("POST /readyz", "405"),
        ("GET /startupz", "404"),
        ("GET /", "404"),
    ] {
        assert!(
            get(sidecar.kubelet_address, target)
                .await
                .starts_with(&format!("HTTP/1.1 {status}")),
            "{target}"
        );
    }
    assert!(!sidecar.shared.drain.has_begun());
}
