//! A tenant whose agent `billing` acts for persons of an issuer.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_core::{
    policy::document::{self, ClaimValue, Forced, PolicyDocument, RolesOf},
    tokens::IssuerKeys,
};
use bulkhead_proxy::testing::{
    Client, Issuer, Leaf, Protocol, RecordingUpstream, Setup, TestSidecar,
    sidecar::{policy, spiffe},
    tokens::now,
};
use jsonwebtoken::{Algorithm, Header};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

/// The tenant's issuer.
pub const CORP: &str = "https://login.example.com/realms/acme";

/// The OAuth client that `billing` is there.
pub const CLIENT: &str = "billing-desk";

/// `billing` reads and deletes, and is a client of the issuer, whose finance people read. What is read is read for the
/// person.
pub fn with_persons(upstream_port: u16) -> PolicyDocument {
    let mut policy = policy(upstream_port);
    policy.agents[0].roles.insert("admin".into());
    policy.agents[0].clients = vec![document::Client {
        issuer: "corp".into(),
        id: CLIENT.into(),
    }];
    policy.tools[0]
        .forced
        .insert("user".into(), Forced::Claim("sub".into()));
    policy.tools[0]
        .forced
        .insert("cost_centre".into(), Forced::Claim("/org/centre".into()));
    let group = |value: &str, role: &str| RolesOf {
        claim: Some(ClaimValue {
            name: "groups".into(),
            value: value.into(),
        }),
        roles: BTreeSet::from([role.to_owned()]),
    };
    policy.issuers = vec![document::Issuer {
        name: "corp".into(),
        url: CORP.into(),
        audiences: BTreeSet::from(["api://acme".into()]),
        max_lifetime: 3600,
        roles: vec![
            group("finance", "reader"),
            group("bosses", "admin"),
            group("owners", "owner"),
        ],
    }];
    policy
}

pub struct Scene {
    pub upstream: RecordingUpstream,
    pub sidecar: TestSidecar,
    pub corp: Issuer,
    pub leaf: Leaf,
}

impl Scene {
    pub async fn start() -> Self {
        let upstream = RecordingUpstream::start().await;
        Self::before(upstream).await
    }

    pub async fn before(upstream: RecordingUpstream) -> Self {
        let mut setup = Setup::new(upstream.port());
        setup.policy = with_persons(upstream.port());
        let sidecar = TestSidecar::start(setup).await;
        let corp = Issuer::new("c1");
        let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
        let scene = Self {
            upstream,
            sidecar,
            corp,
            leaf,
        };
        scene.mount_keys(&[CORP]).await;
        scene
    }

    /// The cluster's keys, and the issuer's by these names.
    pub async fn mount_keys(&self, urls: &[&str]) {
        let mut keys = self.sidecar.issuer.keys(&[]);
        keys.issuers.extend(urls.iter().map(|url| IssuerKeys {
            issuer: (*url).to_owned(),
            keys: vec![self.corp.jwk()],
        }));
        self.sidecar.mount_keys(&keys).await;
    }

    /// A connection of `billing` with the token of a person who claims this.
    pub async fn with(&self, claims: &Value) -> Client {
        self.presenting(&self.corp.sign(claims)).await
    }

    pub async fn presenting(&self, token: &str) -> Client {
        self.sidecar
            .client_with(&self.leaf, Protocol::Http1)
            .await
            .with_token(token)
    }
}

/// The claims of Ada, who is of finance, with some of them replaced; by `null`: without it.
pub fn ada(other: &Value) -> Value {
    let now = now();
    let mut claims = json!({
        "iss": CORP, "sub": "ada", "aud": "api://acme", "client_id": CLIENT, "jti": "t-1",
        "iat": now, "exp": now + 600, "groups": ["finance"], "org": {"centre": 17},
    });
    for (name, value) in other.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub fn of_type(kind: Option<&str>) -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.typ = kind.map(str::to_owned);
    header
}

/// The claim that binds a token to a certificate (RFC 8705 §3.1).
pub fn bound_to(leaf: &Leaf) -> Value {
    let der = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
    let digest = digest::digest(&digest::SHA256, &der);
    json!({"x5t#S256": URL_SAFE_NO_PAD.encode(digest)})
}
