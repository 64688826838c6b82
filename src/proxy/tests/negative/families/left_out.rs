//! Families of what passes without a part of it: what the method doesn't know, and what the agent doesn't have.

use bulkhead_core::Reason;
use serde_json::json;

use super::{Case, joined};
use crate::good::Good;

/// Members of other methods, of the other era, and of none.
const STRAY: [&str; 12] = [
    "_x",
    "task",
    "cursor",
    "requestState",
    "inputResponses",
    "taskId",
    "uri",
    "name",
    "arguments",
    "ref",
    "level",
    "notifications",
];

/// The server might know what they mean, so it doesn't get them.
pub fn parameters(good: &Good) -> Vec<Case> {
    let known = good.entry().map_or(&[][..], |entry| entry.params);
    let strays = STRAY.into_iter().filter(|key| !known.contains(key));
    strays
        .map(|key| {
            let stray = joined(good.params, &format!(r#""{key}":{{"a":1}}"#));
            Case::passes(
                good,
                "stray parameter",
                key,
                good.with_params(&stray),
                good.body(),
            )
            .recording(json!({"removedParams": [key]}))
        })
        .collect()
}

/// Resources that aren't the agent's are left out of what it listens to, whether or not there are such.
pub fn resources(good: &Good) -> Vec<Case> {
    if good.method != "subscriptions/listen" {
        return Vec::new();
    }
    let family = "listened resource";
    let of = |notifications: &str| good.with_params(&format!(r#""notifications":{{{notifications}}}"#));
    let to = |uris: &str| of(&format!(r#""resourceSubscriptions":{uris}"#));
    let many = format!("[{}]", vec![r#""docs://a""#; 257].join(","));
    let passes = [
        (r#"["docs://a"]"#, r#"["docs://a"]"#),
        (r#"["docs://a","secrets://a"]"#, r#"["docs://a"]"#),
        (r#"["secrets://a","docs://a","secrets://b"]"#, r#"["docs://a"]"#),
        (r#"["secr\u0065ts://a"]"#, "[]"),
        (
            r#"["file:///etc/passwd","DOCS://a","docs://a/b","docs://.."]"#,
            "[]",
        ),
        ("[]", "[]"),
    ]
    .map(|(asked, seen)| Case::passes(good, family, asked, to(asked), to(seen)));
    let unknown = of(r#""toolsListChanged":true,"secretsChanged":true"#);
    let unknown = Case::passes(good, family, "an unknown kind", unknown, good.body());
    let refused = [
        (to(r#""secrets://a""#), Reason::InvalidParams),
        (to(r#"{"0":"secrets://a"}"#), Reason::InvalidParams),
        (to(r#"["docs://a",1]"#), Reason::InvalidParams),
        (to(&many), Reason::InvalidParams),
        (of(r#""toolsListChanged":"true""#), Reason::InvalidParams),
        (
            of(r#""ResourceSubscriptions":["secrets://a"]"#),
            Reason::CaseVariant,
        ),
        (
            to("[]").replacen(
                "Subscriptions\":",
                "Subscriptions\":[],\"resourceSubscriptions\":",
                1,
            ),
            Reason::DuplicateKey,
        ),
    ]
    .map(|(body, why)| {
        let about = body.chars().take(200).collect::<String>();
        Case::body(good, family, &about, body, why)
    });
    passes.into_iter().chain([unknown]).chain(refused).collect()
}
