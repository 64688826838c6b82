//! Going away without failing a call: announce, wait for the cluster to notice, close, wait for
//! what is under way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::info;

/// How long a connection without a call may wait for its next one once connections are told to go: with that one's answer it
/// is.
pub const LATE_CALL: Duration = Duration::from_secs(1);

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not draining.
    Serving,
    /// Unready, but everything is still served: endpoints need time to propagate.
    Announced,
    /// Connections are told to go (GOAWAY, `Connection: close`); calls under way go on.
    Closing,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// No call is under way.
    Idle,
    /// The deadline came first; this many calls are under way.
    Deadline(usize),
}

/// The drain of one sidecar, shared by all its connections.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    calls: AtomicUsize,
    idle: Notify,
}

/// One call under way. Dropping it ends the call.
#[derive(Debug)]
pub struct CallGuard(Arc<Drain>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        if self.0.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            calls: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }
}

impl Drain {
    /// Counts a call from now to the guard's drop.
    pub fn call(self: &Arc<Self>) -> CallGuard {
        self.calls.fetch_add(1, Ordering::AcqRel);
        CallGuard(Arc::clone(self))
    }

    /// Calls under way.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    /// Whether a drain has begun.
    pub fn has_begun(&self) -> bool {
        *self.phase.borrow() > Phase::Serving
    }

    /// Whether connections are told to go.
    pub fn is_closing(&self) -> bool {
        *self.phase.borrow() == Phase::Closing
    }

    /// Ends when connections must be told to go.
    pub async fn closing(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    }

    /// Drains: announces, waits `grace`, closes, and waits until nothing is under way or `deadline`
    /// has passed since the beginning. May be called again, and by several at once; it never goes
    /// back.
    pub async fn run(&self, grace: Duration, deadline: Duration) -> Drained {
        let end = Instant::now() + deadline;
        if self.raise(Phase::Announced) {
            info!(calls = self.calls(), "draining: no longer ready");
        }
        if !self.is_closing() {
            sleep(grace.min(deadline)).await;
            if self.raise(Phase::Closing) {
                info!(calls = self.calls(), "draining: closing connections");
            }
            // Until then nothing under way doesn't mean that nothing comes.
            sleep_until(end.min(Instant::now() + LATE_CALL)).await;
        }
        loop {
            let idle = self.idle.notified();
            let calls = self.calls();
            if calls == 0 {
                return Drained::Idle;
            }
            if timeout_at(end, idle).await.is_err() {
                return Drained::Deadline(self.calls());
            }
        }
    }

    fn raise(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            if later {
                *phase = to;
            }
            later
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_last_call() {
        let drain = Arc::new(Drain::default());
        let (first, second) = (drain.call(), drain.call());
        let running = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.run(GRACE, DEADLINE).await }
        });
        drain.closing().await;
        drop(first);
        assert!(!running.is_finished());
        drop(second);
        assert_eq!(running.await.unwrap(), Drained::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_serves_on_during_its_grace() {
        let drain = Arc::new(Drain::default());
        let start = Instant::now();
        let running = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.run(GRACE, DEADLINE).await }
        });
        while !drain.has_begun() {
            tokio::task::yield_now().await;
        }
        assert!(!drain.is_closing());
        drain.closing().await;
        assert_eq!(start.elapsed(), GRACE);
        assert_eq!(running.await.unwrap(), Drained::Idle);
    }

    /// Several hooks of one pod drain it: none is told that nothing is under way before connections had the time for a call.
    #[tokio::test(start_paused = true)]
    async fn no_drain_ends_before_who_was_between_two_calls_could_make_the_next() {
        let drain = Arc::new(Drain::default());
        let start = Instant::now();
        let runs = [(); 2].map(|()| {
            let drain = Arc::clone(&drain);
            tokio::spawn(async move { (drain.run(GRACE, DEADLINE).await, start.elapsed()) })
        });
        drain.closing().await;
        let call = drain.call();
        sleep(2 * LATE_CALL).await;
        drop(call);
        for run in runs {
            assert_eq!(run.await.unwrap(), (Drained::Idle, GRACE + 2 * LATE_CALL));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_at_its_deadline_whatever_is_under_way() {
        let drain = Arc::new(Drain::default());
        let _call = drain.call();
        let start = Instant::now();
        assert_eq!(drain.run(GRACE, DEADLINE).await, Drained::Deadline(1));
        assert_eq!(start.elapsed(), DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_drain_does_not_wait_for_the_grace_again() {
        let drain = Drain::default();
        drain.run(GRACE, DEADLINE).await;
        let start = Instant::now();
        assert_eq!(drain.run(GRACE, DEADLINE).await, Drained::Idle);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(drain.is_closing());
    }
}
