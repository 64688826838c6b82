//! Families of what names no method: a client's answers to the server, a session's stream and its end.

use bulkhead_core::Reason;
use bulkhead_proxy::refusal::EdgeRefusal;

use super::Case;
use crate::good::{Form, Good};

const VERSION: &str = "mcp-protocol-version";

/// Answers to the server, spoilt as requests are. Another's answers are among the handles.
pub fn responses(good: &Good) -> Vec<Case> {
    let body = good.body();
    let at = |place: &str, text: &str| body.replacen(place, text, 1);
    let (id, result) = (r#""id":"#, r#""result":"#);
    let with = |text: &str| at(result, &format!("{text},{result}"));
    let spoilt = [
        ("duplicate key", at(id, r#""id":"x","id":"#), Reason::DuplicateKey),
        ("duplicate key", with(r#""result":{}"#), Reason::DuplicateKey),
        ("duplicate key", with(r#""r\u0065sult":{}"#), Reason::DuplicateKey),
        (
            "duplicate key",
            at(r#""action":"#, r#""action":"accept","action":"#),
            Reason::DuplicateKey,
        ),
        ("case variant", at(id, r#""ID":"x","id":"#), Reason::CaseVariant),
        ("case variant", at(result, r#""Result":"#), Reason::CaseVariant),
        ("envelope", at("2.0", "1.0"), Reason::InvalidEnvelope),
        ("envelope", at(r#""jsonrpc":"2.0","#, ""), Reason::InvalidEnvelope),
        (
            "envelope",
            with(r#""error":{"code":1,"message":""}"#),
            Reason::InvalidEnvelope,
        ),
        ("envelope", with(r#""method":"ping""#), Reason::InvalidEnvelope),
        ("envelope", with(r#""params":{}"#), Reason::InvalidEnvelope),
        ("envelope", with(r#""extra":1"#), Reason::InvalidEnvelope),
        (
            "envelope",
            r#"{"jsonrpc":"2.0","id":"<billing's request>"}"#.into(),
            Reason::InvalidEnvelope,
        ),
        (
            "envelope",
            r#"{"jsonrpc":"2.0","id":"<billing's request>","result":[]}"#.into(),
            Reason::InvalidEnvelope,
        ),
        (
            "envelope",
            r#"{"jsonrpc":"2.0","id":"<billing's request>","error":"x"}"#.into(),
            Reason::InvalidEnvelope,
        ),
        (
            "envelope",
            r#"{"jsonrpc":"2.0","result":{}}"#.into(),
            Reason::InvalidEnvelope,
        ),
        ("id", at("\"<billing's request>\"", "null"), Reason::InvalidId),
        ("id", at("\"<billing's request>\"", "1.0"), Reason::InvalidId),
        (
            "id",
            at("\"<billing's request>\"", "[\"<billing's request>\"]"),
            Reason::InvalidId,
        ),
    ];
    let spoilt = spoilt.map(|(family, body, why)| Case::body(good, family, &body.clone(), body, why));
    let eras = [
        ("2026-07-28", Reason::ResponseUnexpected),
        ("2024-11-05", Reason::UnsupportedVersion),
        ("2099-01-01", Reason::UnsupportedVersion),
    ]
    .map(|(version, why)| Case::body(good, "era", version, good.body(), why).instead(VERSION, version));
    let error = r#"{"jsonrpc":"2.0","id":"<billing's request>","error":{"code":-1,"message":"no"}}"#;
    let error = Case::passes(good, "envelope", "an error is an answer", error, error);
    spoilt.into_iter().chain(eras).chain([error]).collect()
}

/// What GET and DELETE can say wrongly besides whose session it is.
pub fn http(good: &Good) -> Vec<Case> {
    let era =
        |version: &str, why: EdgeRefusal| Case::body(good, "era", version, "", why).instead(VERSION, version);
    let mut cases = vec![
        era("2026-07-28", EdgeRefusal::LegacyMethod),
        era("2024-11-05", EdgeRefusal::VersionUnsupported),
        era("2099-01-01", EdgeRefusal::VersionUnsupported),
        era("", EdgeRefusal::VersionUnsupported),
        Case::body(good, "era", "two versions", "", EdgeRefusal::HeaderMalformed)
            .with(&[(VERSION, "2025-06-18")]),
    ];
    for version in ["2025-11-25", "2025-06-18", "2025-03-26"] {
        let case = Case::passes(good, "era", version, "", "").instead(VERSION, version);
        cases.push(case.seeing(VERSION, Some(version)));
    }
    if good.form == Form::Stream {
        let kinds = ["application/json", "text/plain", "application/*"];
        cases.extend(kinds.map(|kind| {
            Case::body(good, "HTTP", kind, "", EdgeRefusal::NotAcceptable).with(&[("accept", kind)])
        }));
    }
    cases
}
