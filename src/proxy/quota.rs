//! What one agent, or all agents of the tenant together, may ask of this replica: requests in a minute, and requests under
//! way at once.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use bulkhead_core::policy::document::RequestLimits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    pace::Pace,
    usage::{Amounts, Asked},
};

const TWICE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// What is used of it, and what was asked for.
#[derive(Debug)]
pub struct Quota {
    /// Room in the sidecar, whatever the policy says.
    room: Arc<Semaphore>,
    /// Calls under way that count against what the policy says.
    counted: Arc<AtomicU32>,
    pace: Mutex<Option<Pace>>,
    /// This replica's part of what the policy says, if it is another than that.
    part: ArcSwapOption<Part>,
    asked: Asked,
}

/// A part of limits.
#[derive(Debug)]
struct Part {
    limits: RequestLimits,
    /// The limits as this replica's policy had them then. Of others it may be too much.
    of: RequestLimits,
}

/// Room that was taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Taken {
    _room: OwnedSemaphorePermit,
    _counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why it has no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// As many are under way as the sidecar takes, whatever the policy says.
    Bound,
    /// As many are under way as the policy says.
    Concurrent,
    /// As many were made as the policy says; after these seconds there is room for one.
    Rate(u32),
}

impl Quota {
    /// Of whom so many calls may be under way, whatever the policy says.
    pub fn new(most_calls: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(most_calls)),
            counted: Arc::default(),
            pace: Mutex::default(),
            part: ArcSwapOption::empty(),
            asked: Asked::default(),
        }
    }

    /// Takes room for one request, which is under way until that is dropped. What finds no room doesn't count as made. `None`:
    /// it was counted against what the policy says by another replica, which handed it on.
    pub fn take(&self, policy: Option<RequestLimits>) -> Result<Taken, Exceeded> {
        let room = || {
            Arc::clone(&self.room)
                .try_acquire_owned()
                .map_err(|_| Exceeded::Bound)
        };
        let Some(policy) = policy else {
            return Ok(Taken {
                _room: room()?,
                _counted: None,
            });
        };
        let limits = self.limits(policy);
        if limits.requests_per_minute.is_some() {
            self.asked.request();
        }
        let room = room()?;
        let counted = self.count_call();
        if let Some(most) = limits.concurrent {
            // Counted with its own place taken: of two that come at once both may be refused, never one too many admitted.
            let under_way = self.under_way();
            if under_way > most.get() {
                // How many more would have come isn't known.
                self.asked
                    .at_once(under_way.max(most.saturating_mul(TWICE).get()));
                return Err(Exceeded::Concurrent);
            }
            self.asked.at_once(under_way);
        }
        if let Some(per_minute) = limits.requests_per_minute {
            self.count(per_minute, policy.requests_per_minute)?;
        }
        Ok(Taken {
            _room: room,
            _counted: Some(counted),
        })
    }

    /// A request that found room here found none elsewhere, and wasn't made.
    pub fn take_back(&self, policy: RequestLimits) {
        if policy.requests_per_minute.is_some()
            && let Some(pace) = &mut *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
        {
            pace.take_back();
        }
    }

    /// Gives this part of what the policy says from now on.
    pub fn give(&self, part: RequestLimits, policy: RequestLimits) {
        self.part.store(Some(Arc::new(Part {
            limits: part,
            of: policy,
        })));
    }

    /// Gives what the policy says from now on.
    pub fn give_all(&self) {
        self.part.store(None);
    }

    /// From now on no more than what it gives now, and no more than what the policy says.
    pub fn at_most(&self, policy: RequestLimits) {
        self.give(lesser(self.limits(policy), policy), policy);
    }

    /// What it gives here of what the policy says. Of calls under way, as many as there still are.
    pub fn held(&self, policy: RequestLimits) -> Amounts {
        let limits = self.limits(policy);
        Amounts {
            requests_per_minute: limits.requests_per_minute.map_or(0, NonZeroU32::get),
            concurrent: limits
                .concurrent
                .map_or(0, |most| most.get().max(self.under_way())),
        }
    }

    /// What was asked for within a minute of what the policy limits, what was refused included. Calls that are still under way
    /// are asked for, however long ago they began.
    pub fn asked(&self, policy: RequestLimits) -> Amounts {
        if policy.concurrent.is_some() {
            self.asked.at_once(self.under_way());
        }
        self.asked.within_a_minute(Instant::now())
    }

    /// What it gives here of what the policy says.
    fn limits(&self, policy: RequestLimits) -> RequestLimits {
        let part = self.part.load();
        let Some(part) = part.as_ref() else {
            return policy;
        };
        if part.of != policy {
            return lesser(part.limits, policy);
        }
        let narrowed = |policy: Option<NonZeroU32>, part: Option<NonZeroU32>| policy.and(part.or(policy));
        RequestLimits {
            requests_per_minute: narrowed(policy.requests_per_minute, part.limits.requests_per_minute),
            concurrent: narrowed(policy.concurrent, part.limits.concurrent),
        }
    }

    fn count_call(&self) -> Counted {
        self.counted.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.counted))
    }

    fn under_way(&self) -> u32 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Counts one request at this pace. Where it is less than the policy's, the wait is what it would be there: a replica that
    /// is asked gets more before long.
    fn count(&self, per_minute: NonZeroU32, policy: Option<NonZeroU32>) -> Result<(), Exceeded> {
        let now = Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = pace.get_or_insert_with(|| Pace::new(per_minute, now));
        pace.set(per_minute, now);
        pace.count(now).map_err(|wait| {
            let equal = policy.unwrap_or(per_minute).max(per_minute);
            let wait = wait * per_minute.get() / equal.get();
            Exceeded::Rate(
                u32::try_from(wait.as_secs())
                    .unwrap_or(u32::MAX)
                    .saturating_add(1),
            )
        })
    }
}

/// Of what the policy limits, no more than it says and no more than the part is.
fn lesser(part: RequestLimits, policy: RequestLimits) -> RequestLimits {
    let least = |part: Option<NonZeroU32>, policy: Option<NonZeroU32>| {
        policy.map(|policy| part.map_or(policy, |part| part.min(policy)))
    };
    RequestLimits {
        requests_per_minute: least(part.requests_per_minute, policy.requests_per_minute),
        concurrent: least(part.concurrent, policy.concurrent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0: no limit.
    fn limits(per_minute: u32, concurrent: u32) -> RequestLimits {
        RequestLimits {
            requests_per_minute: NonZeroU32::new(per_minute),
            concurrent: NonZeroU32::new(concurrent),
        }
    }

    #[test]
    fn no_more_are_under_way_than_the_policy_says() {
        let quota = Quota::new(64);
        let first = quota.take(Some(limits(0, 2))).unwrap();
        let _second = quota.take(Some(limits(0, 2))).unwrap();
        assert_eq!(quota.take(Some(limits(0, 2))).unwrap_err(), Exceeded::Concurrent);
        // What was refused took no room.
        let third = quota.take(Some(limits(0, 3))).unwrap();
        drop((first, third));
        assert!(quota.take(Some(limits(0, 2))).is_ok());
    }

    #[test]
    fn what_another_replica_has_counted_takes_room_and_nothing_of_the_limits() {
        let quota = Quota::new(2);
        let policy = limits(1, 1);
        let handed_on = quota.take(None).unwrap();
        assert_eq!(quota.asked(policy), Amounts::default());
        let own = quota.take(Some(policy)).unwrap();
        assert_eq!(quota.take(None).unwrap_err(), Exceeded::Bound);
        drop(handed_on);
        assert_eq!(quota.take(Some(policy)).unwrap_err(), Exceeded::Concurrent);
        drop(own);
        assert_eq!(quota.under_way(), 0);
    }

    #[test]
    fn no_more_are_made_than_the_policy_says() {
        let quota = Quota::new(1);
        let first = quota.take(Some(limits(2, 0))).unwrap();
        // It finds no room, and doesn't count.
        assert_eq!(quota.take(Some(limits(2, 0))).unwrap_err(), Exceeded::Bound);
        drop(first);
        drop(quota.take(Some(limits(2, 0))).unwrap());
        let refused = quota.take(Some(limits(2, 0))).unwrap_err();
        assert!(
            matches!(refused, Exceeded::Rate(seconds) if (1..=31).contains(&seconds)),
            "{refused:?}"
        );
        assert!(
            quota.take(Some(limits(0, 0))).is_ok(),
            "without a limit it is not counted"
        );
        // Of another pace no more is left than was.
        assert!(quota.take(Some(limits(3, 0))).is_err());
        // One of the two was none.
        quota.take_back(limits(2, 0));
        assert!(quota.take(Some(limits(2, 0))).is_ok());
        assert!(quota.take(Some(limits(2, 0))).is_err());
    }

    #[test]
    fn a_replica_gives_its_part_and_says_what_it_was_asked_for() {
        let quota = Quota::new(64);
        let policy = limits(100, 2);
        let amounts = |requests_per_minute, concurrent| Amounts {
            requests_per_minute,
            concurrent,
        };
        assert_eq!(
            (quota.held(policy), quota.asked(policy)),
            (amounts(100, 2), amounts(0, 0))
        );
        let open: Vec<_> = (0..2).map(|_| quota.take(Some(policy)).unwrap()).collect();
        assert_eq!(quota.asked(policy), amounts(2, 2));
        assert_eq!(quota.take(Some(policy)).unwrap_err(), Exceeded::Concurrent);
        assert_eq!(
            quota.asked(policy),
            amounts(4, 4),
            "twice what it has, since it was refused"
        );

        quota.give(limits(10, 1), policy);
        assert_eq!(quota.held(policy), amounts(10, 2), "two are still under way");
        assert_eq!(quota.take(Some(policy)).unwrap_err(), Exceeded::Concurrent);
        drop(open);
        assert_eq!(quota.held(policy), amounts(10, 1));
        let _open = quota.take(Some(policy)).unwrap();
        assert_eq!(quota.take(Some(policy)).unwrap_err(), Exceeded::Concurrent);

        // A part is of a limit, and makes none.
        assert_eq!(quota.held(limits(100, 0)), amounts(10, 0));
        quota.give(limits(200, 1), policy);
        assert_eq!(quota.held(policy), amounts(200, 1));
        // Of other limits it may be too much.
        assert_eq!(quota.held(limits(50, 4)), amounts(50, 1));
        assert_eq!(quota.held(limits(0, 4)), amounts(0, 1));
        quota.at_most(policy);
        assert_eq!(quota.held(policy), amounts(100, 1));
        quota.give_all();
        assert_eq!(quota.held(policy), amounts(100, 2));

        // What was begun long ago is still asked for.
        let other = Quota::new(64);
        let open = other.take(Some(limits(0, 0))).unwrap();
        assert_eq!(other.asked(limits(0, 0)), amounts(0, 0));
        assert_eq!(other.asked(policy), amounts(0, 1));
        drop(open);
        // With a part that grows when it is asked for, nobody has to wait as long as it would take.
        other.give(limits(1, 0), policy);
        drop(other.take(Some(policy)).unwrap());
        assert_eq!(other.take(Some(policy)).unwrap_err(), Exceeded::Rate(1));
    }
}
