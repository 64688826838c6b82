//! Clients that don't take what they asked for, and what all together hold: it stays bounded, and others are served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bulkhead_proxy::{
    stalled,
    testing::{
        Answer, PATIENCE, Protocol, RecordingUpstream, Setup, TestSidecar, sidecar::spiffe, until,
        upstream::plain,
    },
};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

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
        let mut call =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
        if events {
            call["params"]["_meta"] = json!({"progressToken": 1});
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
                let is_end = |record: &Value| record["reason"] == "answer_untaken";
                let ended = || sidecar.audit().iter().any(is_end);
                until("the connection ends", ended).await;
                assert!(sidecar.metrics().contains("reason=\"answer_untaken\"} 1"));
                until("the call has ended", || sidecar.shared.drain.calls() == 0).await;
                // And whoever takes what they get, gets it.
                assert!(again().await.body.len() > 12 << 20, "{protocol:?} {events}");
            }
            drop(left);
        }
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

/// More than HTTP/2 gives streams to: a client can make them by taking streams back faster than that is heard of.
#[tokio::test]
async fn what_could_not_be_watched_is_not_begun() {
    let upstream = RecordingUpstream::answering(|_| Answer::Events(futures::stream::pending().boxed())).await;
    let mut setup = Setup::new(upstream.port());
    let most = stalled::MOST as usize;
    setup.limits.streams = 2 * stalled::MOST;
    setup.limits.calls_per_agent = 2 * most;
    let sidecar = TestSidecar::start(setup).await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    let mut client = sidecar.client_with(&leaf, Protocol::Http2).await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_invoices"}});
    let mut answers = Vec::new();
    for _ in 0..most {
        let request = client.request("POST", &[], call.to_string());
        answers.push(client.send(request).await.unwrap());
    }
    let reply = timeout(PATIENCE, client.exchange("POST", &[], call.to_string())).await;
    assert_eq!(
        reply.expect("it must not be begun").unwrap().reason(),
        "agent_busy"
    );
    assert_eq!(upstream.seen().len(), most);

    answers.pop();
    until("there is a place again", || sidecar.shared.drain.calls() < most).await;
    let request = client.request("POST", &[], call.to_string());
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::OK);
}
