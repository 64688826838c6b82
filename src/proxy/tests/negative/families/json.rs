//! Families that spoil the JSON: its form, its encoding, its keys and its values.

use super::{Case, first_key, joined};
use bulkhead_core::Reason;

use crate::good::{Form, Good, body_of};

pub fn batches(good: &Good) -> Vec<Case> {
    let body = good.body();
    let ping = r#"{"jsonrpc":"2.0","id":8,"method":"ping"}"#;
    [
        ("of one", format!("[{body}]")),
        ("of two", format!("[{body},{ping}]")),
        ("after another", format!("[{ping},{body}]")),
        ("empty", "[]".to_owned()),
        ("after white space", format!(" \n[{body}]")),
    ]
    .map(|(about, body)| Case::body(good, "batch", about, body, Reason::Batch))
    .into()
}

pub fn encodings(good: &Good) -> Vec<Case> {
    let body = good.body();
    let bytes = |parts: &[&[u8]]| parts.concat();
    let cut = &body.as_bytes()[..body.len() - 1];
    let in_text = |text: &[u8]| bytes(&[cut, br#","x":""#, text, br#""}"#]);
    [
        (
            "a byte order mark",
            bytes(&[b"\xef\xbb\xbf", body.as_bytes()]),
            Reason::ByteOrderMark,
        ),
        (
            "UTF-16",
            body.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Reason::MalformedJson,
        ),
        ("a byte that is no UTF-8", in_text(b"\xff"), Reason::InvalidUtf8),
        ("an overlong slash", in_text(b"\xc0\xaf"), Reason::InvalidUtf8),
        (
            "an encoded surrogate",
            in_text(b"\xed\xa0\x80"),
            Reason::InvalidUtf8,
        ),
        (
            "half of an escaped surrogate",
            in_text(br"\ud800"),
            Reason::LoneSurrogate,
        ),
        (
            "the wrong half first",
            in_text(br"\udc00\ud800"),
            Reason::LoneSurrogate,
        ),
        (
            "another value after it",
            bytes(&[body.as_bytes(), b"{}"]),
            Reason::TrailingBytes,
        ),
        (
            "a NUL after it",
            bytes(&[body.as_bytes(), b"\0"]),
            Reason::TrailingBytes,
        ),
        ("cut off", cut.to_vec(), Reason::MalformedJson),
        ("nothing", Vec::new(), Reason::MalformedJson),
        (
            "a comment",
            bytes(&[b"/**/", body.as_bytes()]),
            Reason::MalformedJson,
        ),
        ("a comma too many", bytes(&[cut, b",}"]), Reason::MalformedJson),
        ("a line feed in a text", in_text(b"\n"), Reason::MalformedJson),
        (
            "a number beyond all",
            bytes(&[cut, br#","x":1e99999}"#]),
            Reason::MalformedJson,
        ),
        (
            "deep",
            bytes(&[
                cut,
                br#","x":"#,
                "[".repeat(200).as_bytes(),
                "]".repeat(200).as_bytes(),
                b"}",
            ]),
            Reason::TooDeep,
        ),
    ]
    .map(|(about, body, reason)| Case::body(good, "encoding", about, body, reason))
    .into()
}

/// A key twice, at each level but that of the arguments, in both orders, also when one of the two is escaped.
pub fn duplicates(good: &Good) -> Vec<Case> {
    let method = format!("\"{}\"", good.method);
    let params = good.params_of(good.params);
    let id = good.id();
    let mut bodies = vec![
        (
            "method, the good one last",
            format!(r#"{{"jsonrpc":"2.0",{id}"method":"ping","method":{method},"params":{params}}}"#),
        ),
        (
            "method, the good one first",
            format!(r#"{{"jsonrpc":"2.0",{id}"method":{method},"method":"ping","params":{params}}}"#),
        ),
        (
            "method, escaped",
            format!(r#"{{"jsonrpc":"2.0",{id}"method":{method},"\u006dethod":"ping","params":{params}}}"#),
        ),
        (
            "params",
            format!(r#"{{"jsonrpc":"2.0",{id}"method":{method},"params":{{}},"params":{params}}}"#),
        ),
        (
            "params, the good ones first",
            format!(r#"{{"jsonrpc":"2.0",{id}"method":{method},"params":{params},"params":{{}}}}"#),
        ),
        (
            "jsonrpc",
            format!(r#"{{"jsonrpc":"2.0","jsonrpc":"2.0",{id}"method":{method},"params":{params}}}"#),
        ),
        (
            "deep inside",
            good.with_params(&joined(good.params, r#""_x":{"a":[{"b":1,"b":1}]}"#)),
        ),
    ];
    if good.form == Form::Request {
        bodies.push((
            "id",
            format!(r#"{{"jsonrpc":"2.0","id":7,"id":8,"method":{method},"params":{params}}}"#),
        ));
    }
    if let Some(key) = first_key(good) {
        bodies.push((
            "what it names, before",
            good.with_params(&format!(r#""{key}":"other",{}"#, good.params)),
        ));
        bodies.push((
            "what it names, after",
            good.with_params(&format!(r#"{},"{key}":"other""#, good.params)),
        ));
    }
    bodies
        .into_iter()
        .map(|(about, body)| Case::body(good, "duplicate key", about, body, Reason::DuplicateKey))
        .collect()
}

/// Keys that differ from known ones in case only.
pub fn spellings(good: &Good) -> Vec<Case> {
    let body = good.body();
    let mut bodies = vec![
        (
            "Method beside method",
            body.replacen("\"method\"", "\"Method\":\"ping\",\"method\"", 1),
        ),
        ("METHOD alone", body.replacen("\"method\"", "\"METHOD\"", 1)),
        (
            "Params beside params",
            body.replacen("\"params\"", "\"Params\":{},\"params\"", 1),
        ),
        ("jsonRPC", body.replacen("\"jsonrpc\"", "\"jsonRPC\"", 1)),
    ];
    if let Some(key) = first_key(good) {
        let upper = key.to_uppercase();
        bodies.push((
            "what it names, in capitals",
            good.with_params(&joined(good.params, &format!(r#""{upper}":"x""#))),
        ));
    }
    bodies
        .into_iter()
        .map(|(about, body)| Case::body(good, "case variant", about, body, Reason::CaseVariant))
        .collect()
}

pub fn forms(good: &Good) -> Vec<Case> {
    let method = format!("\"{}\"", good.method);
    let params = good.params_of(good.params);
    let other = if good.form == Form::Request {
        ""
    } else {
        r#""id":7,"#
    };
    vec![Case::body(
        good,
        "form",
        "a request as a notification, or the other way round",
        body_of(other, &method, &params),
        Reason::WrongForm,
    )]
}

pub fn ids(good: &Good) -> Vec<Case> {
    if good.form != Form::Request {
        return Vec::new();
    }
    let method = format!("\"{}\"", good.method);
    let params = good.params_of(good.params);
    let long = format!("\"{}\"", "x".repeat(300));
    [
        "null",
        "1.5",
        "1.0",
        "1e2",
        "-0",
        "true",
        "[1]",
        "{}",
        "99999999999999999999",
        &long,
    ]
    .map(|id| {
        Case::body(
            good,
            "id",
            id,
            body_of(&format!("\"id\":{id},"), &method, &params),
            Reason::InvalidId,
        )
    })
    .into()
}

pub fn envelopes(good: &Good) -> Vec<Case> {
    let body = good.body();
    let mut cases: Vec<_> = [
        ("version 1.0", body.replacen("\"2.0\"", "\"1.0\"", 1)),
        ("version as a number", body.replacen("\"2.0\"", "2.0", 1)),
        ("no version", body.replacen("\"jsonrpc\":\"2.0\",", "", 1)),
        ("no object", "\"ping\"".to_owned()),
        ("null", "null".to_owned()),
        (
            "a result too",
            body.replacen("\"params\"", "\"result\":{},\"params\"", 1),
        ),
        (
            "an error too",
            body.replacen(
                "\"params\"",
                "\"error\":{\"code\":1,\"message\":\"\"},\"params\"",
                1,
            ),
        ),
        (
            "a member that JSON-RPC doesn't know",
            body.replacen("\"params\"", "\"extra\":1,\"params\"", 1),
        ),
        (
            "the method as a number",
            body.replacen(&format!("\"{}\"", good.method), "1", 1),
        ),
        (
            "a method without an end",
            body.replacen(good.method, &"x".repeat(200), 1),
        ),
    ]
    .map(|(about, body)| Case::body(good, "envelope", about, body, Reason::InvalidEnvelope))
    .into();
    let unknown = body_of(good.id(), "\"tools/drop\"", &good.params_of(good.params));
    let mut unknown = Case::body(
        good,
        "envelope",
        "a method that there isn't",
        unknown,
        Reason::MethodUnknown,
    );
    if good.is_modern() {
        unknown.headers = vec![
            ("mcp-protocol-version".into(), "2026-07-28".into()),
            ("mcp-method".into(), "tools/drop".into()),
        ];
    }
    cases.push(unknown);
    cases
}

pub fn parameters(good: &Good) -> Vec<Case> {
    let method = format!("\"{}\"", good.method);
    let of = |params: &str| body_of(good.id(), &method, params);
    let mut cases: Vec<_> = ["[]", "\"x\"", "1", "true", "null"]
        .map(|params| Case::body(good, "params", params, of(params), Reason::InvalidParams))
        .into();
    if let Some(key) = first_key(good) {
        for value in ["1", "null", "[\"list_invoices\"]", "{\"a\":1}"] {
            let spoilt = good.with_params(&format!("\"{key}\":{value}"));
            cases.push(Case::body(
                good,
                "params",
                &format!("{key} is {value}"),
                spoilt,
                Reason::InvalidParams,
            ));
        }
        cases.push(Case::body(
            good,
            "params",
            "without what it names",
            good.with_params(""),
            Reason::InvalidParams,
        ));
    }
    cases
}
