//! Which replica reconciles: the holder of a Lease (`coordination.k8s.io/v1`).
//!
//! Clocks of nodes differ, so nobody trusts the times in the Lease. A holder is given up when the Lease hasn't changed
//! for its duration as seen by the observer's own clock, and a holder stops well before that by its own. Two holders at
//! once would be harmless, since all they do is idempotent, but they would fight where their versions differ.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use crate::apply::FIELD_MANAGER;

/// Name of the Lease in the operator's namespace.
pub const NAME: &str = "bulkhead-operator";

/// The claim of one replica on the Lease.
#[derive(Debug)]
pub struct Lease {
    api: Api<Object>,
    identity: String,
    duration: Duration,
}

/// The Lease isn't ours any more.
#[derive(Debug, thiserror::Error)]
#[error("lost the lease {NAME}: {0}")]
pub struct Lost(String);

impl Lease {
    /// A claim under this identity, which no other replica has.
    pub fn new(client: Client, namespace: &str, identity: String, duration: Duration) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            identity,
            duration,
        }
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(&self) {
        // The state of the Lease as last seen to change, and when.
        let mut seen: Option<(Option<String>, Instant)> = None;
        let mut told = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(None) => {
                    info!(identity = %self.identity, "acquired the lease");
                    return;
                }
                Ok(Some(holder)) => {
                    if told.as_ref() != Some(&holder) {
                        info!(%holder, "standing by");
                        told = Some(holder);
                    }
                }
                Err(error) => warn!(%error, "cannot reach the lease"),
            }
            sleep(self.duration / 5).await;
        }
    }

    /// One attempt. Answers the holder when it is another.
    async fn attempt(
        &self,
        seen: &mut Option<(Option<String>, Instant)>,
    ) -> Result<Option<String>, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = self.object(None);
            return match self.api.create(&parameters(), &lease).await {
                Ok(_) => Ok(None),
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    Ok(Some("another replica".into()))
                }
                Err(error) => Err(error),
            };
        };
        let holder = holder(&lease).unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        match seen {
            Some((known, since)) if *known == version => {
                let term = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
                let term = term
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .map_or(self.duration, Duration::from_secs);
                if since.elapsed() < term && !holder.is_empty() && holder != self.identity {
                    return Ok(Some(holder));
                }
            }
            _ if holder.is_empty() || holder == self.identity => {}
            _ => {
                *seen = Some((version, Instant::now()));
                return Ok(Some(holder));
            }
        }
        // The resource version makes this the only taker.
        match self
            .api
            .replace(NAME, &parameters(), &self.object(Some(&lease)))
            .await
        {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Some("another replica".into())),
            Err(error) => Err(error),
        }
    }

    /// Renews the Lease until it is lost, which is the only way that this ends.
    pub async fn keep(&self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            sleep(self.duration / 5).await;
            // Before another may take it, whatever the API server is doing.
            let deadline = renewed + self.duration * 2 / 3;
            let started = Instant::now();
            match timeout_at(deadline, self.renew()).await {
                Ok(Ok(())) => renewed = started,
                Ok(Err(Renewal::Taken(holder))) => return Lost(format!("{holder} holds it")),
                Ok(Err(Renewal::Failed(error))) if Instant::now() < deadline => {
                    warn!(%error, "cannot renew the lease");
                }
                Ok(Err(Renewal::Failed(error))) => return Lost(format!("it could not be renewed: {error}")),
                Err(_) => return Lost("the API server did not answer in time".into()),
            }
        }
    }

    async fn renew(&self) -> Result<(), Renewal> {
        let lease = self.api.get(NAME).await.map_err(Renewal::Failed)?;
        match holder(&lease) {
            Some(holder) if holder == self.identity => {}
            other => return Err(Renewal::Taken(other.unwrap_or_else(|| "nobody".into()))),
        }
        self.api
            .replace(NAME, &parameters(), &self.object(Some(&lease)))
            .await
            .map_err(Renewal::Failed)?;
        debug!("renewed the lease");
        Ok(())
    }

    /// Gives the Lease back, so that another replica need not wait for its end.
    pub async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            return Ok(());
        };
        if holder(&lease).as_deref() != Some(&self.identity) {
            return Ok(());
        }
        lease.metadata.managed_fields = None;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        self.api.replace(NAME, &parameters(), &lease).await?;
        info!("released the lease");
        Ok(())
    }

    /// The Lease as we hold it from now on.
    fn object(&self, known: Option<&Object>) -> Object {
        let now = MicroTime(Timestamp::now());
        let spec = known.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = spec.holder_identity.as_ref() == Some(&self.identity);
        Object {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                resource_version: known.and_then(|lease| lease.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                acquire_time: if ours {
                    spec.acquire_time
                } else {
                    Some(now.clone())
                },
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs().max(1)).ok(),
                lease_transitions: Some(
                    spec.lease_transitions.unwrap_or_default() + i32::from(!ours && known.is_some()),
                ),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

#[derive(Debug)]
enum Renewal {
    Taken(String),
    Failed(kube::Error),
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

fn holder(lease: &Object) -> Option<String> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .clone()
        .filter(|holder| !holder.is_empty())
}
