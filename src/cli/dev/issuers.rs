//! The keys of the issuers of persons' tokens, asked for as the operator does it, but wherever they are: who runs this could
//! ask there as well.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use bulkhead_core::tokens::IssuerKeys;
use bulkhead_operator::issuers::{Guard, IssuerRef, keys};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use super::{log, sidecar::Sidecar};
use crate::paint;

/// How often keys are looked at, as in a cluster.
const EVERY: Duration = Duration::from_mins(5);

/// How soon to ask again when somebody's can't be had.
const AGAIN: Duration = Duration::from_secs(10);

/// Has the sidecar take the tokens of these issuers, and of those that a changed file names. Never ends well.
pub async fn follow(mut wanted: watch::Receiver<Vec<IssuerRef>>, sidecar: &Sidecar) -> Result<()> {
    let mut known: BTreeMap<IssuerRef, Result<Vec<Value>, String>> = BTreeMap::new();
    loop {
        let issuers = wanted.borrow_and_update().clone();
        known.retain(|issuer, _| issuers.contains(issuer));
        for issuer in &issuers {
            let found = keys(&Guard::none(), issuer).await;
            tell(issuer, known.get(issuer), &found);
            // What was had once stays until there is something else.
            if found.is_ok() || !known.get(issuer).is_some_and(Result::is_ok) {
                known.insert(issuer.clone(), found);
            }
        }
        let trusted = known.iter().filter_map(|(issuer, keys)| {
            Some(IssuerKeys {
                issuer: issuer.url.clone(),
                keys: keys.as_ref().ok()?.clone(),
            })
        });
        sidecar.trust(trusted.collect())?;
        let pause = if known.values().all(Result::is_ok) {
            EVERY
        } else {
            AGAIN
        };
        // An error: nobody changes the file any more, and the session is at its end.
        let _ = timeout(pause, wanted.changed()).await;
    }
}

/// Says what is new.
fn tell(issuer: &IssuerRef, before: Option<&Result<Vec<Value>, String>>, now: &Result<Vec<Value>, String>) {
    if before == Some(now) {
        return;
    }
    let url = &issuer.url;
    match now {
        Ok(keys) => log::line(&format!(
            "{} tokens of {url} are taken, by {} keys of it",
            paint::good("issuer"),
            keys.len()
        )),
        Err(error) => log::line(&format!(
            "{} no tokens of {url} are taken: {error}",
            paint::bad("issuer")
        )),
    }
}
