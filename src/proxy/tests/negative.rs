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
use good::Good;
use http::StatusCode;
use tokio::task::JoinSet;

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

/// What became of the bad messages that are made of a good one.
#[derive(Default)]
struct Tried {
    counts: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

async fn try_all(good: Good) -> Tried {
    let upstream = RecordingUpstream::answering(good::server).await;
    let sidecar = TestSidecar::start(good::setup(upstream.port())).await;
    let control = send(&sidecar, &Case::good(&good)).await;
    assert!(
        control.status.is_success() && !refuses(&control),
        "{good:?}: {control:?}"
    );
    assert_eq!(upstream.seen().len(), 1, "{good:?}");

    let mut tried = Tried::default();
    for case in families::of(&good) {
        *tried.counts.entry(case.family).or_default() += 1;
        let before = upstream.seen().len();
        let reply = send(&sidecar, &case).await;
        let reason = last_reason(&sidecar);
        let came = upstream.seen().len() - before;
        if !refuses(&reply) || reason != case.reason || came != 0 {
            tried.wrong.push(format!(
                "{} {:?}, {} {}: status {}, reason {reason} instead of {}, {came} came to the server",
                good.method, good.era, case.family, case.about, reply.status, case.reason
            ));
        }
    }
    // The control once more: what was refused has spoilt nothing.
    assert!(!refuses(&send(&sidecar, &Case::good(&good)).await), "{good:?}");
    tried
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_message_is_refused_recorded_and_not_seen_by_the_server() {
    let mut running: JoinSet<_> = good::all().into_iter().map(try_all).collect();
    let mut all = Tried::default();
    while let Some(tried) = running.join_next().await {
        let tried = tried.unwrap();
        for (family, count) in tried.counts {
            *all.counts.entry(family).or_default() += count;
        }
        all.wrong.extend(tried.wrong);
    }
    let table: Vec<_> = all
        .counts
        .iter()
        .map(|(family, count)| format!("  {count:>5}  {family}"))
        .collect();
    let table = table.join("\n");
    let total: usize = all.counts.values().sum();
    eprintln!("The negative suite, by family:\n{table}\n  {total:>5}  in all");
    assert!(
        all.wrong.is_empty(),
        "{} of {total}:\n{}",
        all.wrong.len(),
        all.wrong.join("\n")
    );
}
