//! What a client is told when something is refused: HTTP status and JSON-RPC bytes, in this one
//! place.
//!
//! A tool that is hidden, disabled or unknown gives the same bytes; which of them it was is in the
//! audit record and the metrics only.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use crate::{
    json::text::{quote, quoted},
    mcp::version::{Era, ProtocolVersion},
    reason::Reason,
};

/// JSON-RPC code of a denial that no code of the specification describes. It lies outside
/// -32768…-32000, which JSON-RPC and MCP reserve for themselves.
pub const CODE_DENIED: i32 = -31403;

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const INTERNAL_ERROR: i32 = -32603;
/// Up to 2025-11-25.
const RESOURCE_NOT_FOUND: i32 = -32002;
/// SEP-2243.
const HEADER_MISMATCH: i32 = -32020;
const MISSING_CAPABILITY: i32 = -32021;
const UNSUPPORTED_VERSION: i32 = -32022;

/// Names that a caller gave are repeated up to this many characters.
const ECHOED: usize = 128;

/// A refused message or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason, for audit and metrics.
    pub reason: Reason,
    /// The rule that refused, when one did: `tools[NAME].bounds[ARGUMENT]`, `tools[NAME].roles`, or `tools` for what
    /// isn't listed. For audit only.
    pub rule: Option<Arc<str>>,
    /// What the client is told.
    pub message: String,
    id: Option<String>,
    era: Option<Era>,
    data: Option<String>,
    /// Whether it is about a resource, for which the legacy era has a code of its own.
    of_resource: bool,
    /// Whether what was called is no tool, so that there is no tool result to say it in.
    protocol_error: bool,
}

impl Refusal {
    /// A refusal that answers no request yet.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            rule: None,
            message: message.into(),
            id: None,
            era: None,
            data: None,
            of_resource: false,
            protocol_error: false,
        }
    }

    /// A refusal whose message is the reason's own explanation.
    pub fn plain(reason: Reason) -> Self {
        Self::new(reason, reason.explanation())
    }

    /// The tool doesn't exist for this caller, whatever the reason.
    pub fn tool(reason: Reason, name: &str) -> Self {
        Self::new(reason, format!("Unknown tool: {}", shortened(name)))
    }

    /// The prompt doesn't exist for this caller, whatever the reason.
    pub fn prompt(reason: Reason, name: &str) -> Self {
        Self::new(reason, format!("Unknown prompt: {}", shortened(name)))
    }

    /// The resource doesn't exist for this caller, whatever the reason.
    pub fn resource(reason: Reason, uri: &str) -> Self {
        let uri = shortened(uri);
        Self {
            data: Some(format!("{{\"uri\":{}}}", quoted(&uri))),
            of_resource: true,
            ..Self::new(reason, "Resource not found")
        }
    }

    /// The client doesn't declare an extension that the method belongs to.
    pub fn extension(name: &str) -> Self {
        let name = quoted(name);
        Self {
            data: Some(format!(
                "{{\"requiredCapabilities\":{{\"extensions\":{{{name}:{{}}}}}}}}"
            )),
            ..Self::new(Reason::CapabilityMissing, "Missing required client capability")
        }
    }

    /// The version is not spoken here.
    pub fn version(requested: &str) -> Self {
        let mut data = String::from("{\"supported\":[");
        for (index, version) in ProtocolVersion::ALL.iter().enumerate() {
            if index > 0 {
                data.push(',');
            }
            quote(&mut data, version.as_str());
        }
        data.push_str("],\"requested\":");
        quote(&mut data, &shortened(requested));
        data.push('}');
        Self {
            data: Some(data),
            ..Self::new(Reason::UnsupportedVersion, "Unsupported protocol version")
        }
    }

    /// The same refusal as the answer to the request with this raw id.
    #[must_use]
    pub fn answering(mut self, id: Option<&str>) -> Self {
        self.id = id.map(str::to_owned);
        self
    }

    /// The same refusal in an era.
    #[must_use]
    pub fn in_era(mut self, era: Option<Era>) -> Self {
        self.era = era;
        self
    }

    /// The same refusal as a protocol error, of something that is no tool.
    #[must_use]
    pub fn as_protocol_error(mut self) -> Self {
        self.protocol_error = true;
        self
    }

    /// The same refusal by a rule.
    #[must_use]
    pub fn by(mut self, rule: Arc<str>) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Whether a model can do something about it.
    pub(crate) fn is_correctable(&self) -> bool {
        matches!(
            self.reason,
            Reason::ArgumentOutOfBounds
                | Reason::ArgumentForbidden
                | Reason::ArgumentInvalid
                | Reason::AnswerTooManyRecords
                | Reason::AnswerTooLong
        )
    }

    /// Whether the client gets a tool result with `isError`, which a model can read and correct,
    /// instead of a protocol error.
    pub fn is_tool_error(&self) -> bool {
        self.is_correctable() && self.id.is_some() && !self.protocol_error
    }

    /// Status of the HTTP response. On an event stream that has begun it means nothing.
    pub fn status(&self) -> u16 {
        let (status, _) = self.status_and_code();
        // Without an id there is no JSON-RPC answer to deliver: the transport has to say it.
        if status == 200 && self.id.is_none() {
            400
        } else {
            status
        }
    }

    fn status_and_code(&self) -> (u16, i32) {
        match self.reason {
            Reason::BodyTooLarge => (413, INVALID_REQUEST),
            Reason::ByteOrderMark
            | Reason::InvalidUtf8
            | Reason::MalformedJson
            | Reason::TrailingBytes
            | Reason::TooDeep
            | Reason::TooManyMembers
            | Reason::DuplicateKey
            | Reason::LoneSurrogate => (400, PARSE_ERROR),
            Reason::Batch
            | Reason::InvalidEnvelope
            | Reason::CaseVariant
            | Reason::InvalidId
            | Reason::WrongForm
            | Reason::ResponseUnexpected => (400, INVALID_REQUEST),
            Reason::HeaderMalformed | Reason::HeaderMismatch => (400, HEADER_MISMATCH),
            Reason::UnsupportedVersion => (400, UNSUPPORTED_VERSION),
            Reason::CapabilityMissing => (400, MISSING_CAPABILITY),
            Reason::MetaMissing => (400, INVALID_PARAMS),
            // 2026-07-28 gives the unknown method a status of its own.
            Reason::MethodUnknown | Reason::FeatureNotGranted if self.era == Some(Era::Modern) => {
                (404, METHOD_NOT_FOUND)
            }
            Reason::MethodUnknown | Reason::FeatureNotGranted => (200, METHOD_NOT_FOUND),
            // 2026-07-28 gave up the code of its own.
            _ if self.of_resource && self.era == Some(Era::Legacy) => (200, RESOURCE_NOT_FOUND),
            Reason::AgentUnknown => (403, CODE_DENIED),
            Reason::InvalidParams
            | Reason::ArgumentsNotObject
            | Reason::ArgumentOutOfBounds
            | Reason::ArgumentForbidden
            | Reason::ArgumentInvalid
            | Reason::ForcedArgumentInvalid
            | Reason::SchemaUnusable
            | Reason::HiddenCharacters
            | Reason::DefinitionChanged
            | Reason::DefinitionNotAccepted
            | Reason::ToolUnknown
            | Reason::ToolNotGranted
            | Reason::PromptUnknown
            | Reason::PromptNotGranted
            | Reason::ResourceNotGranted
            | Reason::HandleUnknown
            | Reason::AgentAttributeMissing
            | Reason::ClaimMissing
            | Reason::ArgumentEntangled
            | Reason::ForcedArgumentUndeclared
            | Reason::InvalidMirror
            | Reason::ToolMalformed
            | Reason::ToolDuplicate
            | Reason::EntryMalformed
            | Reason::EntryDuplicate => (200, INVALID_PARAMS),
            Reason::RewriteInconsistent
            | Reason::AnswerMalformed
            | Reason::AnswerMismatch
            | Reason::AnswerVersion
            | Reason::AnswerType
            | Reason::AnswerHandle
            | Reason::AnswerFeature
            | Reason::AnswerResource
            | Reason::AnswerUnfiltered
            | Reason::AnswerTooManyRecords
            | Reason::AnswerTooLong
            | Reason::RecordsForeign
            | Reason::ServerMessageDenied => (200, INTERNAL_ERROR),
        }
    }

    /// The JSON-RPC message for the client; `application/json`.
    pub fn body(&self) -> Bytes {
        let mut out = String::with_capacity(160 + self.message.len());
        out.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
        out.push_str(self.id.as_deref().unwrap_or("null"));
        if self.is_tool_error() {
            out.push_str(",\"result\":");
            out.push_str(&tool_error(&self.message, self.era.unwrap_or(Era::Legacy)));
            out.push('}');
        } else {
            out.push_str(",\"error\":{\"code\":");
            out.push_str(&self.status_and_code().1.to_string());
            out.push_str(",\"message\":");
            quote(&mut out, &self.message);
            if let Some(data) = self.data.as_deref() {
                out.push_str(",\"data\":");
                out.push_str(data);
            }
            out.push_str("}}");
        }
        Bytes::from(out)
    }
}

/// The result of a tool that failed, which says why. A model can read it.
pub(crate) fn tool_error(message: &str, era: Era) -> String {
    let kind = match era {
        Era::Modern => r#","resultType":"complete""#,
        Era::Legacy => "",
    };
    let message = quoted(message);
    format!(r#"{{"content":[{{"type":"text","text":{message}}}],"isError":true{kind}}}"#)
}

/// A name that a caller gave, short enough to repeat.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= ECHOED {
        return text.into();
    }
    match text.char_indices().nth(ECHOED) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A name that a caller gave, short and quoted.
pub(crate) fn named(text: &str) -> String {
    quoted(&shortened(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_bytes_follow_the_era() {
        let unknown = || Refusal::new(Reason::MethodUnknown, "Method not found").answering(Some("7"));
        assert_eq!(unknown().in_era(Some(Era::Legacy)).status(), 200);
        assert_eq!(unknown().in_era(Some(Era::Modern)).status(), 404);
        assert_eq!(
            unknown().body(),
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"Method not found"}}"#
        );
    }

    #[test]
    fn a_refusal_that_answers_no_request_is_told_by_the_status() {
        let refusal = Refusal::plain(Reason::InvalidParams);
        assert_eq!(refusal.status(), 400);
        assert!(
            refusal
                .body()
                .starts_with(br#"{"jsonrpc":"2.0","id":null,"error""#)
        );
    }

    #[test]
    fn every_way_for_a_tool_not_to_exist_gives_the_same_bytes() {
        let ways = [
            Reason::ToolUnknown,
            Reason::ToolNotGranted,
            Reason::AgentAttributeMissing,
            Reason::ClaimMissing,
            Reason::ArgumentEntangled,
            Reason::ForcedArgumentUndeclared,
            Reason::InvalidMirror,
            Reason::HiddenCharacters,
            Reason::DefinitionChanged,
            Reason::DefinitionNotAccepted,
        ];
        let expected = r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"Unknown tool: x\"y"}}"#;
        for way in ways {
            let refusal = Refusal::tool(way, "x\"y").answering(Some("\"a\""));
            assert_eq!((refusal.status(), refusal.body()), (200, Bytes::from(expected)));
        }
    }

    #[test]
    fn every_way_for_a_resource_not_to_exist_gives_the_same_bytes() {
        for (era, code) in [(Era::Legacy, -32002), (Era::Modern, -32602)] {
            let expected = format!(
                r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"Resource not found","data":{{"uri":"a:1"}}}}}}"#
            );
            for way in [Reason::ResourceNotGranted, Reason::HiddenCharacters] {
                let refusal = Refusal::resource(way, "a:1")
                    .answering(Some("1"))
                    .in_era(Some(era));
                assert_eq!(
                    (refusal.status(), refusal.body()),
                    (200, Bytes::from(expected.clone()))
                );
            }
        }
    }

    #[test]
    fn a_bound_is_told_as_a_tool_error() {
        let refusal = Refusal::new(Reason::ArgumentOutOfBounds, "limit is too great").answering(Some("1"));
        assert_eq!(
            refusal.clone().in_era(Some(Era::Modern)).body(),
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"limit is too great"}],"isError":true,"resultType":"complete"}}"#
        );
        assert!(
            !refusal
                .in_era(Some(Era::Legacy))
                .body()
                .windows(10)
                .any(|part| part == b"resultType")
        );
    }

    #[test]
    fn an_unsupported_version_names_the_supported_ones() {
        assert_eq!(
            Refusal::version("2099-01-01").body(),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"Unsupported protocol version","data":{"supported":["2025-03-26","2025-06-18","2025-11-25","2026-07-28"],"requested":"2099-01-01"}}}"#
        );
    }
}
