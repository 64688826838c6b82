//! The one call that is measured, and its answer: of the sizes of a small query.

use std::sync::LazyLock;

use serde_json::Value;

/// Host name of the server's certificate and of the requests.
pub(crate) const HOST: &str = "ledger.acme.svc";
/// Path of the MCP endpoint.
pub(crate) const PATH: &str = "/mcp";
/// The same, where the MCP server answers with a stream of events.
pub(crate) const EVENTS_PATH: &str = "/events";
/// Revision of MCP that is spoken.
pub(crate) const VERSION: &str = "2025-11-25";
/// The tool that is called.
pub(crate) const TOOL: &str = "list_invoices";
/// SPIFFE ID of the caller.
pub(crate) const AGENT: &str = "spiffe://acme.cluster.local/ns/acme-agents/sa/billing";
/// SPIFFE ID of another agent of the tenant, which floods.
pub(crate) const NEIGHBOUR: &str = "spiffe://acme.cluster.local/ns/acme-agents/sa/runaway";
/// What the body of a call has, and no other message.
pub(crate) const CALL: &str = r#""method":"tools/call""#;
/// The tenant that the sidecar forces; the call asks for another.
pub(crate) const TENANT: &str = "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001";

/// The body of every request, its members in the order in which SDKs write them.
pub(crate) static REQUEST: LazyLock<String> = LazyLock::new(|| {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{TOOL}","arguments":{{"tenant_id":"0b1e6d02-77aa-4d8e-a7c0-2f3f0a1c0002","limit":20,"status":"open","query":"invoices of the second quarter, newest first"}}}}}}"#
    )
});

/// The body of every answer.
pub(crate) static ANSWER: LazyLock<String> = LazyLock::new(|| {
    let rows = format!(
        r#"{{"rows":[{{"id":1041,"tenant_id":"{TENANT}","amount":"912.40"}},{{"id":1042,"tenant_id":"{TENANT}","amount":"77.00"}}]}}"#
    );
    let text = Value::from(rows.as_str());
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":[{{"type":"text","text":{text}}}],"structuredContent":{rows}}}}}"#
    )
});

/// How an answer comes.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// As the body.
    Json,
    /// As the only event of a stream.
    Event,
}

impl Form {
    /// The path of the endpoint whose answers come so.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Json => PATH,
            Self::Event => EVENTS_PATH,
        }
    }

    /// Whether this body is the answer, and in this form.
    pub(crate) fn is_answer(self, body: &[u8]) -> bool {
        let answer = ANSWER.as_bytes();
        match self {
            Self::Json => body == answer,
            Self::Event => body
                .split(|&byte| byte == b'\n')
                .any(|line| line.strip_prefix(b"data: ") == Some(answer)),
        }
    }
}
