//! The canary: proof that the network is closed before the MCP server may run.
//!
//! Network plugins program a pod some time after it starts, and some clusters enforce no
//! `NetworkPolicy` at all. A pod of a tenant may not reach the API server, so the sidecar dials it
//! until it has been refused often enough in a row. The decision is a pure state machine; the
//! dialling is a thin loop around it.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{metrics::Metrics, readiness::Readiness};

/// Refusals in a row that prove a closed network. More than one, because a plugin that is still
/// programming the pod may drop a single packet.
const REFUSALS: u32 = 5;

/// Time after which a canary that can still be reached means that nothing is enforced.
const DEADLINE: Duration = Duration::from_mins(2);

/// Pause between two dials once the canary has passed.
const RECHECK: Duration = Duration::from_mins(1);

/// Time for one dial.
const DIAL: Duration = Duration::from_secs(1);

/// What one dial showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Nothing answered, or the network said no.
    Refused,
    /// A connection was made.
    Reachable,
    /// The dial failed for a reason of this pod's own (no file descriptor, no address, no route, as
    /// to an IPv6 canary from a pod without IPv6): it shows nothing, and so it never counts for a
    /// closed network.
    Inconclusive,
}

/// What the observations so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet.
    Waiting,
    /// Closed.
    Closed,
    /// Was closed, and now is not.
    Reopened,
    /// Never closed within the deadline.
    NotEnforced,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Canary {
    refusals: u32,
    passed: bool,
}

impl Canary {
    /// Takes one observation, made `elapsed` after the start.
    pub fn observe(&mut self, observation: Observation, elapsed: Duration) -> Verdict {
        self.refusals = match observation {
            Observation::Refused => self.refusals.saturating_add(1),
            Observation::Reachable | Observation::Inconclusive => 0,
        };
        match observation {
            Observation::Reachable if self.passed => Verdict::Reopened,
            Observation::Reachable if elapsed >= DEADLINE => Verdict::NotEnforced,
            _ if self.refusals >= REFUSALS => {
                self.passed = true;
                Verdict::Closed
            }
            _ => Verdict::Waiting,
        }
    }

    /// Pause before the next dial: short, an `interval`, while something is open or unproven.
    fn pause(&self, interval: Duration) -> Duration {
        if self.refusals >= REFUSALS {
            RECHECK
        } else {
            interval
        }
    }
}

/// The network turned out to be open.
#[derive(Debug, thiserror::Error)]
#[error(
    "the canary {canary} was still reachable after {} s: this cluster does not enforce NetworkPolicy, so the MCP server is not started",
    DEADLINE.as_secs()
)]
pub struct NetworkNotEnforced {
    canary: SocketAddr,
}

/// Dials the canary until the process ends, or until it must.
pub async fn watch(
    canary: SocketAddr,
    interval: Duration,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
) -> NetworkNotEnforced {
    let start = Instant::now();
    let mut state = Canary::default();
    let mut last = Verdict::Waiting;
    loop {
        let observation = dial(canary).await;
        let verdict = state.observe(observation, start.elapsed());
        if observation == Observation::Reachable {
            metrics.canary_reachable.inc();
        }
        match verdict {
            Verdict::Closed => readiness.network_is(true),
            Verdict::Reopened => readiness.network_is(false),
            Verdict::Waiting => {}
            Verdict::NotEnforced => {
                let failure = NetworkNotEnforced { canary };
                error!(canary.address = %canary, "{failure}");
                return failure;
            }
        }
        if verdict != last {
            match verdict {
                Verdict::Closed => {
                    info!(canary.address = %canary, "the network is closed: the canary was refused {REFUSALS} times in a row");
                }
                Verdict::Reopened => {
                    error!(canary.address = %canary, "the network was closed and is open again: the canary can be reached; this pod is no longer ready");
                }
                Verdict::Waiting => {
                    warn!(canary.address = %canary, ?observation, "the network is not proven closed");
                }
                Verdict::NotEnforced => {}
            }
            last = verdict;
        }
        sleep(state.pause(interval)).await;
    }
}

async fn dial(canary: SocketAddr) -> Observation {
    match timeout(DIAL, TcpStream::connect(canary)).await {
        Ok(Ok(_)) => Observation::Reachable,
        Ok(Err(error)) => classify(&error),
        Err(_) => Observation::Refused,
    }
}

fn classify(error: &io::Error) -> Observation {
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::TimedOut
        // A packet dropped in this host's own output chain is reported as EPERM.
        | ErrorKind::PermissionDenied => Observation::Refused,
        _ => Observation::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Observation::{Inconclusive, Reachable, Refused};

    const EARLY: Duration = Duration::from_secs(1);

    fn verdict_after(observations: &[Observation], elapsed: Duration) -> Verdict {
        let mut canary = Canary::default();
        observations
            .iter()
            .map(|o| canary.observe(*o, elapsed))
            .last()
            .unwrap()
    }

    #[test]
    fn five_refusals_in_a_row_close_the_network_and_fewer_do_not() {
        for (observations, verdict) in [
            (&[Refused; 4][..], Verdict::Waiting),
            (&[Refused; 5], Verdict::Closed),
            (
                &[Refused, Refused, Refused, Refused, Reachable, Refused],
                Verdict::Waiting,
            ),
            (
                &[Refused, Refused, Refused, Refused, Inconclusive, Refused],
                Verdict::Waiting,
            ),
            (
                &[Reachable, Refused, Refused, Refused, Refused, Refused],
                Verdict::Closed,
            ),
            (&[Reachable; 9], Verdict::Waiting),
        ] {
            assert_eq!(verdict_after(observations, EARLY), verdict, "{observations:?}");
        }
    }

    #[test]
    fn reachable_at_the_deadline_means_not_enforced_and_nothing_else_does() {
        assert_eq!(verdict_after(&[Reachable], DEADLINE), Verdict::NotEnforced);
        assert_eq!(
            verdict_after(&[Reachable], DEADLINE.saturating_sub(EARLY)),
            Verdict::Waiting
        );
        assert_eq!(verdict_after(&[Refused; 4], DEADLINE), Verdict::Waiting);
        assert_eq!(verdict_after(&[Refused; 5], DEADLINE), Verdict::Closed);
        assert_eq!(verdict_after(&[Inconclusive; 9], DEADLINE), Verdict::Waiting);
    }

    #[test]
    fn a_network_that_opens_again_is_told_and_must_prove_itself_again() {
        let mut canary = Canary::default();
        for _ in 0..REFUSALS {
            canary.observe(Refused, EARLY);
        }
        assert_eq!(canary.pause(EARLY), RECHECK);
        assert_eq!(canary.observe(Reachable, DEADLINE * 2), Verdict::Reopened);
        assert_eq!(canary.pause(EARLY), EARLY);
        for _ in 1..REFUSALS {
            assert_eq!(canary.observe(Refused, DEADLINE * 2), Verdict::Waiting);
        }
        assert_eq!(canary.observe(Refused, DEADLINE * 2), Verdict::Closed);
    }

    #[test]
    fn only_the_network_s_own_refusals_count() {
        for kind in [
            ErrorKind::ConnectionRefused,
            ErrorKind::HostUnreachable,
            ErrorKind::TimedOut,
        ] {
            assert_eq!(classify(&kind.into()), Refused);
        }
        for kind in [
            ErrorKind::AddrNotAvailable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::OutOfMemory,
            ErrorKind::Other,
        ] {
            assert_eq!(classify(&kind.into()), Inconclusive);
        }
    }

    #[tokio::test]
    async fn a_listener_is_reachable_and_a_closed_port_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(dial(address).await, Reachable);
        drop(listener);
        assert_eq!(dial(address).await, Refused);
    }
}
