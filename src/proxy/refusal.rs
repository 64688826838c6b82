//! What is refused at the HTTP edge, before there is an MCP message to decide about, and why connections end. One place
//! maps each reason to its status, its code and its words. Refusals of messages are core's.

use bulkhead_core::refusal::CODE_DENIED;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{body::Body, challenge, tokens::TokenError};

/// Why the edge refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EdgeRefusal {
    /// No policy is in force.
    #[error("no policy is in force yet; try again later")]
    NoPolicy,
    /// The canary isn't refused: not proven yet, or reachable again.
    #[error("the network of the MCP server is not proven closed, so it takes no calls; try again later")]
    NetworkOpen,
    /// The verified certificate has no usable SPIFFE ID.
    #[error("the client certificate must have exactly one URI SAN, the agent's SPIFFE ID")]
    IdentityInvalid,
    /// The policy names no such agent.
    #[error(
        "the client certificate names no agent of this server; use an agent's certificate of this tenant"
    )]
    AgentUnknown,
    /// The connection's keys were agreed on in a way that the policy doesn't allow any more.
    #[error("the connection's key exchange is not post-quantum, which this tenant requires; connect again")]
    KeyExchange,
    /// The certificate expired on an open connection.
    #[error("the client certificate has expired; connect again with a renewed one")]
    CertificateExpired,
    /// The certificate's root is no longer trusted.
    #[error("the client certificate is no longer trusted; connect again with a renewed one")]
    TrustRemoved,
    /// The keys that verify tokens were never mounted.
    #[error("no keys to verify tokens with are in force yet; try again later")]
    TokenKeysMissing,
    /// The token proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// `Host` isn't one of the server's names.
    #[error("Host is not a name of this server; call it by its Service name")]
    HostNotAllowed,
    /// `Origin` isn't one of the server's names.
    #[error("Origin is not allowed; requests of web pages are not served")]
    OriginNotAllowed,
    /// Not the MCP endpoint.
    #[error("there is nothing at this path; the MCP endpoint is the path in the tenant's server")]
    PathUnknown,
    /// Neither POST, nor GET or DELETE of a session.
    #[error("the method is not allowed here: POST a message, GET a session's stream, or DELETE a session")]
    MethodNotAllowed,
    /// Anything but GET of the metadata.
    #[error("the metadata of the resource is there to GET")]
    MetadataMethod,
    /// GET or DELETE in the modern era.
    #[error("2026-07-28 has neither GET nor DELETE: POST a message, subscriptions/listen for a stream")]
    LegacyMethod,
    /// GET of something else than events.
    #[error("a GET must accept text/event-stream")]
    NotAcceptable,
    /// The protocol version of a GET or DELETE.
    #[error("the protocol version is not spoken here")]
    VersionUnsupported,
    /// Not JSON.
    #[error("Content-Type must be application/json in UTF-8")]
    ContentType,
    /// Compressed.
    #[error("Content-Encoding is not accepted; send the body as it is")]
    ContentEncoding,
    /// A header that must be single is repeated, or isn't visible ASCII.
    #[error("a header is repeated or malformed")]
    HeaderMalformed,
    /// More headers than the limit.
    #[error("the request has too many headers; send fewer")]
    HeadersTooMany,
    /// Too large.
    #[error("the body is larger than the limit; send less")]
    BodyTooLarge,
    /// Too slow.
    #[error("the body did not arrive in time; send it at once")]
    BodyTimeout,
    /// Cut off.
    #[error("the body is incomplete")]
    BodyIncomplete,
    /// The agent has too many calls under way.
    #[error("too many calls of this agent are under way; try again when some have ended")]
    AgentBusy,
    /// The agent has made as many requests as it may in a minute; after these seconds there is room for one.
    #[error("the agent has made as many requests as it may for now; try again in {0} s")]
    RateLimited(u32),
    /// All agents of the tenant together have too many calls under way.
    #[error("too many calls of the tenant's agents are under way; try again when some have ended")]
    TenantBusy,
    /// All agents of the tenant together have made as many requests as they may in a minute; after these seconds there is room
    /// for one.
    #[error("the tenant's agents have made as many requests as they may for now; try again in {0} s")]
    TenantRateLimited(u32),
    /// The sidecar has too many calls under way.
    #[error("too many calls are under way; try again later")]
    Overloaded,
    /// The messages under way hold as much memory as they may.
    #[error("the messages that are under way leave no room for this one; try again later, or send less")]
    MemoryExhausted,
    /// A session id that isn't this agent's.
    #[error("no such session; initialize again")]
    SessionUnknown,
    /// An event id that isn't this agent's, or not of this session.
    #[error("no such event in this session; open the stream again without Last-Event-ID")]
    EventUnknown,
    /// A GET or DELETE without one.
    #[error("Mcp-Session-Id is missing")]
    SessionMissing,
    /// The MCP server doesn't take a message that has no answer.
    #[error("the MCP server does not take the message")]
    UpstreamFailed,
    /// The record can't be written.
    #[error("the call can't be recorded, so it is not made; try again later")]
    AuditUnavailable,
}

impl EdgeRefusal {
    /// The stable code, for audit and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoPolicy => "no_policy",
            Self::NetworkOpen => "network_open",
            Self::IdentityInvalid => "identity_invalid",
            Self::AgentUnknown => "agent_unknown",
            Self::KeyExchange => "key_exchange",
            Self::CertificateExpired => "certificate_expired",
            Self::TrustRemoved => "trust_removed",
            Self::TokenKeysMissing => "token_keys_missing",
            Self::Token(error) => error.code(),
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::PathUnknown => "path_unknown",
            Self::MethodNotAllowed | Self::MetadataMethod => "method_not_allowed",
            Self::LegacyMethod => "legacy_method",
            Self::NotAcceptable => "not_acceptable",
            Self::VersionUnsupported => "unsupported_version",
            Self::EventUnknown => "event_unknown",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::HeaderMalformed => "header_malformed",
            Self::HeadersTooMany => "headers_too_many",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyIncomplete => "body_incomplete",
            Self::AgentBusy => "agent_busy",
            Self::RateLimited(_) => "rate_limited",
            Self::TenantBusy => "tenant_busy",
            Self::TenantRateLimited(_) => "tenant_rate_limited",
            Self::Overloaded => "overloaded",
            Self::MemoryExhausted => "memory_exhausted",
            Self::SessionUnknown => "session_unknown",
            Self::SessionMissing => "session_missing",
            Self::UpstreamFailed => "upstream_failed",
            Self::AuditUnavailable => "audit_unavailable",
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::NoPolicy
            | Self::TokenKeysMissing
            | Self::NetworkOpen
            | Self::Overloaded
            | Self::MemoryExhausted
            | Self::AuditUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::IdentityInvalid
            | Self::KeyExchange
            | Self::AgentUnknown
            | Self::CertificateExpired
            | Self::TrustRemoved
            | Self::HostNotAllowed
            // 2025-11-25, "Security Warning": an invalid Origin is answered with 403.
            | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::PathUnknown | Self::SessionUnknown | Self::EventUnknown => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed | Self::MetadataMethod | Self::LegacyMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeaderMalformed
            | Self::VersionUnsupported
            | Self::BodyIncomplete
            | Self::SessionMissing => StatusCode::BAD_REQUEST,
            Self::HeadersTooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::AgentBusy | Self::RateLimited(_) | Self::TenantBusy | Self::TenantRateLimited(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
        }
    }

    /// The response: a JSON-RPC error that answers no request.
    pub fn response(self) -> Response<Body> {
        let body = serde_json::json!({
            "jsonrpc": "2.0",
            "id": null,
            "error": {"code": CODE_DENIED, "message": self.to_string(), "data": {"reason": self.code()}},
        });
        let mut response = json(self.status(), Bytes::from(body.to_string()));
        let text = HeaderValue::from_static;
        let extra: Option<(HeaderName, HeaderValue)> = match self {
            Self::MethodNotAllowed => Some((header::ALLOW, text("POST, GET, DELETE"))),
            Self::LegacyMethod => Some((header::ALLOW, text("POST"))),
            Self::MetadataMethod => Some((header::ALLOW, text("GET"))),
            Self::Token(error) => Some((header::WWW_AUTHENTICATE, challenge::of(error))),
            Self::RateLimited(seconds) | Self::TenantRateLimited(seconds) => {
                Some((header::RETRY_AFTER, seconds.into()))
            }
            Self::AgentBusy
            | Self::TenantBusy
            | Self::Overloaded
            | Self::MemoryExhausted
            | Self::NoPolicy
            | Self::NetworkOpen
            | Self::TokenKeysMissing
            | Self::AuditUnavailable => Some((header::RETRY_AFTER, text("1"))),
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// What the other side of a connection did, so that it ended. The client isn't told: there is nothing to answer, or nobody
/// that takes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The agent, or all together that are none, has too many connections open.
    #[error("too many connections of one agent, or of unknown ones, are open")]
    ConnectionsFull,
    /// An answer wasn't taken.
    #[error("an answer was not taken in time")]
    AnswerUntaken,
    /// More headers, or larger ones, than HTTP/1.1 is read with.
    #[error("a request has too many headers, or too large ones")]
    HeadersTooLarge,
    /// What came is no HTTP, or breaks HTTP/2's rules of a connection (RFC 9113 §5.4.1).
    #[error("what came is not HTTP, or breaks its rules")]
    NotHttp,
    /// Resets, frames or headers of HTTP/2 out of all measure (RFC 9113 §10.5).
    #[error("more resets, frames or headers of HTTP/2 came than any use needs")]
    Http2Excess,
}

impl Fault {
    /// The stable code, for audit and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ConnectionsFull => "connections_full",
            Self::AnswerUntaken => "answer_untaken",
            Self::HeadersTooLarge => "headers_too_large",
            Self::NotHttp => "not_http",
            Self::Http2Excess => "http2_excess",
        }
    }
}

/// A JSON response.
pub fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
