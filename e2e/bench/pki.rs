//! Certificates and keys of a run: what cert-manager makes for a tenant, in a folder that goes with the run.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use serde_json::{Value, json};

use bulkhead_core::tokens;

use crate::call::{AGENT, HOST, NEIGHBOUR};

/// SPIFFE ID of the server.
const SERVER: &str = "spiffe://acme.cluster.local/ns/acme/sa/ledger";
/// Seconds for which the token of the callers is good: the most that the sidecar takes, and longer than any run.
const TOKEN_LIFETIME: u64 = tokens::MAX_LIFETIME;
/// Who issued it.
pub(crate) const ISSUER: &str = "https://issuer.example";

/// A run's certificates and keys.
pub(crate) struct Pki {
    /// `ca.crt`, `server.crt` and `.key`, `agent.crt` and `.key`, `handles.key`, `jwks.json`.
    pub(crate) folder: PathBuf,
    /// The callers' token, for those that verify one: as the kubelet's, but for its signature (ES256, which is cheaper to
    /// make and dearer to verify than RS256).
    pub(crate) token: String,
    /// The same of the agent that floods.
    pub(crate) neighbours_token: String,
}

impl Pki {
    /// Makes them.
    pub(crate) fn make(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(folder.join("ca.crt"), ca.pem())?;
        let both = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        for (name, hosts, uri, usages) in [
            ("server", vec![HOST.to_owned()], SERVER, both.to_vec()),
            ("agent", vec![], AGENT, both[1..].to_vec()),
            ("neighbour", vec![], NEIGHBOUR, both[1..].to_vec()),
        ] {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(hosts)?;
            params
                .subject_alt_names
                .push(SanType::URI(Ia5String::try_from(uri)?));
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = usages;
            let certificate = params.signed_by(&key, &ca)?;
            fs::write(folder.join(format!("{name}.crt")), certificate.pem())?;
            fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        }
        fs::write(folder.join("handles.key"), KeyPair::generate()?.serialize_pem())?;
        let [token, neighbours_token] = tokens(&folder, [AGENT, NEIGHBOUR])?;
        Ok(Self {
            folder,
            token,
            neighbours_token,
        })
    }

    /// TLS of the callers: 1.3, with the agent's certificate.
    pub(crate) fn client_config(&self) -> Result<ClientConfig> {
        self.config_of("agent")
    }

    /// The same of the agent that floods.
    pub(crate) fn neighbours_config(&self) -> Result<ClientConfig> {
        self.config_of("neighbour")
    }

    fn config_of(&self, name: &str) -> Result<ClientConfig> {
        let (chain, key) = identity(&self.folder, name)?;
        Ok(ClientConfig::builder_with_protocol_versions(&[&TLS13])
            .with_root_certificates(roots(&self.folder)?)
            .with_client_auth_cert(chain, key)?)
    }
}

/// TLS of the pass-through: 1.3, clients with a certificate of the CA.
pub(crate) fn server_config(folder: &Path) -> Result<ServerConfig> {
    let (chain, key) = identity(folder, "server")?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(folder)?)).build()?;
    Ok(ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?)
}

fn roots(folder: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    Ok(roots)
}

fn identity(folder: &Path, name: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::from_pem_file(folder.join(format!("{name}.crt")))?;
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?;
    Ok((vec![chain], key))
}

/// A token for each agent (ES256), and the set of keys that verifies them.
fn tokens<const N: usize>(folder: &Path, agents: [&str; N]) -> Result<[String; N]> {
    let key = KeyPair::generate()?;
    // RFC 7518, section 6.2: the point is 0x04, x and y.
    let point = key.public_key_raw();
    let (x, y) = (point.get(1..33), point.get(33..65));
    let coordinate = |bytes: Option<&[u8]>| bytes.map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let jwks = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "bench",
        "x": coordinate(x).context("a P-256 key has an x")?, "y": coordinate(y).context("and a y")?
    }]});
    fs::write(folder.join("jwks.json"), jwks.to_string())?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("bench".to_owned());
    let key = EncodingKey::from_ec_der(&key.serialize_der());
    let mut signed = Vec::with_capacity(N);
    for agent in agents {
        let claims: Value = json!({
            "iss": ISSUER, "aud": tokens::audience("acme"), "sub": tokens::subject(agent), "iat": now, "exp": now + TOKEN_LIFETIME
        });
        signed.push(jsonwebtoken::encode(&header, &claims, &key)?);
    }
    signed.try_into().map_err(|_| anyhow!("a token for each"))
}
