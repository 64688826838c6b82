//! One MCP session of one call: handshake, the call, its outcome.

use http::{HeaderName, HeaderValue};
use rmcp::{
    model::{
        CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, ErrorCode, ErrorData,
        Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
        RequestMetaObject, RequestParamsMeta as _, Tool,
    },
    service::{
        ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, RoleClient, RunningService,
        ServiceError,
    },
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    http::{Failure, MtlsClient},
    report::Report,
};

/// Pages of a tool list that are read. A tenant's server has at most 128 tools.
const MAX_PAGES: usize = 64;

/// What to ask of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The tools that exist for this agent.
    List,
    /// A tool's answer.
    Call {
        /// The tool's name.
        tool: String,
        /// Its arguments.
        arguments: JsonObject,
    },
}

/// Asks one thing of the server at this URL, as the one whose token it is.
///
/// All that is sent carries `traceparent`, by which the audit records are
/// found: as a header, also where a message is refused unread, and in the call's own `_meta` (SEP-414).
pub async fn run(client: MtlsClient, token: &str, url: &str, ask: Ask, traceparent: &str) -> Report {
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    // A refused call must never be sent a second time behind the caller's back.
    config.reinit_on_expired_session = false;
    config.auth_header = Some(token.to_owned());
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        config
            .custom_headers
            .insert(HeaderName::from_static("traceparent"), value);
    }
    let transport = StreamableHttpClientTransport::with_client(client.clone(), config);
    let me = ClientConfig::new(
        ClientCapabilities::default(),
        Implementation::new("kubectl-bulkhead", env!("CARGO_PKG_VERSION")),
    );
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::LATEST],
        legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
    };
    let session = match me.serve_with_lifecycle(transport, lifecycle).await {
        Ok(session) => session,
        Err(error) => return refused_handshake(&client, error),
    };
    let outcome = match ask {
        Ask::List => list(&session, traceparent)
            .await
            .map(|tools| json!({ "tools": tools })),
        Ask::Call { tool, arguments } => call(&session, tool, arguments, traceparent).await,
    };
    let report = match outcome {
        Ok(result) => Report::Result { result },
        Err(ServiceError::McpError(error)) => refused(&client, &error),
        Err(error) => below_mcp(&client, error.to_string()),
    };
    // A legacy session is ended with DELETE; whether the server minds changes nothing about the answer.
    let _ = session.cancel().await;
    report
}

async fn list(
    session: &RunningService<RoleClient, ClientConfig>,
    traceparent: &str,
) -> Result<Vec<Tool>, ServiceError> {
    let (mut tools, mut cursor) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let mut page = PaginatedRequestParams::default();
        page.meta = Some(traced(traceparent));
        page.cursor = cursor;
        let ListToolsResult {
            tools: more,
            next_cursor,
            ..
        } = session.list_tools(Some(page)).await?;
        tools.extend(more);
        cursor = next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(tools)
}

async fn call(
    session: &RunningService<RoleClient, ClientConfig>,
    tool: String,
    arguments: JsonObject,
    traceparent: &str,
) -> Result<Value, ServiceError> {
    // rmcp mirrors annotated arguments into `Mcp-Param-*` headers (SEP-2243) of tools that it has seen listed. A list
    // that is refused, or lacks the tool, is no reason to keep the call from being decided.
    let _ = session.list_all_tools().await;
    let mut params = CallToolRequestParams::new(tool).with_arguments(arguments);
    *params.meta_mut() = Some(traced(traceparent));
    match session.peer().call_tool_once(params).await? {
        CallToolResponse::Complete(result) => to_value(&result),
        // Nobody is there to be asked: what the server wants to know is shown instead.
        CallToolResponse::InputRequired(result) => to_value(&result),
        CallToolResponse::Task(result) => to_value(&result),
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

fn traced(traceparent: &str) -> RequestMetaObject {
    let mut meta = RequestMetaObject::new();
    meta.set_traceparent(traceparent);
    meta
}

fn to_value(result: &impl Serialize) -> Result<Value, ServiceError> {
    serde_json::to_value(result).map_err(|_| ServiceError::UnexpectedResponse)
}

fn refused_handshake(client: &MtlsClient, error: ClientInitializeError) -> Report {
    match error {
        ClientInitializeError::JsonRpcError(error) => refused(client, &error),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => refused_handshake(client, *fallback),
        error => below_mcp(client, error.to_string()),
    }
}

/// A JSON-RPC error: a refusal, unless it says that something broke.
fn refused(client: &MtlsClient, error: &ErrorData) -> Report {
    let status = match client.last_failure() {
        Some(Failure::Status { status, .. }) => Some(status),
        _ => None,
    };
    let message = match &error.data {
        Some(data) => format!("{} ({data})", error.message),
        None => error.message.to_string(),
    };
    if error.code == ErrorCode::INTERNAL_ERROR || status.is_some_and(|status| status >= 500) {
        let status = status
            .map(|status| format!("HTTP {status}, "))
            .unwrap_or_default();
        return Report::Failed {
            message: format!("{status}JSON-RPC error {}: {message}", error.code.0),
        };
    }
    Report::Refused {
        status,
        code: Some(error.code.0.into()),
        message,
    }
}

/// No JSON-RPC at all: what the HTTP client saw tells more than rmcp's text.
fn below_mcp(client: &MtlsClient, text: String) -> Report {
    match client.last_failure() {
        Some(Failure::Connect(message)) => Report::CannotConnect { message },
        Some(Failure::Status { status, body }) if status < 500 => Report::Refused {
            status: Some(status),
            code: None,
            message: body,
        },
        Some(failure) => Report::Failed {
            message: failure.to_string(),
        },
        None => Report::Failed { message: text },
    }
}
