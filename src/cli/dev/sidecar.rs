//! The sidecar of a tenant's server, in this process: the production data path with certificates of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    vec,
};

use anyhow::{Context as _, Result};
use bulkhead_core::{pod, policy::document::Agent, tokens::IssuerKeys};
use bulkhead_proxy::{
    admin,
    audit::AuditLog,
    inventory,
    limits::Limits,
    policy::LoadedPolicy,
    server,
    shared::Shared,
    tls::{self, Credentials, Trust},
    tokens::Keys,
    workers::Workers,
};
use hyper_util::client::legacy::connect::dns::Name;
use rcgen::KeyPair;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tower::{BoxError, util::BoxCloneSyncService};

use super::{
    pki::Authority,
    tokens::{Issuer, Renewed},
};
use crate::{
    agent_call::{http::Resolver, tls as agent_tls},
    door::Door,
    offline::Policy,
};

/// A running sidecar. Dropping it ends it.
pub struct Sidecar {
    shared: Arc<Shared>,
    address: SocketAddr,
    hostname: String,
    servers_ca: Authority,
    agents_ca: Authority,
    issuer: Arc<Issuer>,
    keys: SocketAddr,
    serving: JoinHandle<()>,
    serving_keys: JoinHandle<()>,
    looking: JoinHandle<()>,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.serving.abort();
        self.serving_keys.abort();
        self.looking.abort();
    }
}

impl Sidecar {
    /// Starts the sidecar of a policy's server on a free port of loopback.
    pub async fn start(policy: &Policy, audit: AuditLog) -> Result<Self> {
        let hostnames: Vec<_> = policy.document.hostnames.iter().cloned().collect();
        let hostname = hostnames
            .first()
            .cloned()
            .context("the server has no host name")?;
        let servers_ca = Authority::new("servers")?;
        let agents_ca = Authority::new("agents")?;
        let issuer = Issuer::new()?;
        let leaf = servers_ca.server(hostnames)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared =
            Shared::new(address.port(), address, Limits::default(), audit).context("no randomness")?;
        let shared = Arc::new(shared);
        // Of handles as of certificates: the key lives and ends with this process.
        let key = KeyPair::generate()?.serialize_der();
        shared
            .keyring
            .learn(&key, Instant::now())
            .context("no key for handles")?;

        let credentials = Credentials::from_pem(leaf.certificate.as_bytes(), leaf.key.as_bytes())?;
        let trust = Trust::from_pem(pod::TRUST_FILE, agents_ca.pem().as_bytes())?;
        let key_exchange = policy.document.key_exchange;
        shared
            .live
            .set_tls(tls::server_config(&credentials, &trust, key_exchange)?);
        shared.live.set_trust(trust);
        // The production program's canary sets this, and nothing else there can. Here there is no network policy that
        // could be proven, so nothing is dialled, and `dev` tells people that nothing was.
        shared.readiness.network_is(true);
        let serving = {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { server::serve(listener, &Workers::here(), shared).await })
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let keys = listener.local_addr()?;
        let serving_keys = tokio::spawn(admin::serve_keys(listener, Arc::clone(&shared)));
        let looking = tokio::spawn(inventory::keep(Arc::clone(&shared)));
        let sidecar = Self {
            shared,
            address,
            hostname,
            servers_ca,
            agents_ca,
            issuer: Arc::new(issuer),
            keys,
            serving,
            serving_keys,
            looking,
        };
        sidecar.trust(Vec::new())?;
        sidecar.enforce(policy)?;
        Ok(sidecar)
    }

    /// Takes persons' tokens that these issuers signed, beside the agent's own.
    pub fn trust(&self, issuers: Vec<IssuerKeys>) -> Result<()> {
        let keys = Keys::load(self.issuer.document(issuers)?.as_bytes())?;
        self.shared.live.set_token_keys(keys);
        Ok(())
    }

    /// Puts a policy in force, for the next request of every connection.
    pub fn enforce(&self, policy: &Policy) -> Result<()> {
        self.shared
            .live
            .set_policy(LoadedPolicy::load(policy.json.as_bytes())?);
        Ok(())
    }

    /// Environment of a server that verifies who calls, as a pod's has it.
    pub fn variables(&self, policy: &Policy) -> [(&'static str, String); 2] {
        [
            (
                pod::ENV_JWKS_URL,
                format!("http://{}{}", self.keys, pod::KEYS_PATH),
            ),
            (pod::ENV_ISSUER, policy.compiled.issuer().to_owned()),
        ]
    }

    /// A way in for clients on this machine, as an agent.
    pub fn door(&self, policy: &Policy, agent: &Agent, port: u16) -> Result<Door> {
        let leaf = self.agents_ca.client(&agent.spiffe_id)?;
        let tls = agent_tls::from_pem(&leaf.certificate, &leaf.key, &self.servers_ca.pem())?;
        let issuer = Arc::clone(&self.issuer);
        let token = Renewed::new(issuer, &policy.document.tenant.name, &agent.spiffe_id)?;
        let authorization = move || token.authorization();
        let (authority, address) = (format!("{}:{}", self.hostname, self.address.port()), self.address);
        let here: Resolver = BoxCloneSyncService::new(tower::service_fn(move |_: Name| async move {
            Ok::<vec::IntoIter<SocketAddr>, BoxError>(vec![address].into_iter())
        }));
        Ok(Door::new(tls, authorization, &authority, here, port)?)
    }
}
