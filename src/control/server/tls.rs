//! TLS of the operator's side: 1.3 only, hybrid key exchange first, no tickets, and a client certificate of anybody's.
//!
//! Which roots a client's certificate must chain to depends on the tenant that its token proves, and that comes later. In
//! the handshake the client proves that it holds the certificate's key. It is sent no list of roots: that would name
//! every tenant.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::ALPN;

/// Certificates that a client may send: a leaf and what is between it and a root.
const MAX_CHAIN: usize = 4;

/// What is wrong with the operator's own certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// Not PEM, or nothing in it.
    #[error("{0}: {1}")]
    Pem(&'static str, rustls::pki_types::pem::Error),
    /// A file without a certificate.
    #[error("tls.crt holds no certificate")]
    Empty,
    /// The key isn't the certificate's, or can't be used.
    #[error("tls.crt and tls.key don't belong together or can't be used: {0}")]
    Key(#[from] Error),
}

/// The configuration of handshakes by the operator's certificate and key, both PEM.
pub fn server_config(
    provider: CryptoProvider,
    chain: &[u8],
    key: &[u8],
) -> Result<ServerConfig, ServerTlsError> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ServerTlsError::Pem("tls.crt", error))?;
    if chain.is_empty() {
        return Err(ServerTlsError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| ServerTlsError::Pem("tls.key", error))?;
    let verifier = Arc::new(ProofOfKey(provider.signature_verification_algorithms));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Asks for a certificate, and that its key is held.
#[derive(Debug)]
struct ProofOfKey(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for ProofOfKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() < MAX_CHAIN {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(Error::General("too long a chain of certificates".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
