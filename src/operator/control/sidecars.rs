//! What is in force in each sidecar, by its pod's UID, and what those of one server divide: in memory only. A leader that has
//! just begun knows nothing, and for a moment takes what its predecessor wrote for confirmed, and tells nobody anything.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bulkhead_control::{self as control, Usage};
use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    time::sleep,
};

use super::{
    InForce,
    parts::{Parts, Whole},
};
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
    by_server: HashMap<ServerRef, Server>,
    calls: u64,
    settled: bool,
}

/// A server of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerRef {
    /// The tenant's name.
    pub tenant: String,
    /// The server's.
    pub server: String,
}

/// The replicas of a server, as far as they divide something.
#[derive(Debug, Default)]
struct Server {
    parts: Parts,
    whole: Whole,
    /// Where their sidecars are told, by the pod's UID.
    tell: HashMap<String, watch::Sender<control::Parts>>,
}

impl Server {
    fn tell(&mut self) {
        for (pod, parts) in self.parts.next(&self.whole) {
            if let Some(sidecar) = self.tell.get(&pod) {
                sidecar.send_replace(parts);
            }
        }
    }
}

impl Known {
    /// Changes what is known of a server's replicas; whoever has to is told.
    fn revise(&mut self, server: &ServerRef, revision: impl FnOnce(&mut Server)) {
        let known = self.by_server.entry(server.clone()).or_default();
        revision(known);
        if self.settled {
            known.tell();
        }
        if known.parts.is_empty() {
            self.by_server.remove(server);
        }
    }
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
        self.with(|known| {
            known.settled = true;
            known.by_server.values_mut().for_each(Server::tell);
        });
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
    pub fn attach(self: &Arc<Self>, server: ServerRef, pod: &str) -> Attached {
        let (sender, told) = watch::channel(control::Parts::default());
        let call = self.with(|known| {
            known.calls += 1;
            let call = known.calls;
            known
                .by_pod
                .entry(pod.to_owned())
                .and_modify(|entry| entry.call = call)
                .or_insert(Entry { call, in_force: None });
            known.revise(&server, |server| {
                server.parts.attach(pod, call);
                server.tell.insert(pod.to_owned(), sender);
            });
            call
        });
        Attached {
            sidecars: Arc::clone(self),
            server,
            pod: pod.to_owned(),
            call,
            told,
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
    server: ServerRef,
    pod: String,
    call: u64,
    told: watch::Receiver<control::Parts>,
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
            self.sidecars.request(&self.server.tenant);
        }
    }

    /// The server it is of.
    pub fn server(&self) -> &ServerRef {
        &self.server
    }

    /// The sidecar said this of what it divides with others, with the parts of this number in force. There is so much in all.
    pub fn uses(&self, whole: Whole, number: u64, usage: &BTreeMap<String, Usage>) {
        self.sidecars.with(|known| {
            known.revise(&self.server, |server| {
                if server.parts.report(&self.pod, self.call, number, usage) {
                    server.whole = whole;
                }
            });
        });
    }

    /// Waits for what the sidecar has to be told.
    pub async fn parts(&mut self) -> control::Parts {
        match self.told.changed().await {
            Ok(()) => self.told.borrow_and_update().clone(),
            // Another call has taken this one's place.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let (sidecars, server) = (Arc::clone(&self.sidecars), self.server.clone());
        let (pod, call) = (std::mem::take(&mut self.pod), self.call);
        sidecars.with(|known| known.revise(&server, |server| server.parts.lose(&pod, call)));
        // Outside of a runtime the operator is on its way out.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            sleep(PATIENCE).await;
            let is_lost = sidecars.with(|known| {
                let is_last = known.by_pod.get(&pod).is_some_and(|entry| entry.call == call);
                if is_last {
                    known.by_pod.remove(&pod);
                    known.revise(&server, |server| {
                        server.parts.forget(&pod, call);
                        server.tell.remove(&pod);
                    });
                }
                is_last
            });
            if is_lost {
                sidecars.request(&server.tenant);
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

    fn notes() -> ServerRef {
        ServerRef {
            tenant: "umbra".to_owned(),
            server: "notes".to_owned(),
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
        let first = sidecars.attach(notes(), "pod");
        assert_eq!(revision("pod"), None);
        first.says(says("a"));
        first.says(says("a"));
        assert_eq!(asked_for(&mut requests), 1, "once for the same words");
        assert_eq!(revision("pod").as_deref(), Some("a"));
        assert_eq!(revision("other"), None);

        let second = sidecars.attach(notes(), "pod");
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

    #[tokio::test(start_paused = true)]
    async fn replicas_are_told_their_parts_once_all_had_the_time_to_report() {
        let (sender, _requests) = mpsc::unbounded_channel();
        let sidecars = Sidecars::new(sender);
        let whole = Whole {
            agents: [("billing".to_owned(), [600, 0])].into(),
            replicas: 2,
        };
        let says = |attached: &Attached, number, held, asked| {
            let amounts = |requests_per_minute| {
                Some(control::Amounts {
                    requests_per_minute,
                    concurrent: 0,
                })
            };
            let usage = Usage {
                agent: "billing".to_owned(),
                held: amounts(held),
                asked: amounts(asked),
            };
            attached.uses(whole.clone(), number, &[("billing".to_owned(), usage)].into());
        };
        let part = async |attached: &mut Attached| {
            let parts = tokio::time::timeout(Duration::from_secs(1), attached.parts()).await;
            Some(parts.ok()?.parts[0].amounts?.requests_per_minute)
        };
        let (mut busy, mut idle) = (sidecars.attach(notes(), "a"), sidecars.attach(notes(), "b"));
        says(&busy, 0, 300, 1024);
        says(&idle, 0, 300, 0);
        assert_eq!(part(&mut idle).await, None);
        sidecars.settle().await;
        assert_eq!(part(&mut idle).await, Some(37));
        assert_eq!(part(&mut busy).await, None);
        says(&idle, 1, 37, 0);
        assert_eq!(part(&mut busy).await, Some(563));
        says(&busy, 1, 563, 1024);

        // One that is silent may go back to its equal part, at once and for as long as it is missing.
        drop(idle);
        assert_eq!(part(&mut busy).await, Some(300));
        says(&busy, 2, 300, 1024);
        sleep(2 * PATIENCE).await;
        assert_eq!(part(&mut busy).await, None);
        drop(busy);
        sleep(2 * PATIENCE).await;
        assert!(sidecars.with(|known| known.by_server.is_empty() && known.by_pod.is_empty()));
    }
}
