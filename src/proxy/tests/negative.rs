//! The negative suite: families of bad messages × methods × eras. Each has a control that passes and reaches the server;
//! each bad message is refused with its reason, recorded with it, and the server sees nothing of it.
//!
//! What a family is about is in `negative/families.rs`; the good messages that it spoils are in `negative/good.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "negative/families.rs"]
mod families;
#[path = "negative/good.rs"]
mod good;

use std::collections::BTreeMap;

use bulkhead_proxy::testing::{RecordingUpstream, Reply, TestSidecar};
use families::Case;
use http::StatusCode;

async fn send(sidecar: &TestSidecar, case: &Case) -> Reply {
    let mut client = sidecar.client("billing").await;
    let headers: Vec<_> = case
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    client
        .exchange(case.http_method, &headers, case.body.clone())
        .await
        .unwrap()
}

/// Whether a reply says that nothing was done. A tool error is such a reply.
fn refuses(reply: &Reply) -> bool {
    if !reply.status.is_success() || reply.status == StatusCode::ACCEPTED {
        return reply.status != StatusCode::ACCEPTED;
    }
    let reply = reply.json();
    reply["error"].is_object() || reply["result"]["isError"] == true
}

/// The reason of the last record, if it refuses.
fn last_reason(sidecar: &TestSidecar) -> String {
    let record = sidecar.audit().pop().expect("each message is recorded");
    match record["decision"].as_str() {
        Some("refuse") => record["reason"].as_str().unwrap_or_default().to_owned(),
        _ => format!("none, {record}"),
    }
}

#[tokio::test]
async fn every_bad_message_is_refused_recorded_and_not_seen_by_the_server() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for good in good::all() {
        let upstream = RecordingUpstream::answering(good::server).await;
        let sidecar = TestSidecar::start(good::setup(upstream.port())).await;
        let control = send(&sidecar, &Case::good(&good)).await;
        assert!(
            control.status.is_success() && !refuses(&control),
            "{good:?}: {control:?}"
        );
        assert_eq!(upstream.seen().len(), 1, "{good:?}");

        for case in families::of(&good) {
            *counts.entry(case.family).or_default() += 1;
            let before = upstream.seen().len();
            let reply = send(&sidecar, &case).await;
            let reason = last_reason(&sidecar);
            let came = upstream.seen().len() - before;
            if !refuses(&reply) || reason != case.reason || came != 0 {
                wrong.push(format!(
                    "{} {:?}, {} {}: status {}, reason {reason} instead of {}, {came} came to the server",
                    good.method, good.era, case.family, case.about, reply.status, case.reason
                ));
            }
        }
        // The control once more: what was refused has spoilt nothing.
        assert!(!refuses(&send(&sidecar, &Case::good(&good)).await), "{good:?}");
    }
    let table: Vec<_> = counts
        .iter()
        .map(|(family, count)| format!("  {count:>5}  {family}"))
        .collect();
    let table = table.join("\n");
    let total: usize = counts.values().sum();
    eprintln!("The negative suite, by family:\n{table}\n  {total:>5}  in all");
    assert!(
        wrong.is_empty(),
        "{} of {total}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
