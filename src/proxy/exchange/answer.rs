//! The way back: what the server answered is matched to its request, filtered, or refused.

use std::{pin::pin, time::Duration};

use bulkhead_core::{
    Reason, Refusal,
    audit::Completion,
    policy::{Answer, Channel, Expected, FinalAnswer},
    refusal::CODE_DENIED,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tracing::warn;

use super::{Exchange, SESSION, decide_answer, empty, events, handles, told};
use crate::{
    body::Body,
    inventory,
    memory::{self, ReadError},
    record::Ended,
    refusal::{self, EdgeRefusal},
    sealer::{OpenSession, seal_session},
    server::Connection,
    shared::Shared,
    tokens::Token,
    upstream::{AnswerBody, UpstreamError},
};

/// What is still read of an answer that nobody needs, so that its connection can be used again.
const REMAINDER: usize = 64 * 1024;

/// Time for that.
const REMAINDER_TIME: Duration = Duration::from_secs(1);

/// Why there is no answer of the server to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Unavailable,
    /// Silence.
    Timeout,
    /// It broke off.
    Broken,
    /// Too large.
    TooLarge,
    /// No room for it.
    Exhausted,
    /// An HTTP status or type that is no answer.
    NotMcp,
    /// A session id that can't be sealed.
    BadSession,
    /// The client has lost its rights while it waited.
    Withdrawn,
}

impl Failure {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "upstream_unavailable",
            Self::Timeout => "upstream_timeout",
            Self::Broken => "upstream_broken",
            Self::TooLarge => "upstream_too_large",
            Self::Exhausted => "memory_exhausted",
            Self::NotMcp => "upstream_not_mcp",
            Self::BadSession => "upstream_session",
            Self::Withdrawn => "withdrawn",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Unavailable => "The MCP server does not accept connections; try again later",
            Self::Timeout => "The MCP server did not answer in time",
            Self::Broken => "The MCP server broke off its answer",
            Self::TooLarge => "The MCP server's answer is larger than the limit; ask for less",
            Self::Exhausted => {
                "The messages that are under way leave no room for the answer; ask for less at once"
            }
            Self::NotMcp => "The MCP server's HTTP response is no answer to the message",
            Self::BadSession => "The MCP server's session id can't be used",
            Self::Withdrawn => "The agent may not have this any more",
        }
    }
}

/// A JSON-RPC error that we make in the server's place.
pub(crate) fn error(id: Option<&str>, why: Failure) -> Bytes {
    let id = id.unwrap_or("null");
    let (message, reason) = (why.words(), why.code());
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{CODE_DENIED},"message":"{message}","data":{{"reason":"{reason}"}}}}}}"#
    ))
}

/// What becomes of one message of the server.
pub(crate) enum Judged {
    /// The last message, how the call ended, and the refusal that the message is, if it is one.
    Last(Bytes, Ended, Option<Refusal>),
    /// Passes; more may follow.
    Passes(Bytes),
    /// Doesn't pass; more may follow.
    Dropped,
}

/// Counts and notes that rules about a tool's results would have refused an answer, and only report.
fn note_reported(shared: &Shared, channel: Channel<'_>, reason: Reason) {
    shared.metrics.reported(reason.as_str());
    let tool = channel.expected().and_then(Expected::name);
    if let (Some(tool), Some(policy)) = (tool, shared.live.policy()) {
        let rule = format!("tools[{tool}].results").into();
        shared.findings.add(policy.revision(), rule, reason);
    }
}

/// Decides one message of the server by the policy that is in force now.
pub(crate) fn judge(
    connection: &Connection,
    token: &Token,
    channel: Channel<'_>,
    session: Option<&str>,
    message: &Bytes,
) -> Judged {
    let shared = &connection.shared;
    let Some(answer) = decide_answer(connection, token, channel, session, message) else {
        return Judged::Dropped;
    };
    match answer {
        Answer::Final(FinalAnswer {
            body,
            failed,
            records,
            reported,
            learned,
            dropped,
        }) => {
            if let Some(policy) = shared.live.policy() {
                inventory::learn(shared, &policy, &learned, &dropped);
            }
            let completion = if failed {
                Completion::Failed
            } else {
                Completion::Completed
            };
            match (records, reported) {
                (_, Some(reason)) => note_reported(shared, channel, reason),
                (Some(records), None) => shared.metrics.filtered(records),
                (None, None) => {}
            }
            let ended = Ended {
                reported,
                records,
                ..Ended::new(completion)
            };
            Judged::Last(body, ended, None)
        }
        Answer::Event(body) => Judged::Passes(body),
        Answer::ListChanged => {
            shared.readiness.inventory_is_due();
            Judged::Dropped
        }
        Answer::Dropped(reason) => {
            shared.metrics.dropped(reason.as_str());
            Judged::Dropped
        }
        Answer::Refused(refusal) => {
            warn!(reason = %refusal.reason, "an answer of the server is refused");
            shared.metrics.dropped(refusal.reason.as_str());
            let ended = Ended {
                reason: Some(refusal.reason.as_str()),
                ..Ended::new(Completion::Failed)
            };
            Judged::Last(refusal.body(), ended, Some(refusal))
        }
    }
}

/// The client's response to what the server answered, or didn't. The message was permitted and is on
/// record as such, so a failure is no refusal of ours, though the client may be told in its words.
pub(crate) async fn answer(
    exchange: Box<Exchange>,
    sent: Result<Response<AnswerBody>, UpstreamError>,
) -> Response<Body> {
    let response = match sent {
        Ok(answered) => answered,
        Err(error) => {
            warn!(%error, "the MCP server gave no answer");
            if matches!(error, UpstreamError::Connect(_)) {
                // What comes back may be another program.
                exchange.connection.shared.readiness.inventory_is_due();
            }
            return failed(exchange, failure_of(&error));
        }
    };
    let (parts, body) = response.into_parts();
    // The server has forgotten the session: the client has to begin a new one.
    if parts.status == StatusCode::NOT_FOUND && exchange.session.is_some() {
        discard(body);
        exchange.intent.close(Completion::Failed, None);
        return EdgeRefusal::SessionUnknown.response();
    }
    if exchange.permitted.expected().is_none() {
        discard(body);
        return if parts.status.is_success() {
            exchange.intent.close(Completion::Completed, None);
            empty(StatusCode::ACCEPTED)
        } else {
            failed(exchange, Failure::NotMcp)
        };
    }
    let session = match sealed_session(&exchange, &parts.headers) {
        Ok(session) => session,
        Err(why) => {
            discard(body);
            return failed(exchange, why);
        }
    };
    let mut answered = match media_type(&parts.headers) {
        Some("application/json") => whole(exchange, parts.status, body).await,
        Some("text/event-stream") if parts.status == StatusCode::OK => {
            events::stream(events::Flow::of_answer(exchange), body)
        }
        _ => {
            discard(body);
            warn!(
                status = parts.status.as_u16(),
                "the server's HTTP response is no answer"
            );
            return failed(exchange, Failure::NotMcp);
        }
    };
    if let Some(session) = session {
        answered.headers_mut().insert(SESSION, session);
    }
    answered
}

/// A JSON answer.
async fn whole(exchange: Box<Exchange>, status: StatusCode, body: AnswerBody) -> Response<Body> {
    let limits = &exchange.connection.shared.limits;
    let mut held = exchange.connection.memory();
    let message = match timeout(
        limits.upstream_silence,
        pin!(memory::read(body, limits.response_bytes, &mut held)),
    )
    .await
    {
        Ok(Ok(body)) => body,
        Ok(Err(ReadError::TooLarge)) => return failed(exchange, Failure::TooLarge),
        Ok(Err(ReadError::Exhausted(_))) => return failed(exchange, Failure::Exhausted),
        Ok(Err(ReadError::Broken)) => return failed(exchange, Failure::Broken),
        Err(_) => return failed(exchange, Failure::Timeout),
    };
    let Some(expected) = exchange.permitted.expected() else {
        return failed(exchange, Failure::NotMcp);
    };
    let session = exchange.session.as_ref().map(OpenSession::upstream_id);
    let mut response = match judge(
        &exchange.connection,
        &exchange.token,
        Channel::Answer(expected),
        session,
        &message,
    ) {
        Judged::Last(body, ended, refusal) => {
            exchange.intent.ended_with_others(ended).await;
            match refusal {
                Some(refusal) => told(&refusal),
                // 2026-07-28 gives some errors a status of their own; no other passes.
                None if ended.completion == Completion::Failed
                    && matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) =>
                {
                    refusal::json(status, body)
                }
                None => refusal::json(StatusCode::OK, body),
            }
        }
        Judged::Passes(_) | Judged::Dropped => failed(exchange, Failure::NotMcp),
    };
    response.body_mut().hold(held);
    response
}

/// A JSON-RPC error in the server's place. With an id it is the answer to the request, and so the
/// transport has succeeded; without one the status has to say it.
fn failed(exchange: Box<Exchange>, why: Failure) -> Response<Body> {
    let is_answer = exchange.id.is_some();
    let body = exchange.fail(why);
    if is_answer {
        refusal::json(StatusCode::OK, body)
    } else {
        EdgeRefusal::UpstreamFailed.response()
    }
}

fn failure_of(error: &UpstreamError) -> Failure {
    match error {
        UpstreamError::Connect(_) | UpstreamError::ConnectTimeout | UpstreamError::Busy => {
            Failure::Unavailable
        }
        UpstreamError::Timeout => Failure::Timeout,
        // Whoever decided asks again before it comes to this.
        UpstreamError::Superseded => Failure::Withdrawn,
        UpstreamError::Http(_) | UpstreamError::Request(_) => Failure::Broken,
    }
}

/// The new session's id as the client gets it. Only a handshake makes one; any other is not passed
/// on.
fn sealed_session(exchange: &Exchange, headers: &HeaderMap) -> Result<Option<HeaderValue>, Failure> {
    if !exchange.opens_session() {
        return Ok(None);
    }
    let Some(upstream) = headers.get(SESSION) else {
        return Ok(None);
    };
    let upstream = upstream.to_str().map_err(|_| Failure::BadSession)?;
    let agent = exchange.caller().ok_or(Failure::Withdrawn)?;
    let sealed =
        seal_session(handles(&exchange.connection, &agent, None), upstream).ok_or(Failure::BadSession)?;
    HeaderValue::try_from(sealed)
        .map(Some)
        .map_err(|_| Failure::BadSession)
}

pub(crate) fn media_type(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next()?.trim();
    ["application/json", "text/event-stream"]
        .into_iter()
        .find(|known| essence.eq_ignore_ascii_case(known))
}

/// Reads the little that may be left, so that the connection can be used again.
pub(crate) fn discard(body: AnswerBody) {
    use http_body::Body as _;
    if !body.is_end_stream() {
        // The connection goes back with the end of the body.
        tokio::spawn(
            async move { drop(timeout(REMAINDER_TIME, Limited::new(body, REMAINDER).collect()).await) },
        );
    }
}
