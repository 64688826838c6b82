//! Families that ask for what there isn't, or say two things at once: names, handles, headers, eras, HTTP.

use bulkhead_core::mcp::headers::encode;

use super::{Case, first_key, joined};
use crate::good::{Good, META};

/// What exists for another role, or in the server only, or nowhere.
pub fn hidden(good: &Good) -> Vec<Case> {
    let names: &[(&str, &str)] = match good.method {
        "tools/call" => &[
            ("delete_invoice", "tool_not_granted"),
            ("drop_database", "tool_unknown"),
            ("nothing", "tool_unknown"),
            ("List_invoices", "tool_unknown"),
            ("list_invoices ", "tool_unknown"),
            ("list_invoices\u{200b}", "tool_unknown"),
            ("", "tool_unknown"),
        ],
        "prompts/get" => &[
            ("promote", "prompt_not_granted"),
            ("nothing", "prompt_unknown"),
            ("Greet", "prompt_unknown"),
        ],
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => &[
            ("secrets://a", "resource_not_granted"),
            ("docs://a/b", "resource_not_granted"),
            ("DOCS://a", "resource_not_granted"),
            ("docs://..", "resource_not_granted"),
            ("docs://a%2f..%2fb", "resource_not_granted"),
            ("file:///etc/passwd", "resource_not_granted"),
        ],
        _ => &[],
    };
    names
        .iter()
        .map(|(name, reason)| {
            let key = first_key(good).unwrap_or_default();
            let mut case = Case::body(good, "hidden", name, good.with_params(&format!("\"{key}\":\"{name}\"")), reason);
            if good.is_modern() {
                case.headers.retain(|(header, _)| header != "mcp-name");
                case.headers.push(("mcp-name".into(), encode(name).into_owned()));
            }
            case
        })
        .chain((good.method == "completion/complete").then(|| {
            let body = good.with_params(r#""ref":{"type":"ref/prompt","name":"promote"},"argument":{"name":"a","value":""}"#);
            Case::body(good, "hidden", "completion of another role's prompt", body, "prompt_not_granted")
        }))
        .chain((good.method == "completion/complete").then(|| {
            let body = good.with_params(r#""ref":{"type":"ref/resource","uri":"secrets://{name}"},"argument":{"name":"name","value":""}"#);
            Case::body(good, "hidden", "completion of another role's template", body, "resource_not_granted")
        }))
        .collect()
}

/// Handles that were made for nobody here.
pub fn handles(good: &Good) -> Vec<Case> {
    let invented = "A".repeat(120);
    let mut cases = Vec::new();
    if good.method.ends_with("/list") {
        for cursor in ["", "2", &invented] {
            let body = good.with_params(&format!("\"cursor\":\"{cursor}\""));
            cases.push(Case::body(
                good,
                "handle",
                "an invented cursor",
                body,
                "handle_unknown",
            ));
        }
    }
    if good.is_modern() && matches!(good.method, "tools/call" | "prompts/get" | "resources/read") {
        let body = good.with_params(&joined(good.params, &format!("\"requestState\":\"{invented}\"")));
        cases.push(Case::body(
            good,
            "handle",
            "an invented state",
            body,
            "handle_unknown",
        ));
    }
    if !good.is_modern() && good.method != "initialize" {
        for session in ["1", "upstream-session", &invented] {
            let mut case = Case::body(
                good,
                "handle",
                "an invented session",
                good.body(),
                "session_unknown",
            );
            case.headers.push(("mcp-session-id".into(), session.into()));
            cases.push(case);
        }
    }
    if good.method == "ping" {
        for (method, extra, reason) in [
            ("GET", None, "session_unknown"),
            ("GET", Some(("last-event-id", "1")), "session_unknown"),
            ("DELETE", None, "session_unknown"),
        ] {
            let mut case = Case::body(good, "handle", method, "", reason);
            case.http_method = method;
            case.headers.push(("accept".into(), "text/event-stream".into()));
            case.headers.push(("mcp-session-id".into(), invented.clone()));
            case.headers
                .extend(extra.map(|(name, value)| (name.to_owned(), value.to_owned())));
            cases.push(case);
        }
    }
    cases
}

/// Headers that say something else than the body.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn mirrors(good: &Good) -> Vec<Case> {
    let version = ("mcp-protocol-version", "2026-07-28");
    let method = ("mcp-method", good.method);
    if !good.is_modern() {
        // Who sends them without need may not lie either.
        return vec![Case::headers(
            good,
            "mirrored header",
            "another method",
            &[
                ("mcp-protocol-version", "2025-11-25"),
                ("mcp-method", "tools/other"),
            ],
            "header_mismatch",
        )];
    }
    let name = good.name.map(|name| ("mcp-name", name));
    let with = |headers: &[(&'static str, &'static str)]| [headers, name.as_slice()].concat();
    let upper = good.method.to_uppercase();
    let mut cases = vec![
        Case::headers(
            good,
            "mirrored header",
            "no method",
            &with(&[version]),
            "header_mismatch",
        ),
        Case::headers(
            good,
            "mirrored header",
            "another method",
            &with(&[version, ("mcp-method", "tools/other")]),
            "header_mismatch",
        ),
        Case::headers(
            good,
            "mirrored header",
            "the method twice",
            &with(&[version, ("mcp-method", good.method), ("mcp-method", good.method)]),
            "header_malformed",
        ),
        Case::headers(
            good,
            "mirrored header",
            "the method, badly encoded",
            &with(&[version, ("mcp-method", "=?base64?!!?=")]),
            "header_malformed",
        ),
        Case::headers(
            good,
            "mirrored header",
            "the version twice",
            &with(&[version, version, method]),
            "header_malformed",
        ),
    ];
    let mut capitals = Case::headers(
        good,
        "mirrored header",
        "the method in capitals",
        &with(&[version]),
        "header_mismatch",
    );
    capitals.headers.push(("mcp-method".into(), upper));
    cases.push(capitals);
    if let Some((key, value)) = name {
        // base64 of "other".
        cases.extend([
            Case::headers(
                good,
                "mirrored header",
                "no name",
                &[version, method],
                "header_mismatch",
            ),
            Case::headers(
                good,
                "mirrored header",
                "another name",
                &[version, method, (key, "other")],
                "header_mismatch",
            ),
            Case::headers(
                good,
                "mirrored header",
                "another name, encoded",
                &[version, method, (key, "=?base64?b3RoZXI=?=")],
                "header_mismatch",
            ),
            Case::headers(
                good,
                "mirrored header",
                "encoded in capitals",
                &[version, method, (key, "=?BASE64?b3RoZXI=?=")],
                "header_mismatch",
            ),
            Case::headers(
                good,
                "mirrored header",
                "the name twice",
                &[version, method, (key, value), (key, "other")],
                "header_malformed",
            ),
            Case::headers(
                good,
                "mirrored header",
                "no base64",
                &[version, method, (key, "=?base64?%%?=")],
                "header_malformed",
            ),
        ]);
    }
    cases
}

/// The eras mixed, and versions that there aren't.
pub fn eras(good: &Good) -> Vec<Case> {
    if good.method == "initialize" {
        return Vec::new();
    }
    // A modern body says its version itself, so another header contradicts it.
    let unknown = if good.is_modern() {
        "header_mismatch"
    } else {
        "unsupported_version"
    };
    let mut cases = vec![
        Case::headers(
            good,
            "era",
            "a version that there isn't",
            &[("mcp-protocol-version", "2024-01-01")],
            unknown,
        ),
        Case::headers(
            good,
            "era",
            "the version of HTTP+SSE",
            &[("mcp-protocol-version", "2024-11-05")],
            unknown,
        ),
    ];
    if good.is_modern() {
        let legacy = [("mcp-protocol-version", "2025-11-25")];
        cases.push(Case::headers(
            good,
            "era",
            "a modern body under a legacy header",
            &legacy,
            "header_mismatch",
        ));
        let lacking = good
            .body()
            .replacen(",\"io.modelcontextprotocol/clientCapabilities\":{}", "", 1);
        cases.push(Case::body(
            good,
            "era",
            "no capabilities",
            lacking,
            "meta_missing",
        ));
        let other = good.body().replacen("2026-07-28", "2099-01-01", 1);
        let mut other = Case::body(good, "era", "a version to come", other, "unsupported_version");
        other.headers[0].1 = "2099-01-01".into();
        cases.push(other);
    } else {
        let modern = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", good.method),
        ];
        let modern = good.name.map_or(modern.to_vec(), |name| {
            [modern.as_slice(), &[("mcp-name", name)]].concat()
        });
        cases.push(Case::headers(
            good,
            "era",
            "a legacy body under a modern header",
            &modern,
            "meta_missing",
        ));
        let body = good.with_params(&joined(good.params, META));
        cases.push(Case::body(
            good,
            "era",
            "a modern body under a legacy header",
            body,
            "header_mismatch",
        ));
    }
    cases
}

/// What HTTP alone says.
pub fn edge(good: &Good) -> Vec<Case> {
    let with = |about: &str, headers: &[(&str, &str)], reason| {
        let mut case = Case::body(good, "HTTP", about, good.body(), reason);
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        case.headers.extend(headers);
        case
    };
    let mut cases = vec![
        with(
            "a foreign Origin with a good Host",
            &[("origin", "https://evil.example")],
            "origin_not_allowed",
        ),
        with(
            "an Origin without TLS",
            &[("origin", "http://crm.acme.svc")],
            "origin_not_allowed",
        ),
        with("Origin null", &[("origin", "null")], "origin_not_allowed"),
        with(
            "two Origins",
            &[
                ("origin", "https://crm.acme.svc"),
                ("origin", "https://evil.example"),
            ],
            "origin_not_allowed",
        ),
        with("a foreign Host", &[("host", "evil.example")], "host_not_allowed"),
        with(
            "another port in Host",
            &[("host", "crm.acme.svc:1")],
            "host_not_allowed",
        ),
        with(
            "two Hosts",
            &[("host", "crm.acme.svc"), ("host", "evil.example")],
            "host_not_allowed",
        ),
        with("no JSON", &[("content-type", "text/plain")], "content_type"),
        with(
            "a form",
            &[("content-type", "application/x-www-form-urlencoded")],
            "content_type",
        ),
        with(
            "another charset",
            &[("content-type", "application/json; charset=utf-16")],
            "content_type",
        ),
        with("compressed", &[("content-encoding", "gzip")], "content_encoding"),
    ];
    for method in ["PUT", "PATCH", "OPTIONS", "HEAD"] {
        let mut case = with(method, &[], "method_not_allowed");
        case.http_method = method;
        cases.push(case);
    }
    if good.is_modern() {
        for method in ["GET", "DELETE"] {
            let mut case = with(method, &[("accept", "text/event-stream")], "legacy_method");
            case.http_method = method;
            cases.push(case);
        }
    }
    cases
}
