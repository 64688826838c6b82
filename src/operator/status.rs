//! What is reported about a tenant: written after every reconcile, also a failed one, and only when it differs.

mod conditions;
mod view;

use bulkhead_api::{
    McpTenant, McpTenantStatus,
    conditions::{reasons, types},
    tenant::NamespaceStatus,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource,
    api::{ObjectMeta, Patch, PatchParams},
    core::DeserializeGuard,
};
use serde_json::json;

use crate::{
    apply::FIELD_MANAGER,
    context::Context,
    error::{Doing, Error, bounded},
    kinds::Kind,
};

pub use conditions::{Judgement, judge};
pub use view::{PodView, ServerView, View};

/// Condition types, in the order in which they are reported.
const TYPES: [&str; 6] = [
    types::READY,
    types::ACCEPTED,
    types::NETWORK_ISOLATED,
    types::CERTIFICATES_READY,
    types::POLICY_ENFORCED,
    types::TOOLS_OFFERED,
];

/// What a reconcile found, as far as the status is concerned.
#[derive(Debug)]
pub enum Outcome {
    /// The tenant can't be built: nothing was changed.
    Refused {
        /// Reason of `Accepted=False`.
        reason: String,
        /// What a person can do about it.
        message: String,
    },
    /// Everything was applied that could be.
    Applied {
        /// The tenant's namespaces.
        namespaces: Vec<NamespaceStatus>,
        /// What there is.
        view: View,
    },
    /// The tenant is valid and holds its claims, but something failed.
    Failed {
        /// Reason of `Ready=False`.
        reason: &'static str,
        /// The chain of causes.
        message: String,
    },
    /// The tenant is being deleted.
    Terminating {
        /// What is waited for.
        message: String,
    },
}

/// The status that follows from an outcome and the one before.
pub fn next(
    generation: Option<i64>,
    before: &McpTenantStatus,
    outcome: &Outcome,
    now: Timestamp,
) -> McpTenantStatus {
    let judgements = conditions::judge(outcome);
    let conditions = TYPES.iter().filter_map(|type_| {
        let then = before
            .conditions
            .iter()
            .find(|condition| condition.type_ == *type_);
        let Some(judgement) = judgements.iter().find(|judgement| judgement.type_ == *type_) else {
            // Nothing new is known of it: it still speaks of the generation that it spoke of.
            return then.cloned();
        };
        let turned = then.is_none_or(|then| then.status != judgement.status);
        Some(Condition {
            type_: (*type_).to_owned(),
            status: judgement.status.to_owned(),
            reason: judgement.reason.clone(),
            message: bounded(&judgement.message),
            observed_generation: generation,
            last_transition_time: match then {
                Some(then) if !turned => then.last_transition_time.clone(),
                _ => Time(now),
            },
        })
    });
    let conditions = conditions.collect();
    let (namespaces, servers) = match outcome {
        Outcome::Applied { namespaces, view } => (namespaces.clone(), view.server_statuses()),
        _ => (before.namespaces.clone(), before.servers.clone()),
    };
    McpTenantStatus {
        observed_generation: generation,
        conditions,
        namespaces,
        servers,
    }
}

/// The status that the tenant has: the newer of the watch's and the one that we wrote last.
pub fn current(context: &Context, tenant: &McpTenant) -> McpTenantStatus {
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    context
        .memory
        .status_since(uid, version(&tenant.metadata))
        .or_else(|| tenant.status.clone())
        .unwrap_or_default()
}

/// Writes a status if it differs from the one that the tenant has, and publishes what turned.
pub async fn report(
    context: &Context,
    metadata: &ObjectMeta,
    before: &McpTenantStatus,
    outcome: &Outcome,
) -> Result<(), Error> {
    let (Some(name), Some(uid)) = (&metadata.name, &metadata.uid) else {
        return Ok(());
    };
    // Seconds are what the API keeps.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let after = next(metadata.generation, before, outcome, now);
    context.metrics.tenant(uid, ready_of(&after));
    if same(before, &after) {
        return Ok(());
    }
    let api: Api<DeserializeGuard<McpTenant>> = Api::all(context.client.clone());
    let patch = json!({
        "apiVersion": McpTenant::api_version(&()),
        "kind": McpTenant::kind(&()),
        // A tenant that was made anew under the same name is another.
        "metadata": {"name": name, "uid": uid},
        "status": after,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let written = match api.patch_status(name, &parameters, &Patch::Apply(&patch)).await {
        Ok(written) => written.meta().clone(),
        // Gone in the meantime: there is nobody to report to.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(error).doing(format!("write the status of McpTenant {name}")),
    };
    context.metrics.wrote_other("McpTenant", "apply");
    context.memory.wrote_status(uid, version(&written), after.clone());
    // Nothing is written to a namespace that isn't proven to be ours, and one that goes takes nothing new.
    let has_place = context
        .cache
        .get(Kind::Namespace, name, name)
        .is_some_and(|live| {
            !live.deleting
                && after
                    .namespaces
                    .iter()
                    .any(|ours| ours.name == live.name && ours.uid == live.uid)
        });
    if has_place {
        context
            .events
            .publish(
                &context.metrics,
                (name, uid),
                &before.conditions,
                &after.conditions,
            )
            .await;
    }
    Ok(())
}

/// Whether two statuses say the same, conditions of others aside.
fn same(before: &McpTenantStatus, after: &McpTenantStatus) -> bool {
    let ours = |status: &McpTenantStatus| {
        let mut conditions: Vec<_> = status
            .conditions
            .iter()
            .filter(|condition| TYPES.contains(&&*condition.type_))
            .cloned()
            .collect();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        conditions
    };
    before.observed_generation == after.observed_generation
        && before.namespaces == after.namespaces
        && before.servers == after.servers
        && ours(before) == ours(after)
}

fn ready_of(status: &McpTenantStatus) -> &'static str {
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == types::READY);
    match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "True",
        Some("False") => "False",
        _ => "Unknown",
    }
}

fn version(metadata: &ObjectMeta) -> u64 {
    metadata
        .resource_version
        .as_ref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// The reason that a failed reconcile gives, and its text.
impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        let message = match error.reason() {
            reasons::QUOTA_EXCEEDED => {
                format!("{} Raise spec.quota or ask for less.", sentence(&error.chain()))
            }
            _ => format!("{} It is tried again.", sentence(&error.chain())),
        };
        Self::Failed {
            reason: error.reason(),
            message,
        }
    }
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let refused = |reason: &str| Outcome::Refused {
            reason: reason.into(),
            message: "m".into(),
        };
        let first = next(Some(1), &McpTenantStatus::default(), &refused("A"), at(1));
        let second = next(Some(2), &first, &refused("B"), at(2));
        assert!(!same(&first, &second));
        assert_eq!(second.conditions[0].last_transition_time.0, at(1));
        assert_eq!(second.conditions[0].observed_generation, Some(2));
        let applied = Outcome::Applied {
            namespaces: Vec::new(),
            view: View::default(),
        };
        let third = next(Some(3), &second, &applied, at(3));
        let accepted = third
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::ACCEPTED)
            .unwrap();
        assert_eq!(
            (accepted.status.as_str(), accepted.last_transition_time.0),
            ("True", at(3))
        );
        assert!(same(&third, &next(Some(3), &third, &applied, at(4))));
    }

    #[test]
    fn a_refusal_says_nothing_about_what_runs_already() {
        let applied = Outcome::Applied {
            namespaces: Vec::new(),
            view: View::default(),
        };
        let first = next(
            Some(1),
            &McpTenantStatus::default(),
            &applied,
            Timestamp::UNIX_EPOCH,
        );
        let refused = Outcome::Refused {
            reason: "A".into(),
            message: "m".into(),
        };
        let second = next(Some(2), &first, &refused, Timestamp::UNIX_EPOCH);
        let isolated = |status: &McpTenantStatus| {
            status
                .conditions
                .iter()
                .find(|condition| condition.type_ == types::NETWORK_ISOLATED)
                .cloned()
        };
        assert_eq!(isolated(&first), isolated(&second));
        assert_eq!(isolated(&second).unwrap().observed_generation, Some(1));
    }
}
