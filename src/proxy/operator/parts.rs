//! This replica's parts of the agents' limits: what it is asked for, and what the operator says that it may give.

use std::num::NonZeroU32;

use bulkhead_control::{self as control, MAX_AGENTS, Usage};
use bulkhead_core::policy::{CompiledAgent, document::AgentLimits};

use crate::{shared::Shared, usage::Amounts};

/// What the agents ask that the policy limits, as the operator is told.
pub(super) fn usage(shared: &Shared) -> Vec<Usage> {
    let mut usage = Vec::new();
    limited(shared, |agent| {
        let room = shared.admission.of_agent(agent.spiffe_id());
        usage.push(Usage {
            agent: agent.name().to_string(),
            held: Some(written(room.held(agent.limits()))),
            asked: Some(written(room.asked(agent.limits()))),
        });
    });
    usage.truncate(MAX_AGENTS);
    usage
}

/// Gives these from now on.
pub(super) fn take(shared: &Shared, parts: &control::Parts) {
    limited(shared, |agent| {
        let part = parts.parts.iter().find(|part| *part.agent == **agent.name());
        let amounts = part.and_then(|part| part.amounts);
        let limits = amounts.map(|amounts| AgentLimits {
            requests_per_minute: NonZeroU32::new(amounts.requests_per_minute),
            concurrent: NonZeroU32::new(amounts.concurrent),
        });
        shared.admission.of_agent(agent.spiffe_id()).set_part(limits);
    });
}

/// Gives nothing of what other replicas gave up: they may take it back now.
pub(super) fn stand_alone(shared: &Shared) {
    limited(shared, |agent| {
        shared
            .admission
            .of_agent(agent.spiffe_id())
            .at_most(agent.limits());
    });
}

/// Gives what the policy says: by now, the other replicas give no more of it.
pub(super) fn forget(shared: &Shared) {
    limited(shared, |agent| {
        shared.admission.of_agent(agent.spiffe_id()).set_part(None);
    });
}

fn limited(shared: &Shared, mut each: impl FnMut(&CompiledAgent)) {
    let Some(policy) = shared.live.policy() else {
        return;
    };
    let agents = policy.compiled().agents();
    for agent in agents.filter(|agent| !agent.limits().is_none()) {
        each(agent);
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
