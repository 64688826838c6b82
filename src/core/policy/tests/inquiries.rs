//! What the sidecar asks for itself, and what it makes of the answers.

use super::*;
use crate::mcp::{ProtocolVersion, inventory::Listing};

const OLD: ProtocolVersion = ProtocolVersion::V20250618;
const NEW: ProtocolVersion = ProtocolVersion::V20260728;

fn reply(policy: &CompiledPolicy, inquiry: Inquiry<'_>, body: &Value) -> Result<Option<Reply>, Reason> {
    policy
        .reply(
            inquiry,
            &Bytes::from(body.to_string()),
            &Inventory::default(),
            Limits::default(),
        )
        .map_err(|refusal| refusal.reason)
}

fn answer(result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "result": result})
}

#[test]
fn each_inquiry_is_a_message_that_the_table_of_methods_knows() {
    let page = |version, cursor| Inquiry::Page {
        listing: Listing::Tools,
        version,
        cursor,
    };
    let meta = format!(
        r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"bulkhead","version":"{}"}}}}"#,
        env!("CARGO_PKG_VERSION")
    );
    let cases = [
        (
            Inquiry::Discover,
            format!(r"{{{meta}}}"),
            &["MCP-Protocol-Version", "Mcp-Method"][..],
        ),
        (
            page(NEW, Some("a\"b")),
            format!(r#"{{"cursor":"a\"b",{meta}}}"#),
            &["MCP-Protocol-Version", "Mcp-Method"],
        ),
        (page(OLD, None), "{}".to_owned(), &["MCP-Protocol-Version"]),
        (
            Inquiry::Initialized(OLD),
            "{}".to_owned(),
            &["MCP-Protocol-Version"],
        ),
        (
            Inquiry::Initialize,
            format!(
                r#"{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"bulkhead","version":"{}"}}}}"#,
                env!("CARGO_PKG_VERSION")
            ),
            &[],
        ),
    ];
    for (inquiry, params, headers) in cases {
        let message = inquiry.message();
        let read = mcp::read(message.body(), Limits::default()).unwrap();
        assert_eq!(read.params().unwrap().raw(), params, "{inquiry:?}");
        let named: Vec<_> = message.headers().iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(named, headers, "{inquiry:?}");
        assert_eq!(message.expected().is_some(), read.id().is_some(), "{inquiry:?}");
        // An agent could have sent it, too.
        let sent = message
            .headers()
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_bytes()));
        let sent = MirroredHeaders::read(sent);
        let inventory = Inventory::default();
        let policy = policy();
        if !matches!(inquiry, Inquiry::Page { cursor: Some(_), .. }) {
            let decision = policy.decide(
                policy.agent("spiffe://acme/billing"),
                &read,
                &sent,
                context(&inventory),
            );
            assert!(decision.outcome.is_ok(), "{inquiry:?} {:?}", decision.outcome);
        }
    }
}

#[test]
fn an_offer_names_the_newest_version_of_its_era_and_the_lists_that_rules_are_about() {
    let everything = json!({"tools": {}, "prompts": {}, "resources": {}});
    let offer = |version, listings: &[Listing]| {
        Ok(Some(Reply::Offer {
            version,
            listings: listings.to_vec(),
            instructions: None,
        }))
    };
    let discovered =
        json!({"supportedVersions": ["2025-11-25", "2026-07-28", "2027-01-01"], "capabilities": everything});
    assert_eq!(
        reply(&policy(), Inquiry::Discover, &answer(&discovered)),
        offer(NEW, &[Listing::Tools])
    );
    let mut document = document();
    document["tools"] = json!([]);
    document["prompts"] = json!([{"name": "p", "roles": ["reader"]}]);
    document["resources"] = json!([{"uri": "docs://handbook", "roles": ["reader"]}]);
    let others = compile(&document);
    let agreed = json!({"protocolVersion": "2025-06-18", "capabilities": everything});
    assert_eq!(
        reply(&others, Inquiry::Initialize, &answer(&agreed)),
        offer(OLD, &[Listing::Prompts, Listing::Resources, Listing::Templates])
    );
    let nothing = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
    assert_eq!(
        reply(&others, Inquiry::Initialize, &answer(&nothing)),
        offer(OLD, &[])
    );
    for (inquiry, result, reason) in [
        (
            Inquiry::Discover,
            json!({"supportedVersions": ["2025-11-25"], "capabilities": {}}),
            Reason::AnswerVersion,
        ),
        (
            Inquiry::Discover,
            json!({"capabilities": {}}),
            Reason::AnswerVersion,
        ),
        (
            Inquiry::Initialize,
            json!({"protocolVersion": "2026-07-28", "capabilities": {}}),
            Reason::AnswerVersion,
        ),
        (
            Inquiry::Initialize,
            json!({"protocolVersion": "2025-06-18"}),
            Reason::AnswerMalformed,
        ),
        (Inquiry::Initialize, json!([]), Reason::AnswerMalformed),
    ] {
        assert_eq!(
            reply(&policy(), inquiry, &answer(&result)),
            Err(reason),
            "{result}"
        );
    }
}

#[test]
fn a_page_teaches_what_the_policy_has_rules_about_whoever_may_use_it() {
    let inquiry = Inquiry::Page {
        listing: Listing::Tools,
        version: OLD,
        cursor: None,
    };
    let tenant = json!({"properties": {"tenant": {}}});
    let tools = json!([
        {"name": "list", "inputSchema": tenant}, {"name": "delete", "inputSchema": {}}, {"name": "drop", "inputSchema": {}},
    ]);
    let read = reply(
        &policy(),
        inquiry,
        &answer(&json!({"tools": tools, "nextCursor": "n"})),
    );
    let Ok(Some(Reply::Page {
        learned,
        dropped,
        next,
    })) = read
    else {
        panic!("{read:?}")
    };
    let names: Vec<_> = learned
        .iter()
        .map(|entry| (entry.name.as_str(), entry.version))
        .collect();
    assert_eq!(names, [("list", OLD), ("delete", OLD)]);
    assert_eq!(dropped[0].reason, Reason::ForcedArgumentUndeclared);
    assert_eq!((dropped.len(), next.as_deref()), (1, Some("n")));
    let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}});
    assert_eq!(reply(&policy(), inquiry, &error), Ok(Some(Reply::Refused)));
    let event = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    assert_eq!(reply(&policy(), inquiry, &event), Ok(None));
    let other = json!({"jsonrpc": "2.0", "id": 2, "result": {"tools": []}});
    assert_eq!(reply(&policy(), inquiry, &other), Err(Reason::AnswerMismatch));
    assert_eq!(
        reply(&policy(), inquiry, &answer(&json!({"tools": {}}))),
        Err(Reason::AnswerMalformed)
    );
    let odd = json!({"tools": [], "nextCursor": 7});
    assert_eq!(
        reply(&policy(), inquiry, &answer(&odd)),
        Err(Reason::AnswerMalformed)
    );
}
