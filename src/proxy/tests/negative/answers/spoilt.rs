//! Good answers, spoilt: as messages, and as results of their method.

use bulkhead_core::Reason;
use serde_json::{Value, json};

use crate::{
    answers::transport,
    good::{Form, Good},
    world::answer,
};

/// What the server sends.
#[derive(Clone, Debug)]
pub enum Sent {
    Whole(u16, Vec<(&'static str, String)>, String),
    /// The chunks of a stream.
    Events(Vec<Vec<u8>>),
}

impl Sent {
    pub fn json(body: impl Into<String>) -> Self {
        Self::Whole(
            200,
            vec![("content-type", "application/json".into())],
            body.into(),
        )
    }

    pub fn events(text: impl Into<Vec<u8>>) -> Self {
        Self::Events(vec![text.into()])
    }
}

/// What must become of it.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// The client gets the good answer and nothing else.
    Unharmed,
    /// The client gets a refusal for this reason.
    Refused(Reason),
    /// The client is told that there was no answer, and why.
    Failed(&'static str),
}

/// A spoilt answer.
#[derive(Clone, Debug)]
pub struct Spoilt {
    pub family: &'static str,
    pub about: String,
    pub sent: Sent,
    pub fate: Fate,
}

impl Spoilt {
    pub fn new(family: &'static str, about: &str, sent: Sent, fate: Fate) -> Self {
        Self {
            family,
            about: about.into(),
            sent,
            fate,
        }
    }
}

/// All that is made of the good answer to a request.
pub fn of(good: &Good) -> Vec<Spoilt> {
    if good.form != Form::Request {
        return Vec::new();
    }
    let answer = answer(&serde_json::from_str(&good.body()).unwrap());
    let messages = texts(&answer.to_string())
        .into_iter()
        .chain(results(good, &answer))
        .flat_map(|(family, about, text, fate)| {
            // As the body, and as the data of an event.
            let lines = text.replace('\n', "\ndata: ");
            [
                Spoilt::new(family, &format!("{about}, as JSON"), Sent::json(text), fate),
                Spoilt::new(
                    family,
                    &format!("{about}, as an event"),
                    Sent::events(format!("data: {lines}\n\n")),
                    fate,
                ),
            ]
        });
    messages
        .chain(transport::events(&answer))
        .chain(transport::http(&answer))
        .collect()
}

type Text = (&'static str, String, String, Fate);

/// What is no message, or answers something else.
fn texts(good: &str) -> Vec<Text> {
    let cut = &good[..good.len() - 1];
    let at = |place: &str, text: &str| good.replacen(place, text, 1);
    let with = |members: &str| format!("{cut},{members}}}");
    let (malformed, mismatch) = (Reason::AnswerMalformed, Reason::AnswerMismatch);
    let deep = format!(r#""x":{}{}"#, "[".repeat(200), "]".repeat(200));
    [
        ("batch", "of one", format!("[{good}]"), malformed),
        ("batch", "of two", format!("[{good},{good}]"), malformed),
        ("encoding", "cut off", cut.to_owned(), malformed),
        ("encoding", "another after it", format!("{good}{good}"), malformed),
        (
            "encoding",
            "half of a surrogate",
            with(r#""x":"\ud800""#),
            malformed,
        ),
        ("encoding", "deep", with(&deep), malformed),
        ("encoding", "no JSON", "secret".to_owned(), malformed),
        (
            "duplicate key",
            "id",
            at(r#""id":7"#, r#""id":8,"id":7"#),
            malformed,
        ),
        ("duplicate key", "id, last", with(r#""id":8"#), malformed),
        (
            "duplicate key",
            "result",
            with(r#""result":{"secret":1}"#),
            malformed,
        ),
        (
            "duplicate key",
            "result, escaped",
            with(r#""r\u0065sult":{"secret":1}"#),
            malformed,
        ),
        (
            "duplicate key",
            "deep inside",
            at(r#""result":{"#, r#""result":{"_x":[{"a":1,"a":2}],"#),
            malformed,
        ),
        (
            "case variant",
            "Result",
            with(r#""Result":{"secret":1}"#),
            malformed,
        ),
        ("case variant", "ID", with(r#""ID":8"#), malformed),
        ("envelope", "version 1.0", at(r#""2.0""#, r#""1.0""#), malformed),
        ("envelope", "no version", at(r#""jsonrpc":"2.0","#, ""), malformed),
        (
            "envelope",
            "an error too",
            with(r#""error":{"code":1,"message":"secret"}"#),
            malformed,
        ),
        ("envelope", "a method too", with(r#""method":"ping""#), malformed),
        ("envelope", "another member", with(r#""secret":1"#), malformed),
        (
            "envelope",
            "neither",
            r#"{"jsonrpc":"2.0","id":7}"#.to_owned(),
            malformed,
        ),
        (
            "envelope",
            "a list as the result",
            r#"{"jsonrpc":"2.0","id":7,"result":["secret"]}"#.to_owned(),
            malformed,
        ),
        (
            "envelope",
            "a text as the error",
            r#"{"jsonrpc":"2.0","id":7,"error":"secret"}"#.to_owned(),
            malformed,
        ),
        ("id", "another", at(r#""id":7"#, r#""id":8"#), mismatch),
        ("id", "as a text", at(r#""id":7"#, r#""id":"7""#), mismatch),
        ("id", "null", at(r#""id":7"#, r#""id":null"#), malformed),
        ("id", "with a fraction", at(r#""id":7"#, r#""id":7.0"#), malformed),
        (
            "id",
            "an error without",
            r#"{"jsonrpc":"2.0","error":{"code":1,"message":"secret"}}"#.to_owned(),
            mismatch,
        ),
    ]
    .map(|(family, about, text, reason)| (family, about.to_owned(), text, Fate::Refused(reason)))
    .into()
}

/// The member of a result that is a list.
fn listed(good: &Good) -> Option<&'static str> {
    match good.method {
        "tools/list" => Some("tools"),
        "prompts/list" => Some("prompts"),
        "resources/list" => Some("resources"),
        "resources/templates/list" => Some("resourceTemplates"),
        "resources/read" => Some("contents"),
        _ => None,
    }
}

/// What is no result of the method, and lists of which a part is none.
fn results(good: &Good, answer: &Value) -> Vec<Text> {
    let with = |key: &str, value: Value| {
        let mut spoilt = answer.clone();
        spoilt["result"][key] = value;
        (format!("{key}: {}", spoilt["result"][key]), spoilt)
    };
    let without = |key: &str| {
        let mut spoilt = answer.clone();
        spoilt["result"].as_object_mut().unwrap().remove(key);
        (format!("no {key}"), spoilt)
    };
    let (malformed, feature) = (Reason::AnswerMalformed, Reason::AnswerFeature);
    let sampling = json!({"a": {"method": "sampling/createMessage", "params": {"secret": 1}}});
    let mut spoilt = Vec::new();
    let list = listed(good);
    if let Some(key) = list {
        spoilt.extend([
            (without(key), malformed),
            (with(key, json!({"secret": 1})), malformed),
            (with(key, json!("secret")), malformed),
        ]);
    }
    if good.method.ends_with("/list") {
        spoilt.push((with("nextCursor", json!(7)), malformed));
        spoilt.push((with("nextCursor", json!("")), Reason::AnswerHandle));
    }
    match good.method {
        "resources/read" => spoilt.extend([
            (
                with("contents", json!([{"uri": "secrets://a", "text": "x"}])),
                Reason::AnswerResource,
            ),
            (with("contents", json!([{"text": "secret"}])), malformed),
        ]),
        "initialize" => spoilt.extend([
            (
                with("protocolVersion", json!("2099-01-01")),
                Reason::AnswerVersion,
            ),
            (
                with("protocolVersion", json!("2026-07-28")),
                Reason::AnswerVersion,
            ),
            (without("protocolVersion"), malformed),
            (without("capabilities"), malformed),
        ]),
        "server/discover" => spoilt.extend([
            (
                with("supportedVersions", json!(["2099-01-01"])),
                Reason::AnswerVersion,
            ),
            (without("supportedVersions"), malformed),
        ]),
        "tasks/get" => spoilt.extend([
            (without("taskId"), malformed),
            (with("taskId", json!("")), Reason::AnswerHandle),
            (with("inputRequests", sampling.clone()), feature),
        ]),
        _ => {}
    }
    if good.is_modern() {
        let asks = matches!(good.method, "tools/call" | "prompts/get" | "resources/read");
        let input = if asks { feature } else { Reason::AnswerType };
        let task = if good.method == "tools/call" {
            malformed
        } else {
            Reason::AnswerType
        };
        let mut asking = with("resultType", json!("input_required"));
        asking.1["result"]["inputRequests"] = sampling;
        spoilt.extend([
            (with("resultType", json!("secret")), Reason::AnswerType),
            (with("resultType", json!(7)), Reason::AnswerType),
            (with("resulttype", json!("complete")), malformed),
            (with("resultType", json!("task")), task),
            (asking, input),
        ]);
    }
    let spoilt = spoilt
        .into_iter()
        .map(|((about, text), reason)| ("result", about, text.to_string(), Fate::Refused(reason)));
    // It is legal to write a message in several lines.
    let pretty = serde_json::to_string_pretty(answer).unwrap();
    let pretty = ("several lines", "indented".to_owned(), pretty, Fate::Unharmed);
    spoilt.chain(lists(good, list, answer)).chain([pretty]).collect()
}

/// Lists of which a part is no entry: the rest passes.
fn lists(good: &Good, key: Option<&str>, answer: &Value) -> Option<Text> {
    let key = key.filter(|_| good.method.ends_with("/list"))?;
    let mut spoilt = answer.clone();
    let entries = spoilt["result"][key].as_array_mut()?;
    let again = entries[0].clone();
    let odd = [
        json!("secret"),
        json!(["secret"]),
        json!({"name": 7, "uri": 7, "secret": 1}),
        json!(null),
    ];
    entries.splice(0..0, odd.clone());
    entries.extend(odd.into_iter().chain([again]));
    let text = spoilt.to_string();
    Some(("malformed sibling", key.to_owned(), text, Fate::Unharmed))
}
