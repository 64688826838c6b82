//! The negative suite: families of bad messages × methods × eras, and of bad answers × methods × eras. Each has a control
//! that passes and reaches the server. Of each case the client's reply, what the server saw and the records are held against
//! what they must be.
//!
//! What a family is about is in `negative/families.rs`; the good messages that it spoils are in `negative/good.rs`, and
//! what they are sent in is in `negative/world.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "negative/answers.rs"]
mod answers;
#[path = "negative/families.rs"]
mod families;
#[path = "negative/good.rs"]
mod good;
#[path = "negative/slow.rs"]
mod slow;
#[path = "negative/why.rs"]
mod why;
#[path = "negative/world.rs"]
mod world;

use std::collections::BTreeMap;

use bulkhead_core::mcp::{
    Era,
    methods::{self, Direction, Method},
};
use bulkhead_proxy::testing::{
    Reply, Seen,
    sidecar::{TENANT_ID, spiffe},
    until,
};
use families::{Case, Fate, Passes};
use good::{Form, Good};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use why::{Why, json_of};
use world::World;

/// What became of a case.
struct Became {
    reply: Reply,
    seen: Vec<Seen>,
    records: Vec<Value>,
}

async fn send(world: &World, case: &Case) -> Became {
    Box::pin(became(world, case, world.send(case))).await
}

/// What becomes of a case that is sent like this.
async fn became(world: &World, case: &Case, sent: impl Future<Output = Reply>) -> Became {
    let seen = world.upstream.seen().len();
    let reply = sent.await;
    let mut records = world.new_records();
    if let Fate::Passes(_) = case.fate {
        // A stream's outcome comes after its last byte.
        until("the outcome is on record", || {
            records.append(&mut world.new_records());
            let is_refused = |record: &Value| record["decision"] == "refuse";
            records.len() > 1 || records.first().is_some_and(is_refused)
        })
        .await;
    }
    Became {
        reply,
        seen: world.upstream.seen().split_off(seen),
        records,
    }
}

impl Became {
    /// What is wrong with it.
    fn differs(&self, world: &World, good: &Good, case: &Case) -> Option<String> {
        let Self { reply, seen, records } = self;
        let told = match &case.fate {
            Fate::Refused(why) => why
                .differs(good, case.http_method, &world.body(case), reply)
                .or_else(|| self.came(*why, case)),
            Fate::Passes(passes) => passed(good, reply).or_else(|| self.went(world, good, case, passes)),
        };
        told.map(|what| {
            let paths: Vec<_> = seen
                .iter()
                .map(|seen| String::from_utf8_lossy(&seen.body))
                .collect();
            format!(
                "{} {:?}, {} {}: {what}; seen {paths:?}; on record {records:?}",
                good.method, good.era, case.family, case.about
            )
        })
    }

    /// What was refused didn't come to the server, and is on record once.
    fn came(&self, why: Why, case: &Case) -> Option<String> {
        if !self.seen.is_empty() {
            return Some("it came to the server".into());
        }
        let said: Vec<_> = self
            .records
            .iter()
            .map(|record| [&record["decision"], &record["reason"], &record["spiffeId"]])
            .collect();
        let expected = [&json!("refuse"), &json!(why.code()), &json!(spiffe(case.agent))];
        (said != [expected]).then(|| format!("not once on record as {}", why.code()))
    }

    /// What passed came to the server as it must, and both what was decided and the outcome are on record.
    fn went(&self, world: &World, good: &Good, case: &Case, passes: &Passes) -> Option<String> {
        let [seen] = self.seen.as_slice() else {
            return Some("it must come to the server once".into());
        };
        let [intent, outcome] = self.records.as_slice() else {
            return Some("it must be on record, and its outcome".into());
        };
        let body = world.own(&passes.body);
        let mut expected: Value = serde_json::from_str(&body).unwrap_or_default();
        if good.method == "tools/call" {
            expected["params"]["arguments"]["tenant_id"] = json!(TENANT_ID);
        }
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        if (seen.method.as_str(), &body) != (case.http_method, &expected) {
            return Some(format!("the server must see {} {expected}", case.http_method));
        }
        let other = |(name, value): &&(&str, Option<String>)| seen.header(name) != value.as_deref();
        if let Some(header) = passes.headers.iter().find(other) {
            return Some(format!("of headers, the server must see {header:?}"));
        }
        let mut known = passes.record.clone();
        known["decision"] = json!("permit");
        known["spiffeId"] = json!(spiffe(case.agent));
        let known = known.as_object().unwrap().iter();
        if let Some(member) = known.clone().find(|(key, value)| intent[*key] != **value) {
            return Some(format!("on record must be {member:?}"));
        }
        let closed = outcome["outcome"] == "completed" && outcome["call"] == intent["call"];
        (!closed).then(|| "it must be closed as completed".into())
    }
}

/// What is wrong with a reply that must pass.
fn passed(good: &Good, reply: &Reply) -> Option<String> {
    let fails = good.form == Form::Request && {
        let reply = json_of(reply);
        reply["id"] != 7 || !reply["result"].is_object() || reply["result"]["isError"] == true
    };
    (reply.status != good.status() || fails).then(|| format!("it must pass: {reply:?}"))
}

/// What became of the cases of one good message.
#[derive(Default)]
struct Tried {
    counts: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

/// Cases that are tried in one world. Their records are read again and again, so they are few.
const TOGETHER: usize = 40;

async fn try_some(good: Good, cases: Vec<Case>) -> Tried {
    let world = World::of(&good, |_| (), world::server).await;
    if good.method == "tools/call" {
        // What is mirrored in headers is known once the server has listed its tools.
        let is_list = |other: &Good| other.method == "tools/list" && other.era == good.era;
        let list = good::all().into_iter().find(is_list).unwrap();
        send(&world, &Case::good(&list)).await;
    }
    let control = Case::good(&good);
    let mut tried = Tried::default();
    // The control once more at the end: what was refused has spoilt nothing.
    for case in [&control].into_iter().chain(&cases).chain([&control]) {
        *tried.counts.entry(case.family).or_default() += 1;
        let became = send(&world, case).await;
        tried.wrong.extend(became.differs(&world, &good, case));
    }
    tried
}

/// Worlds that are there at once: each does some work of its own all the time.
const AT_ONCE: usize = 8;

/// Runs all, and fails with all that is wrong.
async fn tally(name: &str, all_of_them: Vec<impl Future<Output = Tried> + Send + 'static>) {
    let mut waiting = all_of_them.into_iter();
    let mut running: JoinSet<_> = waiting.by_ref().take(AT_ONCE).collect();
    let mut all = Tried::default();
    while let Some(tried) = running.join_next().await {
        if let Some(next) = waiting.next() {
            running.spawn(next);
        }
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
    eprintln!("{name}, by family:\n{table}\n  {total:>5}  in all");
    assert!(
        all.wrong.is_empty(),
        "{} of {total}:\n{}",
        all.wrong.len(),
        all.wrong.join("\n")
    );
}

#[test]
fn every_method_that_a_client_may_use_has_its_good_message() {
    let all = good::all();
    for era in [Era::Legacy, Era::Modern] {
        for method in Method::ALL {
            let is_there = all
                .iter()
                .any(|good| (good.era, good.method) == (era, method.name()));
            let may = methods::lookup(era, Direction::ToServer, method.name()).is_some();
            assert_eq!(is_there, may, "{era:?} {method:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_message_is_refused_recorded_and_not_seen_by_the_server() {
    let mut all = Vec::new();
    for good in good::all() {
        let cases = families::of(&good);
        all.extend(
            cases
                .chunks(TOGETHER)
                .map(|cases| try_some(good.clone(), cases.to_vec())),
        );
    }
    tally("Messages", all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_slow_body_is_refused_recorded_and_not_seen_by_the_server() {
    let mut posted = good::all();
    posted.retain(|good| good.http_method() == "POST");
    tally("Slow bodies", posted.into_iter().map(slow::try_slow).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_answer_is_held_back_and_recorded_and_every_odd_one_passes_unharmed() {
    let mut all = Vec::new();
    for good in good::all() {
        let spoilt = answers::of(&good);
        all.extend(
            spoilt
                .chunks(TOGETHER)
                .map(|some| answers::try_some(good.clone(), some.to_vec())),
        );
    }
    tally("Answers", all).await;
}
