//! A token's text → what it says, if its issuer signed it and it is in force.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_core::{
    json::{self, Limits},
    tokens::MAX_LIFETIME,
};
use jsonwebtoken::{Header, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use super::{
    GRANTS, LEEWAY, MAX_TOKEN, Proof, Token, TokenError,
    keys::{IssuerKeys, Key, Keys},
    person::{PersonToken, is_access_token},
    pod::PodToken,
};
use crate::hex;

/// Bounds of a token's claims. A member that is there twice has two meanings.
const CLAIMS: Limits = Limits {
    bytes: MAX_TOKEN,
    depth: 16,
};

/// Who says that they signed it. Nothing is believed yet.
#[derive(Deserialize)]
struct Claimed {
    iss: String,
}

/// Claims that every token must have, and `jti`.
#[derive(Deserialize)]
struct Times {
    iat: u64,
    exp: u64,
    jti: Option<String>,
}

/// What the API server says of the token's object (KEP-1205).
#[derive(Deserialize)]
struct OfPod {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

pub(super) fn verify(
    text: &str,
    digest: &[u8; 32],
    keys: &Keys,
    audience: &str,
) -> Result<Token, TokenError> {
    let head = decode_header(text).map_err(|_| TokenError::Malformed)?;
    if head.crit.is_some() {
        return Err(TokenError::Kind);
    }
    let Claimed { iss } = claimed(text).ok_or(TokenError::Malformed)?;
    let issuer = keys.issuer(&iss).ok_or(TokenError::Issuer)?;
    let key = key(&head, issuer)?;
    let of_accounts = keys.is_of_service_accounts(&iss);
    // The API server writes no type. Access tokens, ID-JAGs and whatever else is to come have types of their own
    // (RFC 8725 §3.11).
    if of_accounts
        && head
            .typ
            .as_deref()
            .is_some_and(|kind| !kind.eq_ignore_ascii_case("jwt"))
    {
        return Err(TokenError::Kind);
    }
    let mut validation = Validation::new(head.alg);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    validation.set_issuer(&[&iss]);
    if of_accounts {
        validation.set_audience(&[audience]);
    } else {
        // Which are the tenant's, the policy says, and it may change while the token is good.
        validation.validate_aud = false;
    }
    validation.validate_nbf = true;
    validation.leeway = LEEWAY;
    let claims = decode::<Value>(text, &key.verifies, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidIssuer => TokenError::Issuer,
            ErrorKind::InvalidAudience => TokenError::Audience,
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYetValid,
            _ => TokenError::Malformed,
        })?
        .claims;
    let Times { iat, exp, jti } = Times::deserialize(&claims).map_err(|_| TokenError::Malformed)?;
    let lifetime = exp.checked_sub(iat).ok_or(TokenError::Malformed)?;
    if iat > now().saturating_add(LEEWAY) {
        return Err(TokenError::NotYetValid);
    }
    let expires = SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(exp))
        .ok_or(TokenError::Malformed)?;
    let length = text.len() as u64;
    let (proves, weight) = if of_accounts {
        (of_pod(&claims, lifetime)?, length)
    } else if is_access_token(head.typ.as_deref(), &claims) {
        let person = PersonToken::new(&iss, claims, lifetime)?;
        (Proof::Person(person), length + GRANTS)
    } else {
        return Err(TokenError::Kind);
    };
    Ok(Token {
        id: jti.unwrap_or_else(|| hex::encode(&digest[..16])),
        expires,
        proves,
        issuer: iss.into(),
        signed_by: key.digest,
        weight,
    })
}

fn claimed(text: &str) -> Option<Claimed> {
    let payload = URL_SAFE_NO_PAD.decode(text.split('.').nth(1)?).ok()?;
    json::check(&payload, CLAIMS).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn key<'k>(head: &Header, issuer: &'k IssuerKeys) -> Result<&'k Key, TokenError> {
    let kid = head.kid.as_ref().ok_or(TokenError::KeyUnknown)?;
    let key = issuer.get(kid).ok_or(TokenError::KeyUnknown)?;
    if key.algorithms.contains(&head.alg) {
        Ok(key)
    } else {
        Err(TokenError::Kind)
    }
}

fn of_pod(claims: &Value, lifetime: u64) -> Result<Proof, TokenError> {
    if lifetime > MAX_LIFETIME + LEEWAY {
        return Err(TokenError::Lifetime);
    }
    let OfPod { sub, kubernetes } = OfPod::deserialize(claims).map_err(|_| TokenError::Malformed)?;
    Ok(Proof::Pod(PodToken {
        subject: sub,
        pod: kubernetes.and_then(|about| about.pod).map(|pod| pod.name),
    }))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
