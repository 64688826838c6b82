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
    sidecar::spiffe, until, upstream::plain,
};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
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
async fn of_a_stream_that_nobody_reads_little_is_taken_from_the_server() {
    let written = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&written);
    let upstream = RecordingUpstream::answering(move |request| {
        if request.json()["params"]["name"] != "list_invoices" {
            return plain(request);
        }
        let counting = Arc::clone(&counting);
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
            "progressToken": "p", "progress": 1, "message": "x".repeat(64 << 10)}});
        let event = format!("data: {progress}\n\n");
        Answer::Events(
            futures::stream::repeat_with(move || {
                counting.fetch_add(event.len(), Ordering::SeqCst);
                Bytes::from(event.clone())
            })
            .boxed(),
        )
    })
    .await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.stream_bytes = usize::MAX;
    setup.limits.response_bytes = 16 << 20;
    let sidecar = TestSidecar::start(setup).await;
    let mut client = sidecar.client("billing").await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "list_invoices", "_meta": {"progressToken": "p"}}});
    let unread = client
        .send(client.request("POST", &[], call.to_string()))
        .await
        .unwrap();
    // What the sockets between hold, and then nothing for a quarter of a second.
    let (mut before, mut unchanged) = (0, 0);
    until("the server is held back", || {
        let now = written.load(Ordering::SeqCst);
        unchanged = if now > 0 && now == before {
            unchanged + 1
        } else {
            0
        };
        before = now;
        assert!(
            now < 64 << 20,
            "{now} bytes were taken for somebody who reads nothing"
        );
        unchanged == 50
    })
    .await;
    let reply = sidecar.client("support").await.call("delete_invoice", None).await;
    assert_eq!(reply.status, StatusCode::OK);
    // The control: once it is read, it flows.
    let mut body = unread.into_body();
    until("the server goes on", || {
        written.load(Ordering::SeqCst) > before || {
            drop(futures::FutureExt::now_or_never(http_body_util::BodyExt::frame(
                &mut body,
            )));
            false
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_stays_counted_and_ends_its_connection() {
    let upstream = RecordingUpstream::answering(|request| {
        let text = if request.json()["params"]["name"] == "list_invoices" {
            "x".repeat(12 << 20)
        } else {
            String::new()
        };
        let id = &request.json()["id"];
        let answer =
            json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}});
        if request.json()["params"]["_meta"].is_object() {
            Answer::Events(futures::stream::iter([Bytes::from(format!("data: {answer}\n\n"))]).boxed())
        } else {
            Answer::json(&answer)
        }
    })
    .await;
    let ask = |events: bool| {
        let meta = events.then(|| json!({"progressToken": 1}));
        let mut call =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
        if let Some(meta) = meta {
            call["params"]["_meta"] = meta;
        }
        call.to_string()
    };
    for (protocol, events) in [
        (Protocol::Http1, false),
        (Protocol::Http2, false),
        (Protocol::Http2, true),
    ] {
        for untaken in [Duration::from_hours(1), Duration::from_secs(2)] {
            let mut setup = Setup::new(upstream.port());
            setup.limits.untaken = untaken;
            let sidecar = TestSidecar::start(setup).await;
            let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
            let mut client = sidecar.client_with(&leaf, protocol).await;
            let left = client
                .send(client.request("POST", &[], ask(events)))
                .await
                .unwrap();
            let mut second = sidecar.client_with(&leaf, protocol).await;
            let mut again = async || second.exchange("POST", &[], ask(events)).await.unwrap();
            if untaken > PATIENCE {
                // What the first one holds isn't there for a second one; of another agent there is room.
                until("the answer is there", || {
                    sidecar
                        .audit()
                        .last()
                        .is_some_and(|record| record["outcome"] == "completed")
                })
                .await;
                assert_eq!(
                    again().await.reason(),
                    "memory_exhausted",
                    "{protocol:?} {events}"
                );
                let reply = sidecar.client("support").await.call("delete_invoice", None).await;
                assert_eq!(reply.status, StatusCode::OK);
            } else {
                let ended = || sidecar.shared.metrics.untaken_answers.get() == 1;
                until("the connection ends", ended).await;
                until("the call has ended", || sidecar.shared.drain.calls() == 0).await;
                // And whoever takes what they get, gets it.
                assert!(again().await.body.len() > 12 << 20, "{protocol:?} {events}");
            }
            drop(left);
        }
    }
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

#[tokio::test]
async fn bodies_and_answers_together_hold_no_more_memory_than_there_is_and_others_find_room() {
    // An answer that never ends, of which a part is there.
    let part = format!("{{{}", " ".repeat(300 << 10));
    let upstream = RecordingUpstream::answering(move |request| {
        if request.json()["params"]["name"] != "list_invoices" {
            return plain(request);
        }
        let part = Bytes::from(format!("data: {part}"));
        Answer::Events(
            futures::stream::once(async { part })
                .chain(futures::stream::pending())
                .boxed(),
        )
    })
    .await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.memory = 1 << 20;
    setup.limits.memory_per_agent = 512 << 10;
    let sidecar = TestSidecar::start(setup).await;
    let mut first = sidecar.client("billing").await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
    let mut body = first
        .send(first.request("POST", &[], call.to_string()))
        .await
        .unwrap()
        .into_body();
    let reading =
        tokio::spawn(async move { while http_body_util::BodyExt::frame(&mut body).await.is_some() {} });

    let large = "x".repeat(300 << 10);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"x": large}}});
    let mut second = sidecar.client("billing").await;
    // Until the part has come there is room, and then there isn't.
    let refused = loop {
        let seen = upstream.seen().len();
        let reply = second.post(&ping).await;
        if reply.status != StatusCode::OK {
            assert_eq!(
                upstream.seen().len(),
                seen,
                "what is refused isn't seen by the server"
            );
            break reply;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (refused.status, refused.reason().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "memory_exhausted")
    );
    assert_eq!(sidecar.audit().last().unwrap()["reason"], "memory_exhausted");
    let reply = sidecar.client("support").await.post(&ping).await;
    assert_eq!(reply.status, StatusCode::OK, "another agent has room of its own");

    // What goes away gives its room back.
    reading.abort();
    drop(first);
    while sidecar.client("billing").await.post(&ping).await.status != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}
