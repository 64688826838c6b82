//! The operator's own certificate and key, and the roots that sidecars trust it by. Read again now and then: cert-manager
//! renews them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bulkhead_control::server::{self, ServerTlsError};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::build::Pem;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(30);

/// Why there is nothing to take reports with.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file isn't there, or can't be read.
    #[error(
        "{path}: {source}. The chart mounts it from what cert-manager issues; elsewhere, name a folder with tls.crt, tls.key and ca.pem by --control-dir"
    )]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    /// The roots are none.
    #[error("ca.pem: {0}")]
    Roots(#[from] crate::build::PemError),
}

/// What the files hold.
#[derive(Debug)]
struct Loaded {
    raw: [Vec<u8>; 3],
    tls: Arc<ServerConfig>,
    roots: Pem,
}

/// The files.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    loaded: ArcSwap<Loaded>,
}

impl Files {
    /// Reads a folder.
    pub fn open(folder: &Path) -> Result<Self, FilesError> {
        Ok(Self {
            folder: folder.to_owned(),
            loaded: ArcSwap::from_pointee(load(read(folder)?)?),
        })
    }

    /// For the next handshake.
    pub fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.load().tls)
    }

    /// What the certificate chains to.
    pub fn roots(&self) -> Pem {
        self.loaded.load().roots.clone()
    }

    /// Keeps up with the files; `changed` is called when the roots are others. Never ends.
    pub async fn follow(&self, changed: impl Fn()) {
        loop {
            sleep(EVERY).await;
            match self.look() {
                Ok(true) => {
                    info!("sidecars are told other roots of the operator's");
                    changed();
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(%error, "the certificate for sidecars' reports: the last good one stays in force");
                }
            }
        }
    }

    /// Whether the roots are others.
    fn look(&self) -> Result<bool, FilesError> {
        let raw = read(&self.folder)?;
        let before = self.loaded.load();
        if raw == before.raw {
            return Ok(false);
        }
        let after = load(raw)?;
        let other = after.roots != before.roots;
        self.loaded.store(Arc::new(after));
        Ok(other)
    }
}

fn read(folder: &Path) -> Result<[Vec<u8>; 3], FilesError> {
    let read = |name| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| FilesError::Read {
            path: path.display().to_string(),
            source,
        })
    };
    Ok([read("tls.crt")?, read("tls.key")?, read("ca.pem")?])
}

fn load(raw: [Vec<u8>; 3]) -> Result<Loaded, FilesError> {
    let [chain, key, roots] = &raw;
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::SECP256R1MLKEM768,
        ],
        ..aws_lc_rs::default_provider()
    };
    let tls = server::server_config(provider, chain, key)?;
    let roots = Pem::new(&String::from_utf8_lossy(roots))?;
    Ok(Loaded {
        tls: Arc::new(tls),
        roots,
        raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_renewed_comes_into_force_and_what_is_broken_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        let missing = Files::open(folder.path()).unwrap_err().to_string();
        assert!(
            missing.contains("tls.crt") && missing.contains("--control-dir"),
            "{missing}"
        );
        let pair = || rcgen::generate_simple_self_signed(vec!["operator.control.svc".to_owned()]).unwrap();
        let (one, other) = (pair(), pair());
        write("tls.crt", &one.cert.pem());
        write("tls.key", &one.signing_key.serialize_pem());
        write("ca.pem", &one.cert.pem());
        let files = Files::open(folder.path()).unwrap();
        let first = files.tls();
        assert!(!files.look().unwrap());
        write("tls.key", &other.signing_key.serialize_pem());
        assert!(matches!(files.look(), Err(FilesError::Tls(_))));
        assert!(Arc::ptr_eq(&first, &files.tls()));
        write("tls.crt", &other.cert.pem());
        assert!(!files.look().unwrap(), "another leaf, the same roots");
        assert!(!Arc::ptr_eq(&first, &files.tls()));
        write("ca.pem", &other.cert.pem());
        assert!(files.look().unwrap());
        assert_eq!(files.roots().as_str(), other.cert.pem());
    }
}
