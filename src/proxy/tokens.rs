//! Verifies the token that a request carries beside the connection's certificate, offline: signature, kind, issuer,
//! audience, times ([`bulkhead_core::tokens`]). Whose it is, is compared with the certificate's agent on every use.
//!
//! A verified token is remembered: on its connection, where comparing it is all that the next request costs, and in a
//! bounded cache by its digest. What changes (time, keys, the policy) is asked again for each request.

mod keys;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use bulkhead_core::tokens::MAX_LIFETIME;
use http::{HeaderMap, header};
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use quick_cache::sync::Cache;
use serde::Deserialize;

use crate::hex;

use keys::{Key, KeyDigest};
pub use keys::{Keys, KeysError};

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Verified tokens that are remembered.
const REMEMBERED: usize = 1024;

/// Seconds by which clocks may differ.
const LEEWAY: u64 = 10;

/// What a verified token says.
#[derive(Debug)]
pub struct Token {
    /// Whom it is about.
    pub subject: String,
    /// Its `jti`; of a token without one, hex digits of its digest.
    pub id: String,
    /// The pod that it was made for, if it says one.
    pub pod: Option<String>,
    /// When it expires.
    pub expires: SystemTime,
    signed_by: KeyDigest,
}

/// Why a token proves nothing. The message is a client's to read and must not repeat the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("Authorization must carry the agent's ServiceAccount token: Bearer TOKEN")]
    Missing,
    /// It is no JWT, or lacks a claim.
    #[error("the token is no JWT with iss, sub, aud, iat and exp")]
    Malformed,
    /// It is of a type or algorithm that isn't taken, or has critical extensions.
    #[error("the token is of a kind that is not taken here; use the token of a projected volume")]
    Kind,
    /// No key of its issuer has its `kid`.
    #[error("the token is signed by no known key of its issuer")]
    KeyUnknown,
    /// The signature is another's.
    #[error("the token's signature is wrong")]
    Signature,
    /// Another issuer.
    #[error("the token's issuer is not this cluster")]
    Issuer,
    /// Another audience.
    #[error("the token's audience is not this tenant; project it with the audience bulkhead:TENANT")]
    Audience,
    /// It was good.
    #[error("the token has expired; read it again from its volume")]
    Expired,
    /// It isn't good yet.
    #[error("the token is not valid yet; the clocks differ")]
    NotYetValid,
    /// Good for longer than is taken.
    #[error("the token is good for more than an hour; project it with expirationSeconds 3600 or less")]
    Lifetime,
    /// It is somebody else's.
    #[error("the token is not of the service account that the certificate names")]
    Subject,
}

impl TokenError {
    /// The stable code, for audit and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::Kind => "token_kind",
            Self::KeyUnknown => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Lifetime => "token_lifetime",
            Self::Subject => "token_subject",
        }
    }
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
    verified: Cache<[u8; 32], Arc<Token>>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            verified: Cache::new(REMEMBERED),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Verifies a request's token, or knows it. It must still be [`checked`](Token::check).
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
            .filter(|token| keys.holds(token.signed_by));
        let token = if let Some(token) = known {
            token
        } else {
            let token = Arc::new(verify(text, &digest, keys, audience)?);
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
    /// Whether it proves the subject now, by the keys in force.
    pub fn check(&self, subject: Option<&str>, keys: &Keys) -> Result<(), TokenError> {
        if SystemTime::now() >= self.expires {
            return Err(TokenError::Expired);
        }
        if !keys.holds(self.signed_by) {
            return Err(TokenError::KeyUnknown);
        }
        if subject != Some(self.subject.as_str()) {
            return Err(TokenError::Subject);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iat: u64,
    exp: u64,
    jti: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

/// What the API server says of the token's object (KEP-1205).
#[derive(Deserialize)]
struct Kubernetes {
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
}

fn verify(text: &str, digest: &[u8; 32], keys: &Keys, audience: &str) -> Result<Token, TokenError> {
    let head = decode_header(text).map_err(|_| TokenError::Malformed)?;
    // The API server writes no type. Access tokens, ID-JAGs and whatever else is to come have types of their own
    // (RFC 8725 §3.11).
    if head.typ.is_some_and(|kind| !kind.eq_ignore_ascii_case("jwt")) || head.crit.is_some() {
        return Err(TokenError::Kind);
    }
    let kid = head.kid.ok_or(TokenError::KeyUnknown)?;
    let Key {
        verifies,
        algorithms,
        digest: signed_by,
    } = keys.get(&kid).ok_or(TokenError::KeyUnknown)?;
    if !algorithms.contains(&head.alg) {
        return Err(TokenError::Kind);
    }
    let mut validation = Validation::new(head.alg);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    validation.set_issuer(&[keys.issuer()]);
    validation.set_audience(&[audience]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY;
    let claims = decode::<Claims>(text, verifies, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidIssuer => TokenError::Issuer,
            ErrorKind::InvalidAudience => TokenError::Audience,
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYetValid,
            _ => TokenError::Malformed,
        })?
        .claims;
    let lifetime = claims.exp.checked_sub(claims.iat).ok_or(TokenError::Malformed)?;
    if lifetime > MAX_LIFETIME + LEEWAY {
        return Err(TokenError::Lifetime);
    }
    if claims.iat > now().saturating_add(LEEWAY) {
        return Err(TokenError::NotYetValid);
    }
    let expires = SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(claims.exp))
        .ok_or(TokenError::Malformed)?;
    Ok(Token {
        subject: claims.sub,
        id: claims.jti.unwrap_or_else(|| hex::encode(&digest[..16])),
        pod: claims.kubernetes.and_then(|about| about.pod).map(|pod| pod.name),
        expires,
        signed_by: *signed_by,
    })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
