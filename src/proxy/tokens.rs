//! Verifies the token that a request carries beside the connection's certificate, offline: signature, kind, issuer and
//! times. For whom it is good, is asked on every use.
//!
//! Of a pod of the agent's own account ([`bulkhead_core::tokens`]) the token proves the agent. Of a person, whose issuer
//! the tenant names, it proves whom the agent acts for.
//!
//! A verified token is remembered: on its connection, where comparing it is all that the next request costs, and in a
//! bounded cache by its digest. What changes (time, keys, the policy) is asked again for each request.

mod error;
mod keys;
mod person;
mod pod;
mod verify;

use std::{fmt, sync::Arc, time::SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use bulkhead_core::policy::{CompiledAgent, CompiledPolicy};
use http::{HeaderMap, header};
use quick_cache::{Weighter, sync::Cache};
use rustls::pki_types::CertificateDer;

pub use error::TokenError;
use keys::KeyDigest;
pub use keys::{Keys, KeysError};
use person::PersonToken;
use pod::PodToken;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// What verified tokens that are remembered may weigh together, roughly in bytes.
const REMEMBERED: u64 = 4 * 1024 * 1024;

/// What an agent that acts for a person weighs beside the person's token: its grants.
const GRANTS: u64 = 16 * 1024;

/// Tokens for which there is room from the start.
const FEW: usize = 64;

/// Seconds by which clocks may differ.
const LEEWAY: u64 = 10;

/// What a verified token says.
#[derive(Debug)]
pub struct Token {
    /// Its `jti`; of a token without one, hex digits of its digest.
    pub id: String,
    /// When it expires.
    pub expires: SystemTime,
    proves: Proof,
    issuer: Box<str>,
    signed_by: KeyDigest,
    /// Roughly in bytes.
    weight: u64,
}

/// What a token proves.
#[derive(Debug)]
enum Proof {
    /// That a pod of a service account calls.
    Pod(PodToken),
    /// For whom an agent acts.
    Person(PersonToken),
}

/// The token that a request carries (RFC 6750 §2.1). `None`: none, or several.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token that a connection presented last.
#[derive(Default)]
pub struct Presented(ArcSwapOption<(Box<str>, Arc<Token>)>);

impl fmt::Debug for Presented {
    /// Never the token's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.0.load();
        f.debug_tuple("Presented")
            .field(&token.as_deref().map(|(_, token)| &token.id))
            .finish()
    }
}

/// Verifies the tokens of one tenant's agents.
pub struct Tokens {
    verified: Cache<[u8; 32], Arc<Token>, ByWeight>,
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<[u8; 32], Arc<Token>> for ByWeight {
    fn weight(&self, _: &[u8; 32], token: &Arc<Token>) -> u64 {
        token.weight
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            verified: Cache::with_weighter(FEW, REMEMBERED, ByWeight),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Verifies a request's token, or knows it. Whether it is good is still to be [asked](Token::caller).
    pub fn verify(
        &self,
        presented: &Presented,
        text: &str,
        keys: &Keys,
        audience: &str,
    ) -> Result<Arc<Token>, TokenError> {
        if let Some(last) = presented.0.load().as_deref()
            && *last.0 == *text
        {
            return Ok(Arc::clone(&last.1));
        }
        if text.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        let known = self
            .verified
            .get(&digest)
            .filter(|token| keys.holds(&token.issuer, token.signed_by));
        let token = if let Some(token) = known {
            token
        } else {
            let token = Arc::new(verify::verify(text, &digest, keys, audience)?);
            self.verified.insert(digest, Arc::clone(&token));
            token
        };
        presented
            .0
            .store(Some(Arc::new((text.into(), Arc::clone(&token)))));
        Ok(token)
    }
}

impl Token {
    /// The pod that it was made for, if it says one.
    pub fn pod(&self) -> Option<&str> {
        match &self.proves {
            Proof::Pod(token) => token.pod.as_deref(),
            Proof::Person(_) => None,
        }
    }

    /// Who calls, if the token is good now for this agent and its certificate, by the policy and the keys in force.
    pub fn caller(
        &self,
        agent: &Arc<CompiledAgent>,
        certificate: &CertificateDer<'_>,
        policy: &CompiledPolicy,
        keys: &Keys,
    ) -> Result<Arc<CompiledAgent>, TokenError> {
        if SystemTime::now() >= self.expires {
            return Err(TokenError::Expired);
        }
        if !keys.holds(&self.issuer, self.signed_by) {
            return Err(TokenError::KeyUnknown);
        }
        match &self.proves {
            Proof::Pod(token) => token.check(agent)?,
            Proof::Person(token) => token.check(agent, certificate, policy)?,
        }
        self.acting(agent, policy).ok_or(TokenError::Issuer)
    }

    /// The agent as it acts with this token, by the policy in force. `None`: the policy doesn't know the person's issuer
    /// any more.
    pub fn acting(&self, agent: &Arc<CompiledAgent>, policy: &CompiledPolicy) -> Option<Arc<CompiledAgent>> {
        match &self.proves {
            Proof::Pod(_) => Some(Arc::clone(agent)),
            Proof::Person(token) => token.acting(agent, policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token that weighs so much.
    fn weighing(weight: u64) -> Arc<Token> {
        let proves = Proof::Pod(PodToken {
            subject: "system:serviceaccount:acme-agents:billing".into(),
            pod: None,
        });
        Arc::new(Token {
            id: "jti".into(),
            expires: SystemTime::UNIX_EPOCH,
            proves,
            issuer: "https://issuer.example".into(),
            signed_by: KeyDigest::default(),
            weight,
        })
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for_whoever_presents_it() {
        for weight in [1024, MAX_TOKEN as u64 + GRANTS] {
            let tokens = Tokens::default();
            let fits = REMEMBERED / weight;
            for number in 0..4 * fits {
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&number.to_be_bytes());
                tokens.verified.insert(digest, weighing(weight));
                assert!(tokens.verified.weight() <= REMEMBERED, "{number} of {weight}");
            }
            // It is full, and was so for long: others had to go.
            let remembered = tokens.verified.len() as u64;
            assert!((fits / 2..=fits).contains(&remembered), "{remembered} of {fits}");
        }
    }
}
