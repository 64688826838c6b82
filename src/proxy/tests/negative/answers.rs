//! The way back: of each request the good answer is spoilt, and told as JSON and as events. What the client gets, that the
//! server was asked once, and the outcome on record are held against what they must be.

#[path = "answers/spoilt.rs"]
mod spoilt;
#[path = "answers/transport.rs"]
mod transport;

use std::{
    mem,
    sync::{Arc, Mutex},
};

use bulkhead_core::Refusal;
use bulkhead_proxy::testing::{Answer, Reply};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
pub use spoilt::{Fate, Sent, Spoilt, of};

use crate::{
    Became, Tried,
    families::Case,
    good::Good,
    send,
    why::said,
    world::{World, answer, server},
};

impl Sent {
    fn answer(self) -> Answer {
        match self {
            Self::Whole(status, headers, body) => Answer::Whole(status, headers, body),
            Self::Events(chunks) => Answer::Events(futures::stream::iter(chunks).map(Bytes::from).boxed()),
        }
    }
}

pub async fn try_some(good: Good, spoilt: Vec<Spoilt>) -> Tried {
    let next: Arc<Mutex<Option<Sent>>> = Arc::default();
    let queued = Arc::clone(&next);
    let world = World::of(
        &good,
        |_| (),
        move |request| {
            let sent = queued.lock().unwrap().take();
            sent.map_or_else(|| server(request), Sent::answer)
        },
    )
    .await;
    let request = Case::good(&good);
    let mut tried = Tried::default();
    // What all that is legal must come to.
    let good_answer = answer(&serde_json::from_str(&good.body()).unwrap()).to_string();
    *next.lock().unwrap() = Some(Sent::json(good_answer.clone()));
    let control = messages(&send(&world, &request).await.reply);
    assert_eq!(control.len(), 1, "{good:?}: {control:?}");
    let again = Spoilt::new("control", "", Sent::json(good_answer), Fate::Unharmed);
    for spoilt in spoilt.into_iter().chain([again]) {
        *tried.counts.entry(spoilt.family).or_default() += 1;
        *next.lock().unwrap() = Some(spoilt.sent);
        let became = send(&world, &request).await;
        if let Some(what) = differs(&became, &control, spoilt.fate) {
            tried.wrong.push(format!(
                "{} {:?}, {} {}: {what}",
                good.method, good.era, spoilt.family, spoilt.about
            ));
        }
    }
    tried
}

/// What is wrong with what became of it.
fn differs(became: &Became, control: &[Value], fate: Fate) -> Option<String> {
    let Became { reply, seen, records } = became;
    let got = messages(reply);
    let failed = |said: Value| (vec![said], "failed");
    let unread = json!({"id": 7, "code": -31403, "reason": null, "isError": null});
    let ((expected, outcome), reason) = match fate {
        Fate::Unharmed => ((control.iter().map(said).collect(), "completed"), None),
        Fate::Refused(reason) => {
            let refusal = Refusal::plain(reason).answering(Some("7"));
            let body = serde_json::from_slice(&refusal.body()).unwrap();
            (failed(said(&body)), Some(reason.as_str()))
        }
        Fate::Failed(code) => {
            let mut unread = unread;
            unread["reason"] = json!(code);
            (failed(unread), None)
        }
    };
    let told: Vec<_> = got.iter().map(said).collect();
    let harmed = matches!(fate, Fate::Unharmed) && got != control;
    if reply.status != StatusCode::OK || told != expected || harmed {
        return Some(format!("{} {got:?} instead of {expected:?}", reply.status));
    }
    if reply.body.windows(6).any(|part| part == b"secret") {
        return Some("the client got what it must not".into());
    }
    if seen.len() != 1 {
        return Some(format!("the server was asked {} times", seen.len()));
    }
    let [intent, ended] = records.as_slice() else {
        return Some(format!("on record is {records:?}"));
    };
    let on_record = [
        &intent["decision"],
        &ended["outcome"],
        &ended["reason"],
        &ended["call"],
    ];
    let expected = [&json!("permit"), &json!(outcome), &json!(reason), &intent["call"]];
    (on_record != expected).then(|| format!("on record is {on_record:?} instead of {expected:?}"))
}

/// The messages of a reply: one, or those of its events.
fn messages(reply: &Reply) -> Vec<Value> {
    let text = std::str::from_utf8(&reply.body).unwrap();
    if reply.headers["content-type"] != "text/event-stream" {
        return vec![serde_json::from_str(text).unwrap()];
    }
    let mut messages = Vec::new();
    let mut data = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("data: ") {
            Some(part) => data.push(part),
            None if line.is_empty() && !data.is_empty() => {
                messages.push(serde_json::from_str(&mem::take(&mut data).join("\n")).unwrap());
            }
            None => {}
        }
    }
    messages
}
