//! Events (`events.k8s.io/v1`) on a tenant's transitions, in the tenant's own namespace, so that its admins see them.
//!
//! The object that an event regards is the cluster-scoped `McpTenant`. The API server wants `regarding.namespace` to be
//! the event's own namespace, so it is set, although the object has none; `kubectl describe mcptenant` finds the event
//! by UID. While the tenant has no namespace of its own there is no place for an event: the condition says it all.

use bulkhead_api::{McpTenant, conditions::reasons};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tracing::warn;

use crate::{apply::FIELD_MANAGER, error::bounded, metrics::Metrics};

/// Publishes the transitions of tenants.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// A publisher for this replica.
    pub fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: Some(identity),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Publishes what changed from one set of conditions to the next. An event that can't be published is logged and
    /// forgotten: the condition holds the same.
    pub async fn publish(
        &self,
        metrics: &Metrics,
        tenant: (&str, &str),
        before: &[Condition],
        after: &[Condition],
    ) {
        let (name, uid) = tenant;
        let regarding = ObjectReference {
            api_version: Some(McpTenant::api_version(&()).into_owned()),
            kind: Some(McpTenant::kind(&()).into_owned()),
            name: Some(name.to_owned()),
            namespace: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        for condition in transitions(before, after) {
            let event = Event {
                type_: if condition.status == "True" || is_waiting(condition) {
                    EventType::Normal
                } else {
                    EventType::Warning
                },
                reason: condition.reason.clone(),
                note: Some(bounded(&format!(
                    "{}={}: {}",
                    condition.type_, condition.status, condition.message
                ))),
                action: "Reconcile".into(),
                secondary: None,
            };
            match self.recorder.publish(&event, &regarding).await {
                Ok(()) => metrics.wrote_other("Event", "create"),
                Err(error) => warn!(%error, tenant = name, "cannot publish an event"),
            }
        }
    }
}

/// Conditions worth an event: those that turned to `True` or `False`, and bad news of another kind. On the way to the
/// first `True`, waiting is the ordinary course and no news.
fn transitions<'a>(before: &'a [Condition], after: &'a [Condition]) -> impl Iterator<Item = &'a Condition> {
    after.iter().filter(move |now| {
        let then = before.iter().find(|condition| condition.type_ == now.type_);
        let was = then.map_or("Unknown", |then| &then.status);
        let turned = now.status != was;
        let worse = now.status == "False" && then.is_some_and(|then| then.reason != now.reason);
        now.status != "Unknown" && (turned || worse) && (was == "True" || !is_waiting(now))
    })
}

/// Whether a condition is `False` only because something takes its time.
fn is_waiting(condition: &Condition) -> bool {
    const WAITING: [&str; 4] = [
        reasons::WAITING_FOR_CERTIFICATES,
        reasons::WAITING_FOR_SIDECARS,
        reasons::WAITING_FOR_TRUST,
        reasons::ROLLING_OUT,
    ];
    condition.status == "False" && WAITING.contains(&condition.reason.as_str())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    #[test]
    fn only_what_turned_is_told() {
        let ready = |status, reason| vec![condition("Ready", status, reason)];
        for (name, before, after, told) in [
            ("nothing changed", ready("True", "A"), ready("True", "A"), 0),
            (
                "another reason of the same good news",
                ready("True", "A"),
                ready("True", "B"),
                0,
            ),
            (
                "another reason of bad news",
                ready("False", "A"),
                ready("False", "B"),
                1,
            ),
            ("good news", ready("False", "A"), ready("True", "B"), 1),
            ("bad news", ready("True", "A"), ready("False", "B"), 1),
            (
                "nothing is known any more",
                ready("True", "A"),
                ready("Unknown", "B"),
                0,
            ),
            ("first bad news", vec![], ready("False", "B"), 1),
            (
                "waiting is the ordinary course",
                vec![],
                ready("False", "WaitingForCertificates"),
                0,
            ),
            (
                "waiting again is not",
                ready("True", "A"),
                ready("False", "RollingOut"),
                1,
            ),
        ] {
            assert_eq!(transitions(&before, &after).count(), told, "{name}");
        }
    }
}
