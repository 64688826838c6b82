//! TLS of the mTLS endpoint, and between the replicas of a server: 1.3 only, hybrid key exchange first,
//! client certificates of one CA alone (the tenant's agents' at the endpoint, its servers' between
//! replicas), nothing resumed.

use std::{sync::Arc, time::SystemTime};

use bulkhead_core::policy::document::KeyExchange;
use rustls::{
    ClientConfig, NamedGroup, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{
        CryptoProvider, SupportedKxGroup, aws_lc_rs,
        aws_lc_rs::kx_group::{SECP256R1, SECP256R1MLKEM768, SECP384R1, X25519, X25519MLKEM768},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::identity;

/// What is wrong with mounted TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or without a certificate or key.
    #[error("{file}: {source}")]
    Pem {
        /// The file.
        file: &'static str,
        /// What the parser says.
        source: rustls::pki_types::pem::Error,
    },
    /// A bundle without certificates.
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    /// The key isn't the certificate's, or isn't usable.
    #[error("tls.crt and tls.key don't belong together or can't be used: {0}")]
    Key(rustls::Error),
    /// A root that can't be one.
    #[error("{0} holds a certificate that can't be a trust root: {1}")]
    Root(&'static str, rustls::Error),
    /// The verifier can't be built.
    #[error("the roots can't be used to verify clients: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// TLS refuses the combination.
    #[error("TLS can't be configured: {0}")]
    Config(rustls::Error),
    /// Our own certificate can't be read.
    #[error("tls.crt can't be read")]
    Certificate,
    /// Our own certificate doesn't say by what the other replicas know us.
    #[error("tls.crt has no DNS name, or not exactly one SPIFFE ID: other replicas can't be reached")]
    Nameless,
}

/// The sidecar's own certificate and key.
#[derive(Clone, Debug)]
pub struct Credentials {
    key: Arc<CertifiedKey>,
    /// When the certificate expires.
    pub not_after: SystemTime,
    name: Option<OwnName>,
}

/// What a server's certificate says of it. Every replica's says the same.
#[derive(Clone, Debug)]
pub struct OwnName {
    /// A host name.
    pub dns: ServerName<'static>,
    /// The SPIFFE ID.
    pub spiffe_id: String,
}

/// The roots that certificates of the other side must chain to.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The cryptography of every handshake: aws-lc-rs, `X25519MLKEM768` first.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: groups(KeyExchange::PostQuantumPreferred),
        ..aws_lc_rs::default_provider()
    }
}

/// The groups that keys may be agreed on with, the best one first.
fn groups(key_exchange: KeyExchange) -> Vec<&'static dyn SupportedKxGroup> {
    // Spelled out: the order must not follow from a feature that some other crate turns off.
    match key_exchange {
        KeyExchange::PostQuantumPreferred => vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        KeyExchange::PostQuantumRequired => vec![X25519MLKEM768, SECP256R1MLKEM768],
    }
}

/// Whether a group is one that the policy lets keys be agreed on with.
pub fn allows(key_exchange: KeyExchange, group: NamedGroup) -> bool {
    groups(key_exchange).iter().any(|allowed| allowed.name() == group)
}

impl Credentials {
    /// Reads a certificate chain and its key, both PEM. `ca.crt` of the Secret is never looked at:
    /// trust comes from the trust `ConfigMap` alone.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates("tls.crt", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem {
            file: "tls.key",
            source,
        })?;
        let leaf = chain.first().ok_or(TlsError::Certificate)?;
        let not_after = identity::expiry(leaf).map_err(|_| TlsError::Certificate)?;
        let name = identity::dns_name(leaf)
            .and_then(|name| ServerName::try_from(name).ok())
            .zip(identity::identify(leaf).ok())
            .map(|(dns, identity)| OwnName {
                dns,
                spiffe_id: identity.spiffe_id,
            });
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Key)?;
        Ok(Self {
            key: Arc::new(key),
            not_after,
            name,
        })
    }

    /// What the certificate says of its server.
    pub fn name(&self) -> Result<&OwnName, TlsError> {
        self.name.as_ref().ok_or(TlsError::Nameless)
    }

    fn resolver(&self) -> Arc<rustls::sign::SingleCertAndKey> {
        Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(&self.key)))
    }
}

impl Trust {
    /// Reads a bundle of roots, PEM. `file` is what it is called in errors.
    pub fn from_pem(file: &'static str, bundle: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(file, bundle)? {
            roots.add(root).map_err(|error| TlsError::Root(file, error))?;
        }
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::new(provider())).build()?;
        Ok(Self { roots, verifier })
    }

    /// Verifies a chain again, after the handshake that brought it.
    pub fn still_trusts(&self, chain: &[CertificateDer<'static>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .is_ok()
    }
}

/// The configuration of new handshakes.
pub fn server_config(
    credentials: &Credentials,
    trust: &Trust,
    key_exchange: KeyExchange,
) -> Result<ServerConfig, TlsError> {
    let provider = CryptoProvider {
        kx_groups: groups(key_exchange),
        ..provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(Arc::clone(&trust.verifier))
        .with_cert_resolver(credentials.resolver());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would carry an old verification past a change of trust (DESIGN: no tickets).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The configuration of handshakes with the other replicas of the server.
pub fn client_config(credentials: &Credentials, trust: &Trust) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_root_certificates(Arc::clone(&trust.roots))
        .with_client_cert_resolver(credentials.resolver());
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { file, source })?;
    if certificates.is_empty() {
        Err(TlsError::Empty(file))
    } else {
        Ok(certificates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        let order: Vec<NamedGroup> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(
            order,
            [
                NamedGroup::X25519MLKEM768,
                NamedGroup::X25519,
                NamedGroup::secp256r1,
                NamedGroup::secp384r1
            ]
        );
    }

    #[test]
    fn broken_files_are_named() {
        let pair = rcgen::generate_simple_self_signed(vec!["crm.acme.svc".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let (chain, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        assert!(Credentials::from_pem(chain.as_bytes(), key.as_bytes()).is_ok());
        for (chain, key, says) in [
            ("", key.as_str(), "tls.crt holds no certificate"),
            (&chain, "", "tls.key"),
            (&chain, &other.serialize_pem(), "don't belong together"),
        ] {
            let error = Credentials::from_pem(chain.as_bytes(), key.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(
            Trust::from_pem("ca.pem", b"")
                .unwrap_err()
                .to_string()
                .contains("ca.pem holds no certificate")
        );
    }

    #[test]
    fn sessions_are_never_resumed() {
        let pair = rcgen::generate_simple_self_signed(vec!["crm.acme.svc".to_owned()]).unwrap();
        let credentials = Credentials::from_pem(
            pair.cert.pem().as_bytes(),
            pair.signing_key.serialize_pem().as_bytes(),
        )
        .unwrap();
        let trust = Trust::from_pem("ca.pem", pair.cert.pem().as_bytes()).unwrap();
        let config = server_config(&credentials, &trust, KeyExchange::default()).unwrap();
        assert_eq!(config.send_tls13_tickets, 0);
        assert_eq!(config.max_early_data_size, 0);
        assert!(!config.session_storage.can_cache());
        assert!(!config.ticketer.enabled());
    }
}
