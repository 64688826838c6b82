//! A cluster that issues `ServiceAccount` tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_core::tokens::{IssuerKeys, TokenKeys, audience, subject};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

/// Who the cluster's issuer is.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs tokens as an API server does.
pub struct Issuer {
    key: KeyPair,
    /// The id of its key.
    pub kid: String,
}

impl Issuer {
    /// One with a fresh key (P-256) of this id.
    pub fn new(kid: &str) -> Self {
        Self {
            key: KeyPair::generate().unwrap(),
            kid: kid.to_owned(),
        }
    }

    /// Its key, as a JWK.
    pub fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.key.der_bytes()[1..].split_at(32);
        let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": text(x), "y": text(y)})
    }

    /// The keys as a sidecar has them mounted, with those of others.
    pub fn document(&self, others: &[&Self]) -> String {
        self.keys(others).to_json()
    }

    /// The same, to be added to.
    pub fn keys(&self, others: &[&Self]) -> TokenKeys {
        let all = [self].into_iter().chain(others.iter().copied());
        let keys = IssuerKeys {
            issuer: ISSUER.into(),
            keys: all.map(Self::jwk).collect(),
        };
        TokenKeys::new(keys, Vec::new())
    }

    /// What the token of an agent of the tenant `acme` claims, by its SPIFFE ID.
    pub fn claims(spiffe_id: &str) -> Value {
        let now = now();
        let subject = subject(spiffe_id).unwrap_or_else(|| "system:serviceaccount:none:none".to_owned());
        json!({
            "iss": ISSUER, "sub": subject, "aud": [audience("acme")], "jti": format!("jti-of-{subject}"),
            "iat": now, "nbf": now, "exp": now + 3600,
            "kubernetes.io": {"namespace": "acme-agents", "pod": {"name": "agent-0", "uid": "u"}},
        })
    }

    /// The token of an agent of the tenant `acme`.
    pub fn token(&self, spiffe_id: &str) -> String {
        self.sign(&Self::claims(spiffe_id))
    }

    /// A token that claims this.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_text(&claims.to_string())
    }

    /// A token whose claims are these very bytes.
    pub fn sign_text(&self, claims: &str) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        self.sign_as(header, &RawValue::from_string(claims.to_owned()).unwrap())
    }

    /// A token with this head, but for the id of the key where it has none.
    pub fn sign_as(&self, mut header: Header, claims: &impl Serialize) -> String {
        header.kid.get_or_insert_with(|| self.kid.clone());
        let key = EncodingKey::from_ec_der(&self.key.serialize_der());
        encode(&header, claims, &key).unwrap()
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
