//! What the API server holds of the tenants' children, kept up to date by watches and by the answers to our own writes.
//!
//! A watch lags behind. Were it the only source, a reconcile right after a write would find the old object and write
//! again. So the answer to every write goes into the cache at once, and an older event of the watch doesn't undo it:
//! resource versions of one resource are ordered (KEP-5504). Nor does an answer that comes late bring back what the watch
//! has seen go: an object that only seems to be there would never be made again.
//!
//! The whole object is kept only until it has been compared with what is desired. From then on a digest will do: the
//! same content needn't be compared twice.

mod gone;
mod live;
mod report;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

use bulkhead_core::tokens::IssuerKeys;
use gone::Gone;
pub use live::{Body, Live, reference};
pub use report::{
    CertificateState, ClaimState, DeploymentState, IssuedCertificate, PodState, QuotaState, Report,
    ServiceState, SidecarState, Wall, namespace_of,
};

use crate::{
    issuers::{IssuerRef, IssuerState},
    kinds::Kind,
};

/// Kind and name of an object in its namespace.
pub type Key = (Kind, String);

/// Everything that is watched, by namespace; what is in none, by its [place](Kind::place).
#[derive(Debug, Default)]
pub struct Cache {
    objects: RwLock<Objects>,
    token_keys: RwLock<Option<IssuerKeys>>,
    issuers: RwLock<HashMap<IssuerRef, IssuerState>>,
}

#[derive(Debug, Default)]
struct Objects {
    namespaces: HashMap<String, BTreeMap<Key, Arc<Live>>>,
    gone: Gone,
}

impl Cache {
    /// Takes in an object as the API server last gave it. Answers whether anything that matters to a tenant changed.
    pub fn put(&self, live: Live) -> bool {
        let Objects { namespaces, gone } = &mut *self.write();
        let key = (live.kind, live.name.clone());
        let known = namespaces
            .get(&live.namespace)
            .and_then(|objects| objects.get(&key));
        // The answer to a write that came before the deletion.
        if known.is_none() && gone.is_gone(&live.namespace, &key, live.resource_version) {
            return false;
        }
        let objects = namespaces.entry(live.namespace.clone()).or_default();
        match objects.get(&key) {
            // Another UID is another object, whatever the order of their versions.
            Some(known) if known.uid == live.uid && known.resource_version > live.resource_version => false,
            Some(known) => {
                let changed = !known.same_as(&live);
                let live = live.with_judgement_of(known);
                objects.insert(key, Arc::new(live));
                changed
            }
            None => {
                objects.insert(key, Arc::new(live));
                true
            }
        }
    }

    /// Takes in the keys of `ServiceAccount` tokens. Answers whether they are others than before.
    pub fn put_token_keys(&self, keys: IssuerKeys) -> bool {
        let mut known = self.token_keys.write().unwrap_or_else(PoisonError::into_inner);
        known.replace(keys) != *known
    }

    /// The keys of `ServiceAccount` tokens.
    pub fn token_keys(&self) -> Option<IssuerKeys> {
        self.token_keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes in what is known of an issuer. Answers whether it is something else than before.
    pub fn put_issuer(&self, issuer: IssuerRef, state: IssuerState) -> bool {
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        let before = issuers.insert(issuer, state.clone());
        before != Some(state)
    }

    /// What is known of an issuer.
    pub fn issuer(&self, issuer: &IssuerRef) -> Option<IssuerState> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        issuers.get(issuer).cloned()
    }

    /// Forgets all issuers but these.
    pub fn retain_issuers(&self, wanted: impl Fn(&IssuerRef) -> bool) {
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        issuers.retain(|issuer, _| wanted(issuer));
    }

    /// Forgets an object that is gone since `resource_version`. Answers whether it was known.
    pub fn remove(&self, kind: Kind, namespace: &str, name: &str, resource_version: u64) -> bool {
        let Objects { namespaces, gone } = &mut *self.write();
        let key = (kind, name.to_owned());
        gone.note(namespace, &key, resource_version, Instant::now());
        let Some(objects) = namespaces.get_mut(namespace) else {
            return false;
        };
        // An object that we made since under the same name stays.
        if objects
            .get(&key)
            .is_none_or(|known| known.resource_version > resource_version)
        {
            return false;
        }
        objects.remove(&key);
        if objects.is_empty() {
            namespaces.remove(namespace);
        }
        true
    }

    /// Forgets every object of a kind that a new list didn't have: it is gone since `newest` at the latest, the newest
    /// version in the list, unless it was made after that. Answers the namespaces that lost one.
    pub fn retain(&self, kind: Kind, listed: &HashSet<(String, String)>, newest: u64) -> Vec<String> {
        let Objects { namespaces, gone } = &mut *self.write();
        let (mut lost, now) = (Vec::new(), Instant::now());
        namespaces.retain(|namespace, objects| {
            let before = objects.len();
            objects.retain(|key, _| {
                let stays = key.0 != kind || listed.contains(&(namespace.clone(), key.1.clone()));
                if !stays {
                    gone.note(namespace, key, newest, now);
                }
                stays
            });
            if objects.len() < before {
                lost.push(namespace.clone());
            }
            !objects.is_empty()
        });
        lost
    }

    /// One object.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Live>> {
        let objects = self.read();
        objects
            .namespaces
            .get(namespace)?
            .get(&(kind, name.to_owned()))
            .cloned()
    }

    /// Every object of a namespace, by kind and name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Live>> {
        self.read()
            .namespaces
            .get(namespace)
            .map(|objects| objects.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The objects of one kind in a namespace, by name.
    pub fn of_kind(&self, kind: Kind, namespace: &str) -> Vec<Arc<Live>> {
        let from = (kind, String::new());
        self.read()
            .namespaces
            .get(namespace)
            .map(|objects| {
                objects
                    .range(from..)
                    .take_while(|((of, _), _)| *of == kind)
                    .map(|(_, live)| live.clone())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Notes that this very content was compared with the desired object of this hash and is as it should be.
    pub fn judged_good(&self, live: &Live, hash: &str) {
        let mut objects = self.write();
        let Some(known) = objects
            .namespaces
            .get_mut(&live.namespace)
            .and_then(|objects| objects.get_mut(&(live.kind, live.name.clone())))
        else {
            return;
        };
        if known.uid == live.uid && known.digest == live.digest {
            *known = Arc::new(Live {
                body: Body::Judged {
                    hash: hash.to_owned(),
                },
                ..Live::clone(known)
            });
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        // No code that holds the lock can panic half-way through a change.
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config_map(resource_version: u64, uid: &str, value: &str) -> Live {
        let object = json!({
            "metadata": {
                "name": "crm-policy", "namespace": "acme", "uid": uid, "resourceVersion": resource_version.to_string(),
            },
            "data": {"policy.json": value},
        });
        Live::read(Kind::ConfigMap, serde_json::from_value(object).unwrap()).unwrap()
    }

    fn version(cache: &Cache) -> Option<u64> {
        cache
            .get(Kind::ConfigMap, "acme", "crm-policy")
            .map(|live| live.resource_version)
    }

    #[test]
    fn an_older_event_does_not_undo_the_answer_to_a_write() {
        let cache = Cache::default();
        assert!(cache.put(config_map(12, "a", "new")));
        assert!(!cache.put(config_map(11, "a", "old")));
        assert_eq!(version(&cache), Some(12));
    }

    #[test]
    fn another_uid_is_another_object_in_any_order() {
        let cache = Cache::default();
        cache.put(config_map(12, "a", "x"));
        assert!(cache.put(config_map(11, "b", "x")));
        assert_eq!(version(&cache), Some(11));
    }

    #[test]
    fn an_event_with_the_same_content_changes_nothing_but_the_version() {
        let cache = Cache::default();
        cache.put(config_map(12, "a", "x"));
        assert!(!cache.put(config_map(13, "a", "x")));
        assert_eq!(version(&cache), Some(13));
        assert!(cache.put(config_map(14, "a", "y")));
    }

    #[test]
    fn a_deletion_before_our_last_write_is_ignored_and_one_after_it_is_not() {
        let cache = Cache::default();
        cache.put(config_map(12, "a", "x"));
        assert!(!cache.remove(Kind::ConfigMap, "acme", "crm-policy", 11));
        assert_eq!(version(&cache), Some(12));
        assert!(cache.remove(Kind::ConfigMap, "acme", "crm-policy", 13));
        assert_eq!(version(&cache), None);
    }

    #[test]
    fn an_answer_that_comes_after_the_deletion_brings_nothing_back_and_what_is_made_anew_is_there() {
        let cache = Cache::default();
        cache.put(config_map(12, "a", "x"));
        // The watch sees our write and the deletion after it, and only then we get the answer to our write.
        assert!(cache.remove(Kind::ConfigMap, "acme", "crm-policy", 14));
        assert!(!cache.put(config_map(13, "a", "y")));
        assert_eq!(version(&cache), None);
        assert!(cache.put(config_map(15, "b", "x")));
        assert_eq!(version(&cache), Some(15));
        // What lost the label by which it is watched is there, and found when it is asked for.
        assert!(cache.remove(Kind::ConfigMap, "acme", "crm-policy", 16));
        assert!(cache.put(config_map(16, "b", "x")));
        // Of what wasn't known, too.
        assert!(!cache.remove(Kind::ConfigMap, "other", "crm-policy", 20));
        let late = Live {
            namespace: "other".to_owned(),
            ..config_map(19, "c", "x")
        };
        assert!(!cache.put(late));
        assert!(cache.get(Kind::ConfigMap, "other", "crm-policy").is_none());
    }

    #[test]
    fn a_heartbeat_of_a_node_is_no_news_and_a_new_address_is() {
        let node = |version: u64, address: &str, heartbeat: &str| {
            let object = json!({
                "metadata": {"name": "n1", "uid": "n", "resourceVersion": version.to_string()},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address}],
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}],
                },
            });
            Live::read(Kind::Node, serde_json::from_value(object).unwrap()).unwrap()
        };
        let cache = Cache::default();
        assert!(cache.put(node(1, "192.168.7.2", "2026-01-01T00:00:00Z")));
        assert!(!cache.put(node(2, "192.168.7.2", "2026-01-01T00:00:10Z")));
        assert!(cache.put(node(3, "192.168.7.3", "2026-01-01T00:00:20Z")));
    }

    #[test]
    fn a_list_forgets_what_it_does_not_have() {
        let cache = Cache::default();
        cache.put(config_map(12, "a", "x"));
        let listed = HashSet::from([("acme".to_owned(), "crm-policy".to_owned())]);
        assert!(cache.retain(Kind::ConfigMap, &listed, 20).is_empty());
        assert!(cache.retain(Kind::Service, &HashSet::new(), 20).is_empty());
        assert_eq!(cache.retain(Kind::ConfigMap, &HashSet::new(), 20), ["acme"]);
        assert_eq!(version(&cache), None);
        // The late answer to a write that came before the list, and what was made after it.
        assert!(!cache.put(config_map(19, "a", "x")));
        assert_eq!(version(&cache), None);
        assert!(cache.put(config_map(21, "a", "x")));
        assert_eq!(version(&cache), Some(21));
    }

    #[test]
    fn a_judgement_holds_for_the_same_content_only() {
        let cache = Cache::default();
        let first = config_map(12, "a", "x");
        cache.put(first.clone());
        cache.judged_good(&first, "hash");
        let judged = |cache: &Cache| {
            let live = cache.get(Kind::ConfigMap, "acme", "crm-policy").unwrap();
            matches!(&live.body, Body::Judged { hash } if hash == "hash")
        };
        assert!(judged(&cache));
        cache.put(config_map(13, "a", "x"));
        assert!(judged(&cache));
        cache.put(config_map(14, "a", "y"));
        assert!(!judged(&cache));
        cache.judged_good(&first, "hash");
        assert!(!judged(&cache));
    }
}
