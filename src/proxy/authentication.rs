//! Who calls, proven twice: by the connection's certificate, and by the request's token. Neither alone is enough.
//!
//! Asked for each request, and again for each stream when something changed: policy, trust, keys and time go on while
//! a connection is open.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use bulkhead_core::policy::CompiledAgent;
use http::HeaderMap;

use crate::{
    identity::Identity,
    policy::LoadedPolicy,
    refusal::EdgeRefusal,
    server::Connection,
    tls,
    tokens::{self, Token, TokenError},
};

/// What the caller's certificate says, if the connection still proves it and the policy still names it.
pub fn certificate<'a>(
    connection: &'a Connection,
    policy: &LoadedPolicy,
) -> Result<&'a Identity, EdgeRefusal> {
    let identity = connection
        .identity
        .as_ref()
        .map_err(|_| EdgeRefusal::IdentityInvalid)?;
    // The policy may want more of it than when it was opened.
    let key_exchange = policy.compiled().key_exchange();
    if connection
        .group
        .is_none_or(|group| !tls::allows(key_exchange, group))
    {
        return Err(EdgeRefusal::KeyExchange);
    }
    if SystemTime::now() >= identity.not_after {
        return Err(EdgeRefusal::CertificateExpired);
    }
    let roots = connection.shared.live.trust().ok_or(EdgeRefusal::TrustRemoved)?;
    if connection.trusted_by.load(Ordering::Acquire) != roots.generation {
        if !roots.trust.still_trusts(&connection.chain) {
            return Err(EdgeRefusal::TrustRemoved);
        }
        connection.trusted_by.store(roots.generation, Ordering::Release);
    }
    if policy.agent(&identity.spiffe_id).is_some() {
        Ok(identity)
    } else {
        Err(EdgeRefusal::AgentUnknown)
    }
}

/// The request's token, verified. Whose it is, [`authenticate`] asks.
pub fn token(connection: &Connection, headers: &HeaderMap) -> Result<Arc<Token>, EdgeRefusal> {
    let live = &connection.shared.live;
    let policy = live.policy().ok_or(EdgeRefusal::NoPolicy)?;
    let keys = live.token_keys().ok_or(EdgeRefusal::TokenKeysMissing)?;
    let text = tokens::bearer(headers).ok_or(TokenError::Missing)?;
    let audience = policy.compiled().audience();
    let tokens = &connection.shared.tokens;
    Ok(tokens.verify(&connection.presented, text, &keys, audience)?)
}

/// Who calls, by certificate and token: the agent, or the agent as it acts for a person.
pub fn authenticate<'a>(
    connection: &'a Connection,
    token: &Token,
    policy: &LoadedPolicy,
) -> Result<(&'a Identity, Arc<CompiledAgent>), EdgeRefusal> {
    let identity = certificate(connection, policy)?;
    let keys = connection
        .shared
        .live
        .token_keys()
        .ok_or(EdgeRefusal::TokenKeysMissing)?;
    let agent = policy
        .agent(&identity.spiffe_id)
        .ok_or(EdgeRefusal::AgentUnknown)?;
    let leaf = connection.chain.first().ok_or(EdgeRefusal::IdentityInvalid)?;
    let caller = token.caller(agent, leaf, policy.compiled(), &keys)?;
    Ok((identity, caller))
}

/// Who called, as the policy in force knows them: for what comes back after the call was let through. `None`: it doesn't
/// know them any more.
pub fn caller(connection: &Connection, token: &Token, policy: &LoadedPolicy) -> Option<Arc<CompiledAgent>> {
    let identity = connection.identity.as_ref().ok()?;
    token.acting(policy.agent(&identity.spiffe_id)?, policy.compiled())
}
