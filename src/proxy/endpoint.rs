//! The way of one HTTP request: authenticate its certificate, check its head, admit it, verify its token, read its body,
//! and hand it to [`exchange`]. Whatever refuses on the way is recorded and counted here.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header, request::Parts};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    admission::{Admitted, Full, Limited},
    authentication,
    body::Body,
    challenge, exchange,
    gate::{self, Intent},
    link::OpenCall,
    memory::{self, Held, ReadError},
    refusal::EdgeRefusal,
    server::Connection,
    tokens::Token,
};

/// Answers one request. It counts as under way until the answer is written or given up.
pub async fn answer(connection: &Arc<Connection>, request: Request<Incoming>) -> Response<Body> {
    let call = connection.begin_call();
    let (parts, body) = request.into_parts();
    let mut response = match admit(connection, &call, &parts) {
        Ok((intent, admitted)) => {
            let (mut token, mut held) = (None, connection.memory());
            match serve(connection, &parts, body, intent, &mut held, &mut token).await {
                Ok(mut response) => {
                    response.body_mut().hold((admitted, held));
                    response
                }
                Err(refusal) => refuse(connection, token.as_deref(), &parts, refusal),
            }
        }
        Err(refusal) => {
            connection.count_refusal();
            refuse(connection, None, &parts, refusal)
        }
    };
    response.body_mut().keep_open(call);
    if parts.version < Version::HTTP_2 && connection.shared.drain.is_closing() {
        // Said here, since an answer may be written before the connection hears of the drain.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Records a refusal and makes its response. Whoever lacks a token is told where to get one, if persons' are taken.
fn refuse(
    connection: &Connection,
    token: Option<&Token>,
    parts: &Parts,
    refusal: EdgeRefusal,
) -> Response<Body> {
    exchange::refused(connection, token, refusal);
    let mut response = refusal.response();
    if let (EdgeRefusal::Token(_), Some(policy)) = (refusal, connection.shared.live.policy())
        && let Some(authority) = challenge::authority(parts)
        && !policy.compiled().issuers().is_empty()
    {
        challenge::refer(response.headers_mut(), authority, policy.target().path());
    }
    response
}

/// Refuses what can't be watched, checks the head of a request and takes room for it. What is refused here counts against no
/// limit of the agent's.
fn admit(connection: &Connection, call: &OpenCall, parts: &Parts) -> Result<(Intent, Admitted), EdgeRefusal> {
    if call.is_unwatched() {
        return Err(EdgeRefusal::AgentBusy);
    }
    let (intent, limits) = check(connection, parts)?;
    let room = connection.room().ok_or(EdgeRefusal::IdentityInvalid)?;
    let admitted = connection
        .shared
        .admission
        .admit(room, limits)
        .map_err(|full| match full {
            Full::Agent => EdgeRefusal::AgentBusy,
            Full::AgentRate(seconds) => EdgeRefusal::RateLimited(seconds),
            Full::Tenant => EdgeRefusal::TenantBusy,
            Full::TenantRate(seconds) => EdgeRefusal::TenantRateLimited(seconds),
            Full::Sidecar => EdgeRefusal::Overloaded,
        })?;
    Ok((intent, admitted))
}

async fn serve(
    connection: &Arc<Connection>,
    parts: &Parts,
    body: Incoming,
    intent: Intent,
    held: &mut Held,
    verified: &mut Option<Arc<Token>>,
) -> Result<Response<Body>, EdgeRefusal> {
    // Only now, so that wrong tokens are counted against the agent like calls.
    let mut token = || -> Result<Arc<Token>, EdgeRefusal> {
        let token = authentication::token(connection, &parts.headers)?;
        *verified = Some(Arc::clone(&token));
        Ok(token)
    };
    match intent {
        Intent::Metadata => metadata(connection, parts),
        Intent::Message => {
            let token = token()?;
            let body = read(connection, parts, body, held).await?;
            exchange::message(connection, &token, &parts.headers, body).await
        }
        Intent::Stream => Box::pin(exchange::stream(connection, &token()?, &parts.headers)).await,
        Intent::EndSession => Box::pin(exchange::end_session(connection, &token()?, &parts.headers)).await,
    }
}

/// How to get a token: for whoever has none yet.
fn metadata(connection: &Connection, parts: &Parts) -> Result<Response<Body>, EdgeRefusal> {
    let policy = connection.shared.live.policy().ok_or(EdgeRefusal::NoPolicy)?;
    let authority = challenge::authority(parts).ok_or(EdgeRefusal::HostNotAllowed)?;
    let issuers = policy.compiled().issuers();
    Ok(challenge::metadata(authority, policy.target().path(), &issuers))
}

/// Everything that is known before the body: no policy snapshot is held while the body arrives.
fn check(connection: &Connection, parts: &Parts) -> Result<(Intent, Option<Limited>), EdgeRefusal> {
    let policy = connection.shared.live.policy().ok_or(EdgeRefusal::NoPolicy)?;
    let identity = authentication::certificate(connection, &policy)?;
    // A pod that isn't ready gets no new connections; the ones it has would go on.
    if !connection.shared.readiness.network_is_closed() {
        return Err(EdgeRefusal::NetworkOpen);
    }
    // HTTP/1.1 has none with more; HTTP/2 bounds only what they take together. What is handed on was counted where the agent
    // came in, and has got some of a replica's own.
    if !connection.relayed && parts.headers.len() > connection.shared.limits.headers {
        return Err(EdgeRefusal::HeadersTooMany);
    }
    let intent = gate::check(parts, policy.endpoint(connection.shared.port))?;
    // What is handed on was counted where the agent came in.
    let agent = policy.agent(&identity.spiffe_id).filter(|_| !connection.relayed);
    let limits = agent.map(|agent| Limited {
        agent: agent.limits(),
        tenant: policy.compiled().limits(),
    });
    Ok((intent, limits))
}

async fn read(
    connection: &Connection,
    parts: &Parts,
    body: Incoming,
    held: &mut Held,
) -> Result<Bytes, EdgeRefusal> {
    let limits = &connection.shared.limits;
    let length = gate::single(&parts.headers, &header::CONTENT_LENGTH)?;
    if length
        .and_then(|length| length.parse::<usize>().ok())
        .is_some_and(|length| length > limits.body_bytes)
    {
        return Err(EdgeRefusal::BodyTooLarge);
    }
    match timeout(limits.body, pin!(memory::read(body, limits.body_bytes, held))).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(ReadError::TooLarge)) => Err(EdgeRefusal::BodyTooLarge),
        Ok(Err(ReadError::Exhausted(_))) => Err(EdgeRefusal::MemoryExhausted),
        Ok(Err(ReadError::Broken)) => Err(EdgeRefusal::BodyIncomplete),
        Err(_) => Err(EdgeRefusal::BodyTimeout),
    }
}
