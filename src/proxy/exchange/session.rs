//! What HTTP alone asks of a legacy session: its end, and a stream of its messages, opened anew or
//! taken up again after an event.

use std::sync::Arc;

use bulkhead_core::{
    audit::Completion,
    credential::Claims,
    handles::Replica,
    mcp::ProtocolVersion,
    policy::{CompiledAgent, Reach},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use sha2::{Digest, Sha256};

use super::{ATTEMPTS, DECIDED_AGAIN, SESSION, answer, empty, events, handles, reach, unrecorded};
use crate::{
    authentication::authenticate,
    body::Body,
    gate, hex,
    peers::relay::{RelayError, relay},
    record::{self, OpenIntent, SessionCall},
    refusal::EdgeRefusal,
    sealer::{OpenEvent, OpenSession},
    server::Connection,
    tokens::Token,
    upstream::{AnswerBody, OnBehalfOf, Target, UpstreamError},
};

/// Where a stream is taken up again.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// What becomes of a session call.
enum Found {
    /// It is of this replica.
    Here(Box<Recorded>),
    /// It is of another one, at this path.
    Elsewhere(Replica, String),
}

/// A session call that was authenticated and recorded.
struct Recorded {
    session: OpenSession,
    event: Option<OpenEvent>,
    version: Option<ProtocolVersion>,
    target: Arc<Target>,
    credential: HeaderValue,
    intent: OpenIntent,
}

/// The session that a request presents, if it does.
pub(super) fn presented(
    connection: &Connection,
    agent: &CompiledAgent,
    headers: &HeaderMap,
) -> Result<Option<OpenSession>, EdgeRefusal> {
    let Some(sealed) = gate::single(headers, &SESSION)? else {
        return Ok(None);
    };
    OpenSession::open(handles(connection, agent, None), sealed)
        .map(Some)
        .ok_or(EdgeRefusal::SessionUnknown)
}

/// Stands for a session in records: equal for equal sessions, and no handle.
pub(super) fn stand_in(session: &OpenSession) -> String {
    let digest = Sha256::digest(session.upstream_id());
    hex::encode(&digest[..8])
}

fn record(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
    what: SessionCall,
) -> Result<Found, EdgeRefusal> {
    let shared = &connection.shared;
    let policy = shared.live.policy().ok_or(EdgeRefusal::NoPolicy)?;
    let (_, agent) = authenticate(connection, token, &policy)?;
    let session = presented(connection, &agent, headers)?.ok_or(EdgeRefusal::SessionMissing)?;
    if let Some(replica) = session.elsewhere() {
        return match reach(connection) {
            Reach::ThisReplica => Err(EdgeRefusal::SessionUnknown),
            Reach::EveryReplica => Ok(Found::Elsewhere(
                replica.clone(),
                policy.target().path().to_owned(),
            )),
        };
    }
    let event = match gate::single(headers, &LAST_EVENT)?.filter(|_| what == SessionCall::Stream) {
        None => None,
        Some(sealed) => {
            let handles = handles(connection, &agent, Some(session.upstream_id()));
            Some(OpenEvent::open(handles, sealed).ok_or(EdgeRefusal::EventUnknown)?)
        }
    };
    let version = gate::single(headers, &gate::PROTOCOL_VERSION)?.and_then(ProtocolVersion::parse);
    let intent = record::of_session(connection, token, &policy, &agent, &stand_in(&session), what)
        .map_err(|error| unrecorded(connection, &error))?;
    shared.metrics.decided("permit", "granted");
    let method = what.method();
    let mut id = String::new();
    let credential = shared.minter.authorization(
        |moment| Claims::of_http(policy.compiled(), &agent, method.as_str(), moment),
        &mut id,
    );
    Ok(Found::Here(Box::new(Recorded {
        session,
        event,
        version,
        target: Arc::clone(policy.target()),
        credential,
        intent,
    })))
}

/// Has a session call answered by the replica that the session lives in.
async fn elsewhere(
    connection: &Connection,
    replica: &Replica,
    path: &str,
    method: Method,
    headers: &HeaderMap,
) -> Result<Response<Body>, EdgeRefusal> {
    relay(connection, replica, path, method, headers, Bytes::new())
        .await
        .map_err(|error| match error {
            RelayError::Gone => EdgeRefusal::SessionUnknown,
            RelayError::Broken => EdgeRefusal::UpstreamFailed,
        })
}

/// What came of a session call.
enum Undertaken {
    /// What the server said, if it did.
    Here(Box<Recorded>, Result<Response<AnswerBody>, UpstreamError>),
    /// The answer of the replica that the session lives in.
    Elsewhere(Response<Body>),
}

/// Decides a session call, and makes it if that still stands once it is on record and there is a connection.
async fn undertake(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
    what: SessionCall,
) -> Result<Undertaken, EdgeRefusal> {
    let shared = &connection.shared;
    for _ in 0..ATTEMPTS {
        let standing = shared.live.standing();
        let call = match record(connection, token, headers, what)? {
            Found::Here(call) => call,
            Found::Elsewhere(replica, path) => {
                let method = what.method();
                return elsewhere(connection, &replica, &path, method, headers)
                    .await
                    .map(Undertaken::Elsewhere);
            }
        };
        let of = OnBehalfOf::Agent {
            session: Some(&call.session),
            standing: &standing,
        };
        let (upstream, target, credential) = (&shared.upstream, &call.target, call.credential.clone());
        let said = match what {
            SessionCall::End => upstream.end_session(target, of, call.version, credential).await,
            SessionCall::Stream => {
                let after = call.event.as_ref();
                upstream.stream(target, of, call.version, after, credential).await
            }
        };
        match said {
            Err(UpstreamError::Superseded) => call.intent.close(Completion::Cancelled, Some(DECIDED_AGAIN)),
            said => return Ok(Undertaken::Here(call, said)),
        }
    }
    Err(EdgeRefusal::Overloaded)
}

/// Ends a session.
pub async fn end_session(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
) -> Result<Response<Body>, EdgeRefusal> {
    let (call, ended) = match undertake(connection, token, headers, SessionCall::End).await? {
        Undertaken::Here(call, ended) => (call, ended),
        Undertaken::Elsewhere(answer) => return Ok(answer),
    };
    let ended = match ended {
        Ok(response) => {
            let status = response.status();
            answer::discard(response.into_body());
            if status.is_success() {
                Ok(empty(StatusCode::NO_CONTENT))
            } else {
                Err(refusal_of(status))
            }
        }
        Err(error) => Err(unreachable(&error)),
    };
    let outcome = match ended {
        Ok(_) => Completion::Completed,
        Err(_) => Completion::Failed,
    };
    call.intent.close(outcome, None);
    Ok(ended.unwrap_or_else(EdgeRefusal::response))
}

/// Opens a stream of a session.
pub async fn stream(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
) -> Result<Response<Body>, EdgeRefusal> {
    let room = connection.room().ok_or(EdgeRefusal::IdentityInvalid)?;
    let room = room.stream().map_err(|_| EdgeRefusal::AgentBusy)?;
    let (call, opened) = match undertake(connection, token, headers, SessionCall::Stream).await? {
        Undertaken::Here(call, opened) => (call, opened),
        Undertaken::Elsewhere(mut answer) => {
            answer.body_mut().hold(room);
            return Ok(answer);
        }
    };
    let refusal = match opened {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            if parts.status == StatusCode::OK
                && answer::media_type(&parts.headers) == Some("text/event-stream")
            {
                let flow = events::Flow::of_session(
                    Arc::clone(connection),
                    Arc::clone(token),
                    call.session,
                    call.version.unwrap_or(ProtocolVersion::V20250326),
                    call.event,
                    call.intent,
                );
                let mut response = events::stream(flow, body);
                response.body_mut().hold(room);
                return Ok(response);
            }
            answer::discard(body);
            refusal_of(parts.status)
        }
        Err(error) => unreachable(&error),
    };
    call.intent.close(Completion::Failed, None);
    Ok(refusal.response())
}

fn refusal_of(status: StatusCode) -> EdgeRefusal {
    match status {
        StatusCode::NOT_FOUND => EdgeRefusal::SessionUnknown,
        // A server may have no streams, and may not let clients end sessions (Streamable HTTP,
        // "Listening for Messages from the Server" and "Session Management").
        StatusCode::METHOD_NOT_ALLOWED => EdgeRefusal::MethodNotAllowed,
        _ => EdgeRefusal::UpstreamFailed,
    }
}

fn unreachable(error: &UpstreamError) -> EdgeRefusal {
    tracing::warn!(%error, "the MCP server gave no answer about a session");
    EdgeRefusal::UpstreamFailed
}
