//! What the sidecar counts. Label values are constants of this code: nothing that a client or a
//! server says becomes one.

use std::{fmt, sync::atomic::AtomicU64, time::SystemTime};

use bulkhead_core::policy::Records;
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

/// Labels of `bulkhead_decisions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabels {
    /// `permit` or `refuse`.
    pub effect: &'static str,
    /// The stable reason code.
    pub reason: &'static str,
}

/// The one label of the smaller families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabel {
    /// A method of the table, or `other`.
    pub method: &'static str,
}

/// The one label of the smaller families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// How it went.
    pub result: &'static str,
}

/// Labels of `bulkhead_reloads_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `policy`, `certificate`, `trust`, `peers` or `handles`.
    pub file: &'static str,
    /// `loaded`, `refused` or `missing`.
    pub result: &'static str,
}

/// The one label of `bulkhead_dropped_messages_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DroppedLabel {
    /// What the server sent that was not forwarded.
    pub kind: &'static str,
}

/// The one label of `bulkhead_reported_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason's code.
    pub reason: &'static str,
}

/// All metrics of one sidecar.
pub struct Metrics {
    registry: Registry,
    /// Decisions by effect and reason.
    pub decisions: Family<DecisionLabels, Counter>,
    /// Parsed requests by method.
    pub requests: Family<MethodLabel, Counter>,
    /// Calls under way.
    pub calls: Gauge,
    /// Open client connections.
    pub connections: Gauge,
    /// Handshakes by result.
    pub handshakes: Family<ResultLabel, Counter>,
    /// Reloads of mounted files.
    pub reloads: Family<ReloadLabels, Counter>,
    /// Messages of the server that were not forwarded.
    pub dropped: Family<DroppedLabel, Counter>,
    /// What rules that only report would have refused or taken out.
    pub reported: Family<ReasonLabel, Counter>,
    /// Whether reports reach the operator: 1 or 0.
    pub operator_attached: Gauge,
    /// Time from the forwarding of a request to the headers of its answer.
    pub upstream_seconds: Histogram,
    /// Dials of the canary that succeeded.
    pub canary_reachable: Counter,
    /// Records that could not be written.
    pub audit_failures: Counter,
    records: Family<ResultLabel, Counter>,
    upstream_failures: Family<ResultLabel, Counter>,
    relayed: Family<ResultLabel, Counter>,
    certificate_expiry: Gauge<f64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics, all zero.
    #[allow(clippy::too_many_lines, reason = "a registration for each")]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("bulkhead"),
            decisions: Family::default(),
            requests: Family::default(),
            calls: Gauge::default(),
            connections: Gauge::default(),
            handshakes: Family::default(),
            reloads: Family::default(),
            dropped: Family::default(),
            reported: Family::default(),
            operator_attached: Gauge::default(),
            // 0.2 ms to 13 s.
            upstream_seconds: Histogram::new(exponential_buckets(0.0002, 2.0, 17)),
            canary_reachable: Counter::default(),
            audit_failures: Counter::default(),
            records: Family::default(),
            upstream_failures: Family::default(),
            relayed: Family::default(),
            certificate_expiry: Gauge::default(),
        };
        let r = &mut metrics.registry;
        r.register(
            "decisions",
            "Decisions by effect and reason",
            metrics.decisions.clone(),
        );
        r.register(
            "requests",
            "Parsed MCP messages of clients by method",
            metrics.requests.clone(),
        );
        r.register("calls_in_flight", "Calls under way", metrics.calls.clone());
        r.register(
            "connections",
            "Open client connections",
            metrics.connections.clone(),
        );
        r.register(
            "handshakes",
            "TLS handshakes by result",
            metrics.handshakes.clone(),
        );
        r.register(
            "reloads",
            "Reloads of mounted files by result",
            metrics.reloads.clone(),
        );
        r.register(
            "dropped_messages",
            "Messages of the MCP server that were not forwarded",
            metrics.dropped.clone(),
        );
        r.register(
            "reported",
            "Calls and answers that passed although a rule that only reports would have refused them or taken records out",
            metrics.reported.clone(),
        );
        r.register(
            "upstream_seconds",
            "Time until the MCP server answers",
            metrics.upstream_seconds.clone(),
        );
        r.register(
            "canary_reachable",
            "Dials of the canary that succeeded and must not",
            metrics.canary_reachable.clone(),
        );
        r.register(
            "audit_failures",
            "Audit records that could not be written",
            metrics.audit_failures.clone(),
        );
        r.register(
            "owned_records",
            "Records of results with an ownership filter: kept, or removed because they are not the agent's",
            metrics.records.clone(),
        );
        r.register(
            "upstream_failures",
            "Calls without an answer of the MCP server",
            metrics.upstream_failures.clone(),
        );
        r.register(
            "relayed",
            "Requests handed on to the replica that they belong to: ok, gone (no such replica any more), or broken",
            metrics.relayed.clone(),
        );
        r.register(
            "operator_attached",
            "Whether the operator is told what is in force in this sidecar: 1 or 0",
            metrics.operator_attached.clone(),
        );
        r.register(
            "certificate_expiry_timestamp_seconds",
            "When the sidecar's own certificate expires",
            metrics.certificate_expiry.clone(),
        );
        metrics
    }

    /// Counts one decision.
    pub fn decided(&self, effect: &'static str, reason: &'static str) {
        self.decisions
            .get_or_create(&DecisionLabels { effect, reason })
            .inc();
    }

    /// Counts one handshake.
    pub fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts one look at changed files.
    pub fn reloaded(&self, file: &'static str, result: &'static str) {
        self.reloads.get_or_create(&ReloadLabels { file, result }).inc();
    }

    /// Counts one message of the server that was not forwarded.
    pub fn dropped(&self, kind: &'static str) {
        self.dropped.get_or_create(&DroppedLabel { kind }).inc();
    }

    /// Counts what a rule that only reports would have refused.
    pub fn reported(&self, reason: &'static str) {
        self.reported.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts what an ownership filter found.
    pub fn filtered(&self, records: Records) {
        for (result, count) in [("kept", records.kept), ("removed", records.removed)] {
            self.records
                .get_or_create(&ResultLabel { result })
                .inc_by(count as u64);
        }
    }

    /// Counts one call without an answer.
    pub fn upstream_failed(&self, result: &'static str) {
        self.upstream_failures
            .get_or_create(&ResultLabel { result })
            .inc();
    }

    /// Counts one request that was handed on to another replica.
    pub fn relayed(&self, result: &'static str) {
        self.relayed.get_or_create(&ResultLabel { result }).inc();
    }

    /// Records when the current certificate expires.
    pub fn certificate_expires(&self, at: SystemTime) {
        let seconds = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        self.certificate_expiry.set(seconds);
    }

    /// The metrics in the `OpenMetrics` text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_counted_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.decided("refuse", "tool_unknown");
        metrics.handshake("ok");
        metrics.reloaded("policy", "loaded");
        metrics.certificate_expires(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        let text = metrics.text().unwrap();
        for line in [
            "bulkhead_decisions_total{effect=\"refuse\",reason=\"tool_unknown\"} 1",
            "bulkhead_handshakes_total{result=\"ok\"} 1",
            "bulkhead_reloads_total{file=\"policy\",result=\"loaded\"} 1",
            "bulkhead_certificate_expiry_timestamp_seconds 7.0",
            "bulkhead_calls_in_flight 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
