//! What is in force in each sidecar, by its pod's UID: in memory only. A leader that has just begun knows nothing, and for
//! a moment takes what its predecessor wrote for confirmed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::runtime::reflector::ObjectRef;
use tokio::{sync::mpsc::UnboundedSender, time::sleep};

use super::InForce;
use crate::watch::Guarded;

/// For how long a sidecar that is silent is believed, and for how long a new leader waits for all to report.
const PATIENCE: Duration = Duration::from_secs(30);

/// What sidecars said.
#[derive(Debug)]
pub struct Sidecars {
    requests: UnboundedSender<ObjectRef<Guarded>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_pod: HashMap<String, Entry>,
    calls: u64,
    settled: bool,
}

#[derive(Debug)]
struct Entry {
    /// The number of the call that is the sidecar's last.
    call: u64,
    in_force: Option<Arc<InForce>>,
}

impl Sidecars {
    /// Nothing said yet. Reconciles are asked for here.
    pub fn new(requests: UnboundedSender<ObjectRef<Guarded>>) -> Arc<Self> {
        Arc::new(Self {
            requests,
            known: Mutex::default(),
        })
    }

    /// Waits as long as sidecars get to report to a new leader.
    pub async fn settle(&self) {
        sleep(PATIENCE).await;
        self.with(|known| known.settled = true);
    }

    /// Whether there may be sidecars that haven't yet had the time to report to this leader.
    pub fn is_settling(&self) -> bool {
        self.with(|known| !known.settled)
    }

    /// What the sidecar of this pod said.
    pub fn in_force(&self, pod: &str) -> Option<Arc<InForce>> {
        self.with(|known| known.by_pod.get(pod)?.in_force.clone())
    }

    /// A call of a pod's sidecar has begun. It takes the place of the one before.
    pub fn attach(self: &Arc<Self>, tenant: &str, pod: &str) -> Attached {
        let call = self.with(|known| {
            known.calls += 1;
            let call = known.calls;
            known
                .by_pod
                .entry(pod.to_owned())
                .and_modify(|entry| entry.call = call)
                .or_insert(Entry { call, in_force: None });
            call
        });
        Attached {
            sidecars: Arc::clone(self),
            tenant: tenant.to_owned(),
            pod: pod.to_owned(),
            call,
        }
    }

    fn request(&self, tenant: &str) {
        // Without a receiver the operator is on its way out.
        let _ = self.requests.send(ObjectRef::new(tenant));
    }

    fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call of a sidecar, from its beginning to its end.
#[derive(Debug)]
pub struct Attached {
    sidecars: Arc<Sidecars>,
    tenant: String,
    pod: String,
    call: u64,
}

impl Attached {
    /// The sidecar said this.
    pub fn says(&self, in_force: InForce) {
        let is_news = self.sidecars.with(|known| {
            let entry = known.by_pod.get_mut(&self.pod);
            let Some(entry) = entry.filter(|entry| entry.call == self.call) else {
                return false;
            };
            if entry.in_force.as_deref() == Some(&in_force) {
                return false;
            }
            entry.in_force = Some(Arc::new(in_force));
            true
        });
        if is_news {
            self.sidecars.request(&self.tenant);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let Self {
            sidecars,
            tenant,
            pod,
            call,
        } = self;
        let (sidecars, tenant, pod, call) = (Arc::clone(sidecars), tenant.clone(), pod.clone(), *call);
        // Outside of a runtime the operator is on its way out.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            sleep(PATIENCE).await;
            let is_lost = sidecars.with(|known| {
                let is_last = known.by_pod.get(&pod).is_some_and(|entry| entry.call == call);
                is_last && known.by_pod.remove(&pod).is_some()
            });
            if is_lost {
                sidecars.request(&tenant);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{self, UnboundedReceiver};

    use super::*;

    fn says(revision: &str) -> InForce {
        InForce {
            policy_revision: revision.to_owned(),
            ..InForce::default()
        }
    }

    fn asked_for(requests: &mut UnboundedReceiver<ObjectRef<Guarded>>) -> usize {
        std::iter::from_fn(|| requests.try_recv().ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sidecar_is_believed_for_a_while_and_one_that_comes_back_is_not_lost() {
        let (sender, mut requests) = mpsc::unbounded_channel();
        let sidecars = Sidecars::new(sender);
        let revision = |pod: &str| Some(sidecars.in_force(pod)?.policy_revision.clone());
        let first = sidecars.attach("umbra", "pod");
        assert_eq!(revision("pod"), None);
        first.says(says("a"));
        first.says(says("a"));
        assert_eq!(asked_for(&mut requests), 1, "once for the same words");
        assert_eq!(revision("pod").as_deref(), Some("a"));
        assert_eq!(revision("other"), None);

        let second = sidecars.attach("umbra", "pod");
        first.says(says("stale"));
        drop(first);
        sleep(2 * PATIENCE).await;
        assert_eq!(revision("pod").as_deref(), Some("a"), "the second call goes on");
        second.says(says("b"));
        assert_eq!(revision("pod").as_deref(), Some("b"));
        assert_eq!(asked_for(&mut requests), 1);

        drop(second);
        sleep(PATIENCE / 2).await;
        assert_eq!(revision("pod").as_deref(), Some("b"));
        sleep(PATIENCE).await;
        assert_eq!(revision("pod"), None);
        assert_eq!(asked_for(&mut requests), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_waits_for_all_to_report() {
        let (sender, _requests) = mpsc::unbounded_channel();
        let sidecars = Sidecars::new(sender);
        assert!(sidecars.is_settling());
        sidecars.settle().await;
        assert!(!sidecars.is_settling());
    }
}
