//! This replica's parts of the limits of the tenant and its agents: what it is asked for, and what the operator says that it may
//! give.

use std::num::NonZeroU32;

use bulkhead_control::{self as control, ALL_AGENTS, MAX_USAGE, Usage};
use bulkhead_core::policy::document::RequestLimits;

use crate::{quota::Quota, shared::Shared, usage::Amounts};

/// What is asked that the policy limits, as the operator is told.
pub(super) fn usage(shared: &Shared) -> Vec<Usage> {
    let mut usage = Vec::new();
    limited(shared, |agent, quota, limits| {
        usage.push(Usage {
            agent: agent.to_owned(),
            held: Some(written(quota.held(limits))),
            asked: Some(written(quota.asked(limits))),
        });
    });
    usage.truncate(MAX_USAGE);
    usage
}

/// Gives these from now on.
pub(super) fn take(shared: &Shared, parts: &control::Parts) {
    limited(shared, |agent, quota, limits| {
        let part = parts.parts.iter().find(|part| part.agent == agent);
        let Some(amounts) = part.and_then(|part| part.amounts) else {
            return quota.give_all();
        };
        let part = RequestLimits {
            requests_per_minute: NonZeroU32::new(amounts.requests_per_minute),
            concurrent: NonZeroU32::new(amounts.concurrent),
        };
        quota.give(part, limits);
    });
}

/// Gives nothing of what other replicas gave up: they may take it back now.
pub(super) fn stand_alone(shared: &Shared) {
    limited(shared, |_, quota, limits| quota.at_most(limits));
}

/// Gives what the policy says: by now, the other replicas give no more of it.
pub(super) fn forget(shared: &Shared) {
    // Of what the policy doesn't limit now as well: it may again, and nobody would know then of whose limit it was a part.
    shared.admission.give_all();
}

/// All that the policy limits: by the agent's name, as the operator knows it.
fn limited(shared: &Shared, mut each: impl FnMut(&str, &Quota, RequestLimits)) {
    let Some(policy) = shared.live.policy() else {
        return;
    };
    let policy = policy.compiled();
    if !policy.limits().is_none() {
        each(ALL_AGENTS, shared.admission.of_tenant(), policy.limits());
    }
    for agent in policy.agents().filter(|agent| !agent.limits().is_none()) {
        let room = shared.admission.of_agent(agent.spiffe_id());
        each(agent.name(), room.quota(), agent.limits());
    }
}

fn written(amounts: Amounts) -> control::Amounts {
    let Amounts {
        requests_per_minute,
        concurrent,
    } = amounts;
    control::Amounts {
        requests_per_minute,
        concurrent,
    }
}
