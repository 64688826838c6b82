//! The families: ways to spoil a good message, each with the reason that must refuse it.

use bulkhead_core::mcp::headers::encode;

use super::good::{Good, META, body_of};

/// A request, and why it must be refused.
#[derive(Clone, Debug)]
pub struct Case {
    pub family: &'static str,
    pub about: String,
    pub http_method: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub reason: &'static str,
}

impl Case {
    /// The control: the message as it is.
    pub fn good(good: &Good) -> Self {
        Self {
            family: "control",
            about: String::new(),
            http_method: "POST",
            headers: good.headers(),
            body: good.body().into(),
            reason: "",
        }
    }

    fn body(
        good: &Good,
        family: &'static str,
        about: &str,
        body: impl Into<Vec<u8>>,
        reason: &'static str,
    ) -> Self {
        Self {
            family,
            about: about.into(),
            body: body.into(),
            reason,
            ..Self::good(good)
        }
    }

    fn headers(
        good: &Good,
        family: &'static str,
        about: &str,
        headers: &[(&str, &str)],
        reason: &'static str,
    ) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            family,
            about: about.into(),
            headers,
            reason,
            ..Self::good(good)
        }
    }
}

/// Every family, of one good message.
pub fn of(good: &Good) -> Vec<Case> {
    [
        batches(good),
        encodings(good),
        duplicates(good),
        spellings(good),
        forms(good),
        ids(good),
        envelopes(good),
        parameters(good),
        arguments(good),
        hidden(good),
        handles(good),
        mirrors(good),
        eras(good),
        edge(good),
    ]
    .concat()
}

fn batches(good: &Good) -> Vec<Case> {
    let body = good.body();
    let ping = r#"{"jsonrpc":"2.0","id":8,"method":"ping"}"#;
    [
        ("of one", format!("[{body}]")),
        ("of two", format!("[{body},{ping}]")),
        ("after another", format!("[{ping},{body}]")),
        ("empty", "[]".to_owned()),
        ("after white space", format!(" \n[{body}]")),
    ]
    .map(|(about, body)| Case::body(good, "batch", about, body, "batch"))
    .into()
}

fn encodings(good: &Good) -> Vec<Case> {
    let body = good.body();
    let bytes = |parts: &[&[u8]]| parts.concat();
    let cut = &body.as_bytes()[..body.len() - 1];
    let in_text = |text: &[u8]| bytes(&[cut, br#","x":""#, text, br#""}"#]);
    [
        (
            "a byte order mark",
            bytes(&[b"\xef\xbb\xbf", body.as_bytes()]),
            "byte_order_mark",
        ),
        (
            "UTF-16",
            body.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            "malformed_json",
        ),
        ("a byte that is no UTF-8", in_text(b"\xff"), "invalid_utf8"),
        ("an overlong slash", in_text(b"\xc0\xaf"), "invalid_utf8"),
        ("an encoded surrogate", in_text(b"\xed\xa0\x80"), "invalid_utf8"),
        (
            "half of an escaped surrogate",
            in_text(br"\ud800"),
            "lone_surrogate",
        ),
        (
            "the wrong half first",
            in_text(br"\udc00\ud800"),
            "lone_surrogate",
        ),
        (
            "another value after it",
            bytes(&[body.as_bytes(), b"{}"]),
            "trailing_bytes",
        ),
        (
            "a NUL after it",
            bytes(&[body.as_bytes(), b"\0"]),
            "trailing_bytes",
        ),
        ("cut off", cut.to_vec(), "malformed_json"),
        ("nothing", Vec::new(), "malformed_json"),
        ("a comment", bytes(&[b"/**/", body.as_bytes()]), "malformed_json"),
        ("a comma too many", bytes(&[cut, b",}"]), "malformed_json"),
        ("a line feed in a text", in_text(b"\n"), "malformed_json"),
        (
            "a number beyond all",
            bytes(&[cut, br#","x":1e99999}"#]),
            "malformed_json",
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
            "too_deep",
        ),
        (
            "large",
            bytes(&[cut, br#","x":""#, "x".repeat(65 << 10).as_bytes(), br#""}"#]),
            "body_too_large",
        ),
    ]
    .map(|(about, body, reason)| Case::body(good, "encoding", about, body, reason))
    .into()
}

/// A key twice, at each level, in both orders, also when one of the two is escaped.
fn duplicates(good: &Good) -> Vec<Case> {
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
    if !good.notification {
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
    if good.params.contains("\"arguments\"") {
        for (about, arguments) in [
            ("a forced argument", r#"{"tenant_id":"a","tenant_id":"b"}"#),
            ("an argument", r#"{"text":"a","text":"b"}"#),
            ("a bounded argument, escaped", r#"{"limit":1,"l\u0069mit":1000}"#),
        ] {
            bodies.push((about, with_arguments(good, arguments)));
        }
    }
    bodies
        .into_iter()
        .map(|(about, body)| Case::body(good, "duplicate key", about, body, "duplicate_key"))
        .collect()
}

/// Keys that differ from known ones in case only.
fn spellings(good: &Good) -> Vec<Case> {
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
    if good.params.contains("\"arguments\"") && good.method == "tools/call" {
        bodies.push((
            "Arguments",
            good.with_params(&joined(good.params, r#""Arguments":{}"#)),
        ));
        for arguments in [
            r#"{"Tenant_ID":"globex"}"#,
            r#"{"TENANT_ID":"globex","tenant_id":"globex"}"#,
            r#"{"LIMIT":1000}"#,
        ] {
            bodies.push((
                "an argument that a rule is about",
                with_arguments(good, arguments),
            ));
        }
    }
    bodies
        .into_iter()
        .map(|(about, body)| Case::body(good, "case variant", about, body, "case_variant"))
        .collect()
}

fn forms(good: &Good) -> Vec<Case> {
    let method = format!("\"{}\"", good.method);
    let params = good.params_of(good.params);
    let other = if good.notification { r#""id":7,"# } else { "" };
    vec![Case::body(
        good,
        "form",
        "a request as a notification, or the other way round",
        body_of(other, &method, &params),
        "wrong_form",
    )]
}

fn ids(good: &Good) -> Vec<Case> {
    if good.notification {
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
            "invalid_id",
        )
    })
    .into()
}

fn envelopes(good: &Good) -> Vec<Case> {
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
    .map(|(about, body)| Case::body(good, "envelope", about, body, "invalid_envelope"))
    .into();
    let unknown = body_of(good.id(), "\"tools/drop\"", &good.params_of(good.params));
    let mut unknown = Case::body(
        good,
        "envelope",
        "a method that there isn't",
        unknown,
        "method_unknown",
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

fn parameters(good: &Good) -> Vec<Case> {
    let method = format!("\"{}\"", good.method);
    let of = |params: &str| body_of(good.id(), &method, params);
    let mut cases: Vec<_> = ["[]", "\"x\"", "1", "true", "null"]
        .map(|params| Case::body(good, "params", params, of(params), "invalid_params"))
        .into();
    if let Some(key) = first_key(good) {
        for value in ["1", "null", "[\"list_invoices\"]", "{\"a\":1}"] {
            let spoilt = good.with_params(&format!("\"{key}\":{value}"));
            cases.push(Case::body(
                good,
                "params",
                &format!("{key} is {value}"),
                spoilt,
                "invalid_params",
            ));
        }
        cases.push(Case::body(
            good,
            "params",
            "without what it names",
            good.with_params(""),
            "invalid_params",
        ));
    }
    cases
}

fn arguments(good: &Good) -> Vec<Case> {
    if !good.params.contains("\"arguments\"") {
        return Vec::new();
    }
    let mut cases: Vec<_> = ["[]", "[1]", "\"x\"", "1", "true"]
        .map(|value| {
            Case::body(
                good,
                "arguments",
                value,
                with_arguments(good, value),
                "arguments_not_object",
            )
        })
        .into();
    if good.method == "tools/call" {
        cases.extend(
            [
                "101",
                "1e3",
                "\"5\"",
                "null",
                "[5]",
                "99999999999999999999999",
                "100.5",
            ]
            .map(|limit| {
                let body = with_arguments(good, &format!(r#"{{"limit":{limit}}}"#));
                Case::body(good, "bounds", limit, body, "argument_out_of_bounds")
            }),
        );
    }
    cases
}

/// What exists for another role, or in the server only, or nowhere.
fn hidden(good: &Good) -> Vec<Case> {
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
fn handles(good: &Good) -> Vec<Case> {
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
fn mirrors(good: &Good) -> Vec<Case> {
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
fn eras(good: &Good) -> Vec<Case> {
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
fn edge(good: &Good) -> Vec<Case> {
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

fn joined(members: &str, more: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!("{members}{comma}{more}")
}

fn with_arguments(good: &Good, arguments: &str) -> String {
    let name = good.name.unwrap_or_default();
    good.with_params(&format!(r#""name":"{name}","arguments":{arguments}"#))
}

/// The member of `params` that names what the message is about.
fn first_key(good: &Good) -> Option<&'static str> {
    good.name.map(|_| {
        if good.params.starts_with("\"uri\"") {
            "uri"
        } else {
            "name"
        }
    })
}
