//! Connections that end because of their other side: its certificate is about to expire, or it has vanished.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "connections/h2.rs"]
mod h2;
#[cfg(target_os = "linux")]
#[path = "connections/vanishing.rs"]
mod vanishing;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bulkhead_proxy::testing::{
    Answer, Leaf, PATIENCE, Protocol, RecordingUpstream, Setup, Streams, TestSidecar, sidecar::spiffe, until,
    upstream::plain,
};
use h2::{GOAWAY, H2};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices"}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;

/// Timers believe that this much time has passed; certificates and tokens are as good as before. So what happens after
/// minutes happens in a test, and no test depends on how fast it is itself.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn leaf(sidecar: &TestSidecar) -> Leaf {
    sidecar.agents_ca.client_for(&[&spiffe("billing")], HOUR)
}

/// Certificates are good for an hour, and their end is announced ten minutes before. Nothing else ends meanwhile.
fn announcing(upstream: &RecordingUpstream) -> Setup {
    let mut setup = Setup::new(upstream.port());
    setup.limits.expiry_notice = 10 * MINUTE;
    (setup.limits.idle, setup.limits.upstream_silence) = (24 * HOUR, 24 * HOUR);
    setup
}

/// An answer says so with `connection: close`.
#[tokio::test]
async fn over_http_1_the_end_of_a_certificate_is_announced_and_the_call_under_way_finishes() {
    let told = Arc::new(Notify::new());
    let waiting = Arc::clone(&told);
    let upstream = RecordingUpstream::answering(move |request| {
        let waits = request.arguments()["text"] == "wait";
        let answer = plain(request);
        if waits {
            Answer::Later(Arc::clone(&waiting), Box::new(answer))
        } else {
            answer
        }
    })
    .await;
    let sidecar = TestSidecar::start(announcing(&upstream)).await;
    let leaf = leaf(&sidecar);
    let mut client = sidecar.client_with(&leaf, Protocol::Http1).await;
    let mut idle = sidecar.client_with(&leaf, Protocol::Http1).await;
    // The first calls show that the sidecar has both.
    for time in [Duration::ZERO, 45 * MINUTE] {
        pass(time).await;
        for client in [&mut client, &mut idle] {
            let reply = client.call("list_invoices", None).await;
            assert_eq!(reply.status, StatusCode::OK);
            assert!(!reply.headers.contains_key("connection"), "{time:?}");
        }
    }

    let call = tokio::spawn(async move {
        let reply = client.call("list_invoices", Some(json!({"text": "wait"}))).await;
        (client, reply)
    });
    until("the call is under way", || upstream.seen().len() == 5).await;
    pass(10 * MINUTE).await;
    let closed = timeout(PATIENCE, idle.connection).await;
    closed.expect("a connection without a call must end").unwrap();
    told.notify_one();
    let (mut client, reply) = timeout(PATIENCE, call).await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.text().contains("wait"), "{reply:?}");
    assert_eq!(reply.headers["connection"], "close");
    timeout(PATIENCE, &mut client.connection)
        .await
        .expect("the connection must end with its answer")
        .unwrap();
    assert!(client.exchange("POST", &[], CALL).await.is_err());
    assert_eq!(upstream.seen().len(), 5);

    // With the next certificate it goes on.
    let mut renewed = sidecar.client("billing").await;
    let reply = renewed.call("list_invoices", None).await;
    assert_eq!(reply.status, StatusCode::OK);
}

/// GOAWAY says so, and which streams are still answered.
#[tokio::test]
async fn over_http_2_the_end_of_a_certificate_is_announced_and_no_call_begins_after_it() {
    let streams = Streams::default();
    let answering = streams.clone();
    let upstream = RecordingUpstream::answering(move |request| answering.answer(request)).await;
    let sidecar = TestSidecar::start(announcing(&upstream)).await;
    let leaf = leaf(&sidecar);
    let mut client = H2::open(&sidecar, &leaf).await;
    pass(45 * MINUTE).await;
    client.post(1, CALL).await;
    until("the call is under way", || upstream.seen().len() == 1).await;
    streams.event("", RESULT);
    client
        .until(|frame, data| {
            assert_ne!(frame.kind, GOAWAY, "it is good for longer");
            data.contains("result")
        })
        .await;
    client.data.clear();

    client.post(3, CALL).await;
    until("the call is under way", || upstream.seen().len() == 2).await;
    pass(10 * MINUTE).await;
    // First that there will be an end, then, once that was heard, which stream is the last: RFC 9113 §6.8.
    let mut last = Vec::new();
    client
        .until(|frame, _| {
            if frame.kind == GOAWAY {
                last.push(frame.payload[..4].to_vec());
            }
            last.len() == 2
        })
        .await;
    assert_eq!(last[1], 3_u32.to_be_bytes());
    client.post(5, CALL).await;
    // Frames are read in order: it was, when what came after it is answered.
    client.ping().await;
    client.until(|frame, _| frame.is_pong()).await;
    // A stream of before is answered.
    streams.event("", RESULT);
    client.until(|_, data| data.contains("result")).await;
    while client.next().await.is_some() {}
    assert_eq!(client.data.matches("result").count(), 1, "{}", client.data);
    assert_eq!(upstream.seen().len(), 2, "what came after reached nobody");
    until("the connection is gone", || {
        sidecar.shared.metrics.connections.get() == 0
    })
    .await;
    let audit = sidecar.audit();
    let completed = audit.iter().filter(|record| record["outcome"] == "completed");
    assert_eq!((audit.len(), completed.count()), (4, 2));

    let mut renewed = H2::open(&sidecar, &sidecar.agents_ca.client(&[&spiffe("billing")])).await;
    renewed.post(1, CALL).await;
    until("the next one is served", || upstream.seen().len() == 3).await;
}

/// Nothing closes the connection of a machine that lost its power: its packets just don't come any more.
#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone_and_its_call_with_it() {
    let streams = Streams::default();
    let answering = streams.clone();
    let upstream = RecordingUpstream::answering(move |request| answering.answer(request)).await;
    for calls in [false, true] {
        let mut setup = Setup::new(upstream.port());
        setup.limits.upstream_silence = 24 * HOUR;
        let idle = setup.limits.idle;
        let sidecar = TestSidecar::start(setup).await;
        let leaf = leaf(&sidecar);
        let mut vanished = H2::open(&sidecar, &leaf).await;
        let seen = upstream.seen().len();
        if calls {
            vanished.post(1, CALL).await;
            until("the call is under way", || upstream.seen().len() > seen).await;
        }
        until("it is connected", || {
            sidecar.shared.metrics.connections.get() == 1
        })
        .await;
        // Twice the time that a connection may be idle, and what a ping may take.
        let mut passed = Duration::ZERO;
        while sidecar.shared.metrics.connections.get() > 0 {
            assert!(passed < 2 * idle + MINUTE, "it is held for ever");
            pass(5 * SECOND).await;
            passed += 5 * SECOND;
            // For what is written and read meanwhile.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if calls {
            until("the server's side ends", || streams.newest_is_closed()).await;
            assert_eq!(sidecar.audit().pop().unwrap()["outcome"], "cancelled");
        }
        assert_eq!(sidecar.shared.drain.calls(), 0);
        drop(vanished);
    }
}

/// The control: who answers may wait for as long as it takes.
#[tokio::test]
async fn a_client_that_answers_pings_waits_for_its_answer() {
    let streams = Streams::default();
    let answering = streams.clone();
    let upstream = RecordingUpstream::answering(move |request| answering.answer(request)).await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.upstream_silence = 24 * HOUR;
    let idle = setup.limits.idle;
    let sidecar = TestSidecar::start(setup).await;
    let mut client = H2::open(&sidecar, &leaf(&sidecar)).await;
    client.post(1, CALL).await;
    until("the call is under way", || upstream.seen().len() == 1).await;
    for _ in 0..3 {
        pass(idle + SECOND).await;
        client.until(|frame, _| frame.is_ping()).await;
        // Once ours is answered, so is the sidecar's: they are read in order.
        client.ping().await;
        client.until(|frame, _| frame.is_pong()).await;
    }
    streams.event("", RESULT);
    client.until(|_, data| data.contains("result")).await;
}

#[tokio::test]
async fn over_http_2_who_breaks_its_rules_is_on_record_and_cut_off() {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let leaf = leaf(&sidecar);
    // The control: one that just goes broke nothing.
    drop(H2::open(&sidecar, &leaf).await);
    until("it is gone", || sidecar.shared.metrics.connections.get() == 0).await;
    assert!(sidecar.audit().is_empty());
    for (number, reason) in ["not_http", "http2_excess"].into_iter().enumerate() {
        let mut client = H2::open(&sidecar, &leaf).await;
        match reason {
            "not_http" => client.break_the_rules().await,
            _ => client.exceed().await,
        }
        while client.next().await.is_some() {}
        until("the record", || sidecar.audit().len() > number).await;
        let record = sidecar.audit().pop().unwrap();
        assert_eq!(
            (&record["agent"], &record["reason"]),
            (&json!("billing"), &json!(reason))
        );
        assert!(sidecar.metrics().contains(&format!("reason=\"{reason}\"")));
    }
    assert!(upstream.seen().is_empty());
}

/// How a server goes in the middle of its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gone {
    /// Its connection is closed.
    Closed,
    /// Its connection is reset: the process was killed with something unread.
    Reset,
    /// Nothing more comes.
    Silent,
}

/// Answers the first request in part and goes; the others whole.
async fn vanishing(listener: TcpListener, part: &'static str, gone: Gone, requests: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let requests = Arc::clone(&requests);
        connections.spawn(async move {
            let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
            // The call ends with the message's brace. The readiness probe only dials.
            while !read.ends_with(b"}") {
                match stream.read(&mut chunk).await {
                    Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
                    _ => return,
                }
            }
            if requests.fetch_add(1, Ordering::SeqCst) > 0 {
                let whole = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{RESULT}",
                    RESULT.len()
                );
                stream.write_all(whole.as_bytes()).await.unwrap();
                return;
            }
            let head = "HTTP/1.1 200 OK\r\n";
            stream
                .write_all(format!("{head}{part}").as_bytes())
                .await
                .unwrap();
            match gone {
                Gone::Closed => {}
                Gone::Reset => stream.set_zero_linger().unwrap(),
                Gone::Silent => std::future::pending().await,
            }
        });
    }
}

#[tokio::test]
async fn a_server_that_vanishes_in_the_middle_of_its_answer_fails_that_call_alone() {
    let parts = [
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{\"secret\":",
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1f\r\n{\"secret\":",
        "content-type: text/event-stream\r\n\r\ndata: {\"secret\":",
        "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n20\r\n: a\n\ndata: {\"secret",
    ];
    for (part, gone) in parts
        .into_iter()
        .flat_map(|part| [Gone::Closed, Gone::Reset, Gone::Silent].map(|gone| (part, gone)))
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn(vanishing(listener, part, gone, Arc::clone(&requests)));
        let mut setup = Setup::new(port);
        // Time may pass once more after the answer, and the client has another call to make.
        setup.limits.idle = 24 * HOUR;
        let sidecar = TestSidecar::start(setup).await;
        let mut client = sidecar.client("billing").await;
        let call = tokio::spawn(async move {
            let reply = client.call("list_invoices", None).await;
            (client, reply)
        });
        until("the call is under way", || requests.load(Ordering::SeqCst) == 1).await;
        while gone == Gone::Silent && !call.is_finished() {
            pass(MINUTE).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (mut client, reply) = timeout(PATIENCE, call).await.unwrap().unwrap();
        let expected = match gone {
            Gone::Silent => "upstream_timeout",
            Gone::Closed | Gone::Reset => "upstream_broken",
        };
        assert_eq!(reply.reason(), expected, "{part} {gone:?}");
        assert_eq!(reply.json()["id"], 1);
        assert!(!String::from_utf8_lossy(&reply.body).contains("secret"));
        let outcome: Value = sidecar.audit().pop().unwrap();
        assert_eq!(outcome["outcome"], "failed", "{part} {gone:?}");
        assert_eq!(requests.load(Ordering::SeqCst), 1, "a call is never made twice");
        // The server is there again.
        let reply = client.call("list_invoices", None).await;
        assert_eq!(reply.json()["result"]["content"], json!([]), "{part} {gone:?}");
        server.abort();
    }
}
