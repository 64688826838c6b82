//! What all connections and endpoints of one sidecar share.

use std::net::SocketAddr;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio_util::task::TaskTracker;

use crate::{
    admission::Admission, audit::AuditLog, detached::Detached, drain::Drain, findings::Findings,
    keyring::Keyring, limits::Limits, live::Live, metrics::Metrics, minter::Minter, readiness::Readiness,
    tokens::Tokens, upstream::Upstream,
};

/// The state of one sidecar process.
pub struct Shared {
    /// Its bounds.
    pub limits: Limits,
    /// Port of the mTLS endpoint, the only one that may follow a name in `Host`.
    pub port: u16,
    /// Policy, certificate and trust in force.
    pub live: Arc<Live>,
    /// What the probes report.
    pub readiness: Arc<Readiness>,
    /// Calls under way, and going away.
    pub drain: Arc<Drain>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds on calls under way.
    pub admission: Admission,
    /// Seals handles.
    pub keyring: Arc<Keyring>,
    /// Verifies the tokens of agents.
    pub tokens: Tokens,
    /// Makes the credentials of upstream requests.
    pub minter: Minter,
    /// Calls whose answer is to come on another stream.
    pub detached: Detached,
    /// What rules that only report would have refused.
    pub findings: Findings,
    /// The MCP server.
    pub upstream: Upstream,
    /// The tasks of open connections.
    pub connections: TaskTracker,
    /// The audit.
    pub audit: AuditLog,
    /// Random, one for each start of the sidecar: the numbers of calls begin anew with it.
    pub run: u64,
    calls: AtomicU64,
}

impl Shared {
    /// State of a sidecar that has loaded nothing and proven nothing yet: agents come in by the port, other
    /// replicas by the address.
    pub fn new(
        port: u16,
        here: SocketAddr,
        limits: Limits,
        audit: AuditLog,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut run = [0; 8];
        aws_lc_rs::rand::fill(&mut run)?;
        Ok(Self {
            run: u64::from_le_bytes(run),
            port,
            live: Arc::default(),
            readiness: Arc::default(),
            drain: Arc::default(),
            metrics: Arc::default(),
            admission: Admission::new(&limits),
            keyring: Arc::new(Keyring::new(here.to_string())),
            tokens: Tokens::default(),
            minter: Minter::new()?,
            detached: Detached::default(),
            findings: Findings::default(),
            upstream: Upstream::new(&limits),
            connections: TaskTracker::new(),
            audit,
            calls: AtomicU64::new(0),
            limits,
        })
    }

    /// The number of the next call: a record and its outcome have the same.
    pub fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
