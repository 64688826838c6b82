//! The certificate authorities of a cluster and what they issue, as files in one folder.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::kubeconfig::write_private;

/// The group that the API server lets do everything.
pub(crate) const ADMINS: &str = "system:masters";

/// A client certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// A folder of keys and certificates; what is already there is kept.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// The folder with both authorities and the service account key in it.
    pub(crate) fn ensure(dir: PathBuf) -> Result<Self> {
        let pki = Self { dir };
        pki.ensure_authority("ca", "bulkhead-cluster-ca")?;
        // Requests that the API server proxies to an extension server are believed because of this one alone.
        pki.ensure_authority("front-proxy-ca", "bulkhead-cluster-front-proxy-ca")?;
        if !pki.path("sa.key").exists() {
            let key = KeyPair::generate()?;
            write_private(&pki.path("sa.pub"), &key.public_key_pem())?;
            write_private(&pki.path("sa.key"), &key.serialize_pem())?;
        }
        Ok(pki)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub(crate) fn ca_pem(&self) -> Result<String> {
        read(&self.path("ca.crt"))
    }

    fn ensure_authority(&self, stem: &str, name: &str) -> Result<()> {
        // The certificate is written last: with it present, the key is too.
        if self.path(&format!("{stem}.crt")).exists() {
            return Ok(());
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params
            .self_signed(&key)
            .with_context(|| format!("issue {name}"))?;
        write_private(&self.path(&format!("{stem}.key")), &key.serialize_pem())?;
        write_private(&self.path(&format!("{stem}.crt")), &certificate.pem())
    }

    fn authority(&self, stem: &str) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::from_pem(&read(&self.path(&format!("{stem}.key")))?)?;
        Ok(Issuer::from_ca_cert_pem(
            &read(&self.path(&format!("{stem}.crt")))?,
            key,
        )?)
    }

    /// `STEM.crt` and `STEM.key` for a server with these names and addresses.
    pub(crate) fn ensure_server(
        &self,
        stem: &str,
        user: &str,
        groups: &[&str],
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<()> {
        if self.path(&format!("{stem}.crt")).exists() {
            return Ok(());
        }
        let sans: Vec<String> = names
            .iter()
            .map(ToString::to_string)
            .chain(addresses.iter().map(ToString::to_string))
            .collect();
        let mut params = CertificateParams::new(sans)?;
        params.distinguished_name = subject(user, groups)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue("ca", stem, &params)
    }

    /// `STEM.crt` and `STEM.key` for a client, from the authority `ca` or `front-proxy-ca`.
    pub(crate) fn ensure_client(
        &self,
        authority: &str,
        stem: &str,
        user: &str,
        groups: &[&str],
    ) -> Result<Identity> {
        if !self.path(&format!("{stem}.crt")).exists() {
            let mut params = CertificateParams::default();
            params.distinguished_name = subject(user, groups)?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            self.issue(authority, stem, &params)?;
        }
        Ok(Identity {
            name: user.to_owned(),
            certificate_pem: read(&self.path(&format!("{stem}.crt")))?,
            key_pem: read(&self.path(&format!("{stem}.key")))?,
        })
    }

    fn issue(&self, authority: &str, stem: &str, params: &CertificateParams) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = params
            .signed_by(&key, &self.authority(authority)?)
            .with_context(|| format!("issue {stem}"))?;
        write_private(&self.path(&format!("{stem}.key")), &key.serialize_pem())?;
        write_private(&self.path(&format!("{stem}.crt")), &certificate.pem())
    }
}

/// Kubernetes reads the user from the common name and the groups from the organizations.
fn subject(user: &str, groups: &[&str]) -> Result<DistinguishedName> {
    let mut subject = DistinguishedName::new();
    // A `DistinguishedName` holds one value per type. The same attribute under its number is a type of its own to it,
    // which makes two groups possible, and no third.
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    ensure!(
        groups.len() <= types.len(),
        "a certificate carries at most {} groups here",
        types.len()
    );
    for (kind, group) in types.into_iter().zip(groups) {
        subject.push(kind, DnValue::Utf8String((*group).to_owned()));
    }
    subject.push(DnType::CommonName, DnValue::Utf8String(user.to_owned()));
    Ok(subject)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_issued_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::ensure(dir.path().to_owned()).unwrap();
        let first = pki
            .ensure_client("ca", "jane", "jane", &["acme-admins", "people"])
            .unwrap();
        let pki = Pki::ensure(dir.path().to_owned()).unwrap();
        let second = pki
            .ensure_client("ca", "jane", "jane", &["acme-admins", "people"])
            .unwrap();
        assert_eq!(first.certificate_pem, second.certificate_pem);
    }

    #[test]
    fn a_third_group_is_refused() {
        assert!(subject("jane", &["a", "b", "c"]).is_err());
    }
}
