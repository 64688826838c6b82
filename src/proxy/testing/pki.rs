//! Certificate authorities and leaves.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

const HOUR: Duration = Duration::from_hours(1);

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// Its serial number.
    pub serial: u64,
    /// Its first URI SAN; empty without one.
    pub uri: String,
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for these names and this URI.
    pub fn server(&self, names: &[&str], uri: &str) -> Leaf {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(params, &usages, SystemTime::now() + HOUR)
    }

    /// A client's certificate with these URI SANs.
    pub fn client(&self, uris: &[&str]) -> Leaf {
        self.client_for(uris, HOUR)
    }

    /// A client's certificate that expires after a while; certificates count whole seconds.
    pub fn client_for(&self, uris: &[&str], life: Duration) -> Leaf {
        self.client_until(uris, SystemTime::now() + life)
    }

    /// A client's certificate that has expired.
    pub fn expired_client(&self, uris: &[&str]) -> Leaf {
        self.client_until(uris, SystemTime::now() - Duration::from_secs(10))
    }

    fn client_until(&self, uris: &[&str], not_after: SystemTime) -> Leaf {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        self.issue(params, &[ExtendedKeyUsagePurpose::ClientAuth], not_after)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usages: &[ExtendedKeyUsagePurpose],
        not_after: SystemTime,
    ) -> Leaf {
        let uri = params.subject_alt_names.iter().find_map(|name| match name {
            SanType::URI(uri) => Some(uri.to_string()),
            _ => None,
        });
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = not_after.into();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            serial,
            uri: uri.unwrap_or_default(),
        }
    }
}
