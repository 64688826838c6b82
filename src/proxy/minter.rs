//! Makes the credential of every upstream request ([`bulkhead_core::credential`]): the keys, their rotation, the signature.
//!
//! Keys live in this process alone. A new one is made every hour; the one before stays published for as long as a
//! token of it can be good, and a client of the keys that meets an unknown `kid` fetches them again, as libraries do.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    error::Unspecified,
    rand,
    signature::{Ed25519KeyPair, KeyPair},
};
use bulkhead_core::credential::{ALGORITHM, Claims, Moment, TYPE, base64url};
use bytes::Bytes;
use http::HeaderValue;
use sha2::{Digest, Sha256};

use tracing::{error, info};

use crate::{hex, shared::Shared};

/// For how long a key signs.
pub const KEY_LIFE: Duration = Duration::from_hours(1);

/// Room for a header of which there are many; a longer one takes more.
const USUAL: usize = 1024;

/// Signs the credentials of one sidecar.
#[derive(Debug)]
pub struct Minter {
    keys: ArcSwap<Keys>,
    /// Unlike that of every other process.
    prefix: String,
    count: AtomicU64,
}

#[derive(Debug)]
struct Keys {
    signs: Arc<Key>,
    before: Option<Arc<Key>>,
}

#[derive(Debug)]
struct Key {
    pair: Ed25519KeyPair,
    /// The protected header, base64url.
    header: String,
    /// As a JWK (RFC 8037).
    public: String,
}

impl Key {
    fn new() -> Result<Self, Unspecified> {
        let pair = Ed25519KeyPair::generate()?;
        let mut x = String::with_capacity(43);
        base64url(pair.public_key().as_ref(), &mut x);
        // RFC 7638: the digest of the required members in their order.
        let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
        let mut kid = String::with_capacity(43);
        base64url(&thumbprint, &mut kid);
        let mut header = String::with_capacity(160);
        base64url(
            format!(r#"{{"alg":"{ALGORITHM}","typ":"{TYPE}","kid":"{kid}"}}"#).as_bytes(),
            &mut header,
        );
        let public = format!(
            r#"{{"kty":"OKP","crv":"Ed25519","alg":"{ALGORITHM}","use":"sig","kid":"{kid}","x":"{x}"}}"#
        );
        Ok(Self { pair, header, public })
    }
}

impl Minter {
    /// A minter with a fresh key.
    pub fn new() -> Result<Self, Unspecified> {
        let mut prefix = [0; 12];
        rand::fill(&mut prefix)?;
        let keys = Keys {
            signs: Arc::new(Key::new()?),
            before: None,
        };
        Ok(Self {
            keys: ArcSwap::from_pointee(keys),
            prefix: hex::encode(&prefix),
            count: AtomicU64::new(0),
        })
    }

    /// `Authorization` of one request; `claims` says what it claims.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)]
    pub fn authorization<'a>(
        &self,
        claims: impl FnOnce(Moment<'a>) -> Claims<'a>,
        id: &'a mut String,
    ) -> HeaderValue {
        let mut value = String::with_capacity(USUAL);
        value.push_str("Bearer ");
        self.sign(&claims(self.moment(id)), &mut value);
        HeaderValue::try_from(value).expect("a token is visible ASCII")
    }

    fn moment<'a>(&self, id: &'a mut String) -> Moment<'a> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        // Writing to a String can't fail.
        let _ = write!(id, "{}{number:x}", self.prefix);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Moment {
            now: now.as_secs(),
            id,
        }
    }

    /// Appends the token of these claims.
    fn sign(&self, claims: &Claims<'_>, out: &mut String) {
        let keys = self.keys.load();
        let begin = out.len();
        claims.signing_input(&keys.signs.header, out);
        let signature = keys
            .signs
            .pair
            .sign(out.as_bytes().get(begin..).unwrap_or_default());
        out.push('.');
        base64url(signature.as_ref(), out);
    }

    /// Signs with a new key from now on.
    pub fn rotate(&self) -> Result<(), Unspecified> {
        let new = Arc::new(Key::new()?);
        self.keys.rcu(|keys| Keys {
            signs: Arc::clone(&new),
            before: Some(Arc::clone(&keys.signs)),
        });
        Ok(())
    }

    /// The keys that verify what was signed, as a JWK set (RFC 7517).
    pub fn jwks(&self) -> Bytes {
        let keys = self.keys.load();
        let all: Vec<_> = [Some(&keys.signs), keys.before.as_ref()]
            .into_iter()
            .flatten()
            .map(|key| key.public.as_str())
            .collect();
        Bytes::from(format!(r#"{{"keys":[{}]}}"#, all.join(",")))
    }
}

/// Rotates the keys for as long as it runs.
pub async fn rotate(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(KEY_LIFE).await;
        match shared.minter.rotate() {
            Ok(()) => info!("the key of credentials was rotated"),
            Err(error) => error!(%error, "the key of credentials can't be rotated, and stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_before_stays_published_for_one_rotation() {
        let minter = Minter::new().unwrap();
        let kids = || -> Vec<String> {
            let set: serde_json::Value = serde_json::from_slice(&minter.jwks()).unwrap();
            let keys = set["keys"].as_array().unwrap();
            keys.iter()
                .map(|key| key["kid"].as_str().unwrap().to_owned())
                .collect()
        };
        let first = kids();
        minter.rotate().unwrap();
        let second = kids();
        assert_eq!((first.len(), second.len(), &second[1]), (1, 2, &first[0]));
        minter.rotate().unwrap();
        assert_eq!(kids()[1], second[0]);
        assert!(!kids().contains(&first[0]));
    }
}
