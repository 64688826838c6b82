//! What may change while the sidecar runs, swapped whole: policy, certificate, trust.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use bulkhead_core::mcp::{
    Era, Inventory, Pins,
    inventory::{Learned, Listing, Shown},
};
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::{operator::Operator, peers::Peers, policy::LoadedPolicy, tls::Trust, tokens::Keys};

/// Trust roots with the number of their loading, so that a connection knows when to look again.
#[derive(Debug)]
pub struct TrustGeneration {
    /// Grows with each change.
    pub generation: u64,
    /// The roots.
    pub trust: Trust,
}

/// What was in force when a decision began: whoever waited since asks whether it still is.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    live: &'a Live,
    generation: u64,
    inventory: Arc<Inventory>,
}

impl Standing<'_> {
    /// Whether nothing that decides has changed.
    pub fn holds(&self) -> bool {
        self.live.generation() == self.generation && Arc::ptr_eq(&self.inventory, &self.live.inventory.load())
    }

    /// What the server's own lists had taught.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }
}

/// The current versions. Whoever decides takes one snapshot and decides by it alone.
#[derive(Debug, Default)]
pub struct Live {
    policy: ArcSwapOption<LoadedPolicy>,
    tls: ArcSwapOption<ServerConfig>,
    trust: ArcSwapOption<TrustGeneration>,
    peers: ArcSwapOption<Peers>,
    token_keys: ArcSwapOption<Keys>,
    operator: ArcSwapOption<Operator>,
    inventory: ArcSwap<Inventory>,
    changes: watch::Sender<u64>,
}

impl Live {
    /// The policy in force; none before the pod's revision was mounted, and then nothing is allowed.
    pub fn policy(&self) -> Option<Arc<LoadedPolicy>> {
        self.policy.load_full()
    }

    /// The configuration for new handshakes.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }

    /// The roots in force.
    pub fn trust(&self) -> Option<Arc<TrustGeneration>> {
        self.trust.load_full()
    }

    /// What is needed to talk with other replicas.
    pub fn peers(&self) -> Option<Arc<Peers>> {
        self.peers.load_full()
    }

    /// The keys that verify tokens.
    pub fn token_keys(&self) -> Option<Arc<Keys>> {
        self.token_keys.load_full()
    }

    /// Where the operator is. `None`: nobody said.
    pub fn operator(&self) -> Option<Arc<Operator>> {
        self.operator.load_full()
    }

    /// Wakes when policy, trust or keys changed: who holds a stream open asks again whether it may.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// To be asked for before anything that decides is.
    pub fn standing(&self) -> Standing<'_> {
        Standing {
            live: self,
            generation: self.generation(),
            inventory: self.inventory(),
        }
    }

    /// Grows with each of these changes, after it is in force.
    fn generation(&self) -> u64 {
        *self.changes.borrow()
    }

    /// What the server's own lists have taught.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.inventory.load_full()
    }

    /// Adds what a list taught; gives what of it is new.
    pub fn learn<'a>(&self, learned: &'a [Learned]) -> Vec<&'a Learned> {
        let known = self.inventory.load();
        let news: Vec<_> = learned.iter().filter(|entry| !known.knows(entry)).collect();
        if !news.is_empty() {
            self.revise(|known| known.learning(learned));
        }
        news
    }

    /// Holds the server to these definitions, whatever it showed this process first.
    pub fn pin(&self, pins: Pins) {
        let pins = Arc::new(pins);
        if self.revise(|known| known.pinned(&pins)) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Takes whole lists as the sidecar saw them in an era. Who is told of changes looks again when they are others.
    pub fn show(&self, era: Era, lists: &[(Listing, Shown)]) {
        let mut changed = false;
        for (listing, shown) in lists {
            changed |= self.revise(|known| known.showing(*listing, era, shown));
        }
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether the inventory is another one afterwards.
    fn revise(&self, revision: impl Fn(&Inventory) -> Option<Inventory>) -> bool {
        let mut changed = false;
        self.inventory.rcu(|known| {
            let after = revision(known);
            changed = after.is_some();
            after.map_or_else(|| Arc::clone(known), Arc::new)
        });
        changed
    }

    /// Puts a policy in force.
    pub fn set_policy(&self, policy: LoadedPolicy) {
        self.policy.store(Some(Arc::new(policy)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Puts a TLS configuration in force for new handshakes.
    pub fn set_tls(&self, config: ServerConfig) {
        self.tls.store(Some(Arc::new(config)));
    }

    /// Talks with other replicas by this from now on. Connections by the one before end.
    pub fn set_peers(&self, peers: Peers) {
        self.peers.store(Some(Arc::new(peers)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Verifies tokens by these keys from now on, also those that were verified before.
    pub fn set_token_keys(&self, keys: Keys) {
        self.token_keys.store(Some(Arc::new(keys)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Reports to this operator from now on. A call that is under way by the one before ends.
    pub fn set_operator(&self, operator: Operator) {
        self.operator.store(Some(Arc::new(operator)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Puts roots in force, for new handshakes and for the next request of old connections.
    pub fn set_trust(&self, trust: Trust) {
        let generation = self.trust.load().as_ref().map_or(0, |current| current.generation) + 1;
        self.trust
            .store(Some(Arc::new(TrustGeneration { generation, trust })));
        self.changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::mcp::{ProtocolVersion, fingerprint::Fingerprint};

    use super::*;

    type Change<'a> = &'a dyn Fn(&Live);

    #[test]
    fn what_decides_stands_until_it_changes() {
        let live = Live::default();
        let learned = |name: &str| Learned {
            listing: Listing::Tools,
            version: ProtocolVersion::V20250618,
            name: name.to_owned(),
            fingerprint: Fingerprint::of(name),
            facts: Ok(None),
        };
        let changes: [(&str, bool, Change<'_>); 4] = [
            ("a definition", true, &|live| drop(live.learn(&[learned("a")]))),
            ("the same again", false, &|live| drop(live.learn(&[learned("a")]))),
            ("another one", true, &|live| drop(live.learn(&[learned("b")]))),
            ("pins", true, &|live| live.pin(Pins::of_image("another"))),
        ];
        for (what, changes, change) in changes {
            let standing = live.standing();
            assert!(standing.holds(), "{what}");
            change(&live);
            assert_eq!(standing.holds(), !changes, "{what}");
        }
    }
}
