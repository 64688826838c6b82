//! Persons of a real identity provider: they log in there, and an agent acts for them through the sidecar.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread::sleep,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::{
    clients::{self, Verdict},
    servers::{LOOK, PATIENCE, Server},
    suite::Modules,
};

/// What is needed for it.
pub struct Stage<'a> {
    /// The provider and the client.
    pub programs: &'a Path,
    pub modules: &'a Modules,
    /// `kubectl-bulkhead`.
    pub plugin: &'a Path,
    /// File of the tenant, without the provider's URL and authority.
    pub tenant: &'a Path,
    pub fixture: &'a Server,
    /// Folder for what is left behind.
    pub folder: PathBuf,
}

impl Stage<'_> {
    /// What is wrong with persons, and with a sidecar that doesn't know their provider, which must not do.
    pub fn run(&self) -> Result<[(&'static str, Option<String>); 2]> {
        let provider = self.provider()?;
        let sidecar = self.sidecar("persons", &provider.url)?;
        // Twice with what the token says of the person, and nothing of what was refused.
        let echo = json!(["tools/call", "echo_arguments", {"message": "hello", "tenant_id": "eu"}]);
        let knowing = self
            .person(&provider.url, &sidecar.url, &[echo.clone(), echo])?
            .wrong();
        let strange = self.sidecar("strangers", "https://localhost:1")?;
        let refused = self.person(&provider.url, &strange.url, &[])?;
        let unknowing = match refused.said {
            Some(said) if said.contains("token_issuer") || said.contains("401") => refused.came,
            other => Some(format!("it is not the token that is refused: {other:?}")),
        };
        Ok([
            ("persons of a real identity provider", knowing),
            ("a sidecar that doesn't know the provider refuses them", unknowing),
        ])
    }

    fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    fn provider(&self) -> Result<Server> {
        let ca = CertifiedIssuer::self_signed(authority(), KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &ca)?;
        fs::write(self.authority(), ca.pem())?;
        let (certificate_file, key_file) = (self.folder.join("tls.crt"), self.folder.join("tls.key"));
        fs::write(&certificate_file, certificate.pem())?;
        fs::write(&key_file, key.serialize_pem())?;
        let mut command = self.modules.node()?;
        command
            .arg(self.programs.join("provider.mjs"))
            .arg(&self.modules.0)
            .args([certificate_file, key_file]);
        Server::start(command, &self.folder, "provider")
    }

    /// The sidecar for the tenant whose issuer is there, once it has tried to have the issuer's keys.
    fn sidecar(&self, name: &str, issuer: &str) -> Result<Server> {
        let text = fs::read_to_string(self.tenant).with_context(|| self.tenant.display().to_string())?;
        // YAML takes JSON's texts.
        let authority = json!(fs::read_to_string(self.authority())?);
        let placed = text.replace(
            "url: https://localhost",
            &format!("url: {issuer}\n    certificateAuthority: {authority}"),
        );
        if placed == text {
            bail!(
                "{}: the issuer's url has to be https://localhost",
                self.tenant.display()
            );
        }
        let tenant = self.folder.join(format!("{name}-tenant.yaml"));
        fs::write(&tenant, placed)?;
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let server = Server::sidecar(self.plugin, &tenant, "desk", &self.fixture.url, &folder)?;
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(folder.join("sidecar-desk.out"))?;
            if said.contains("are taken") {
                return Ok(server);
            }
            if begun.elapsed() > PATIENCE {
                bail!("the sidecar says nothing of the issuer's keys: {said}");
            }
            sleep(LOOK);
        }
    }

    fn person(&self, provider: &str, sidecar: &str, permitted: &[Value]) -> Result<Verdict> {
        let mut command = self.modules.node()?;
        command
            .env("NODE_EXTRA_CA_CERTS", self.authority())
            .arg(self.programs.join("person.mjs"))
            .arg(&self.modules.0)
            .args([provider, sidecar])
            .stdin(File::open("/dev/null")?);
        clients::run(command, self.fixture, permitted)
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    // Under one name OpenSSL takes a leaf for its own issuer.
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}
