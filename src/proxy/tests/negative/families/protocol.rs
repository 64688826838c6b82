//! Families that ask for what there isn't, or say two things at once: names, headers, eras, HTTP.

use bulkhead_core::{Reason, mcp::headers::encode};
use bulkhead_proxy::refusal::EdgeRefusal;

use super::{Case, first_key, joined};
use crate::good::{CAPABILITIES, Good, META};

/// What exists for another role, or in the server only, or nowhere.
pub fn hidden(good: &Good) -> Vec<Case> {
    let names: &[(&str, Reason)] = match good.method {
        "tools/call" => &[
            ("delete_invoice", Reason::ToolNotGranted),
            ("drop_database", Reason::ToolUnknown),
            ("nothing", Reason::ToolUnknown),
            ("List_invoices", Reason::ToolUnknown),
            ("list_invoices ", Reason::ToolUnknown),
            ("list_invoices\u{200b}", Reason::ToolUnknown),
            ("", Reason::ToolUnknown),
        ],
        "prompts/get" => &[
            ("promote", Reason::PromptNotGranted),
            ("nothing", Reason::PromptUnknown),
            ("Greet", Reason::PromptUnknown),
        ],
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => &[
            ("secrets://a", Reason::ResourceNotGranted),
            ("docs://a/b", Reason::ResourceNotGranted),
            ("DOCS://a", Reason::ResourceNotGranted),
            ("docs://..", Reason::ResourceNotGranted),
            ("docs://a%2f..%2fb", Reason::ResourceNotGranted),
            ("file:///etc/passwd", Reason::ResourceNotGranted),
        ],
        _ => &[],
    };
    names
        .iter()
        .map(|(name, reason)| {
            let key = first_key(good).unwrap_or_default();
            let case = Case::body(good, "hidden", name, good.with_params(&format!("\"{key}\":\"{name}\"")), *reason);
            if good.is_modern() {
                case.instead("mcp-name", &encode(name))
            } else {
                case
            }
        })
        .chain((good.method == "completion/complete").then(|| {
            let body = good.with_params(r#""ref":{"type":"ref/prompt","name":"promote"},"argument":{"name":"a","value":""}"#);
            Case::body(good, "hidden", "completion of another role's prompt", body, Reason::PromptNotGranted)
        }))
        .chain((good.method == "completion/complete").then(|| {
            let body = good.with_params(r#""ref":{"type":"ref/resource","uri":"secrets://{name}"},"argument":{"name":"name","value":""}"#);
            Case::body(good, "hidden", "completion of another role's template", body, Reason::ResourceNotGranted)
        }))
        .collect()
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
            Reason::HeaderMismatch,
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
            Reason::HeaderMismatch,
        ),
        Case::headers(
            good,
            "mirrored header",
            "another method",
            &with(&[version, ("mcp-method", "tools/other")]),
            Reason::HeaderMismatch,
        ),
        Case::headers(
            good,
            "mirrored header",
            "the method twice",
            &with(&[version, ("mcp-method", good.method), ("mcp-method", good.method)]),
            Reason::HeaderMalformed,
        ),
        Case::headers(
            good,
            "mirrored header",
            "the method, badly encoded",
            &with(&[version, ("mcp-method", "=?base64?!!?=")]),
            Reason::HeaderMalformed,
        ),
        Case::headers(
            good,
            "mirrored header",
            "the version twice",
            &with(&[version, version, method]),
            Reason::HeaderMalformed,
        ),
    ];
    let mut capitals = Case::headers(
        good,
        "mirrored header",
        "the method in capitals",
        &with(&[version]),
        Reason::HeaderMismatch,
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
                Reason::HeaderMismatch,
            ),
            Case::headers(
                good,
                "mirrored header",
                "another name",
                &[version, method, (key, "other")],
                Reason::HeaderMismatch,
            ),
            Case::headers(
                good,
                "mirrored header",
                "another name, encoded",
                &[version, method, (key, "=?base64?b3RoZXI=?=")],
                Reason::HeaderMismatch,
            ),
            Case::headers(
                good,
                "mirrored header",
                "encoded in capitals",
                &[version, method, (key, "=?BASE64?b3RoZXI=?=")],
                Reason::HeaderMismatch,
            ),
            Case::headers(
                good,
                "mirrored header",
                "the name twice",
                &[version, method, (key, value), (key, "other")],
                Reason::HeaderMalformed,
            ),
            Case::headers(
                good,
                "mirrored header",
                "no base64",
                &[version, method, (key, "=?base64?%%?=")],
                Reason::HeaderMalformed,
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
        Reason::HeaderMismatch
    } else {
        Reason::UnsupportedVersion
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
            Reason::HeaderMismatch,
        ));
        let lacking = good.body().replacen(&format!(",{CAPABILITIES}"), "", 1);
        let why = if good.params.contains("taskId") {
            Reason::CapabilityMissing
        } else {
            Reason::MetaMissing
        };
        cases.push(Case::body(good, "era", "no capabilities", lacking, why));
        let other = good.body().replacen("2026-07-28", "2099-01-01", 1);
        let mut other = Case::body(
            good,
            "era",
            "a version to come",
            other,
            Reason::UnsupportedVersion,
        );
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
            Reason::MetaMissing,
        ));
        let body = good.with_params(&joined(good.params, META));
        cases.push(Case::body(
            good,
            "era",
            "a modern body under a legacy header",
            body,
            Reason::HeaderMismatch,
        ));
    }
    cases
}

/// What HTTP alone says.
pub fn edge(good: &Good) -> Vec<Case> {
    let with = |about: &str, headers: &[(&str, &str)], why: EdgeRefusal| {
        Case::body(good, "HTTP", about, good.body(), why).with(headers)
    };
    let (own, foreign) = ("https://crm.acme.svc", "https://evil.example");
    let (host, origin) = (EdgeRefusal::HostNotAllowed, EdgeRefusal::OriginNotAllowed);
    let mut cases = vec![
        with(
            "a foreign Origin with a good Host",
            &[("origin", foreign)],
            origin,
        ),
        with(
            "an Origin without TLS",
            &[("origin", "http://crm.acme.svc")],
            origin,
        ),
        with("Origin null", &[("origin", "null")], origin),
        with("two Origins", &[("origin", own), ("origin", foreign)], origin),
        with("a foreign Host", &[("host", "evil.example")], host),
        with("another port in Host", &[("host", "crm.acme.svc:1")], host),
        with(
            "two Hosts",
            &[("host", "crm.acme.svc"), ("host", "evil.example")],
            host,
        ),
        Case::passes(good, "HTTP", "its own Origin", good.body(), good.body())
            .with(&[("origin", own), ("cookie", "a=b")])
            .seeing("origin", None),
    ];
    if good.http_method() == "POST" {
        let (kind, encoding) = (EdgeRefusal::ContentType, EdgeRefusal::ContentEncoding);
        let form = "application/x-www-form-urlencoded";
        let utf16 = "application/json; charset=utf-16";
        cases.extend([
            with("no JSON", &[("content-type", "text/plain")], kind),
            with("a form", &[("content-type", form)], kind),
            with("another charset", &[("content-type", utf16)], kind),
            with("compressed", &[("content-encoding", "gzip")], encoding),
        ]);
    }
    let methods = ["PUT", "PATCH", "OPTIONS", "HEAD"].map(|method| (method, EdgeRefusal::MethodNotAllowed));
    let of_sessions = ["GET", "DELETE"].map(|method| (method, EdgeRefusal::LegacyMethod));
    let of_sessions = of_sessions.into_iter().filter(|_| good.is_modern());
    for (method, why) in methods.into_iter().chain(of_sessions) {
        let mut case = with(method, &[("accept", "text/event-stream")], why);
        case.http_method = method;
        cases.push(case);
    }
    cases
}
