//! The keys of the issuers of persons' tokens: found for every tenant that names one, and looked at again, so that sidecars
//! verify tokens without asking anybody.
//!
//! Keys that were had once stay until there are others: an issuer that can't be reached takes nobody's rights, and after a
//! restart those that the tenant's sidecars have are taken up again.

mod fetch;
mod guard;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bulkhead_api::tenant::Issuer;
use bulkhead_core::{pod, tokens::TokenKeys};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt, runtime::reflector::ObjectRef};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use crate::{
    kinds::Kind,
    names::TRUST,
    watch::{TENANTS, Watches},
};

pub use guard::Guard;

/// How it is called where watches are named.
pub const NAME: &str = "IssuerKeys";

/// How often an issuer's keys are looked at. Whoever rotates them publishes the new one for longer than that before it
/// signs.
const EVERY: Duration = Duration::from_mins(5);

/// How soon to try again.
const AGAIN: Duration = Duration::from_secs(30);

/// How often tenants are looked at for issuers that are new.
const LOOK: Duration = Duration::from_secs(1);

/// Issuers that are asked at the same time.
const AT_ONCE: usize = 32;

/// An issuer, as tenants name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssuerRef {
    /// `iss` of its tokens.
    pub url: String,
    /// By whom its server is trusted, in PEM. None: the public authorities.
    pub certificate_authority: Option<String>,
}

/// What is known of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerState {
    /// Its keys, as they were last had.
    pub keys: Option<Vec<Value>>,
    /// Why they couldn't be had now.
    pub problem: Option<String>,
}

impl IssuerRef {
    /// The issuer of a specification.
    pub fn of(issuer: &Issuer) -> Self {
        Self {
            url: issuer.url.clone(),
            certificate_authority: issuer.certificate_authority.clone(),
        }
    }
}

/// The keys of an issuer, asked for now. An error says why there are none.
pub async fn keys(guard: &Guard, issuer: &IssuerRef) -> Result<Vec<Value>, String> {
    fetch::keys(guard, issuer).await.map_err(|error| error.chain())
}

/// Keeps the keys of every tenant's issuers up to date, and asks for a reconcile of the tenants whose issuer has others.
/// Never ends.
pub async fn follow(watches: Watches, guard: Guard) {
    let guard = Arc::new(guard);
    let mut due: HashMap<IssuerRef, Instant> = HashMap::new();
    let mut asked = JoinSet::new();
    watches.readiness.wait_for(TENANTS).await;
    watches.readiness.wait_for(Kind::Namespace.name()).await;
    loop {
        let wanted = wanted(&watches);
        watches.cache.retain_issuers(|issuer| wanted.contains_key(issuer));
        due.retain(|issuer, _| wanted.contains_key(issuer));
        let new = wanted.iter().filter(|(issuer, _)| !due.contains_key(issuer));
        let new: Vec<_> = new
            .map(|(issuer, tenants)| (issuer.clone(), tenants.clone()))
            .collect();
        stream::iter(&new)
            .for_each_concurrent(AT_ONCE, async |(issuer, tenants)| {
                let state = IssuerState {
                    keys: remembered(&watches, &issuer.url, tenants).await,
                    problem: None,
                };
                watches.cache.put_issuer(issuer.clone(), state);
            })
            .await;
        due.extend(new.into_iter().map(|(issuer, _)| (issuer, Instant::now())));
        watches.readiness.arrived(NAME);

        let now = Instant::now();
        for (issuer, due) in &mut due {
            if *due <= now && asked.len() < AT_ONCE {
                // Until it has answered, or had the time for it.
                *due = now + EVERY;
                let (guard, issuer) = (Arc::clone(&guard), issuer.clone());
                let cluster = crate::dereference::cluster_ranges(&watches.cache);
                asked.spawn(async move {
                    let answer = fetch::keys(&guard.with(&cluster), &issuer).await;
                    (issuer, answer)
                });
            }
        }
        tokio::select! {
            Some(Ok((issuer, answer))) = asked.join_next(), if !asked.is_empty() => {
                if answer.is_err() {
                    due.entry(issuer.clone()).and_modify(|due| *due = Instant::now() + AGAIN);
                }
                take_in(&watches, issuer, answer, &wanted);
            }
            () = sleep(LOOK) => {}
        }
    }
}

/// The issuers that tenants name, and which tenants.
fn wanted(watches: &Watches) -> BTreeMap<IssuerRef, Vec<String>> {
    let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for tenant in watches.tenants.state() {
        let Ok(tenant) = &tenant.0 else { continue };
        for issuer in &tenant.spec.issuers {
            wanted
                .entry(IssuerRef::of(issuer))
                .or_default()
                .push(tenant.name_any());
        }
    }
    wanted
}

/// Whether the servers' namespace of a tenant is the one that was made for it: what is in another's says nothing.
fn is_its_own(watches: &Watches, tenant: &str) -> bool {
    let Some(tenant) = watches.tenants.get(&ObjectRef::new(tenant)) else {
        return false;
    };
    let status = tenant.0.as_ref().ok().and_then(|tenant| tenant.status.as_ref());
    let made = status.and_then(|status| {
        let name = tenant.name_any();
        status.namespaces.iter().find(|namespace| namespace.name == name)
    });
    let there = made.and_then(|made| watches.cache.get(Kind::Namespace, &made.name, &made.name));
    made.zip(there).is_some_and(|(made, there)| made.uid == there.uid)
}

fn take_in(
    watches: &Watches,
    issuer: IssuerRef,
    answer: Result<Vec<Value>, fetch::FetchError>,
    wanted: &BTreeMap<IssuerRef, Vec<String>>,
) {
    // Nobody wants it any more.
    let Some(tenants) = wanted.get(&issuer) else {
        return;
    };
    let state = match answer {
        Ok(keys) => IssuerState {
            keys: Some(keys),
            problem: None,
        },
        Err(error) => {
            let problem = error.chain();
            warn!(
                issuer = issuer.url,
                problem, "the keys of an issuer of persons' tokens can't be had"
            );
            watches.metrics.watch_failed(NAME);
            IssuerState {
                keys: watches.cache.issuer(&issuer).and_then(|state| state.keys),
                problem: Some(problem),
            }
        }
    };
    let url = issuer.url.clone();
    if watches.cache.put_issuer(issuer, state) {
        info!(issuer = url, "what is known of an issuer's keys is new");
        for tenant in tenants {
            watches.request(tenant);
        }
    }
}

/// The keys of an issuer that sidecars of these tenants have.
async fn remembered(watches: &Watches, url: &str, tenants: &[String]) -> Option<Vec<Value>> {
    for tenant in tenants.iter().filter(|tenant| is_its_own(watches, tenant)) {
        let maps: Api<ConfigMap> = Api::namespaced(watches.client.clone(), tenant);
        let map = loop {
            match maps.get_opt(TRUST).await {
                Ok(map) => break map,
                // Taken for none, it would be written over.
                Err(error) => {
                    warn!(tenant, %error, "the keys that sidecars have can't be read");
                    watches.metrics.watch_failed(NAME);
                    sleep(LOOK).await;
                }
            }
        };
        let known = map
            .and_then(|map| map.data?.remove(pod::TOKEN_KEYS_FILE))
            .and_then(|text| serde_json::from_str::<TokenKeys>(&text).ok());
        let of_issuer = known.and_then(|known| known.issuers.into_iter().find(|issuer| issuer.issuer == url));
        if let Some(of_issuer) = of_issuer {
            return Some(of_issuer.keys);
        }
    }
    None
}
