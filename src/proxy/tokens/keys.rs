//! The keys that verify tokens, as they are mounted.

use std::collections::HashMap;

use aws_lc_rs::digest;
use bulkhead_core::{
    Reason,
    json::{self, Limits},
    tokens::{self, FORMAT, TokenKeys},
};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::Value;
use tracing::warn;

/// Limits of the document: what a `ConfigMap` can hold.
const DOCUMENT: Limits = Limits {
    bytes: 1 << 20,
    depth: 16,
};

/// Stands for a key: SHA-256 of its JWK.
pub(super) type KeyDigest = [u8; 32];

/// A key, and the algorithms that it may be used with: an attacker must not choose one (RFC 8725 §2.1).
pub(super) struct Key {
    pub(super) verifies: DecodingKey,
    pub(super) algorithms: &'static [Algorithm],
    pub(super) digest: KeyDigest,
}

/// The keys of one issuer, by their ids.
pub(super) struct IssuerKeys(HashMap<String, Key>);

/// The keys in force, by issuer.
pub struct Keys {
    service_accounts: String,
    by_issuer: HashMap<String, IssuerKeys>,
}

/// Why a mounted document can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is no strict JSON.
    #[error("the token keys are no strict JSON: {0}")]
    Json(Reason),
    /// It isn't of the shape that this code knows.
    #[error("the token keys are not understood: {0}")]
    Shape(String),
    /// It is of another format.
    #[error("the token keys have format {0}, this sidecar reads format {FORMAT}")]
    Format(u32),
    /// None of the keys of service accounts can be used.
    #[error("there is no key that can verify a service account's token")]
    None,
}

impl Keys {
    /// Reads a mounted document. A key of a kind that isn't known is left out, and said.
    pub fn load(bytes: &[u8]) -> Result<Self, KeysError> {
        // serde reads maps with a key twice as if the last one were the only one.
        json::check(bytes, DOCUMENT).map_err(KeysError::Json)?;
        let TokenKeys {
            format,
            service_accounts,
            issuers,
        } = serde_json::from_slice(bytes).map_err(|error| KeysError::Shape(error.to_string()))?;
        if format != FORMAT {
            return Err(KeysError::Format(format));
        }
        let of_accounts = IssuerKeys::of(&service_accounts);
        if of_accounts.0.is_empty() {
            return Err(KeysError::None);
        }
        let mut by_issuer: HashMap<_, _> = issuers
            .into_iter()
            .map(|issuer| (issuer.issuer.clone(), IssuerKeys::of(&issuer)))
            .collect();
        // Last: nobody else's keys make tokens of the cluster's.
        by_issuer.insert(service_accounts.issuer.clone(), of_accounts);
        Ok(Self {
            service_accounts: service_accounts.issuer,
            by_issuer,
        })
    }

    /// The keys of an issuer.
    pub(super) fn issuer(&self, issuer: &str) -> Option<&IssuerKeys> {
        self.by_issuer.get(issuer)
    }

    /// Whether there is a key that can verify tokens of this issuer.
    pub fn verify(&self, issuer: &str) -> bool {
        self.by_issuer.get(issuer).is_some_and(|keys| !keys.0.is_empty())
    }

    /// Whether it is the issuer of the cluster's service accounts.
    pub(super) fn is_of_service_accounts(&self, issuer: &str) -> bool {
        self.service_accounts == issuer
    }

    /// Whether the key of this issuer is in force.
    pub(super) fn holds(&self, issuer: &str, key: KeyDigest) -> bool {
        let keys = self.by_issuer.get(issuer);
        keys.is_some_and(|keys| keys.0.values().any(|held| held.digest == key))
    }
}

impl IssuerKeys {
    /// A key of a kind that isn't known is left out, and said.
    fn of(issuer: &tokens::IssuerKeys) -> Self {
        let mut by_id = HashMap::with_capacity(issuer.keys.len());
        for jwk in &issuer.keys {
            if let Some((id, key)) = usable(jwk) {
                by_id.insert(id, key);
            } else {
                warn!(
                    issuer = issuer.issuer,
                    "a key of the issuer can't verify tokens and is left out"
                );
            }
        }
        Self(by_id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("issuers", &self.by_issuer.keys())
            .finish_non_exhaustive()
    }
}

fn usable(jwk: &Value) -> Option<(String, Key)> {
    let parsed: Jwk = serde_json::from_value(jwk.clone()).ok()?;
    let for_signatures = matches!(parsed.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let id = parsed.common.key_id.clone().filter(|_| for_signatures)?;
    // Symmetric keys are none: who verifies with one could sign.
    let possible: &'static [Algorithm] = match &parsed.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => return None,
    };
    let algorithms = match parsed.common.key_algorithm {
        None => possible,
        Some(named) => {
            let named: Algorithm = named.to_string().parse().ok()?;
            let position = possible.iter().position(|algorithm| *algorithm == named)?;
            &possible[position..=position]
        }
    };
    let mut digest = KeyDigest::default();
    let text = jwk.to_string();
    digest.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    let key = Key {
        verifies: DecodingKey::from_jwk(&parsed).ok()?,
        algorithms,
        digest,
    };
    Some((id, key))
}
