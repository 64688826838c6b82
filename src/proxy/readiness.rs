//! What must be true before the kubelet starts the server, and before agents are sent here.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::timeout,
};
use tracing::{info, warn};

use crate::{drain::Drain, keyring::Keyring, live::Live};

/// Time for the look at the MCP server's port.
const UPSTREAM_LOOK: Duration = Duration::from_secs(1);

/// Time for the look at the server's lists that is under way.
const INVENTORY_LOOK: Duration = Duration::from_millis(500);

/// Facts that the probes report. Each is set by the part that knows it.
#[derive(Debug, Default)]
pub struct Readiness {
    network_was_closed: AtomicBool,
    network_is_closed: AtomicBool,
    inventory_is_taken: watch::Sender<bool>,
    inventory_is_due: Notify,
    told: Mutex<Option<Vec<Missing>>>,
}

/// What is still missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The policy of the pod's revision was never mounted.
    Policy,
    /// No usable certificate, key or trust roots, of agents or servers.
    Certificates,
    /// No keys to verify tokens with.
    TokenKeys,
    /// No key to seal handles with.
    HandlesKey,
    /// The canary hasn't passed yet.
    NetworkProof,
    /// The canary had passed and can be reached again.
    NetworkReopened,
    /// The pod is going away.
    Draining,
    /// Nothing accepts connections at the upstream port.
    Upstream,
    /// The server's lists weren't read since it started.
    Inventory,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "the policy of this pod's revision is not mounted yet",
            Self::Certificates => "certificate, key or trust roots are missing or broken",
            Self::TokenKeys => "the keys that verify tokens are missing or broken",
            Self::HandlesKey => "the key of handles is missing or broken",
            Self::NetworkProof => {
                "the network is not proven closed: the canary has not been refused often enough"
            }
            Self::NetworkReopened => "the network is open: the canary can be reached",
            Self::Draining => "draining",
            Self::Upstream => "the MCP server does not accept connections on its port",
            Self::Inventory => "the MCP server's own lists are not known yet",
        })
    }
}

impl Readiness {
    /// Records what the canary showed.
    pub fn network_is(&self, closed: bool) {
        self.network_is_closed.store(closed, Ordering::Release);
        if closed {
            self.network_was_closed.store(true, Ordering::Release);
        }
    }

    /// Whether the network is proven closed at this moment.
    pub fn network_is_closed(&self) -> bool {
        self.network_is_closed.load(Ordering::Acquire)
    }

    /// What the startup probe waits for. Empty: the MCP server may start.
    pub fn missing_to_start(&self, live: &Live, keyring: &Keyring) -> Vec<Missing> {
        let mut missing = Vec::new();
        if live.policy().is_none() {
            missing.push(Missing::Policy);
        }
        if live.tls().is_none() || live.peers().is_none() {
            missing.push(Missing::Certificates);
        }
        if live.token_keys().is_none() {
            missing.push(Missing::TokenKeys);
        }
        if !keyring.is_loaded() {
            missing.push(Missing::HandlesKey);
        }
        if !self.network_was_closed.load(Ordering::Acquire) {
            missing.push(Missing::NetworkProof);
        }
        missing
    }

    /// What the readiness probe waits for. Empty: agents may be sent here.
    pub async fn missing_to_serve(&self, live: &Live, keyring: &Keyring, drain: &Drain) -> Vec<Missing> {
        let mut missing = self.missing_to_start(live, keyring);
        if !missing.contains(&Missing::NetworkProof) && !self.network_is_closed() {
            missing.push(Missing::NetworkReopened);
        }
        if drain.has_begun() {
            missing.push(Missing::Draining);
        }
        if let Some(policy) = live.policy() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, policy.target().port()));
            if !matches!(
                timeout(UPSTREAM_LOOK, TcpStream::connect(address)).await,
                Ok(Ok(_))
            ) {
                missing.push(Missing::Upstream);
                // What comes back may be another program.
                self.inventory_is_taken.send_replace(false);
                self.inventory_is_due();
            }
        }
        // A server that has just begun to listen is about to be asked: better a probe that takes a moment than one more.
        let mut taken = self.inventory_is_taken.subscribe();
        let is_up = !missing.contains(&Missing::Upstream);
        let patience = if is_up { INVENTORY_LOOK } else { Duration::ZERO };
        if !matches!(timeout(patience, taken.wait_for(|taken| *taken)).await, Ok(Ok(_))) {
            missing.push(Missing::Inventory);
        }
        missing
    }

    /// Records that the server's lists were read.
    pub fn inventory_is_taken(&self) {
        self.inventory_is_taken.send_replace(true);
    }

    /// Whether the server's lists were read since it was last seen to start.
    pub fn has_inventory(&self) -> bool {
        *self.inventory_is_taken.borrow()
    }

    /// Asks for another look at the server's lists.
    pub fn inventory_is_due(&self) {
        self.inventory_is_due.notify_one();
    }

    /// Waits until somebody asks for another look.
    pub async fn until_inventory_is_due(&self) {
        self.inventory_is_due.notified().await;
    }

    /// Says in the log when what is missing to serve has changed: the kubelet's events have an answer's status only.
    pub fn tell(&self, missing: &[Missing]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_deref() == Some(missing) {
            return;
        }
        if missing.is_empty() {
            info!("ready");
        } else {
            let why: Vec<_> = missing.iter().map(ToString::to_string).collect();
            warn!(missing = why.join("; "), "not ready");
        }
        *told = Some(missing.to_vec());
    }
}
