//! Throw-away certificates: two authorities, as a tenant has, whose keys live and end with this process.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Longer than any session: nothing here is renewed.
const LIFE: Duration = Duration::from_hours(24 * 365);

/// So that a clock that is set back a little does no harm.
const BEFORE: Duration = Duration::from_hours(1);

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = lasting(CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names.
    pub fn server(&self, names: Vec<String>) -> Result<Leaf> {
        self.issue(
            CertificateParams::new(names)?,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A client's certificate for this URI.
    pub fn client(&self, uri: &str) -> Result<Leaf> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Leaf> {
        let mut params = lasting(params);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        Ok(Leaf {
            certificate: params.signed_by(&key, &self.0)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn lasting(mut params: CertificateParams) -> CertificateParams {
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + LIFE).into();
    params
}
