//! The operator's metrics, in Prometheus' text format. No label holds a tenant's name.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::kinds::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    result: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    kind: &'static str,
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReady {
    ready: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// Counters, gauges and histograms of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconciled, Counter>,
    duration: Histogram,
    writes: Family<Written, Counter>,
    drift: Family<OfKind, Counter>,
    watch_errors: Family<OfKind, Counter>,
    sidecar_calls: Family<ByResult, Counter>,
    /// Sidecars that report now.
    pub sidecars: Gauge,
    leader: Gauge,
    tenants: Family<ByReady, Gauge>,
    /// The `Ready` status of each tenant, by UID, of which `tenants` is the count.
    ready: Mutex<HashMap<String, &'static str>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("bulkhead_operator");
        let reconciles = Family::default();
        let duration = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let writes = Family::default();
        let drift = Family::default();
        let watch_errors = Family::default();
        let sidecar_calls = Family::default();
        let sidecars = Gauge::default();
        let leader = Gauge::default();
        let tenants = Family::default();
        registry.register(
            "reconciles",
            "Reconciles, by result and reason",
            reconciles.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of reconciles",
            duration.clone(),
        );
        registry.register(
            "writes",
            "Mutating requests that succeeded, by kind and verb",
            writes.clone(),
        );
        registry.register(
            "drift_repaired",
            "Objects that somebody else had changed, by kind",
            drift.clone(),
        );
        registry.register(
            "watch_errors",
            "Watches that broke and were started again, by kind",
            watch_errors.clone(),
        );
        registry.register(
            "sidecar_calls",
            "Calls of who would report: admitted, pod_unknown (the watches don't know the pod yet), refused, unreviewed (the \
             API server didn't review the token), or turned away: crowded, handshake, calls, no_token, slow, too_many, nonsense",
            sidecar_calls.clone(),
        );
        registry.register(
            "sidecars",
            "Sidecars that report to this replica",
            sidecars.clone(),
        );
        registry.register("leader", "1 while this replica reconciles", leader.clone());
        registry.register(
            "tenants",
            "Tenants, by the status of their Ready condition",
            tenants.clone(),
        );
        Self {
            registry,
            reconciles,
            duration,
            writes,
            drift,
            watch_errors,
            sidecar_calls,
            sidecars,
            leader,
            tenants,
            ready: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A reconcile ended.
    pub fn reconciled(&self, result: &'static str, reason: &'static str, took: Duration) {
        self.reconciles
            .get_or_create(&Reconciled { result, reason })
            .inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A mutating request succeeded.
    pub fn wrote(&self, kind: Kind, verb: &'static str) {
        self.wrote_other(kind.name(), verb);
    }

    /// A mutating request for a kind that isn't a child succeeded.
    pub fn wrote_other(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&Written { kind, verb }).inc();
    }

    /// Somebody else had changed an object of this kind.
    pub fn repaired(&self, kind: Kind) {
        self.drift.get_or_create(&OfKind { kind: kind.name() }).inc();
    }

    /// A watch broke.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&OfKind { kind }).inc();
    }

    /// Somebody called who would report.
    pub fn sidecar_called(&self, result: &'static str) {
        self.sidecar_calls.get_or_create(&ByResult { result }).inc();
    }

    /// Whether this replica reconciles.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A tenant's `Ready` condition has this status.
    pub fn tenant(&self, uid: &str, ready: &'static str) {
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = known.insert(uid.to_owned(), ready) {
            self.tenants.get_or_create(&ByReady { ready: before }).dec();
        }
        self.tenants.get_or_create(&ByReady { ready }).inc();
    }

    /// A tenant is gone.
    pub fn forget_tenant(&self, uid: &str) {
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = known.remove(uid) {
            self.tenants.get_or_create(&ByReady { ready: before }).dec();
        }
    }

    /// All metrics as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_counts_once_under_its_present_status() {
        let metrics = Metrics::default();
        metrics.tenant("a", "False");
        metrics.tenant("a", "True");
        metrics.tenant("b", "True");
        metrics.forget_tenant("b");
        let text = metrics.encode().unwrap();
        assert!(
            text.contains(r#"bulkhead_operator_tenants{ready="True"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"bulkhead_operator_tenants{ready="False"} 0"#),
            "{text}"
        );
    }
}
