//! The operator, as far as a sidecar has to do with it: it is told what is in force here, and says which parts of the agents'
//! limits are this replica's. Nothing here waits for it, and without it everything stays as it is, and the parts become
//! equal.

mod parts;
mod report;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::rand;
use bulkhead_control::{
    ALPN, SidecarReport,
    client::{self, ClientError},
};
use bulkhead_core::control;
use futures::Stream;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tracing::{debug, info, warn};

use crate::{
    shared::Shared,
    tls::{self, Credentials, TlsError, Trust},
};

pub use report::report;

/// Time to connect and shake hands.
const CONNECT: Duration = Duration::from_secs(5);

/// Pause before another try: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often it is looked whether there is something to report that nothing woke for.
const LOOK: Duration = Duration::from_secs(1);

/// The least time from one report to the next, of the first few of a call and of those after them. The operator ends a
/// call that has more.
const EARLY: Duration = Duration::from_millis(250);
const LATE: Duration = Duration::from_secs(4);
const FEW: u32 = 8;

/// Where the operator is, and by what it is trusted.
pub struct Operator {
    address: SocketAddr,
    host: String,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

/// Why the document that says where the operator is can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Not of the shape that this code knows.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
    /// Of another format.
    #[error("it has format {0}, this sidecar reads format {known}", known = control::FORMAT)]
    Format(u32),
    /// Its roots or our certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No host name.
    #[error("{0:?} is no host name")]
    Host(String),
}

impl Operator {
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Of the mounted document and the sidecar's own certificate.
    pub fn new(document: &[u8], credentials: &Credentials) -> Result<Self, OperatorError> {
        let control::Operator {
            format,
            address,
            host,
            roots,
        } = serde_json::from_slice(document)?;
        if format != control::FORMAT {
            return Err(OperatorError::Format(format));
        }
        let roots = Trust::from_pem(bulkhead_core::pod::CONTROL_FILE, roots.as_bytes())?;
        let mut tls = tls::client_config(credentials, &roots)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            address,
            name: ServerName::try_from(host.clone()).map_err(|_| OperatorError::Host(host.clone()))?,
            host,
            tls: Arc::new(tls),
        })
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator")
            .field("address", &self.address)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Why a call ended badly.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the token can't be read: {0}")]
    Token(io::Error),
    #[error("{0} can't be reached: {1}")]
    Connect(SocketAddr, io::Error),
    #[error(transparent)]
    Call(#[from] ClientError),
}

/// Reports for as long as it runs, once it is known where to. `token` is the file with the token.
pub async fn keep(shared: Arc<Shared>, token: PathBuf) {
    let mut failures = 0;
    let mut alone: Option<Instant> = None;
    loop {
        if alone.is_some_and(|since| since.elapsed() > shared.limits.alone) {
            parts::forget(&shared);
            alone = None;
        }
        let Some(operator) = shared.live.operator() else {
            sleep(LOOK).await;
            continue;
        };
        let begun = Instant::now();
        let ended = match call(&shared, &operator, &token).await {
            Ok(call) => {
                let ended = listen(&shared, call).await;
                shared.metrics.operator_attached.set(0);
                parts::stand_alone(&shared);
                alone = Some(Instant::now());
                ended.map_err(CallError::from)
            }
            Err(error) => Err(error),
        };
        if begun.elapsed() > LONGEST_PAUSE {
            failures = 0;
        }
        match ended {
            Ok(()) => {
                debug!("the operator wants to be called anew");
                sleep(pause(0)).await;
                failures = 0;
                continue;
            }
            Err(error) if failures == 0 => {
                warn!(%error, "cannot report to the operator; what is in force stays so");
            }
            Err(error) => debug!(%error, "cannot report to the operator"),
        }
        sleep(pause(failures)).await;
        failures += 1;
    }
}

/// A call that is under way, with the number of the parts that came on it last.
struct Call {
    control: client::Call,
    number: Arc<AtomicU64>,
}

async fn call(shared: &Arc<Shared>, operator: &Arc<Operator>, token: &Path) -> Result<Call, CallError> {
    let unreachable = |error| CallError::Connect(operator.address, error);
    let token = fs::read_to_string(token).map_err(CallError::Token)?;
    let connecting = async {
        let stream = TcpStream::connect(operator.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&operator.tls));
        connector.connect(operator.name.clone(), stream).await
    };
    let stream = timeout(CONNECT, connecting)
        .await
        .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
        .map_err(unreachable)?;
    let number = Arc::default();
    let reports = reports(Arc::clone(shared), Arc::clone(operator), Arc::clone(&number));
    let control = client::call(stream, &operator.host, &token, reports).await?;
    info!(operator.address = %operator.address, "reporting to the operator");
    shared.metrics.operator_attached.set(1);
    Ok(Call { control, number })
}

/// Takes what the operator says, to the end of the call.
async fn listen(shared: &Shared, mut call: Call) -> Result<(), ClientError> {
    while let Some(said) = call.control.parts().await? {
        debug!(said.number, "other parts of the limits");
        parts::take(shared, &said);
        // Only now, so that a report never says that they are in force while they aren't.
        call.number.store(said.number, Ordering::Release);
    }
    Ok(())
}

/// Half of the time to all of it: sidecars that lost the same operator don't come back at once.
fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE
        .saturating_mul(1 << failures.min(8))
        .min(LONGEST_PAUSE);
    let mut random = [0];
    // Without randomness, the longest.
    let part = rand::fill(&mut random).map_or(255, |()| u32::from(random[0]));
    longest / 2 + longest * part / 510
}

/// A report now, and each time that it is another. Ends when the operator is to be called in another way.
fn reports(
    shared: Arc<Shared>,
    operator: Arc<Operator>,
    number: Arc<AtomicU64>,
) -> impl Stream<Item = SidecarReport> + Send {
    struct State {
        shared: Arc<Shared>,
        operator: Arc<Operator>,
        number: Arc<AtomicU64>,
        changes: watch::Receiver<u64>,
        last: Option<SidecarReport>,
        made: u32,
    }
    let changes = shared.live.changes();
    let state = State {
        shared,
        operator,
        number,
        changes,
        last: None,
        made: 0,
    };
    futures::stream::unfold(state, async |mut state| {
        if state.made > 0 {
            sleep(if state.made < FEW { EARLY } else { LATE }).await;
        }
        loop {
            let is_current = state
                .shared
                .live
                .operator()
                .is_some_and(|operator| Arc::ptr_eq(&operator, &state.operator));
            if !is_current {
                return None;
            }
            // Before what is said of them.
            let parts = state.number.load(Ordering::Acquire);
            let report = SidecarReport {
                parts,
                usage: parts::usage(&state.shared),
                ..report(&state.shared)
            };
            if state.last.as_ref() != Some(&report) {
                state.last = Some(report.clone());
                state.made += 1;
                return Some((report, state));
            }
            tokio::select! {
                // Its sender lives as long as the sidecar.
                _ = state.changes.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for failures in 0..40 {
            let whole = (FIRST_PAUSE * (1 << failures.min(8))).min(LONGEST_PAUSE);
            let pauses: Vec<_> = (0..64).map(|_| pause(failures)).collect();
            assert!(
                pauses.iter().all(|pause| (whole / 2..=whole).contains(pause)),
                "{failures}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{failures}");
        }
    }
}
