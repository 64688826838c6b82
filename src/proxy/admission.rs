//! Admission under load: how many connections and calls one agent may have, how often it may call, and all together.
//!
//! Nothing queues here. What doesn't fit is refused, so that an agent that floods holds no memory and the others' calls find
//! their room. What is refused counts against no limit; how often that may be is bounded by
//! [`crate::throttle`].

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwapOption;
use bulkhead_core::policy::document::AgentLimits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    limits::{Limits, RefusalPace},
    memory::{Budget, Held},
    pace::Pace,
    throttle::Refusals,
    usage::{Amounts, Asked},
};

const TWICE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// The bounds on calls under way.
#[derive(Debug)]
pub struct Admission {
    calls: Arc<Semaphore>,
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
    calls: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    memory: Budget,
    most_calls: usize,
    pace: Mutex<Option<Pace>>,
    /// This replica's part of what the policy says, if it is another than that.
    part: ArcSwapOption<AgentLimits>,
    asked: Asked,
    refusals: Arc<Refusals>,
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
    /// It has made as many requests as it may; after these seconds there is room for one.
    Rate(u32),
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

    /// Room for messages of the sidecar's own, within a budget of theirs.
    pub fn own_memory(&self, room: &Budget) -> Held {
        Held::new(room, &self.memory)
    }

    /// What a message of the agent may hold; nothing is held yet.
    pub fn memory(&self, room: &AgentRoom) -> Held {
        Held::new(&room.memory, &self.memory)
    }

    /// Takes room for one call of an agent that the policy limits so. What finds no room doesn't count as made.
    pub fn admit(&self, room: &AgentRoom, policy: AgentLimits) -> Result<Admitted, Full> {
        let limits = room.limits(policy);
        if limits.requests_per_minute.is_some() {
            room.asked.request();
        }
        let agent = Arc::clone(&room.calls)
            .try_acquire_owned()
            .map_err(|_| Full::Agent)?;
        if let Some(most) = limits.concurrent {
            // Counted with its own place taken: of two that come at once both may be refused, never one too many admitted.
            let under_way = room.under_way();
            if under_way > most.get() {
                // How many more would have come isn't known.
                room.asked
                    .at_once(under_way.max(most.saturating_mul(TWICE).get()));
                return Err(Full::Agent);
            }
            room.asked.at_once(under_way);
        }
        let all = Arc::clone(&self.calls)
            .try_acquire_owned()
            .map_err(|_| Full::Sidecar)?;
        if let Some(per_minute) = limits.requests_per_minute {
            room.pace(per_minute, policy.requests_per_minute)?;
        }
        Ok(Admitted {
            _agent: agent,
            _all: all,
        })
    }
}

impl AgentRoom {
    fn new(calls: usize, connections: usize, streams: usize, memory: usize, refusals: RefusalPace) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(calls)),
            connections: Arc::new(Semaphore::new(connections)),
            streams: Arc::new(Semaphore::new(streams)),
            memory: Budget::new(memory),
            most_calls: calls,
            pace: Mutex::default(),
            part: ArcSwapOption::empty(),
            asked: Asked::default(),
            refusals: Arc::new(Refusals::new(refusals)),
        }
    }

    /// What it may ask for here, of an agent that the policy limits so.
    fn limits(&self, policy: AgentLimits) -> AgentLimits {
        let part = self.part.load();
        let Some(part) = part.as_ref() else {
            return policy;
        };
        let narrowed = |policy: Option<NonZeroU32>, part: Option<NonZeroU32>| policy.and(part.or(policy));
        AgentLimits {
            requests_per_minute: narrowed(policy.requests_per_minute, part.requests_per_minute),
            concurrent: narrowed(policy.concurrent, part.concurrent),
        }
    }

    /// Gives another part of what the policy says from now on; `None`: what it says.
    pub fn set_part(&self, part: Option<AgentLimits>) {
        self.part.store(part.map(Arc::new));
    }

    /// From now on no more than what it gives now, and no more than what the policy says.
    pub fn at_most(&self, policy: AgentLimits) {
        let now = self.limits(policy);
        self.set_part(Some(AgentLimits {
            requests_per_minute: now.requests_per_minute.min(policy.requests_per_minute),
            concurrent: now.concurrent.min(policy.concurrent),
        }));
    }

    /// What it may ask for here, of an agent that the policy limits so. Of calls under way, as many as there still are.
    pub fn held(&self, policy: AgentLimits) -> Amounts {
        let limits = self.limits(policy);
        Amounts {
            requests_per_minute: limits.requests_per_minute.map_or(0, NonZeroU32::get),
            concurrent: limits
                .concurrent
                .map_or(0, |most| most.get().max(self.under_way())),
        }
    }

    /// What it asked for within a minute of what the policy limits, what was refused included. Calls that are still under way
    /// are asked for, however long ago they began.
    pub fn asked(&self, policy: AgentLimits) -> Amounts {
        if policy.concurrent.is_some() {
            self.asked.at_once(self.under_way());
        }
        self.asked.within_a_minute(Instant::now())
    }

    fn under_way(&self) -> u32 {
        u32::try_from(self.most_calls - self.calls.available_permits()).unwrap_or(u32::MAX)
    }

    /// Counts one request at this pace. Where it is less than the policy's, the wait is what it would be there: a replica that
    /// is asked gets more before long.
    fn pace(&self, per_minute: NonZeroU32, policy: Option<NonZeroU32>) -> Result<(), Full> {
        let now = Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = pace.get_or_insert_with(|| Pace::new(per_minute, now));
        pace.set(per_minute, now);
        pace.count(now).map_err(|wait| {
            let equal = policy.unwrap_or(per_minute).max(per_minute);
            let wait = wait * per_minute.get() / equal.get();
            Full::Rate(
                u32::try_from(wait.as_secs())
                    .unwrap_or(u32::MAX)
                    .saturating_add(1),
            )
        })
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
    use super::*;

    #[test]
    fn an_agent_at_its_bound_does_not_take_the_others_room() {
        let admission = Admission::new(&Limits {
            calls: 3,
            calls_per_agent: 2,
            ..Limits::default()
        });
        let (billing, support) = (admission.of_agent("billing"), admission.of_agent("support"));
        let unlimited = AgentLimits::default();
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
    fn an_agent_has_no_more_under_way_than_its_policy_says() {
        let admission = Admission::new(&Limits::default());
        let billing = admission.of_agent("billing");
        let limits = |concurrent| AgentLimits {
            concurrent: NonZeroU32::new(concurrent),
            ..AgentLimits::default()
        };
        let first = admission.admit(&billing, limits(2)).unwrap();
        let _second = admission.admit(&billing, limits(2)).unwrap();
        assert_eq!(admission.admit(&billing, limits(2)).unwrap_err(), Full::Agent);
        // What was refused took no room.
        let third = admission.admit(&billing, limits(3)).unwrap();
        drop((first, third));
        assert!(admission.admit(&billing, limits(2)).is_ok());
    }

    #[test]
    fn an_agent_asks_no_more_often_than_its_policy_says() {
        let admission = Admission::new(&Limits {
            calls_per_agent: 1,
            ..Limits::default()
        });
        let (billing, support) = (admission.of_agent("billing"), admission.of_agent("support"));
        let limits = |per_minute| AgentLimits {
            requests_per_minute: NonZeroU32::new(per_minute),
            ..AgentLimits::default()
        };
        let first = admission.admit(&billing, limits(2)).unwrap();
        // It finds no room, and doesn't count.
        assert_eq!(admission.admit(&billing, limits(2)).unwrap_err(), Full::Agent);
        drop(first);
        drop(admission.admit(&billing, limits(2)).unwrap());
        let refused = admission.admit(&billing, limits(2)).unwrap_err();
        assert!(
            matches!(refused, Full::Rate(seconds) if (1..=31).contains(&seconds)),
            "{refused:?}"
        );
        assert!(
            admission.admit(&support, limits(2)).is_ok(),
            "another agent's pace is its own"
        );
        assert!(
            admission.admit(&billing, limits(0)).is_ok(),
            "without a limit it is not counted"
        );
        // Of another pace no more is left than was.
        assert!(admission.admit(&billing, limits(3)).is_err());
    }

    #[test]
    fn a_replica_gives_its_part_and_says_what_it_was_asked_for() {
        let admission = Admission::new(&Limits::default());
        let billing = admission.of_agent("billing");
        let limits = |per_minute, concurrent| AgentLimits {
            requests_per_minute: NonZeroU32::new(per_minute),
            concurrent: NonZeroU32::new(concurrent),
        };
        let policy = limits(100, 2);
        let amounts = |requests_per_minute, concurrent| Amounts {
            requests_per_minute,
            concurrent,
        };
        assert_eq!(
            (billing.held(policy), billing.asked(policy)),
            (amounts(100, 2), amounts(0, 0))
        );
        let open: Vec<_> = (0..2)
            .map(|_| admission.admit(&billing, policy).unwrap())
            .collect();
        assert_eq!(billing.asked(policy), amounts(2, 2));
        assert_eq!(admission.admit(&billing, policy).unwrap_err(), Full::Agent);
        assert_eq!(
            billing.asked(policy),
            amounts(4, 4),
            "twice what it has, since it was refused"
        );

        billing.set_part(Some(limits(10, 1)));
        assert_eq!(billing.held(policy), amounts(10, 2), "two are still under way");
        assert_eq!(admission.admit(&billing, policy).unwrap_err(), Full::Agent);
        drop(open);
        assert_eq!(billing.held(policy), amounts(10, 1));
        let _open = admission.admit(&billing, policy).unwrap();
        assert_eq!(admission.admit(&billing, policy).unwrap_err(), Full::Agent);

        // A part is of a limit, and makes none.
        assert_eq!(billing.held(limits(100, 0)), amounts(10, 0));
        billing.set_part(Some(limits(200, 1)));
        billing.at_most(policy);
        assert_eq!(billing.held(policy), amounts(100, 1));
        billing.set_part(None);
        assert_eq!(billing.held(policy), amounts(100, 2));

        // What was begun long ago is still asked for.
        let support = admission.of_agent("support");
        let open = admission.admit(&support, limits(0, 0)).unwrap();
        assert_eq!(support.asked(limits(0, 0)), amounts(0, 0));
        assert_eq!(support.asked(policy), amounts(0, 1));
        drop(open);
        // With a part that grows when it is asked for, nobody has to wait as long as it would take.
        support.set_part(Some(limits(1, 0)));
        drop(admission.admit(&support, policy).unwrap());
        assert_eq!(admission.admit(&support, policy).unwrap_err(), Full::Rate(1));
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
