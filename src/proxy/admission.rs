//! Admission under load: how many connections and calls one agent may have, how often it may call, and all together.
//!
//! Nothing queues here. What doesn't fit is refused, so that an agent that floods holds no memory and the others' calls find
//! their room. What is refused counts against no limit; how often that may be is bounded by
//! [`crate::throttle`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bulkhead_core::policy::document::RequestLimits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    limits::{Limits, RefusalPace},
    memory::{Budget, Held},
    quota::{Exceeded, Quota, Taken},
    throttle::Refusals,
};

/// The bounds on calls under way.
#[derive(Debug)]
pub struct Admission {
    tenant: Quota,
    calls_per_agent: usize,
    connections_per_agent: usize,
    streams_per_agent: usize,
    memory: Budget,
    memory_per_agent: usize,
    agents: Mutex<HashMap<String, Arc<AgentRoom>>>,
    strangers: Arc<AgentRoom>,
    refusals: RefusalPace,
}

/// What one agent may use, over all its connections.
#[derive(Debug)]
pub struct AgentRoom {
    quota: Quota,
    connections: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    memory: Budget,
    refusals: Arc<Refusals>,
}

/// What the policy limits of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limited {
    /// Of its agent.
    pub agent: RequestLimits,
    /// Of all agents of the tenant together.
    pub tenant: RequestLimits,
}

/// Room for one call; dropping it gives the room back.
#[derive(Debug)]
pub struct Admitted {
    _agent: Taken,
    _tenant: Taken,
}

/// Why something was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// This agent has as many under way as it may.
    Agent,
    /// It has made as many requests as it may; after these seconds there is room for one.
    AgentRate(u32),
    /// All agents of the tenant together have as many under way as they may.
    Tenant,
    /// They have made as many requests as they may; after these seconds there is room for one.
    TenantRate(u32),
    /// The sidecar has as many under way as it can.
    Sidecar,
}

impl Admission {
    /// Bounds as in the limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            tenant: Quota::new(limits.calls),
            calls_per_agent: limits.calls_per_agent,
            connections_per_agent: limits.connections_per_agent,
            streams_per_agent: limits.streams_per_agent,
            memory: Budget::new(limits.memory),
            memory_per_agent: limits.memory_per_agent,
            agents: Mutex::default(),
            strangers: Arc::new(AgentRoom::new(
                0,
                limits.connections_per_agent,
                0,
                0,
                limits.refusals,
            )),
            refusals: limits.refusals,
        }
    }

    /// The room of all together that hold a trusted certificate and are no agent of the policy.
    /// There is none for calls.
    pub fn of_strangers(&self) -> Arc<AgentRoom> {
        Arc::clone(&self.strangers)
    }

    /// The room of one agent. Only for agents that the policy names: the map must not grow with
    /// what strangers present.
    pub fn of_agent(&self, spiffe_id: &str) -> Arc<AgentRoom> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = agents.get(spiffe_id) {
            return Arc::clone(room);
        }
        let room = AgentRoom::new(
            self.calls_per_agent,
            self.connections_per_agent,
            self.streams_per_agent,
            self.memory_per_agent,
            self.refusals,
        );
        let room = Arc::new(room);
        agents.insert(spiffe_id.to_owned(), Arc::clone(&room));
        room
    }

    /// What all agents of the tenant together may ask.
    pub fn of_tenant(&self) -> &Quota {
        &self.tenant
    }

    /// Gives what the policy says of everything from now on, and no part of it.
    pub fn give_all(&self) {
        self.tenant.give_all();
        for room in self
            .agents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            room.quota.give_all();
        }
    }

    /// Room for messages of the sidecar's own, within a budget of theirs.
    pub fn own_memory(&self, room: &Budget) -> Held {
        Held::new(room, &self.memory)
    }

    /// What a message of the agent may hold; nothing is held yet.
    pub fn memory(&self, room: &AgentRoom) -> Held {
        Held::new(&room.memory, &self.memory)
    }

    /// Takes room for one call of an agent. What the agent alone may not ask isn't asked of what all share. `None`: another
    /// replica has counted it, and handed it on.
    pub fn admit(&self, room: &AgentRoom, policy: Option<Limited>) -> Result<Admitted, Full> {
        let (agents, tenants) = (
            policy.map(|policy| policy.agent),
            policy.map(|policy| policy.tenant),
        );
        let agent = room.quota.take(agents).map_err(|exceeded| match exceeded {
            Exceeded::Bound | Exceeded::Concurrent => Full::Agent,
            Exceeded::Rate(seconds) => Full::AgentRate(seconds),
        })?;
        let tenant = self.tenant.take(tenants).map_err(|exceeded| {
            if let Some(agents) = agents {
                room.quota.take_back(agents);
            }
            match exceeded {
                Exceeded::Bound => Full::Sidecar,
                Exceeded::Concurrent => Full::Tenant,
                Exceeded::Rate(seconds) => Full::TenantRate(seconds),
            }
        })?;
        Ok(Admitted {
            _agent: agent,
            _tenant: tenant,
        })
    }
}

impl AgentRoom {
    fn new(calls: usize, connections: usize, streams: usize, memory: usize, refusals: RefusalPace) -> Self {
        Self {
            quota: Quota::new(calls),
            connections: Arc::new(Semaphore::new(connections)),
            streams: Arc::new(Semaphore::new(streams)),
            memory: Budget::new(memory),
            refusals: Arc::new(Refusals::new(refusals)),
        }
    }

    /// What it may ask.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Takes room for one stream without an end, besides the room of the call that opened it.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Full> {
        Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Full::Agent)
    }

    /// What was refused it and counted against no limit.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Takes room for one connection.
    pub fn connect(&self) -> Result<OwnedSemaphorePermit, Full> {
        Arc::clone(&self.connections)
            .try_acquire_owned()
            .map_err(|_| Full::Agent)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn an_agent_at_its_bound_does_not_take_the_others_room() {
        let admission = Admission::new(&Limits {
            calls: 3,
            calls_per_agent: 2,
            ..Limits::default()
        });
        let (billing, support) = (admission.of_agent("billing"), admission.of_agent("support"));
        let unlimited = Some(Limited::default());
        let first = admission.admit(&billing, unlimited).unwrap();
        let _second = admission.admit(&billing, unlimited).unwrap();
        assert_eq!(
            admission
                .admit(&admission.of_agent("billing"), unlimited)
                .unwrap_err(),
            Full::Agent
        );
        let _third = admission.admit(&support, unlimited).unwrap();
        assert_eq!(admission.admit(&support, unlimited).unwrap_err(), Full::Sidecar);
        drop(first);
        assert!(admission.admit(&billing, unlimited).is_ok());
    }

    #[test]
    fn the_tenants_limits_hold_for_all_its_agents_together_and_an_agents_for_it_alone() {
        let limits = |per_minute, concurrent| RequestLimits {
            requests_per_minute: NonZeroU32::new(per_minute),
            concurrent: NonZeroU32::new(concurrent),
        };
        let limited = |agent, tenant| Some(Limited { agent, tenant });
        let admission = Admission::new(&Limits::default());
        let (billing, support) = (admission.of_agent("billing"), admission.of_agent("support"));
        let (none, two) = (limits(0, 0), limits(0, 2));
        let first = admission.admit(&billing, limited(none, two)).unwrap();
        let _second = admission.admit(&support, limited(none, two)).unwrap();
        assert_eq!(
            admission.admit(&support, limited(none, two)).unwrap_err(),
            Full::Tenant
        );
        drop(first);
        assert!(admission.admit(&support, limited(none, two)).is_ok());

        let admission = Admission::new(&Limits::default());
        let (billing, support) = (admission.of_agent("billing"), admission.of_agent("support"));
        let policy = limited(limits(2, 0), limits(3, 0));
        for _ in 0..2 {
            drop(admission.admit(&billing, policy).unwrap());
        }
        let refused = admission.admit(&billing, policy).unwrap_err();
        assert!(matches!(refused, Full::AgentRate(1..=31)), "{refused:?}");
        // What one agent was refused the others still have; what all were refused, none has used.
        drop(admission.admit(&support, policy).unwrap());
        let refused = admission.admit(&support, policy).unwrap_err();
        assert!(matches!(refused, Full::TenantRate(1..=21)), "{refused:?}");
        let alone = limited(limits(2, 0), none);
        assert!(
            admission.admit(&support, alone).is_ok(),
            "it has made one of its two"
        );
        assert!(admission.admit(&support, alone).is_err());
    }

    #[test]
    fn an_agent_s_connections_are_bounded() {
        let admission = Admission::new(&Limits {
            connections_per_agent: 1,
            ..Limits::default()
        });
        let first = admission.of_agent("billing").connect().unwrap();
        assert_eq!(admission.of_agent("billing").connect().unwrap_err(), Full::Agent);
        assert!(admission.of_agent("support").connect().is_ok());
        drop(first);
        assert!(admission.of_agent("billing").connect().is_ok());
    }
}
