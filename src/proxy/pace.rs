//! How often something may be done: so many times in a minute, all at once after a quiet one. Pure.
//!
//! The generic cell rate algorithm (ITU-T I.371). Ours, since the pace changes while it is kept and what was used of it
//! stays used: libraries begin anew.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// The time that a pace is given for.
const MINUTE: Duration = Duration::from_mins(1);

/// A pace, and what was used of it.
#[derive(Debug)]
pub struct Pace {
    per_minute: NonZeroU32,
    /// When nothing of what was used counts any more.
    settled: Instant,
}

impl Pace {
    /// Nothing used yet.
    pub fn new(per_minute: NonZeroU32, now: Instant) -> Self {
        Self {
            per_minute,
            settled: now,
        }
    }

    /// Counts one use. An error: how long until there is room for it.
    pub fn count(&mut self, now: Instant) -> Result<(), Duration> {
        let used = self.used(now) + MINUTE / self.per_minute.get();
        match used.checked_sub(MINUTE) {
            Some(early) if !early.is_zero() => Err(early),
            _ => {
                self.settled = now + used;
                Ok(())
            }
        }
    }

    /// What was counted last wasn't used.
    pub fn take_back(&mut self) {
        let each = MINUTE / self.per_minute.get();
        self.settled = self.settled.checked_sub(each).unwrap_or(self.settled);
    }

    /// Another pace from now on. As many uses are left as were before, or as many as the new one has at all.
    pub fn set(&mut self, per_minute: NonZeroU32, now: Instant) {
        let left = MINUTE.saturating_sub(self.used(now)).as_nanos();
        let left = left * u128::from(self.per_minute.get()) / u128::from(per_minute.get());
        let left = u64::try_from(left)
            .map_or(MINUTE, Duration::from_nanos)
            .min(MINUTE);
        *self = Self {
            per_minute,
            settled: now + MINUTE.saturating_sub(left),
        };
    }

    /// What was used, as the part of a minute that it stands for.
    fn used(&self, now: Instant) -> Duration {
        self.settled.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(per_minute: u32) -> NonZeroU32 {
        NonZeroU32::new(per_minute).unwrap()
    }

    /// How many uses there are at this moment.
    fn left(pace: &mut Pace, now: Instant) -> u32 {
        (0..=u32::MAX).find(|_| pace.count(now).is_err()).unwrap()
    }

    #[test]
    fn so_many_in_a_minute_and_all_at_once_after_a_quiet_one() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        for per_minute in [1, 7, 60, 600, 1_000_000] {
            let mut kept = Pace::new(pace(per_minute), begin);
            assert_eq!(left(&mut kept, begin), per_minute);
            let wait = kept.count(begin).unwrap_err();
            assert!(kept.count(begin + wait / 2).is_err(), "{per_minute}");
            assert!(kept.count(begin + wait).is_ok(), "{per_minute}");
        }
        let mut kept = Pace::new(pace(60), begin);
        assert_eq!(left(&mut kept, begin), 60);
        assert_eq!(left(&mut kept, after(10)), 10);
        assert_eq!(left(&mut kept, after(1000)), 60);
    }

    #[test]
    fn another_pace_gives_back_nothing_that_was_used() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        for (from, used, to, expected) in [
            (100, 0, 10, 10),
            (100, 95, 10, 5),
            (100, 100, 1000, 0),
            (100, 40, 1000, 60),
            (100, 40, 100, 60),
        ] {
            let mut kept = Pace::new(pace(from), begin);
            assert!((0..used).all(|_| kept.count(begin).is_ok()));
            kept.set(pace(to), begin);
            assert_eq!(left(&mut kept, begin), expected, "{used} of {from}, then {to}");
            assert_eq!(left(&mut kept, after(6)), to / 10, "the new pace");
        }
        // What wasn't used is there again.
        let mut kept = Pace::new(pace(10), begin);
        assert_eq!(left(&mut kept, begin), 10);
        kept.take_back();
        kept.take_back();
        assert_eq!(left(&mut kept, begin), 2);
        // Whoever gives up a part and gets it back has not used it meanwhile, and has it not anew either.
        let mut kept = Pace::new(pace(100), begin);
        kept.set(pace(10), begin);
        kept.set(pace(100), begin);
        assert_eq!(left(&mut kept, begin), 10);
    }
}
