//! Whether a caller's certificate is that of a server, as the tenant's CA of servers vouches for it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::build::Pem;

/// Why a certificate proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The roots can't be used.
    #[error("the tenant's CA of servers can't be used: {0}")]
    Roots(String),
    /// No certificate.
    #[error("no certificate")]
    None,
    /// It doesn't chain to the roots, or isn't good now.
    #[error("the certificate is not the tenant's: {0}")]
    Chain(String),
    /// It is somebody else's.
    #[error("the certificate is not of {0}")]
    Name(String),
}

/// Verifies a chain, leaf first, and that it is of exactly this SPIFFE ID. Gives its end.
pub(super) fn verify(
    chain: &[CertificateDer<'static>],
    roots: &Pem,
    spiffe_id: &str,
) -> Result<SystemTime, ProofError> {
    let unusable = |error: &dyn std::fmt::Display| ProofError::Roots(error.to_string());
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_str().as_bytes()) {
        let root = root.map_err(|error| unusable(&error))?;
        store.add(root).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| unusable(&error))?;
    let (leaf, intermediates) = chain.split_first().ok_or(ProofError::None)?;
    verifier
        .verify_client_cert(leaf, intermediates, UnixTime::now())
        .map_err(|error| ProofError::Chain(error.to_string()))?;
    let other = || ProofError::Name(spiffe_id.to_owned());
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| other())?;
    let names = leaf.subject_alternative_name().ok().flatten().ok_or_else(other)?;
    let uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    if uris.ne([spiffe_id]) {
        return Err(other());
    }
    let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(end))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

    use super::*;

    const ID: &str = "spiffe://umbra.cluster.local/ns/umbra/sa/notes";

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn only_the_server_s_own_certificate_of_the_tenant_s_own_ca_proves_it() {
        let (ours, theirs) = (authority(), authority());
        let leaf = |ca: &CertifiedIssuer<'static, KeyPair>, uris: &[&str], life: i64| {
            let mut parameters = CertificateParams::default();
            parameters.subject_alt_names = uris
                .iter()
                .map(|uri| SanType::URI((*uri).try_into().unwrap()))
                .collect();
            let now = SystemTime::now();
            let hour = Duration::from_hours(1);
            (parameters.not_before, parameters.not_after) = (
                (now - 2 * hour).into(),
                match life {
                    1 => now + hour,
                    _ => now - hour,
                }
                .into(),
            );
            parameters
                .signed_by(&KeyPair::generate().unwrap(), ca)
                .unwrap()
                .der()
                .clone()
        };
        let roots = Pem::new(&ours.pem()).unwrap();
        let other = "spiffe://umbra.cluster.local/ns/umbra/sa/files";
        let of = |chain: Vec<CertificateDer<'static>>| verify(&chain, &roots, ID);
        assert!(of(vec![leaf(&ours, &[ID], 1)]).unwrap() > SystemTime::now());
        assert_eq!(of(Vec::new()), Err(ProofError::None));
        for (chain, is_named) in [
            (leaf(&theirs, &[ID], 1), false),
            (leaf(&ours, &[ID], -1), false),
            (leaf(&ours, &[other], 1), true),
            (leaf(&ours, &[ID, other], 1), true),
            (leaf(&ours, &[], 1), true),
        ] {
            let error = of(vec![chain]).unwrap_err();
            assert_eq!(matches!(error, ProofError::Name(_)), is_named, "{error}");
        }
    }
}
