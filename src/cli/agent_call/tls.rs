//! The agent's side of mTLS: TLS 1.3 only, hybrid key exchange first, one CA trusted and no other.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    version::TLS13,
};

/// Why the agent's identity or trust couldn't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds no PEM of the wanted kind.
    #[error("{what} in {path}: {reason}")]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The root bundle is empty.
    #[error("no certificate of a CA in {0}: the server can't be verified")]
    NoRoots(String),
    /// rustls refused certificate, key or settings.
    #[error("client certificate: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Loads the agent's certificate and key (`tls.crt`, `tls.key` in `identity`) and the servers' CA (`trust`).
///
/// System roots are never trusted, and neither is a `ca.crt` next to the leaf: trust comes from the operator's bundle.
pub fn client_config(identity: &Path, trust: &Path) -> Result<ClientConfig, TlsError> {
    let roots = roots(trust)?;
    let chain_path = identity.join("tls.crt");
    let chain: Vec<_> = CertificateDer::pem_file_iter(&chain_path)
        .and_then(Iterator::collect)
        .map_err(|error| file("certificate", &chain_path, &error))?;
    let key_path = identity.join("tls.key");
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| file("key", &key_path, &error))?;
    Ok(config(roots, chain, key)?)
}

/// The same from PEM in memory.
pub fn from_pem(certificate: &str, key: &str, trust: &str) -> Result<ClientConfig, TlsError> {
    let pem = |what, error: pem::Error| file(what, Path::new("memory"), &error);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| pem("certificate", error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| pem("key", error))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trust.as_bytes()) {
        roots.add(root.map_err(|error| pem("CA", error))?)?;
    }
    Ok(config(roots, chain, key)?)
}

fn config(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    // A ticket would outlive the certificate that it was given for.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn roots(trust: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trust).map_err(|error| file("CA", trust, &error))? {
        roots.add(certificate.map_err(|error| file("CA", trust, &error))?)?;
    }
    if roots.is_empty() {
        Err(TlsError::NoRoots(trust.display().to_string()))
    } else {
        Ok(roots)
    }
}

fn file(what: &'static str, path: &Path, error: &impl std::fmt::Display) -> TlsError {
    TlsError::File {
        what,
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}

/// aws-lc-rs with X25519MLKEM768 in front, whatever order the library's default has.
fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_offered_first() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn an_empty_root_bundle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let trust = dir.path().join("ca.pem");
        std::fs::write(&trust, "").unwrap();
        assert!(matches!(
            client_config(dir.path(), &trust),
            Err(TlsError::NoRoots(_))
        ));
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let ca = rcgen::generate_simple_self_signed(["ca".into()]).unwrap();
        let trust = dir.path().join("ca.pem");
        std::fs::write(&trust, ca.cert.pem()).unwrap();
        let error = client_config(dir.path(), &trust).unwrap_err().to_string();
        assert!(error.contains("tls.crt"), "{error}");
    }
}
