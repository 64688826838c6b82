//! What is asked of this replica, by an agent or by all together: so that the replicas can divide limits by it.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// What is counted together, and how many of them make at least a minute.
const SLOT: Duration = Duration::from_secs(10);
const SLOTS: u32 = 7;

/// Requests in a minute, and requests under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// 0: no limit, or nothing.
    pub requests_per_minute: u32,
    /// 0: no limit, or nothing.
    pub concurrent: u32,
}

/// Counts what is asked for.
#[derive(Debug, Default)]
pub struct Asked {
    requests: AtomicU32,
    at_once: AtomicU32,
    slots: Mutex<Slots>,
}

/// The newest first.
#[derive(Debug, Default)]
struct Slots {
    begun: Option<Instant>,
    slots: VecDeque<Amounts>,
}

impl Asked {
    /// One request came.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// So many were wanted at once.
    pub fn at_once(&self, number: u32) {
        self.at_once.fetch_max(number, Ordering::Relaxed);
    }

    /// What was asked for within a minute, rounded up to a power of two: what wavers a little stays the same. To be asked
    /// every few seconds, with a time that doesn't go back.
    pub fn within_a_minute(&self, now: Instant) -> Amounts {
        let Slots { begun, slots } = &mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_empty() {
            slots.push_front(Amounts::default());
        }
        if let Some(newest) = slots.front_mut() {
            newest.requests_per_minute = newest
                .requests_per_minute
                .saturating_add(self.requests.swap(0, Ordering::Relaxed));
            newest.concurrent = newest.concurrent.max(self.at_once.swap(0, Ordering::Relaxed));
        }
        let begun = begun.get_or_insert(now);
        while now.saturating_duration_since(*begun) >= SLOT {
            let pause = now.saturating_duration_since(*begun) > SLOT * SLOTS;
            *begun = if pause { now } else { *begun + SLOT };
            if pause {
                slots.clear();
            }
            slots.push_front(Amounts::default());
        }
        slots.truncate(SLOTS as usize);
        let sum = slots
            .iter()
            .fold(0_u32, |sum, slot| sum.saturating_add(slot.requests_per_minute));
        let most = slots.iter().map(|slot| slot.concurrent).max().unwrap_or_default();
        Amounts {
            requests_per_minute: rounded(sum),
            concurrent: rounded(most),
        }
    }
}

fn rounded(number: u32) -> u32 {
    match number {
        0 => 0,
        number => number.checked_next_power_of_two().unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_counts_for_a_minute() {
        let asked = Asked::default();
        let begin = Instant::now();
        let at = |seconds| {
            let Amounts {
                requests_per_minute,
                concurrent,
            } = asked.within_a_minute(begin + Duration::from_secs(seconds));
            (requests_per_minute, concurrent)
        };
        assert_eq!(at(0), (0, 0));
        for _ in 0..5 {
            asked.request();
        }
        asked.at_once(3);
        asked.at_once(2);
        assert_eq!(at(1), (8, 4));
        asked.request();
        for seconds in (2..50).step_by(4) {
            assert_eq!(at(seconds), (8, 4), "{seconds}");
        }
        (0..3).for_each(|_| asked.request());
        assert_eq!(at(50), (16, 4));
        for seconds in (54..110).step_by(4) {
            let (requests, _) = at(seconds);
            assert!(requests > 0, "{seconds}");
        }
        assert_eq!(at(130), (0, 0));
        // After a long pause nothing of before is left.
        asked.request();
        assert_eq!(at(131), (1, 0));
        assert_eq!(at(100_000), (0, 0));
        asked.request();
        assert_eq!(at(100_011), (1, 0));
        assert_eq!(rounded(u32::MAX), u32::MAX);
    }
}
