//! Which era a message is of, what that changes, and the headers that mirror it.

use std::sync::Arc;

use super::*;
use crate::mcp::input_schema::InputSchema;

const CALL: Headers<'static> = &[
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "list"),
];

#[test]
fn the_era_is_what_header_and_meta_agree_on() {
    use Reason::*;
    let version = |header: &'static str| [("mcp-protocol-version", header), CALL[1], CALL[2]];
    let good = modern("tools/call", r#""name":"list","arguments":{"tenant":"acme"}"#);
    let old = good.replace("2026-07-28", "2025-11-25");
    let new = good.replace("2026-07-28", "2027-01-01");
    let bare = call("list", r#"{"tenant":"acme"}"#);
    let variant = good.replace("/protocolVersion", "/ProtocolVersion");
    let no_capabilities = good.replace("clientCapabilities", "capabilities");
    let array = good.replace("clientCapabilities\":{}", "clientCapabilities\":[]");
    let cases: &[(&[(&str, &str)], &str, Option<Reason>)] = &[
        (&version("2026-07-28"), &good, None),
        (&version("2026-07-28"), &bare, Some(MetaMissing)),
        (&version("2026-07-28"), &no_capabilities, Some(MetaMissing)),
        (&version("2026-07-28"), &array, Some(MetaMissing)),
        (&version("2026-07-28"), &variant, Some(CaseVariant)),
        (&version("2026-07-28"), &old, Some(HeaderMismatch)),
        (&version("2025-11-25"), &good, Some(HeaderMismatch)),
        (&version("2025-11-25"), &old, Some(UnsupportedVersion)),
        (&version("2027-01-01"), &new, Some(UnsupportedVersion)),
        (&version("2027-01-01"), &bare, Some(UnsupportedVersion)),
        (&version("2024-11-05"), &bare, Some(UnsupportedVersion)),
        (&version("2025-11-25"), &bare, None),
        (&version("2025-06-18"), &bare, None),
        (&[], &good, Some(HeaderMismatch)),
        (&[], &bare, None),
        (&CALL[..2], &good, Some(HeaderMismatch)),
        (&[CALL[0], CALL[2]], &good, Some(HeaderMismatch)),
        (
            &[CALL[0], CALL[1], ("mcp-name", "delete")],
            &good,
            Some(HeaderMismatch),
        ),
        (
            &[CALL[0], CALL[1], ("mcp-name", "=?base64?bGlzdA==?=")],
            &good,
            None,
        ),
        (&[("mcp-method", "tools/list")], &bare, Some(HeaderMismatch)),
        (&[("mcp-name", "free")], &bare, Some(HeaderMismatch)),
    ];
    for (headers, body, reason) in cases {
        let decision = decide(&policy(), "billing", headers, body, &Inventory::default());
        assert_eq!(outcome(&decision).err(), *reason, "{headers:?} {body}");
    }
}

#[test]
fn the_legacy_methods_are_unknown_in_the_modern_era() {
    for method in ["initialize", "ping", "resources/subscribe"] {
        let headers = [CALL[0], ("mcp-method", method)];
        let decision = decide(
            &policy(),
            "billing",
            &headers,
            &modern(method, ""),
            &Inventory::default(),
        );
        let refusal = decision.outcome.unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.status()),
            (Reason::MethodUnknown, 404),
            "{method}"
        );
    }
}

#[test]
fn a_modern_server_is_told_of_no_capability_of_the_client() {
    let body = modern("tools/list", "");
    let asked = body.replace(
        "clientCapabilities\":{}",
        "clientCapabilities\":{\"elicitation\":{}}",
    );
    let headers = [CALL[0], ("mcp-method", "tools/list")];
    let decision = decide(&policy(), "billing", &headers, &asked, &Inventory::default());
    assert_eq!(outcome(&decision), Ok(body));
}

/// The `Mcp-Param-*` headers that go up, or why nothing does.
type Expected<'a> = Result<&'a [(&'a str, &'a str)], Reason>;

#[test]
fn mirrored_headers_are_written_from_what_goes_up() {
    let mirror = |name: &str, header: &str| Mirror {
        path: vec![name.into()],
        header: header.into(),
    };
    let tool = |name: &str, mirrors: Vec<Mirror>| Learned {
        listing: Listing::Tools,
        version: ProtocolVersion::V20260728,
        name: name.into(),
        fingerprint: Fingerprint::of("{}"),
        facts: Ok(Some(Arc::new(ToolFacts {
            mirrors,
            schema: InputSchema::compile("{}").unwrap(),
        }))),
    };
    let known = Inventory::default()
        .learning(&[
            tool("list", vec![mirror("tenant", "Tenant"), mirror("limit", "Limit")]),
            tool("free", vec![mirror("limit", "Limit")]),
        ])
        .unwrap();
    let nothing = Inventory::default();
    let cases: &[(&str, &Inventory, Headers<'_>, &str, Expected<'_>)] = &[
        // The client doesn't know that `tenant` is mirrored: it isn't in its schema.
        ("list", &known, &[], "{}", Ok(&[("Mcp-Param-Tenant", "acme")])),
        (
            "list",
            &known,
            &[],
            r#"{"tenant":"globex"}"#,
            Ok(&[("Mcp-Param-Tenant", "acme")]),
        ),
        (
            "list",
            &known,
            &[("mcp-param-tenant", "globex"), ("mcp-param-limit", "7.0")],
            r#"{"tenant":"globex","limit":7}"#,
            Ok(&[("Mcp-Param-Tenant", "acme"), ("Mcp-Param-Limit", "7")]),
        ),
        // What the client sent must agree with what the client sent.
        (
            "list",
            &known,
            &[("mcp-param-tenant", "globex")],
            "{}",
            Err(Reason::HeaderMismatch),
        ),
        (
            "list",
            &known,
            &[("mcp-param-tenant", "acme")],
            r#"{"tenant":"globex"}"#,
            Err(Reason::HeaderMismatch),
        ),
        ("list", &known, &[], r#"{"limit":7}"#, Err(Reason::HeaderMismatch)),
        // Unknown ones pass only where nothing is forced or bounded.
        (
            "capped",
            &nothing,
            &[("mcp-param-limit", "999999")],
            r#"{"limit":7}"#,
            Ok(&[]),
        ),
        (
            "list",
            &known,
            &[("mcp-param-tenant2", "globex")],
            "{}",
            Ok(&[("Mcp-Param-Tenant", "acme")]),
        ),
        (
            "list",
            &nothing,
            &[("mcp-param-tenant", "globex")],
            r#"{"tenant":"globex"}"#,
            Ok(&[]),
        ),
        (
            "free",
            &nothing,
            &[("mcp-param-limit", "7")],
            r#"{"limit":7}"#,
            Ok(&[("Mcp-Param-limit", "7")]),
        ),
        (
            "free",
            &known,
            &[("mcp-param-limit", "7"), ("mcp-param-x", "y")],
            r#"{"limit":7}"#,
            Ok(&[("Mcp-Param-x", "y"), ("Mcp-Param-Limit", "7")]),
        ),
    ];
    for (tool, inventory, params, arguments, expected) in cases {
        let headers: Vec<_> = [CALL[0], CALL[1], ("mcp-name", *tool)]
            .into_iter()
            .chain(params.iter().copied())
            .collect();
        let body = modern(
            "tools/call",
            &format!(r#""name":"{tool}","arguments":{arguments}"#),
        );
        let decision = decide(&policy(), "billing", &headers, &body, inventory);
        let written = decision.outcome.as_ref().map(|permitted| {
            let headers = permitted.headers();
            assert_eq!(
                headers[0],
                ("MCP-Protocol-Version".into(), "2026-07-28".to_owned())
            );
            assert_eq!(headers[1], ("Mcp-Method".into(), "tools/call".to_owned()));
            assert_eq!(headers[2], ("Mcp-Name".into(), (*tool).to_owned()));
            headers[3..]
                .iter()
                .map(|(name, value)| (name.as_ref(), value.as_str()))
                .collect::<Vec<_>>()
        });
        let written = written
            .as_ref()
            .map(Vec::as_slice)
            .map_err(|refusal| refusal.reason);
        assert_eq!(written, *expected, "{tool} {params:?} {arguments}");
    }
}

#[test]
fn a_legacy_call_goes_up_without_mirrored_arguments() {
    let headers = [
        LEGACY[0],
        ("mcp-param-tenant", "globex"),
        ("mcp-method", "tools/call"),
    ];
    let decision = decide(
        &policy(),
        "billing",
        &headers,
        &call("free", "{}"),
        &Inventory::default(),
    );
    assert_eq!(
        decision.outcome.unwrap().headers(),
        [("MCP-Protocol-Version".into(), "2025-11-25".to_owned())]
    );
}
