//! One message through the data path: read, decide, record, forward; then the answer. A message that belongs to
//! another replica is decided here and handed on as it came: that one decides and records it.
//!
//! The order is the point. Nothing goes upstream before the record of the intent is written. Until it is, others of the
//! same thread may run; when what was decided by has changed by then, the message is decided again.

pub mod answer;
pub mod events;
pub mod session;

use std::{sync::Arc, time::Instant};

use bulkhead_core::{
    Reason, Refusal,
    audit::Completion,
    credential::Claims,
    handles::{Handles, Replica},
    json,
    mcp::{
        self, Era, Message, MirroredHeaders,
        methods::{self, Direction, Method},
    },
    policy::{Channel, CompiledAgent, Context, Forward, Permitted, Reach},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Response, StatusCode};

use crate::{
    authentication::{self, authenticate},
    body::Body,
    live::Standing,
    metrics::MethodLabel,
    peers::relay::{RelayError, relay},
    record::{self, Caller, OpenIntent, QueuedIntent},
    refusal::{self, EdgeRefusal, Fault},
    sealer::OpenSession,
    server::Connection,
    shared::Shared,
    tokens::Token,
    upstream::{OnBehalfOf, Target, UpstreamError},
};

pub use session::{end_session, stream};

/// The handle of a legacy session.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Why a call was cancelled before anything was done for it: what it was decided by has changed, and the next record is of
/// another decision.
const DECIDED_AGAIN: &str = "decided_again";

/// How often a message is decided before it is given up: what decides changes now and then, not with every call.
pub(crate) const ATTEMPTS: usize = 4;

/// Nesting of messages, both ways.
pub(crate) const DEPTH: usize = 64;

/// A permitted message on its way, with all that its answer needs.
pub(crate) struct Exchange {
    pub(crate) connection: Arc<Connection>,
    /// The token that the request carried.
    pub(crate) token: Arc<Token>,
    pub(crate) permitted: Permitted<Forward>,
    /// The session that the message belongs to.
    pub(crate) session: Option<OpenSession>,
    /// The raw id of the request, for errors that we make.
    pub(crate) id: Option<String>,
    pub(crate) intent: OpenIntent,
}

/// A permitted message before its intent is on record.
struct Forwarded {
    permitted: Permitted<Forward>,
    session: Option<OpenSession>,
    id: Option<String>,
    /// Bounds that would have refused it, and only report.
    reported: Vec<Arc<str>>,
    intent: QueuedIntent,
    target: Arc<Target>,
    credential: HeaderValue,
}

/// What was decided about a body.
enum Decided {
    Forward(Box<Forwarded>),
    /// Permitted, and of another replica.
    Elsewhere {
        replica: Replica,
        path: String,
        /// The raw id of the request.
        id: Option<String>,
    },
    Refused(Response<Body>),
}

/// Records and counts what the HTTP edge refused; with the token that was verified before, if one was.
pub fn refused(connection: &Connection, token: Option<&Token>, refusal: EdgeRefusal) {
    connection.shared.metrics.decided("refuse", refusal.code());
    record::edge(connection, token, refusal.code());
}

/// Records and counts what ended a connection.
pub fn ended(connection: &Connection, fault: Fault) {
    tracing::info!(reason = fault.code(), "a connection ended: {fault}");
    connection.shared.metrics.decided("refuse", fault.code());
    record::edge(connection, None, fault.code());
}

/// Why an attempt at a message gave no answer.
enum Unanswered {
    Refused(EdgeRefusal),
    /// It has to be decided once more, with these handles.
    Again(Reach),
}

impl From<EdgeRefusal> for Unanswered {
    fn from(refusal: EdgeRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Takes one message from its body to its answer.
pub async fn message(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, EdgeRefusal> {
    // Not the first turn of a loop: a future that is woken within a loop enters it in its middle, and for such a loop a
    // compiler can't say from a profile how often it runs. What every call executes would be compiled as if none did.
    match attempt(connection, token, headers, &body, reach(connection)).await {
        Ok(response) => Ok(response),
        Err(Unanswered::Refused(refusal)) => Err(refusal),
        // Boxed, as all that few calls need: a call's future has room for the largest that it may wait for.
        Err(Unanswered::Again(reach)) => Box::pin(again(connection, token, headers, &body, reach)).await,
    }
}

/// The attempts after the first.
async fn again(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
    body: &Bytes,
    mut reach: Reach,
) -> Result<Response<Body>, EdgeRefusal> {
    for _ in 1..ATTEMPTS {
        match attempt(connection, token, headers, body, reach).await {
            Ok(response) => return Ok(response),
            Err(Unanswered::Refused(refusal)) => return Err(refusal),
            Err(Unanswered::Again(next)) => reach = next,
        }
    }
    Err(EdgeRefusal::Overloaded)
}

/// Decides a message, and forwards it if that still stands once the intent is on record.
async fn attempt(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
    body: &Bytes,
    reach: Reach,
) -> Result<Response<Body>, Unanswered> {
    let shared = &connection.shared;
    let standing = shared.live.standing();
    let forwarded = match decide(connection, token, headers, body, reach, &standing)? {
        Decided::Forward(forwarded) => forwarded,
        Decided::Refused(response) => return Ok(response),
        Decided::Elsewhere { replica, path, id } => {
            let body = body.clone();
            let relayed = Box::pin(relay(
                connection,
                &replica,
                &path,
                HttpMethod::POST,
                headers,
                body,
            ));
            return match relayed.await {
                Ok(response) => Ok(response),
                // Now without what was in that replica.
                Err(RelayError::Gone) => Err(Unanswered::Again(Reach::ThisReplica)),
                Err(RelayError::Broken) => Ok(broken(connection, token, id.as_deref())?),
            };
        }
    };
    let intent = forwarded
        .intent
        .recorded()
        .await
        .map_err(|error| unrecorded(connection, &error))?;
    // As with the head of the request: body and record may have taken long.
    if !shared.readiness.network_is_closed() {
        intent.close(Completion::Cancelled, Some(EdgeRefusal::NetworkOpen.code()));
        return Err(EdgeRefusal::NetworkOpen.into());
    }
    if !standing.holds() {
        intent.close(Completion::Cancelled, Some(DECIDED_AGAIN));
        return Err(Unanswered::Again(reach));
    }
    // Once more for each decision that is superseded while connecting: rare, and a count isn't taken back.
    note_permit(shared, &forwarded.reported);
    // Boxed, since it is handed on from here to the end.
    let exchange = Box::new(Exchange {
        connection: Arc::clone(connection),
        token: Arc::clone(token),
        permitted: forwarded.permitted,
        session: forwarded.session,
        id: forwarded.id,
        intent,
    });
    // A stream without an end takes room of its own, so that an agent can't fill all of it by them.
    let endless = exchange
        .permitted
        .expected()
        .is_some_and(bulkhead_core::policy::Expected::is_endless);
    let room = match connection.room().filter(|_| endless) {
        Some(room) => Some(room.stream().map_err(|_| EdgeRefusal::AgentBusy)?),
        None => None,
    };
    let start = Instant::now();
    let sent = shared
        .upstream
        .send(
            &forwarded.target,
            &exchange.permitted,
            OnBehalfOf::Agent {
                session: exchange.session.as_ref(),
                standing: &standing,
            },
            forwarded.credential,
            headers,
        )
        .await;
    if let Err(UpstreamError::Superseded) = sent {
        exchange.intent.close(Completion::Cancelled, Some(DECIDED_AGAIN));
        return Err(Unanswered::Again(reach));
    }
    shared
        .metrics
        .upstream_seconds
        .observe(start.elapsed().as_secs_f64());
    let mut response = answer::answer(exchange, sent).await;
    if let Some(room) = room {
        response.body_mut().hold(room);
    }
    Ok(response)
}

/// Which replica's handles a request may present: what was handed on once isn't again.
pub(crate) fn reach(connection: &Connection) -> Reach {
    if connection.relayed {
        Reach::ThisReplica
    } else {
        Reach::EveryReplica
    }
}

/// What a client is told when another replica may have its message, and gave no answer.
fn broken(connection: &Connection, token: &Token, id: Option<&str>) -> Result<Response<Body>, EdgeRefusal> {
    let Some(id) = id else {
        return Err(EdgeRefusal::UpstreamFailed);
    };
    // The record of the call is that replica's, if the message came there; that nothing came back is known here alone.
    refused(connection, Some(token), EdgeRefusal::UpstreamFailed);
    let body = answer::error(Some(id), answer::Failure::Broken);
    Ok(refusal::json(StatusCode::OK, body))
}

fn decide(
    connection: &Arc<Connection>,
    token: &Arc<Token>,
    headers: &HeaderMap,
    body: &Bytes,
    reach: Reach,
    standing: &Standing<'_>,
) -> Result<Decided, EdgeRefusal> {
    let shared = &connection.shared;
    let policy = shared.live.policy().ok_or(EdgeRefusal::NoPolicy)?;
    let (identity, agent) = authenticate(connection, token, &policy)?;
    let limits = json::Limits {
        bytes: shared.limits.body_bytes,
        depth: DEPTH,
    };
    // Sessions are the legacy era's; in the modern one the header means nothing and goes no further.
    let presented = session::presented(connection, &agent, headers);
    let mut caller = Caller {
        connection,
        policy: &policy,
        identity,
        token,
        agent: &agent,
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
    let context = Context {
        inventory: standing.inventory(),
        limits,
        seal: &*shared.keyring,
        session: presented
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .map(OpenSession::upstream_id),
        reach,
    };
    let decision = policy
        .compiled()
        .decide(Some(&agent), &message, &mirrored, context);
    let id = match &message {
        Message::Request(request) => Some(request.id.raw().to_owned()),
        _ => None,
    };
    if let Err(refusal) = &decision.outcome {
        count(connection, &message, decision.era);
        shared.metrics.decided("refuse", refusal.reason.as_str());
        caller.refused(&message, &decision);
        return Ok(Decided::Refused(told(refusal)));
    }
    let session = match decision.era {
        Some(Era::Legacy) => presented?,
        _ => None,
    };
    let elsewhere = session.as_ref().and_then(OpenSession::elsewhere);
    if let Some(replica) = elsewhere.or(decision.elsewhere.as_ref()) {
        return match reach {
            Reach::ThisReplica => Err(EdgeRefusal::SessionUnknown),
            Reach::EveryReplica => Ok(Decided::Elsewhere {
                replica: replica.clone(),
                path: policy.target().path().to_owned(),
                id,
            }),
        };
    }
    count(connection, &message, decision.era);
    caller.session = session.as_ref().map(session::stand_in);
    let intent = caller.intent(&message, &decision);
    let target = Arc::clone(policy.target());
    match decision.outcome {
        Ok(permitted) => {
            let mut jti = String::new();
            let credential = shared.minter.authorization(
                |moment| Claims::of_message(policy.compiled(), &agent, &permitted, moment),
                &mut jti,
            );
            Ok(Decided::Forward(Box::new(Forwarded {
                permitted,
                session,
                id,
                reported: decision.reported,
                intent,
                target,
                credential,
            })))
        }
        Err(refusal) => Ok(Decided::Refused(told(&refusal))),
    }
}

/// What can't be recorded isn't done.
fn unrecorded(connection: &Connection, error: &std::io::Error) -> EdgeRefusal {
    tracing::error!(%error, "an intent can't be recorded, so the call is refused");
    connection.shared.metrics.audit_failures.inc();
    EdgeRefusal::AuditUnavailable
}

/// The handles of a caller, in a session.
pub(crate) fn handles<'a>(
    connection: &'a Connection,
    agent: &'a CompiledAgent,
    session: Option<&'a str>,
) -> Handles<'a> {
    Handles::new(&*connection.shared.keyring, agent.owner(), session)
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

/// Decides one message of the server by the policy that is in force now; `None` when there is none.
pub(crate) fn decide_answer(
    connection: &Connection,
    token: &Token,
    channel: Channel<'_>,
    session: Option<&str>,
    message: &Bytes,
) -> Option<bulkhead_core::policy::Answer> {
    let shared = &connection.shared;
    let policy = shared.live.policy()?;
    let caller = authentication::caller(connection, token, &policy);
    let inventory = shared.live.inventory();
    let context = Context {
        inventory: &inventory,
        limits: json::Limits {
            bytes: shared.limits.response_bytes,
            depth: DEPTH,
        },
        seal: &*shared.keyring,
        session,
        reach: Reach::ThisReplica,
    };
    Some(
        policy
            .compiled()
            .answer(caller.as_deref(), channel, message, context),
    )
}

/// Counts a permit, and notes the bounds that would have refused it and only report.
fn note_permit(shared: &Shared, reported: &[Arc<str>]) {
    shared.metrics.decided("permit", "granted");
    for rule in reported {
        let reason = Reason::ArgumentOutOfBounds;
        shared.metrics.reported(reason.as_str());
        // The one that decided: it hasn't changed.
        if let Some(policy) = shared.live.policy() {
            shared.findings.add(policy.revision(), Arc::clone(rule), reason);
        }
    }
}

fn count(connection: &Connection, message: &Message<'_>, era: Option<Era>) {
    let method = era
        .zip(message.method())
        .and_then(|(era, name)| methods::lookup(era, Direction::ToServer, name))
        .map_or("other", |entry| entry.method.name());
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
        self.permitted.method() == Some(Method::Initialize)
    }

    /// Who called, by the policy that is in force now.
    pub(crate) fn caller(&self) -> Option<Arc<CompiledAgent>> {
        let policy = self.connection.shared.live.policy()?;
        authentication::caller(&self.connection, &self.token, &policy)
    }

    /// Ends the exchange without an answer of the server.
    pub(crate) fn fail(self: Box<Self>, why: answer::Failure) -> Bytes {
        self.connection.shared.metrics.upstream_failed(why.code());
        let body = answer::error(self.id.as_deref(), why);
        self.intent.close(Completion::Failed, None);
        body
    }
}
