//! Peers that misbehave: clients that are slow or don't read, servers that are silent, endless, lying or gone. Each time
//! what is held for them stays bounded, and others are served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bulkhead_cluster::Port;
use bulkhead_proxy::testing::{
    Answer, PATIENCE, Protocol, RecordingUpstream, Setup, TestSidecar, client::connect_tls, sidecar::HOST,
    sidecar::spiffe, until,
};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// A server by hand, for what no HTTP library writes: each request gets the next of these bytes, and the connection is
/// closed after those that end in [`CLOSE`]. A connection that is only dialled, as the readiness probe does, takes none.
struct Raw {
    port: u16,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

const CLOSE: &str = "\u{0}close";

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    async fn answering(answers: Vec<String>) -> Self {
        Self::at(0, answers).await
    }

    async fn at(port: u16, answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&requests);
        let answers = Arc::new(answers);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(converse(stream, Arc::clone(&answers), Arc::clone(&served)));
            }
        });
        Self { port, requests, task }
    }

    /// Ends it, with its connections. Nobody listens on its port when this returns.
    async fn end(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

async fn converse(mut stream: TcpStream, answers: Arc<Vec<String>>, served: Arc<AtomicUsize>) {
    let mut read = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
            _ => return,
        }
        // Calls of these tests fit in a chunk or two and end with the message's brace.
        if !read.ends_with(b"}") {
            continue;
        }
        read.clear();
        let index = served.fetch_add(1, Ordering::SeqCst);
        let answer = answers.get(index).or_else(|| answers.last()).unwrap();
        let (bytes, close) = match answer.strip_suffix(CLOSE) {
            Some(bytes) => (bytes, true),
            None => (answer.as_str(), false),
        };
        if stream.write_all(bytes.as_bytes()).await.is_err() || close {
            return;
        }
    }
}

fn good(text: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}]}}).to_string()
}

fn response(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}")
}

fn sized(body: &str) -> String {
    response(&format!("content-length: {}", body.len()), body)
}

/// A connection of an agent before any request.
async fn connection(sidecar: &TestSidecar, agent: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let leaf = sidecar.agents_ca.client(&[&spiffe(agent)]);
    connect_tls(
        sidecar.address,
        HOST,
        &sidecar.servers_ca.pem(),
        Some(&leaf),
        None,
    )
    .await
    .unwrap()
}

async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    // However it ends: what counts is that it does.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection must end");
}

#[tokio::test]
async fn who_is_slow_before_its_request_is_there_is_cut_off_and_others_are_served() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.handshake = Duration::from_millis(100);
    setup.limits.idle = Duration::from_millis(300);
    let sidecar = TestSidecar::start(setup).await;
    let mut silent = TcpStream::connect(sidecar.address).await.unwrap();
    let mut half = connection(&sidecar, "billing").await;
    half.write_all(b"POST /mcp HTTP/1.1\r\nhost: crm.acme.svc\r\nx-slow: a")
        .await
        .unwrap();

    let reply = sidecar.client("support").await.call("delete_invoice", None).await;
    assert_eq!(reply.status, StatusCode::OK);
    until_closed(&mut silent).await;
    until_closed(&mut half).await;
    assert_eq!(upstream.seen().len(), 1);
    assert!(
        sidecar
            .metrics()
            .contains("bulkhead_handshakes_total{result=\"timeout\"} 1"),
        "{}",
        sidecar.metrics()
    );
}

#[tokio::test]
async fn a_stream_without_an_end_is_cut_with_an_answer_and_the_server_s_side_of_it_too() {
    let event = format!(": {}\n\n", "x".repeat(1000));
    let one_line = format!("data: {}", "x".repeat(1000));
    for endless in [event, one_line] {
        let upstream = RecordingUpstream::answering(move |_| {
            Answer::Events(futures::stream::repeat(Bytes::from(endless.clone())).boxed())
        })
        .await;
        let mut setup = Setup::new(upstream.port());
        setup.limits.stream_bytes = 1 << 20;
        setup.limits.response_bytes = 64 << 10;
        let sidecar = TestSidecar::start(setup).await;
        let mut client = sidecar.client("billing").await;
        let reply = timeout(PATIENCE, client.call("list_invoices", None))
            .await
            .unwrap();
        assert_eq!(reply.reason(), "upstream_too_large");
        assert_eq!(sidecar.audit().last().unwrap()["outcome"], "failed");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up_and_told_as_such() {
    let stalled = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: a\n\n";
    for answer in ["", stalled, events] {
        let upstream = Raw::answering(vec![answer.to_owned()]).await;
        let mut setup = Setup::new(upstream.port);
        setup.limits.upstream_silence = Duration::from_millis(100);
        let sidecar = TestSidecar::start(setup).await;
        let mut client = sidecar.client("billing").await;
        let reply = timeout(PATIENCE, client.call("list_invoices", None))
            .await
            .unwrap();
        assert_eq!(reply.reason(), "upstream_timeout", "{answer}");
        assert_eq!(sidecar.audit().last().unwrap()["outcome"], "failed");
        assert_eq!(
            upstream.requests.load(Ordering::SeqCst),
            1,
            "a call is never made twice"
        );
    }
}

/// The call was let through while the certificate was good: nothing that comes after may reach its agent.
#[tokio::test]
async fn a_call_that_outlasts_its_certificate_is_cut_off_with_its_connection() {
    let upstream = Raw::answering(vec![String::new()]).await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port)).await;
    let leaf = sidecar
        .agents_ca
        .client_for(&[&spiffe("billing")], Duration::from_secs(4));
    let mut client = sidecar.client_with(&leaf, Protocol::Http1).await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
    let request = client.request("POST", &[], call.to_string());
    let answer = timeout(PATIENCE, client.send(request)).await;
    assert!(answer.expect("the connection must end").is_err());
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 1);
    until("the call closed", || {
        sidecar
            .audit()
            .last()
            .is_some_and(|record| record["outcome"] == "cancelled")
    })
    .await;
}

#[tokio::test]
async fn a_server_that_lies_about_its_answer_gives_nobody_a_wrong_one() {
    let short = good("short");
    let table = [
        // More was announced than came.
        (
            response("content-length: 5000", &short) + CLOSE,
            "upstream_broken",
        ),
        // The announced part of it is no JSON; the rest must not be the next answer.
        (response("content-length: 20", &short), "answer_malformed"),
        // Two lengths; a length and chunks.
        (
            response("content-length: 20\r\ncontent-length: 21", &short) + CLOSE,
            "upstream_broken",
        ),
        // Bytes that nobody could read are not passed on.
        (
            response(
                &format!("content-encoding: gzip\r\ncontent-length: {}", short.len()),
                &short,
            ),
            "upstream_not_mcp",
        ),
        (
            response(&format!("x-filler: {}", "x".repeat(64 << 10)), &short) + CLOSE,
            "upstream_broken",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{}\r\n{short}{CLOSE}", "a: b\r\n".repeat(200)),
            "upstream_broken",
        ),
        ("SSH-2.0-nothing\r\n".to_owned() + CLOSE, "upstream_broken"),
        (CLOSE.to_owned(), "upstream_broken"),
    ];
    for (answer, expected) in table {
        let upstream = Raw::answering(vec![answer.clone(), sized(&good("second"))]).await;
        let sidecar = TestSidecar::start(Setup::new(upstream.port)).await;
        let mut client = sidecar.client("billing").await;
        let reply = timeout(PATIENCE, client.call("list_invoices", None))
            .await
            .unwrap();
        let error: Value = reply.json()["error"].clone();
        assert!(error.is_object(), "{answer}: {}", reply.json());
        let outcome = sidecar.audit().pop().unwrap();
        assert_eq!(outcome["outcome"], "failed", "{answer}");
        assert!(
            reply.reason() == expected || outcome["reason"] == expected,
            "{answer}: {error} {outcome}, expected {expected}"
        );
        let reply = timeout(PATIENCE, client.call("list_invoices", None))
            .await
            .unwrap();
        assert_eq!(reply.text(), "second", "{answer}");
    }
}

#[tokio::test]
async fn an_answer_in_advance_is_not_taken_for_the_next_call_s() {
    let upstream = Raw::answering(vec![
        sized(&good("first")) + &sized(&good("in advance")),
        sized(&good("second")),
    ])
    .await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port)).await;
    let mut client = sidecar.client("billing").await;
    assert_eq!(client.call("list_invoices", None).await.text(), "first");
    assert_eq!(client.call("list_invoices", None).await.text(), "second");
}

#[tokio::test]
async fn a_server_that_restarts_fails_no_call_that_comes_after() {
    // It closes a connection with its answer, or has kept it.
    for closed in [CLOSE, ""] {
        let port = Port::reserve().unwrap();
        let first = Raw::at(port.number(), vec![sized(&good("before")) + closed]).await;
        let sidecar = TestSidecar::start(Setup::new(first.port)).await;
        let mut client = sidecar.client("billing").await;
        assert_eq!(client.call("list_invoices", None).await.text(), "before");
        first.end().await;
        let second = Raw::at(port.number(), vec![sized(&good("after"))]).await;
        assert_eq!(client.call("list_invoices", None).await.text(), "after");
        assert_eq!(second.requests.load(Ordering::SeqCst), 1);
    }
}

/// The HTTP library answers these by itself.
#[tokio::test]
async fn what_can_not_be_read_as_a_request_is_on_record() {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let many = "x: y\r\n".repeat(65);
    let large = format!("x: {}\r\n", "y".repeat(100 << 10));
    for (head, reason) in [
        (format!("POST /mcp HTTP/1.1\r\n{many}\r\n"), "headers_too_large"),
        (format!("POST /mcp HTTP/1.1\r\n{large}\r\n"), "headers_too_large"),
        ("POST /mcp HTTP/1.1\r\nx\r\n\r\n".to_owned(), "not_http"),
        ("\u{16}\u{3}\u{1}\u{2}".to_owned(), "not_http"),
    ] {
        let before = sidecar.audit().len();
        let mut stream = connection(&sidecar, "billing").await;
        // The connection may end before all of it is there.
        let _ = stream.write_all(head.as_bytes()).await;
        until_closed(&mut stream).await;
        until("the record", || sidecar.audit().len() > before).await;
        let record = &sidecar.audit()[before];
        assert_eq!(
            (&record["decision"], &record["reason"], &record["spiffeId"]),
            (&json!("refuse"), &json!(reason), &json!(spiffe("billing"))),
            "{head:.40}"
        );
        assert!(sidecar.metrics().contains(&format!("reason=\"{reason}\"")));
    }
    // A client that goes away in the middle of a request did nothing of the kind.
    let before = sidecar.audit().len();
    let mut stream = connection(&sidecar, "billing").await;
    stream.write_all(b"POST /mcp HTTP/1.1\r\nhost").await.unwrap();
    drop(stream);
    until("its connection ends", || {
        sidecar.shared.metrics.connections.get() == 0
    })
    .await;
    assert_eq!(sidecar.audit().len(), before);
    assert_eq!(upstream.seen().len(), 0);
}

/// It answers before it has read a request, whose rest then waits for room on the connection.
#[tokio::test]
async fn a_connection_that_is_not_ready_for_the_next_call_is_not_waited_for() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut hasty = listener.accept().await.unwrap().0;
        let _ = hasty.read(&mut [0; 1024]).await.unwrap();
        hasty.write_all(sized(&good("hasty")).as_bytes()).await.unwrap();
        let stream = listener.accept().await.unwrap().0;
        converse(stream, Arc::new(vec![sized(&good("other"))]), Arc::default()).await;
        drop(hasty);
    });
    let sidecar = TestSidecar::start(Setup::new(port)).await;
    let mut client = sidecar.client("billing").await;
    // More than the kernel keeps of a connection.
    let note = json!({"note": "x".repeat(4_000_000)});
    for (arguments, answer) in [(Some(note), "hasty"), (None, "other")] {
        let call = timeout(PATIENCE, client.call("list_invoices", arguments));
        assert_eq!(call.await.unwrap().text(), answer);
    }
    server.abort();
}
