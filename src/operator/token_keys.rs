//! The keys that verify `ServiceAccount` tokens, as the API server publishes them (`ServiceAccount` issuer discovery,
//! KEP-1393): sidecars verify tokens by them without asking anybody.

use std::time::Duration;

use bulkhead_core::tokens::IssuerKeys;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::watch::Watches;

/// How it is called where watches are named.
pub const NAME: &str = "ServiceAccountKeys";

/// Where the API server says who issues its tokens.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Where it has the keys. The discovery's own `jwks_uri` is for clients outside of the cluster.
const KEYS: &str = "/openid/v1/jwks";

/// How often the keys are looked at. Whoever rotates them publishes the new one for longer than that before it signs.
const EVERY: Duration = Duration::from_mins(1);

/// How soon to try again.
const AGAIN: Duration = Duration::from_secs(2);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// The API server doesn't answer, or not with this.
    #[error("{path}: {source}")]
    Request { path: &'static str, source: kube::Error },
    /// The request can't be made.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// It publishes none.
    #[error("{KEYS} has no keys")]
    None,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

/// Keeps the cache's keys up to date, and asks for a reconcile of every tenant when they change. Never ends.
pub async fn follow(watches: Watches) {
    loop {
        match fetch(&watches.client).await {
            Ok(keys) => {
                let issuer = keys.issuer.clone();
                if watches.cache.put_token_keys(keys) {
                    info!(%issuer, "the keys of service account tokens are new");
                    watches.request_all();
                }
                watches.readiness.arrived(NAME);
                sleep(EVERY).await;
            }
            Err(error) => {
                warn!(%error, "the API server's keys of service account tokens can't be had; the last ones stay");
                watches.metrics.watch_failed(NAME);
                sleep(AGAIN).await;
            }
        }
    }
}

async fn fetch(client: &Client) -> Result<IssuerKeys, FetchError> {
    let Discovery { issuer } = get(client, DISCOVERY).await?;
    let Jwks { mut keys } = get(client, KEYS).await?;
    if keys.is_empty() {
        return Err(FetchError::None);
    }
    // Several API servers may have them in several orders.
    keys.sort_by_cached_key(Value::to_string);
    Ok(IssuerKeys { issuer, keys })
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &'static str) -> Result<T, FetchError> {
    let request = http::Request::get(path).body(Vec::new())?;
    client
        .request(request)
        .await
        .map_err(|source| FetchError::Request { path, source })
}
