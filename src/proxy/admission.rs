//! Admission under load: how many connections and calls one agent may have, and all together.
//!
//! Nothing queues here. What doesn't fit is refused at once, so that an agent that floods holds no
//! memory and the others' calls find their room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;

/// The bounds on calls under way.
#[derive(Debug)]
pub struct Admission {
    calls: Arc<Semaphore>,
    calls_per_agent: usize,
    connections_per_agent: usize,
    streams_per_agent: usize,
    agents: Mutex<HashMap<String, Arc<AgentRoom>>>,
    strangers: Arc<AgentRoom>,
}

/// What one agent may use, over all its connections.
#[derive(Debug)]
pub struct AgentRoom {
    calls: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// Room for one call; dropping it gives the room back.
#[derive(Debug)]
pub struct Admitted {
    _agent: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Why something was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// This agent has as many under way as it may.
    Agent,
    /// The sidecar has.
    Sidecar,
}

impl Admission {
    /// Bounds as in the limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(limits.calls)),
            calls_per_agent: limits.calls_per_agent,
            connections_per_agent: limits.connections_per_agent,
            streams_per_agent: limits.streams_per_agent,
            agents: Mutex::default(),
            strangers: Arc::new(AgentRoom::new(0, limits.connections_per_agent, 0)),
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
        );
        let room = Arc::new(room);
        agents.insert(spiffe_id.to_owned(), Arc::clone(&room));
        room
    }

    /// Takes room for one call.
    pub fn admit(&self, agent: &AgentRoom) -> Result<Admitted, Full> {
        let agent = Arc::clone(&agent.calls)
            .try_acquire_owned()
            .map_err(|_| Full::Agent)?;
        let all = Arc::clone(&self.calls)
            .try_acquire_owned()
            .map_err(|_| Full::Sidecar)?;
        Ok(Admitted {
            _agent: agent,
            _all: all,
        })
    }
}

impl AgentRoom {
    fn new(calls: usize, connections: usize, streams: usize) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(calls)),
            connections: Arc::new(Semaphore::new(connections)),
            streams: Arc::new(Semaphore::new(streams)),
        }
    }

    /// Takes room for one stream without an end, besides the room of the call that opened it.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Full> {
        Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Full::Agent)
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
    use super::*;

    #[test]
    fn an_agent_at_its_bound_does_not_take_the_others_room() {
        let admission = Admission::new(&Limits {
            calls: 3,
            calls_per_agent: 2,
            ..Limits::default()
        });
        let (billing, support) = (admission.of_agent("billing"), admission.of_agent("support"));
        let first = admission.admit(&billing).unwrap();
        let _second = admission.admit(&billing).unwrap();
        assert_eq!(
            admission.admit(&admission.of_agent("billing")).unwrap_err(),
            Full::Agent
        );
        let _third = admission.admit(&support).unwrap();
        assert_eq!(admission.admit(&support).unwrap_err(), Full::Sidecar);
        drop(first);
        assert!(admission.admit(&billing).is_ok());
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
