//! Follows the API server: keeps the cache up to date, and asks for a reconcile of each tenant that a change concerns.
//!
//! One watch per kind over the whole cluster, restricted by label to what Bulkhead made. An object that loses its label
//! leaves such a watch like a deleted one, and so is repaired. Kinds that open something by merely being there are
//! watched without the label: a stranger's must be seen. So are kinds that tell of the cluster itself.
//!
//! Secrets are never watched nor read.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use bulkhead_api::{
    McpTenant,
    tenant::{EgressPeer, NamespaceStatus},
};
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::DynamicObject,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::{mpsc::UnboundedSender, watch};
use tracing::{debug, warn};

use crate::{
    cache::{Cache, Live, Report},
    issuers::{self, Guard},
    kinds::{API_SERVER, Kind, Watched, tenants_of_namespace},
    metrics::Metrics,
    names, token_keys,
};

/// Label of an `EndpointSlice`: the Service whose endpoints it has.
const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How the watch of tenants is called.
pub const TENANTS: &str = "McpTenant";

/// A tenant as the watch gives it: one that can't be read must not stop the others' watch.
pub type Guarded = DeserializeGuard<McpTenant>;

/// Which watches have had their first list.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<watch::Sender<BTreeSet<&'static str>>>);

impl Readiness {
    fn expect(&self, name: &'static str) {
        self.0.send_modify(|waiting| {
            waiting.insert(name);
        });
    }

    /// It came.
    pub fn arrived(&self, name: &'static str) {
        self.0.send_if_modified(|waiting| waiting.remove(name));
    }

    /// The kinds that were not listed yet.
    pub fn waiting(&self) -> Vec<&'static str> {
        self.0.borrow().iter().copied().collect()
    }

    /// Waits for the first list of this kind.
    pub async fn wait_for(&self, name: &'static str) {
        // The sender lives as long as this does.
        let _ = self
            .0
            .subscribe()
            .wait_for(|waiting| !waiting.contains(name))
            .await;
    }

    /// Waits for the first list of every kind.
    pub async fn wait(&self) {
        // The sender lives as long as this does.
        let _ = self.0.subscribe().wait_for(BTreeSet::is_empty).await;
    }
}

/// What every watch works with.
#[derive(Clone)]
pub struct Watches {
    /// The client.
    pub client: Client,
    /// Namespace of the operator, where alone a claim is one.
    pub namespace: String,
    /// What is kept up to date.
    pub cache: Arc<Cache>,
    /// The tenants, which are kept up to date as well.
    pub tenants: Store<Guarded>,
    /// Where reconciles are asked for.
    pub requests: UnboundedSender<ObjectRef<Guarded>>,
    /// Which watches have had their first list.
    pub readiness: Readiness,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl Watches {
    /// Starts all watches as tasks of this set. They never end by themselves.
    pub fn start(self, writer: Writer<Guarded>, guard: Guard, tasks: &mut tokio::task::JoinSet<()>) {
        self.readiness.expect(TENANTS);
        self.readiness.expect(token_keys::NAME);
        self.readiness.expect(issuers::NAME);
        for kind in Kind::ALL {
            self.readiness.expect(kind.name());
        }
        tasks.spawn(token_keys::follow(self.clone()));
        tasks.spawn(issuers::follow(self.clone(), guard));
        tasks.spawn(self.clone().follow_tenants(TENANTS, writer));
        for kind in Kind::ALL {
            tasks.spawn(self.clone().follow(kind));
        }
    }

    async fn follow(self, kind: Kind) {
        let everywhere = || Api::all_with(self.client.clone(), &kind.api_resource());
        let labelled = |key: &str, value: &str| watcher::Config::default().labels(&format!("{key}={value}"));
        let (api, config): (Api<DynamicObject>, _) = match kind.watched() {
            Watched::Whole => (everywhere(), watcher::Config::default()),
            Watched::Ours => (everywhere(), labelled(names::LABEL_MANAGED_BY, names::MANAGED_BY)),
            Watched::OfApiServer => {
                let (namespace, service) = API_SERVER;
                let api = Api::namespaced_with(self.client.clone(), namespace, &kind.api_resource());
                (api, labelled(LABEL_SERVICE_NAME, service))
            }
        };
        let mut events = self.watched(kind.name(), watcher(api, config));
        let (mut listed, mut newest) = (HashSet::new(), 0);
        while let Some(event) = events.next().await {
            match event {
                Event::Init => (listed, newest) = (HashSet::new(), 0),
                Event::InitApply(object) => {
                    let Some(live) = Live::read(kind, object) else {
                        continue;
                    };
                    listed.insert((live.namespace.clone(), live.name.clone()));
                    newest = newest.max(live.resource_version);
                    self.take_in(live);
                }
                Event::InitDone => {
                    for namespace in self.cache.retain(kind, &listed, newest) {
                        self.request_for(kind, &namespace, None, false);
                    }
                    listed = HashSet::new();
                    self.readiness.arrived(kind.name());
                }
                Event::Apply(object) => {
                    if let Some(live) = Live::read(kind, object) {
                        self.take_in(live);
                    }
                }
                Event::Delete(object) => {
                    let Some(live) = Live::read(kind, object) else {
                        continue;
                    };
                    if self
                        .cache
                        .remove(kind, &live.namespace, &live.name, live.resource_version)
                    {
                        self.request_for(kind, &live.namespace, Some(&live.report), live.applied);
                    }
                }
            }
        }
    }

    fn take_in(&self, live: Live) {
        let (kind, namespace, report, ours) = (
            live.kind,
            live.namespace.clone(),
            live.report.clone(),
            live.applied,
        );
        if self.cache.put(live) {
            self.request_for(kind, &namespace, Some(&report), ours);
        }
    }

    /// Asks for a reconcile of the tenants that an object in this namespace concerns.
    fn request_for(&self, kind: Kind, namespace: &str, report: Option<&Report>, ours: bool) {
        for tenant in tenants_of_namespace(namespace) {
            self.request(tenant);
        }
        match (kind, report) {
            // Anywhere else it is somebody's ConfigMap, whose tenant has no say in when another's is looked at.
            (Kind::ConfigMap, Some(Report::Claim(claim))) if namespace == self.namespace => {
                self.request(&claim.tenant);
                // A claim that came free is what a refused tenant waits for.
                self.request_where(|tenant| !is_accepted(tenant));
            }
            // Where sidecars report.
            (Kind::Service, _) if namespace == self.namespace => self.request_all(),
            // What we made ourselves is nobody's peer.
            (Kind::Service, _) if !ours => self.request_where(|tenant| refers_to(tenant, namespace)),
            (Kind::RuntimeClass, _) => self.request_where(|tenant| tenant.spec.isolation.sandbox.is_some()),
            // What a refused tenant waits for; and whom the cluster's own addresses came to meet. A new node is of no
            // interest to anybody else.
            (kind, report) if kind.tells_addresses() => {
                self.request_where(|tenant| !is_accepted(tenant) || may_meet(tenant, report));
            }
            // What a refused tenant waits for; and what is, or is no longer, forbidden as a peer.
            (Kind::Namespace, _) => {
                self.request_where(|tenant| !is_accepted(tenant) || refers_to(tenant, namespace));
            }
            _ => {}
        }
    }

    /// Asks for a reconcile of every tenant.
    pub fn request_all(&self) {
        self.request_where(|_| true);
    }

    fn request_where(&self, concerned: impl Fn(&McpTenant) -> bool) {
        for tenant in self.tenants.state() {
            if let Ok(tenant) = &tenant.0
                && concerned(tenant)
            {
                self.request(&tenant.name_any());
            }
        }
    }

    /// Asks for a reconcile of one tenant, if there is one of this name.
    pub fn request(&self, tenant: &str) {
        // Most namespaces are nobody's.
        let tenant = ObjectRef::new(tenant);
        if self.tenants.get(&tenant).is_some() {
            // Without a receiver the operator is on its way out.
            let _ = self.requests.send(tenant);
        }
    }

    async fn follow_tenants(self, name: &'static str, mut writer: Writer<Guarded>) {
        let mut events = self.watched(
            name,
            watcher(
                Api::<Guarded>::all(self.client.clone()),
                watcher::Config::default(),
            ),
        );
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            let touched = match &event {
                Event::Apply(tenant) | Event::Delete(tenant) | Event::InitApply(tenant) => {
                    Some(ObjectRef::from_obj(tenant))
                }
                Event::Init | Event::InitDone => None,
            };
            let gone = matches!(event, Event::Delete(_));
            if let Event::Delete(tenant) = &event
                && let Some(uid) = &tenant.meta().uid
            {
                // One that was never built has no teardown that would say so.
                self.metrics.forget_tenant(uid);
            }
            let initial = matches!(event, Event::InitApply(_));
            let done = matches!(event, Event::InitDone);
            let before = touched.as_ref().and_then(|tenant| self.tenants.get(tenant));
            writer.apply_watcher_event(&event);
            if let Some(tenant) = touched {
                if initial {
                    listed.push(tenant);
                    continue;
                }
                let after = self.tenants.get(&tenant);
                if needs_reconcile(before.as_deref(), after.as_deref()) {
                    let _ = self.requests.send(tenant.clone());
                }
                // Its namespaces are, or are no longer, forbidden as peers. The event of a Namespace may not tell:
                // what the operator wrote itself is often in the cache before its event comes, and so is no news.
                if gone || made_namespaces(before.as_deref()) != made_namespaces(after.as_deref()) {
                    self.request_where(|other| !is_accepted(other) || refers_to_tenant(other, &tenant.name));
                }
            }
            if done {
                for tenant in listed.drain(..) {
                    let _ = self.requests.send(tenant);
                }
                self.readiness.arrived(name);
            }
        }
    }

    /// A stream of events that logs, counts and survives errors.
    fn watched<K: Send + 'static>(
        &self,
        name: &'static str,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    ) -> BoxStream<'static, Event<K>> {
        let metrics = self.metrics.clone();
        events
            .default_backoff()
            .inspect_err(move |error| {
                metrics.watch_failed(name);
                // The end of a watch is ordinary; the API server closes each after some minutes.
                if matches!(error, watcher::Error::WatchFailed(_)) {
                    debug!(kind = name, %error, "a watch ended");
                } else {
                    warn!(kind = name, %error, "cannot watch");
                }
            })
            .filter_map(async |event| event.ok())
            .boxed()
    }
}

/// Whether a change of a tenant asks for a reconcile. A change of its status alone, which is our own, doesn't.
fn needs_reconcile(before: Option<&Guarded>, after: Option<&Guarded>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return after.is_some();
    };
    let (then, now) = (before.meta(), after.meta());
    then.uid != now.uid
        || then.generation != now.generation
        || then.finalizers != now.finalizers
        || then.deletion_timestamp != now.deletion_timestamp
}

/// The namespaces that were made for a tenant.
fn made_namespaces(tenant: Option<&Guarded>) -> &[NamespaceStatus] {
    tenant
        .and_then(|tenant| tenant.0.as_ref().ok()?.status.as_ref())
        .map_or(&[], |status| &status.namespaces)
}

/// Whether a tenant names a range that meets these addresses of the cluster's own. Not told which: any range may.
fn may_meet(tenant: &McpTenant, report: Option<&Report>) -> bool {
    let own = match report {
        Some(Report::Addresses(own)) => Some(own),
        _ => None,
    };
    peer_ranges(tenant).any(|range| match (own, range.parse()) {
        (Some(own), Ok(range)) => !own.met_by(&range).is_empty(),
        _ => true,
    })
}

fn is_accepted(tenant: &McpTenant) -> bool {
    use bulkhead_api::conditions::types;
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|condition| condition.type_ == types::ACCEPTED && condition.status == "True")
}

fn refers_to_tenant(tenant: &McpTenant, other: &str) -> bool {
    refers_to(tenant, other) || refers_to(tenant, &format!("{other}-agents"))
}

/// Whether a tenant's specification names pods of this namespace.
pub fn refers_to(tenant: &McpTenant, namespace: &str) -> bool {
    peer_namespaces(tenant).any(|peer| peer == namespace)
}

/// The namespaces that a tenant's specification names.
pub fn peer_namespaces(tenant: &McpTenant) -> impl Iterator<Item = &str> {
    let clients = tenant.spec.servers.iter().flat_map(|server| &server.clients);
    egress_peers(tenant)
        .filter_map(|to| to.namespace.as_deref())
        .chain(clients.map(|client| client.namespace.as_str()))
}

/// The ranges of addresses that a tenant's specification names.
pub fn peer_ranges(tenant: &McpTenant) -> impl Iterator<Item = &str> {
    egress_peers(tenant).filter_map(|to| to.cidr.as_deref())
}

fn egress_peers(tenant: &McpTenant) -> impl Iterator<Item = &EgressPeer> {
    let spec = &tenant.spec;
    let servers = spec.servers.iter().flat_map(|server| &server.egress);
    let agents = spec.agents.iter().flat_map(|agent| &agent.egress);
    servers.chain(agents).map(|rule| &rule.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build::fixture, ranges::ClusterRanges};

    #[test]
    fn a_new_node_is_of_interest_to_those_whose_ranges_it_meets() {
        // Of the fixture: 203.0.113.0/24 and 2001:db8::/32.
        let tenant = fixture::typed(fixture::tenant());
        let at = |address: &str| {
            Report::Addresses(Box::new(ClusterRanges {
                nodes: [address.parse().unwrap()].into(),
                ..ClusterRanges::default()
            }))
        };
        assert!(may_meet(&tenant, Some(&at("203.0.113.9/32"))));
        assert!(may_meet(&tenant, Some(&at("2001:db8::9/128"))));
        assert!(!may_meet(&tenant, Some(&at("192.168.7.2/32"))));
        // What it was that went isn't known.
        assert!(may_meet(&tenant, None));
        let mut without = fixture::tenant();
        without["spec"]["agents"][0]["egress"] = serde_json::json!([]);
        without["spec"]["servers"][0]["egress"] = serde_json::json!([]);
        assert!(!may_meet(&fixture::typed(without), None));
    }
}
