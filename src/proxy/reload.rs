//! Hot reload of what is mounted: policy, certificate and key, trust roots, the key of handles.
//!
//! The folders are read again every few seconds and compared by hash. The kubelet swaps a
//! `ConfigMap`'s or Secret's folder by a symlink, which a watch on a file's inode misses. A broken
//! new file leaves the last good one in force, is logged and counted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bulkhead_core::{
    mcp::Pins,
    pod,
    policy::document::{KeyExchange, PolicyDocument},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::{
    config::Config,
    keyring::Keyring,
    limits::Limits,
    live::Live,
    metrics::Metrics,
    operator::Operator,
    peers::Peers,
    policy::LoadedPolicy,
    shared::Shared,
    tls::{self, Credentials, Trust},
    tokens::Keys,
};

/// Most bytes of one mounted file. A `ConfigMap` or Secret holds at most 1 MiB.
const MAX_FILE: u64 = 2 * 1024 * 1024;

/// A group of files that change together.
struct Source {
    name: &'static str,
    dir: PathBuf,
    files: &'static [&'static str],
    seen: Option<[u8; 32]>,
}

/// Reads the mounted folders and puts what changed in force.
pub struct Reloader {
    policy: Source,
    pins: Source,
    /// The pins that are mounted can't be used.
    pins_are_broken: bool,
    certificate: Source,
    trust: Source,
    peers: Source,
    token_keys: Source,
    handles: Source,
    operator: Source,
    first_revision: Option<String>,
    credentials: Option<Credentials>,
    roots: Option<Trust>,
    servers: Option<Trust>,
    operator_document: Option<Vec<u8>>,
    limits: Limits,
    live: Arc<Live>,
    keyring: Arc<Keyring>,
    metrics: Arc<Metrics>,
}

impl Source {
    fn new(name: &'static str, dir: &Path, files: &'static [&'static str]) -> Self {
        Self {
            name,
            dir: dir.to_owned(),
            files,
            seen: None,
        }
    }

    /// The files' contents if they differ from the last look, good or bad.
    fn changed(&mut self) -> Option<io::Result<Vec<Vec<u8>>>> {
        let read: io::Result<Vec<Vec<u8>>> =
            self.files.iter().map(|file| read(&self.dir.join(file))).collect();
        let mut hash = Sha256::new();
        match &read {
            Ok(contents) => {
                for content in contents {
                    hash.update(u64::try_from(content.len()).unwrap_or(u64::MAX).to_be_bytes());
                    hash.update(content);
                }
            }
            Err(error) => hash.update(format!("error {:?}", error.kind())),
        }
        let hash: [u8; 32] = hash.finalize().into();
        if self.seen.replace(hash) == Some(hash) {
            None
        } else {
            Some(read)
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    fs::read(path)
}

impl Reloader {
    /// A reloader of the folders that the configuration names.
    pub fn new(config: &Config, shared: &Shared) -> Self {
        Self {
            policy: Source::new("policy", &config.policy_dir, &[pod::POLICY_FILE]),
            pins: Source::new("pins", &config.policy_dir, &[pod::PINS_FILE]),
            pins_are_broken: false,
            certificate: Source::new("certificate", &config.tls_dir, &["tls.crt", "tls.key"]),
            trust: Source::new("trust", &config.trust_dir, &[pod::TRUST_FILE]),
            peers: Source::new("peers", &config.trust_dir, &[pod::PEERS_TRUST_FILE]),
            token_keys: Source::new("tokens", &config.trust_dir, &[pod::TOKEN_KEYS_FILE]),
            handles: Source::new("handles", &config.handles_dir, &[pod::HANDLES_FILE]),
            operator: Source::new("operator", &config.trust_dir, &[pod::CONTROL_FILE]),
            first_revision: Some(config.policy_revision.clone()),
            credentials: None,
            roots: None,
            servers: None,
            operator_document: None,
            limits: shared.limits.clone(),
            live: Arc::clone(&shared.live),
            keyring: Arc::clone(&shared.keyring),
            metrics: Arc::clone(&shared.metrics),
        }
    }

    /// Looks again and again.
    pub async fn run(mut self, pause: Duration) {
        loop {
            self.look();
            sleep(pause).await;
        }
    }

    /// Looks once.
    pub fn look(&mut self) {
        // First: no list is to be judged without them.
        self.look_at_pins();
        let key_exchange = self.look_at_policy();
        self.look_at_handles();
        self.look_at_token_keys();
        let certificate = self.look_at_certificate();
        let trust = self.look_at_trust();
        if certificate || trust || key_exchange {
            self.rebuild_tls();
        }
        if self.look_at_peers() || certificate {
            self.rebuild_peers();
        }
        if self.look_at_operator() || certificate {
            self.rebuild_operator();
        }
    }

    /// Whether keys are to be agreed on otherwise than before.
    fn look_at_policy(&mut self) -> bool {
        // A server that was pinned must not begin anew because its pins can't be read.
        if self.pins_are_broken && self.live.policy().is_none() {
            return false;
        }
        let Some(read) = self.policy.changed() else {
            return false;
        };
        let Some(bytes) = self
            .usable(self.policy.name, read)
            .and_then(|mut files| files.pop())
        else {
            return false;
        };
        let revision = PolicyDocument::revision_of(&bytes);
        // A ConfigMap may lag behind the pod that was made for its next version: until the pod's own
        // revision has been seen, an older one must not be enforced.
        if let Some(first) = &self.first_revision
            && *first != revision
        {
            warn!(policy.revision = %revision, expected = %first, "the mounted policy is not this pod's yet: waiting");
            self.metrics.reloaded("policy", "other_revision");
            return false;
        }
        match LoadedPolicy::load(&bytes) {
            Ok(policy) => {
                info!(policy.revision = %policy.revision(), "policy in force");
                self.metrics.reloaded("policy", "loaded");
                self.first_revision = None;
                let before = self.key_exchange();
                self.live.set_policy(policy);
                before != self.key_exchange()
            }
            Err(error) => {
                self.refused("policy", &error);
                false
            }
        }
    }

    fn look_at_pins(&mut self) {
        let Some(read) = self.pins.changed() else {
            return;
        };
        // A server that was never heard of has none.
        if read
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return;
        }
        self.pins_are_broken = true;
        let Some(json) = self
            .usable(self.pins.name, read)
            .and_then(|mut files| files.pop())
        else {
            return;
        };
        match Pins::from_json(&json) {
            Ok(pins) => {
                self.pins_are_broken = false;
                info!(pinned = pins.len(), "the server is held to pinned definitions");
                self.metrics.reloaded("pins", "loaded");
                self.live.pin(pins);
            }
            Err(error) => {
                self.refused("pins", &error);
                if self.live.policy().is_none() {
                    error!(
                        "the server is not started without its pins; the operator writes their ConfigMap anew when it is deleted"
                    );
                }
            }
        }
    }

    fn key_exchange(&self) -> Option<KeyExchange> {
        let policy = self.live.policy()?;
        Some(policy.compiled().key_exchange())
    }

    fn look_at_certificate(&mut self) -> bool {
        let Some(read) = self.certificate.changed() else {
            return false;
        };
        let Some(files) = self.usable(self.certificate.name, read) else {
            return false;
        };
        let [chain, key] = files.as_slice() else {
            return false;
        };
        match Credentials::from_pem(chain, key) {
            Ok(credentials) => {
                self.credentials = Some(credentials);
                true
            }
            Err(error) => {
                self.refused("certificate", &error);
                false
            }
        }
    }

    fn look_at_trust(&mut self) -> bool {
        let Some(read) = self.trust.changed() else {
            return false;
        };
        let Some(bundle) = self
            .usable(self.trust.name, read)
            .and_then(|mut files| files.pop())
        else {
            return false;
        };
        match Trust::from_pem(pod::TRUST_FILE, &bundle) {
            Ok(trust) => {
                self.live.set_trust(trust.clone());
                self.roots = Some(trust);
                self.metrics.reloaded("trust", "loaded");
                info!("trust roots in force");
                true
            }
            Err(error) => {
                self.refused("trust", &error);
                false
            }
        }
    }

    fn look_at_peers(&mut self) -> bool {
        let Some(read) = self.peers.changed() else {
            return false;
        };
        let Some(bundle) = self
            .usable(self.peers.name, read)
            .and_then(|mut files| files.pop())
        else {
            return false;
        };
        match Trust::from_pem(pod::PEERS_TRUST_FILE, &bundle) {
            Ok(trust) => {
                self.servers = Some(trust);
                true
            }
            Err(error) => {
                self.refused("peers", &error);
                false
            }
        }
    }

    fn look_at_handles(&mut self) {
        if self.keyring.adopt(Instant::now()) {
            info!("handles are sealed with the new key");
        }
        let Some(read) = self.handles.changed() else {
            return;
        };
        let Some(pem) = self
            .usable(self.handles.name, read)
            .and_then(|mut files| files.pop())
        else {
            return;
        };
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => match self.keyring.learn(key.secret_der(), Instant::now()) {
                Ok(()) => {
                    self.metrics.reloaded("handles", "loaded");
                    info!("a key of handles is in force");
                }
                Err(error) => self.refused("handles", &error),
            },
            Err(error) => self.refused("handles", &error),
        }
    }

    fn look_at_token_keys(&mut self) {
        let Some(read) = self.token_keys.changed() else {
            return;
        };
        let Some(json) = self
            .usable(self.token_keys.name, read)
            .and_then(|mut files| files.pop())
        else {
            return;
        };
        match Keys::load(&json) {
            Ok(keys) => {
                self.live.set_token_keys(keys);
                self.metrics.reloaded("tokens", "loaded");
                info!("the keys that verify tokens are in force");
            }
            Err(error) => self.refused("tokens", &error),
        }
    }

    fn look_at_operator(&mut self) -> bool {
        let Some(read) = self.operator.changed() else {
            return false;
        };
        // Nobody need be there to be told.
        if read
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return false;
        }
        let Some(document) = self
            .usable(self.operator.name, read)
            .and_then(|mut files| files.pop())
        else {
            return false;
        };
        self.operator_document = Some(document);
        true
    }

    fn rebuild_operator(&self) {
        let (Some(credentials), Some(document)) = (&self.credentials, &self.operator_document) else {
            return;
        };
        match Operator::new(document, credentials) {
            Ok(operator) => {
                info!(?operator, "the operator is known");
                self.metrics.reloaded("operator", "loaded");
                self.live.set_operator(operator);
            }
            Err(error) => self.refused("operator", &error),
        }
    }

    fn rebuild_peers(&self) {
        let (Some(credentials), Some(roots)) = (&self.credentials, &self.servers) else {
            return;
        };
        match Peers::new(credentials, roots, &self.limits) {
            Ok(peers) => {
                self.live.set_peers(peers);
                self.metrics.reloaded("peers", "loaded");
                info!("certificate and roots in force between replicas");
            }
            Err(error) => self.refused("peers", &error),
        }
    }

    fn rebuild_tls(&self) {
        let (Some(credentials), Some(roots), Some(key_exchange)) =
            (&self.credentials, &self.roots, self.key_exchange())
        else {
            return;
        };
        match tls::server_config(credentials, roots, key_exchange) {
            Ok(config) => {
                self.live.set_tls(config);
                self.metrics.certificate_expires(credentials.not_after);
                self.metrics.reloaded("certificate", "loaded");
                info!("certificate in force for new handshakes");
            }
            Err(error) => self.refused("certificate", &error),
        }
    }

    fn usable(&self, name: &'static str, read: io::Result<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
        read.inspect_err(|error| {
            warn!(file = name, %error, "mounted files can't be read: the last good ones stay in force");
            self.metrics.reloaded(name, "unreadable");
        })
        .ok()
    }

    fn refused(&self, name: &'static str, error: &dyn std::error::Error) {
        error!(file = name, %error, "mounted files are broken: the last good ones stay in force");
        self.metrics.reloaded(name, "refused");
    }
}

#[cfg(test)]
mod tests;
