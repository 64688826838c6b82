//! Good answers, spoilt: as messages, as results of their method, as events and as HTTP. And what is legal and looks odd.

use bulkhead_core::Reason;
use serde_json::{Value, json};

use crate::{
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

    fn events(text: impl Into<Vec<u8>>) -> Self {
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
    messages.chain(events(&answer)).chain(http(&answer)).collect()
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
    let list = match good.method {
        "tools/list" => Some("tools"),
        "prompts/list" => Some("prompts"),
        "resources/list" => Some("resources"),
        "resources/templates/list" => Some("resourceTemplates"),
        "resources/read" => Some("contents"),
        _ => None,
    };
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
    let partly = list.filter(|_| good.method.ends_with("/list"));
    let partly = partly.map(|key| {
        let mut spoilt = answer.clone();
        let entries = spoilt["result"][key].as_array_mut().unwrap();
        let again = entries[0].clone();
        let odd = [
            json!("secret"),
            json!(["secret"]),
            json!({"name": 7, "uri": 7, "secret": 1}),
            json!(null),
        ];
        entries.splice(0..0, odd.clone());
        entries.extend(
            odd.into_iter()
                .chain([again])
                .take(if key == "tools" { 5 } else { 4 }),
        );
        (
            "malformed sibling",
            key.to_owned(),
            spoilt.to_string(),
            Fate::Unharmed,
        )
    });
    // It is legal to write a message in several lines.
    let pretty = serde_json::to_string_pretty(answer).unwrap();
    let pretty = ("several lines", "indented".to_owned(), pretty, Fate::Unharmed);
    spoilt.chain(partly).chain([pretty]).collect()
}

/// Streams: odd and legal, or without the answer.
fn events(answer: &Value) -> Vec<Spoilt> {
    let event = format!("data: {answer}\n\n");
    let before = |text: &str| format!("{text}{event}");
    let say = |message: Value| before(&format!("data: {message}\n\n"));
    let notify =
        |method: &str, params: Value| say(json!({"jsonrpc": "2.0", "method": method, "params": params}));
    let ask =
        |method: &str| say(json!({"jsonrpc": "2.0", "id": 9, "method": method, "params": {"secret": 1}}));
    let other = json!({"jsonrpc": "2.0", "id": 7, "result": {"secret": 1}});
    let legal = [
        ("CRLF", event.replace('\n', "\r\n")),
        ("CR", event.replace('\n', "\r")),
        ("no space", event.replacen("data: ", "data:", 1)),
        ("a byte order mark", before("\u{feff}")),
        ("its type", before("event: message\n")),
        ("an id and a time", before("id: secret\nretry: 5\n")),
        ("an unknown field", before("secret: 1\nsecret\n")),
        ("comments", before(": secret\n\n:secret\n")),
        ("an empty event", before("data: \n\ndata\n\n")),
        (
            "an event of another type",
            before("event: endpoint\ndata: /secret\n\n"),
        ),
        ("a second answer", format!("{event}data: {other}\n\n")),
        ("rubbish after it", format!("{event}data: secret\n\n\u{0}")),
        (
            "a notification that there isn't",
            notify("notifications/secret", json!({})),
        ),
        (
            "a notification of the client",
            notify("notifications/initialized", json!({"secret": 1})),
        ),
        (
            "another's resource",
            notify("notifications/resources/updated", json!({"uri": "secrets://a"})),
        ),
        (
            "progress that wasn't asked for",
            notify(
                "notifications/progress",
                json!({"progressToken": "secret", "progress": 1}),
            ),
        ),
        ("a question that isn't granted", ask("sampling/createMessage")),
        ("a call the other way round", ask("tools/call")),
    ];
    let legal = legal.into_iter().map(|(about, text)| {
        (
            "event stream",
            about.to_owned(),
            Sent::events(text),
            Fate::Unharmed,
        )
    });
    let crlf = event.replace('\n', "\r\n");
    let chunks = [1, 2, 7, 64].into_iter().flat_map(|size| {
        [("LF", &event), ("CRLF", &crlf)].map(|(ends, text)| {
            let chunks = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            (
                "odd chunks",
                format!("of {size}, {ends}"),
                Sent::Events(chunks),
                Fate::Unharmed,
            )
        })
    });
    let unfinished = event.trim_end().to_owned();
    let broken = Fate::Failed("upstream_broken");
    let lost = [
        ("nothing", Vec::new(), broken),
        ("comments alone", b": secret\n\n".to_vec(), broken),
        ("an event without an end", unfinished.into(), broken),
        (
            "an answer of another type",
            before("event: endpoint\n").into(),
            broken,
        ),
        (
            "no UTF-8",
            [b"data: secret\xff\n", event.as_bytes()].concat(),
            Fate::Failed("upstream_not_mcp"),
        ),
    ];
    let lost = lost
        .into_iter()
        .map(|(about, text, fate)| ("event stream", about.to_owned(), Sent::events(text), fate));
    legal
        .chain(chunks)
        .chain(lost)
        .map(|(family, about, sent, fate)| Spoilt::new(family, &about, sent, fate))
        .collect()
}

/// Responses of which HTTP alone says that they are no answers.
fn http(answer: &Value) -> Vec<Spoilt> {
    let kind = |kind: &str| vec![("content-type", kind.to_owned())];
    let (json, events) = ("application/json", "text/event-stream");
    let gzip = [kind(json), vec![("content-encoding", "gzip".into())]].concat();
    let moved = [kind("text/plain"), vec![("location", "http://10.0.0.1/".into())]].concat();
    let not_mcp = Fate::Failed("upstream_not_mcp");
    [
        ("no type", 200, Vec::new(), answer.to_string(), not_mcp),
        ("HTML", 200, kind("text/html"), answer.to_string(), not_mcp),
        ("compressed", 200, gzip, answer.to_string(), not_mcp),
        ("a stack trace", 500, kind("text/plain"), "secret".into(), not_mcp),
        ("elsewhere", 302, moved, "secret".into(), not_mcp),
        ("accepted", 202, Vec::new(), String::new(), not_mcp),
        (
            "events of a failure",
            500,
            kind(events),
            format!("data: {answer}\n\n"),
            not_mcp,
        ),
        (
            "an empty body",
            200,
            kind(json),
            String::new(),
            Fate::Refused(Reason::AnswerMalformed),
        ),
        (
            "a request",
            200,
            kind(json),
            r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#.into(),
            not_mcp,
        ),
    ]
    .map(|(about, status, headers, body, fate)| {
        Spoilt::new("HTTP", about, Sent::Whole(status, headers, body), fate)
    })
    .into()
}
