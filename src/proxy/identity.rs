//! Who a client is: the one SPIFFE ID in its certificate, and nothing that a request says.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::hex;

/// Longest SPIFFE ID, SPIFFE-ID §2.3.
const MAX_SPIFFE_ID: usize = 2048;

/// What a verified client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's only URI SAN.
    pub spiffe_id: String,
    /// Its serial number, hex digits.
    pub serial: String,
    /// When the certificate expires.
    pub not_after: SystemTime,
}

/// Why a verified certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not X.509, or with repeated extensions.
    #[error("the client certificate can't be read")]
    Malformed,
    /// No SPIFFE ID.
    #[error("the client certificate has no URI SAN; an agent's certificate has its SPIFFE ID there")]
    NoUri,
    /// An X.509-SVID has exactly one URI SAN (SPIFFE X509-SVID §2).
    #[error("the client certificate has several URI SANs; an X.509-SVID has exactly one")]
    SeveralUris,
    /// A URI that isn't a SPIFFE ID of a workload.
    #[error("the client certificate's URI SAN is not a SPIFFE ID")]
    NotSpiffe,
}

/// Reads the identity from a client's end-entity certificate, which TLS has verified.
pub fn identify(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
    if !rest.is_empty() {
        return Err(IdentityError::Malformed);
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| IdentityError::Malformed)?
        .map_or(&[] as &[GeneralName<'_>], |extension| {
            &extension.value.general_names
        });
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(IdentityError::NoUri)?;
    if uris.next().is_some() {
        return Err(IdentityError::SeveralUris);
    }
    if !is_spiffe_id(uri) {
        return Err(IdentityError::NotSpiffe);
    }
    Ok(Identity {
        spiffe_id: uri.to_owned(),
        serial: hex::encode(parsed.raw_serial()),
        not_after: not_after(&parsed),
    })
}

/// The first DNS name of a certificate; of our own, which the other replicas have too.
pub fn dns_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })
}

/// When a certificate expires; of our own, for the metric.
pub fn expiry(certificate: &CertificateDer<'_>) -> Result<SystemTime, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
    Ok(not_after(&parsed))
}

fn not_after(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// SPIFFE-ID §2: lower-case trust domain, a path of plain segments, nothing else.
fn is_spiffe_id(uri: &str) -> bool {
    let Some((domain, path)) = uri
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let domain_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let segment_char = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    uri.len() <= MAX_SPIFFE_ID
        && !domain.is_empty()
        && domain.bytes().all(domain_char)
        && path
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(segment_char))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["agent.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        params
            .subject_alt_names
            .extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .clone()
    }

    #[test]
    fn the_only_uri_is_the_identity() {
        let identity = identify(&certificate(&[
            "spiffe://acme.cluster.local/ns/acme-agents/sa/billing",
        ]))
        .unwrap();
        assert_eq!(
            identity.spiffe_id,
            "spiffe://acme.cluster.local/ns/acme-agents/sa/billing"
        );
        assert_eq!(
            identity.not_after,
            SystemTime::from(rcgen::date_time_ymd(2040, 1, 1))
        );
    }

    #[test]
    fn anything_but_one_spiffe_id_names_nobody() {
        let long = format!("spiffe://acme/{}", "a".repeat(MAX_SPIFFE_ID));
        for (uris, error) in [
            (&[][..], IdentityError::NoUri),
            (
                &["spiffe://a/sa/x", "spiffe://a/sa/y"],
                IdentityError::SeveralUris,
            ),
            (
                &["spiffe://a/sa/x", "https://a.example/"],
                IdentityError::SeveralUris,
            ),
            (&["https://acme/sa/x"], IdentityError::NotSpiffe),
            (&["SPIFFE://acme/sa/x"], IdentityError::NotSpiffe),
            (&["spiffe://acme"], IdentityError::NotSpiffe),
            (&["spiffe:///sa/x"], IdentityError::NotSpiffe),
            (&["spiffe://Acme/sa/x"], IdentityError::NotSpiffe),
            (&["spiffe://acme:443/sa/x"], IdentityError::NotSpiffe),
            (&["spiffe://acme/sa//x"], IdentityError::NotSpiffe),
            (&["spiffe://acme/sa/../x"], IdentityError::NotSpiffe),
            (&["spiffe://acme/sa/x?y"], IdentityError::NotSpiffe),
            (&["spiffe://acme/sa/x/"], IdentityError::NotSpiffe),
            (&[&long], IdentityError::NotSpiffe),
        ] {
            assert_eq!(identify(&certificate(uris)), Err(error), "{uris:?}");
        }
        assert_eq!(
            identify(&CertificateDer::from(vec![0x30, 0])),
            Err(IdentityError::Malformed)
        );
    }
}
