//! One message through the data path: read, decide, record, forward; then the answer.
//!
//! The order is the point. Nothing waits between the decision and the record of the intent, so the
//! policy that decided is the one in force; nothing goes upstream before the record exists.

pub mod answer;
pub mod events;

use std::{sync::Arc, time::Instant};

use bulkhead_core::{
    Refusal,
    audit::Completion,
    json,
    mcp::{
        self, Era, Message, MirroredHeaders,
        methods::{self, Direction, Method},
    },
    policy::{Forward, Permitted},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::{
    body::Body,
    endpoint::authenticate,
    gate, hex,
    metrics::MethodLabel,
    record::{self, Caller, OpenIntent},
    refusal::{self, EdgeRefusal},
    server::Connection,
    session::OpenSession,
    upstream::{Lease, Target},
};

/// The handle of a legacy session.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Nesting of messages, both ways.
const DEPTH: usize = 64;

/// A permitted message on its way, with all that its answer needs.
pub(crate) struct Exchange {
    pub(crate) connection: Arc<Connection>,
    pub(crate) permitted: Permitted<Forward>,
    /// The raw id of the request, for errors that we make.
    pub(crate) id: Option<String>,
    pub(crate) intent: OpenIntent,
}

/// What was decided about a body.
enum Decided {
    Forward {
        exchange: Box<Exchange>,
        session: Option<OpenSession>,
        target: Arc<Target>,
    },
    Refused(Response<Body>),
}

/// Records and counts what the HTTP edge refused.
pub fn refused(connection: &Connection, refusal: EdgeRefusal) {
    connection.shared.metrics.decided("refuse", refusal.code());
    record::edge(connection, refusal);
}

/// Takes one message from its body to its answer.
pub async fn message(
    connection: &Arc<Connection>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, EdgeRefusal> {
    let (exchange, session, target) = match decide(connection, headers, &body)? {
        Decided::Forward {
            exchange,
            session,
            target,
        } => (exchange, session, target),
        Decided::Refused(response) => return Ok(response),
    };
    let shared = &connection.shared;
    let start = Instant::now();
    let sent = shared
        .upstream
        .send(&target, &exchange.permitted, session.as_ref(), headers)
        .await;
    shared
        .metrics
        .upstream_seconds
        .observe(start.elapsed().as_secs_f64());
    Ok(answer::answer(*exchange, session.is_some(), sent).await)
}

fn decide(connection: &Arc<Connection>, headers: &HeaderMap, body: &Bytes) -> Result<Decided, EdgeRefusal> {
    let shared = &connection.shared;
    let policy = shared.live.policy().ok_or(EdgeRefusal::NoPolicy)?;
    let identity = authenticate(connection, &policy)?;
    let limits = json::Limits {
        bytes: shared.limits.body_bytes,
        depth: DEPTH,
    };
    let agent = policy.agent(&identity.spiffe_id);
    let mut caller = Caller {
        connection,
        policy: &policy,
        identity,
        agent,
        headers,
        session: None,
    };

    let message = match mcp::read(body, limits) {
        Ok(message) => message,
        Err(refusal) => {
            shared.metrics.decided("refuse", refusal.reason.as_str());
            caller.unreadable(&refusal);
            return Ok(Decided::Refused(told(&refusal)));
        }
    };
    let mirrored = MirroredHeaders::read(
        headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
    let inventory = shared.live.inventory();
    let decision = policy
        .compiled()
        .decide(agent, &message, &mirrored, &inventory, limits);
    count(connection, &message, decision.era);
    if let Err(refusal) = &decision.outcome {
        shared.metrics.decided("refuse", refusal.reason.as_str());
        caller.refused(&message, &decision);
        return Ok(Decided::Refused(told(refusal)));
    }
    // Sessions are the legacy era's; in the modern one the header means nothing and goes no further.
    let session = match decision.era {
        Some(Era::Legacy) => open_session(connection, &identity.spiffe_id, headers)?,
        _ => None,
    };
    caller.session = session.as_ref().map(stand_in);
    let intent = caller
        .intent(&message, &decision)
        .map_err(|error| unrecorded(connection, &error))?;
    let id = message.id().map(str::to_owned);
    let target = Arc::clone(policy.target());
    match decision.outcome {
        Ok(permitted) => {
            shared.metrics.decided("permit", "granted");
            let exchange = Exchange {
                connection: Arc::clone(connection),
                permitted,
                id,
                intent,
            };
            Ok(Decided::Forward {
                exchange: Box::new(exchange),
                session,
                target,
            })
        }
        Err(refusal) => Ok(Decided::Refused(told(&refusal))),
    }
}

/// Ends a session.
pub async fn end_session(
    connection: &Arc<Connection>,
    headers: &HeaderMap,
) -> Result<Response<Body>, EdgeRefusal> {
    let shared = &connection.shared;
    let (session, target, intent) = {
        let policy = shared.live.policy().ok_or(EdgeRefusal::NoPolicy)?;
        let identity = authenticate(connection, &policy)?;
        let session =
            open_session(connection, &identity.spiffe_id, headers)?.ok_or(EdgeRefusal::SessionMissing)?;
        let intent = record::end_of_session(connection, &policy, &stand_in(&session))
            .map_err(|error| unrecorded(connection, &error))?;
        (session, Arc::clone(policy.target()), intent)
    };
    shared.metrics.decided("permit", "granted");
    let ended = match shared.upstream.end_session(&target, &session).await {
        Ok((response, lease)) => {
            let status = response.status();
            answer::discard(response.into_body(), lease);
            match status {
                StatusCode::NOT_FOUND => Err(EdgeRefusal::SessionUnknown),
                // A server may not let clients end sessions (Streamable HTTP, "Session Management").
                StatusCode::METHOD_NOT_ALLOWED => Err(EdgeRefusal::MethodNotAllowed),
                status if status.is_success() => Ok(empty(StatusCode::NO_CONTENT)),
                _ => Err(EdgeRefusal::UpstreamFailed),
            }
        }
        Err(error) => {
            tracing::warn!(%error, "a session can't be ended");
            Err(EdgeRefusal::UpstreamFailed)
        }
    };
    let outcome = match ended {
        Ok(_) => Completion::Completed,
        Err(_) => Completion::Failed,
    };
    intent.close(outcome, None);
    Ok(ended.unwrap_or_else(EdgeRefusal::response))
}

/// What can't be recorded isn't done.
fn unrecorded(connection: &Connection, error: &std::io::Error) -> EdgeRefusal {
    tracing::error!(%error, "an intent can't be recorded, so the call is refused");
    connection.shared.metrics.audit_failures.inc();
    EdgeRefusal::AuditUnavailable
}

fn open_session(
    connection: &Connection,
    agent: &str,
    headers: &HeaderMap,
) -> Result<Option<OpenSession>, EdgeRefusal> {
    gate::single(headers, &SESSION)?
        .map(|sealed| {
            connection
                .shared
                .sealer
                .open(agent, sealed)
                .map_err(|_| EdgeRefusal::SessionUnknown)
        })
        .transpose()
}

/// Stands for a session in records: equal for equal sessions, and no handle.
fn stand_in(session: &OpenSession) -> String {
    let digest = Sha256::digest(session.upstream_id());
    hex::encode(&digest[..8])
}

/// The response that tells a client why core refused its message.
pub(crate) fn told(refusal: &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::FORBIDDEN);
    refusal::json(status, refusal.body())
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Limits of an answer's JSON.
pub(crate) fn answer_limits(connection: &Connection) -> json::Limits {
    json::Limits {
        bytes: connection.shared.limits.response_bytes,
        depth: DEPTH,
    }
}

fn count(connection: &Connection, message: &Message<'_>, era: Option<Era>) {
    let method = era
        .zip(message.method())
        .and_then(|(era, name)| methods::lookup(era, Direction::ToServer, name))
        .map_or("other", |entry| entry.name);
    connection
        .shared
        .metrics
        .requests
        .get_or_create(&MethodLabel { method })
        .inc();
}

impl Exchange {
    /// Whether the answer may carry a new session id.
    pub(crate) fn opens_session(&self) -> bool {
        self.permitted.method() == Method::Initialize
    }

    /// Ends the exchange without an answer of the server.
    pub(crate) fn fail(self, why: answer::Failure) -> Bytes {
        self.connection.shared.metrics.upstream_failed(why.code());
        let body = answer::error(self.id.as_deref(), why);
        self.intent.close(Completion::Failed, None);
        body
    }
}

/// A connection to the server that is still on loan.
pub(crate) type Loan = Option<(hyper::body::Incoming, Lease)>;
