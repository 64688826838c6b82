//! Answers spoilt on their way: as events, and as HTTP. And streams that are legal and look odd.

use bulkhead_core::Reason;
use serde_json::{Value, json};

use super::spoilt::{Fate, Sent, Spoilt};

/// Streams: odd and legal, or without the answer.
pub fn events(answer: &Value) -> Vec<Spoilt> {
    let event = format!("data: {answer}\n\n");
    let lines = serde_json::to_string_pretty(answer)
        .unwrap()
        .replace('\n', "\ndata: ");
    let lines = format!("data: {lines}\n\n");
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
        ("CRLF, several lines", lines.replace('\n', "\r\n")),
        ("CR, several lines", lines.replace('\n', "\r")),
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
pub fn http(answer: &Value) -> Vec<Spoilt> {
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
