//! Families of arguments: no object, said twice or in another case, out of bounds, hidden from the client, or mirrored in
//! headers that lie.

use bulkhead_core::Reason;
use bulkhead_proxy::testing::sidecar::TENANT_ID;
use serde_json::json;

use super::{Case, joined, with_arguments};
use crate::good::Good;

pub fn objects(good: &Good) -> Vec<Case> {
    if !good.params.contains("\"arguments\"") {
        return Vec::new();
    }
    let refused = ["[]", "[1]", "\"x\"", "1", "true"].map(|value| {
        let body = with_arguments(good, value);
        Case::body(good, "arguments", value, body, Reason::ArgumentsNotObject)
    });
    let empty = if good.method == "tools/call" { "{}" } else { "null" };
    let null = with_arguments(good, "null");
    let null = Case::passes(good, "arguments", "null", null, with_arguments(good, empty));
    refused.into_iter().chain([null]).collect()
}

/// An argument twice, also when one of the two is escaped.
pub fn duplicates(good: &Good) -> Vec<Case> {
    if !good.params.contains("\"arguments\"") {
        return Vec::new();
    }
    [
        ("a forced one", r#"{"tenant_id":"a","tenant_id":"b"}"#),
        ("one without a rule", r#"{"text":"a","text":"b"}"#),
        ("a bounded one, escaped", r#"{"limit":1,"l\u0069mit":1000}"#),
    ]
    .map(|(about, arguments)| {
        let body = with_arguments(good, arguments);
        Case::body(good, "duplicate argument", about, body, Reason::DuplicateKey)
    })
    .into()
}

/// What a server that ignores case would take for the arguments, or for one that a rule is about.
pub fn spellings(good: &Good) -> Vec<Case> {
    if good.method != "tools/call" {
        return Vec::new();
    }
    let family = "argument's case";
    let beside = good.with_params(&joined(good.params, r#""Arguments":{}"#));
    let beside = Case::body(
        good,
        family,
        "Arguments beside arguments",
        beside,
        Reason::CaseVariant,
    );
    let of_rules = [
        r#"{"Tenant_ID":"globex"}"#,
        r#"{"TENANT_ID":"globex","tenant_id":"globex"}"#,
        r#"{"LIMIT":1000}"#,
    ]
    .map(|arguments| {
        let body = with_arguments(good, arguments);
        Case::body(good, family, arguments, body, Reason::CaseVariant)
    });
    [beside].into_iter().chain(of_rules).collect()
}

pub fn bounds(good: &Good) -> Vec<Case> {
    if good.method != "tools/call" {
        return Vec::new();
    }
    let of = |limit: &str| with_arguments(good, &format!(r#"{{"limit":{limit}}}"#));
    let long = "99999999999999999999999";
    let refused = ["101", "1e3", "\"5\"", "null", "[5]", long, "100.5"]
        .map(|limit| Case::body(good, "bounds", limit, of(limit), Reason::ArgumentOutOfBounds));
    let passes = ["100", "1e2", "0"].map(|limit| Case::passes(good, "bounds", limit, of(limit), of(limit)));
    refused.into_iter().chain(passes).collect()
}

/// What the client's view of the tool doesn't have: forced arguments are overridden, forbidden ones refused.
pub fn hidden(good: &Good) -> Vec<Case> {
    if good.method != "tools/call" {
        return Vec::new();
    }
    let forced = [
        r#""tenant_id":"globex""#,
        r#""tenant_id":null"#,
        r#""tenant_id":["globex"]"#,
        r#""tenant\u005fid":"globex""#,
    ]
    .map(|given| {
        let body = with_arguments(good, &format!("{{{given}}}"));
        Case::passes(good, "hidden argument", given, body, with_arguments(good, "{}"))
            .recording(json!({"overriddenArguments": ["tenant_id"]}))
    });
    let forbidden = [
        r#""location_id":"x""#,
        r#""location_id":null"#,
        r#""location\u005fid":"x""#,
    ]
    .map(|given| {
        let body = with_arguments(good, &format!("{{{given}}}"));
        Case::body(good, "hidden argument", given, body, Reason::ArgumentForbidden)
    });
    forced.into_iter().chain(forbidden).collect()
}

/// `Mcp-Param-*` says what the arguments say, and the server gets it from the final ones.
pub fn mirrors(good: &Good) -> Vec<Case> {
    if good.method != "tools/call" || !good.is_modern() {
        return Vec::new();
    }
    let family = "mirrored argument";
    let (region, tenant) = ("mcp-param-region", "mcp-param-tenant");
    let eu = with_arguments(good, r#"{"region":"eu"}"#);
    let none = with_arguments(good, "{}");
    let null = with_arguments(good, r#"{"region":null}"#);
    let globex = with_arguments(good, r#"{"tenant_id":"globex"}"#);
    let (mismatch, malformed) = (Reason::HeaderMismatch, Reason::HeaderMalformed);
    let refused = [
        ("no header", &eu, &[][..], mismatch),
        ("another value", &eu, &[(region, "us")], mismatch),
        ("in capitals", &eu, &[(region, "EU")], mismatch),
        (
            "another one, encoded",
            &eu,
            &[(region, "=?base64?dXM=?=")],
            mismatch,
        ),
        ("empty", &eu, &[(region, "")], mismatch),
        ("no argument", &none, &[(region, "eu")], mismatch),
        ("a null argument", &null, &[(region, "eu")], mismatch),
        ("no base64", &eu, &[(region, "=?base64?%%?=")], malformed),
        ("twice", &eu, &[(region, "eu"), (region, "eu")], malformed),
        (
            "twice, differing",
            &eu,
            &[(region, "eu"), ("Mcp-Param-REGION", "us")],
            malformed,
        ),
        (
            "of a hidden argument alone",
            &none,
            &[(tenant, "globex")],
            mismatch,
        ),
        (
            "of a hidden argument, another",
            &globex,
            &[(tenant, "acme")],
            mismatch,
        ),
    ];
    let passes = [
        ("agreeing", &eu, &[(region, "eu")][..], &eu, Some("eu")),
        (
            "agreeing, encoded",
            &eu,
            &[(region, "=?base64?ZXU=?=")],
            &eu,
            Some("eu"),
        ),
        (
            "of nothing known",
            &none,
            &[("mcp-param-other", "x")],
            &none,
            None,
        ),
        (
            "of a hidden argument",
            &globex,
            &[(tenant, "globex")],
            &none,
            None,
        ),
    ];
    let refused = refused
        .into_iter()
        .map(|(about, body, headers, why)| Case::body(good, family, about, body.as_str(), why).with(headers));
    let passes = passes.into_iter().map(|(about, body, headers, seen, value)| {
        Case::passes(good, family, about, body.as_str(), seen.as_str())
            .with(headers)
            .seeing(region, value)
            .seeing(tenant, Some(TENANT_ID))
            .seeing("mcp-param-other", None)
    });
    refused.chain(passes).collect()
}
