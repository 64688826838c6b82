//! What every reconcile works with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bulkhead_api::McpTenantStatus;
use bulkhead_core::mcp::Pins;
use kube::{Api, Client, api::DynamicObject, runtime::reflector::Store};

use crate::{
    cache::Cache,
    control::{Files, Sidecars},
    events::Events,
    kinds::Kind,
    metrics::Metrics,
    settings::Settings,
    watch::Guarded,
};

/// What every reconcile works with.
pub struct Context {
    /// The client.
    pub client: Client,
    /// What tenants' objects depend on besides the tenant.
    pub settings: Settings,
    /// How often a tenant is looked at when nothing happens.
    pub resync: Duration,
    /// What the API server holds.
    pub cache: Arc<Cache>,
    /// All tenants.
    pub tenants: Store<Guarded>,
    /// Publishes transitions.
    pub events: Events,
    /// By what sidecars trust the operator.
    pub control: Arc<Files>,
    /// What sidecars said.
    pub sidecars: Arc<Sidecars>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What is remembered of each tenant, by UID. Nothing is lost when it is.
    pub memory: Memories,
}

impl Context {
    /// Requests for objects of a kind in a namespace.
    pub fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = kind.api_resource();
        if kind.is_cluster_scoped() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }
}

/// What is remembered of each tenant, by UID.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<String, Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// Failures in a row.
    failures: u32,
    /// The pins of each server, as they were applied last.
    pins: HashMap<String, Pins>,
    /// The status that was written last, and the resource version that came of it: the watch may not have it yet.
    status: Option<(u64, McpTenantStatus)>,
}

impl Memories {
    /// One more failure of a tenant. Answers how many in a row.
    pub fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            memory.failures
        })
    }

    /// The tenant's reconcile succeeded.
    pub fn succeeded(&self, uid: &str) {
        self.with(uid, |memory| memory.failures = 0);
    }

    /// The pins of a server are applied.
    pub fn applies_pins(&self, uid: &str, server: &str, pins: Pins) {
        self.with(uid, |memory| memory.pins.insert(server.to_owned(), pins));
    }

    /// The pins of a server that were applied last.
    pub fn applied_pins(&self, uid: &str, server: &str) -> Option<Pins> {
        self.with(uid, |memory| memory.pins.get(server).cloned())
    }

    /// A status was written.
    pub fn wrote_status(&self, uid: &str, resource_version: u64, status: McpTenantStatus) {
        self.with(uid, |memory| memory.status = Some((resource_version, status)));
    }

    /// The status that was written after this resource version, if any was.
    pub fn status_since(&self, uid: &str, resource_version: u64) -> Option<McpTenantStatus> {
        self.with(uid, |memory| {
            memory
                .status
                .as_ref()
                .filter(|(written, _)| *written > resource_version)
                .map(|(_, status)| status.clone())
        })
    }

    /// The tenant is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn with<T>(&self, uid: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(memories.entry(uid.to_owned()).or_default())
    }
}
