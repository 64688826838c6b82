//! Throw-away tokens: a cluster's issuer whose key lives and ends with this process.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use bulkhead_core::tokens::{IssuerKeys, MAX_LIFETIME, TokenKeys, audience, subject};
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::json;

/// The issuer's name. Nobody resolves it.
const ISSUER: &str = "https://dev.invalid";

/// The id of its only key.
const KEY_ID: &str = "dev";

/// Issues `ServiceAccount` tokens.
pub struct Issuer(EncodingKey);

impl Issuer {
    /// An issuer with a fresh key.
    pub fn new() -> Result<Self> {
        Ok(Self(EncodingKey::from_ec_der(
            &KeyPair::generate()?.serialize_der(),
        )))
    }

    /// The keys as a pod has them mounted, with those of the issuers of persons' tokens.
    pub fn document(&self, issuers: Vec<IssuerKeys>) -> Result<String> {
        let mut jwk = Jwk::from_encoding_key(&self.0, Algorithm::ES256)?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        let keys = IssuerKeys {
            issuer: ISSUER.to_owned(),
            keys: vec![serde_json::to_value(jwk)?],
        };
        Ok(TokenKeys::new(keys, issuers).to_json())
    }

    fn sign(&self, tenant: &str, subject: &str, now: Duration) -> Result<HeaderValue> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": [audience(tenant)],
            "iat": now.as_secs(), "exp": now.as_secs() + MAX_LIFETIME,
        });
        let token = encode(&header, &claims, &self.0)?;
        Ok(HeaderValue::try_from(format!("Bearer {token}"))?)
    }
}

/// The token of one agent, made anew in time, as the kubelet does it.
pub struct Renewed {
    issuer: Arc<Issuer>,
    tenant: String,
    subject: String,
    current: Mutex<Option<(Duration, HeaderValue)>>,
}

impl Renewed {
    /// Of an agent of a tenant.
    pub fn new(issuer: Arc<Issuer>, tenant: &str, spiffe_id: &str) -> Result<Self> {
        Ok(Self {
            issuer,
            tenant: tenant.to_owned(),
            subject: subject(spiffe_id).context("the agent has no service account")?,
            current: Mutex::default(),
        })
    }

    /// `Authorization` of a request now.
    pub fn authorization(&self) -> Result<HeaderValue> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, value)) = current.as_ref()
            && now.saturating_sub(*made).as_secs() < MAX_LIFETIME / 2
        {
            return Ok(value.clone());
        }
        let value = self.issuer.sign(&self.tenant, &self.subject, now)?;
        *current = Some((now, value.clone()));
        Ok(value)
    }
}
