//! A sidecar with its mounted folders, tenants' authorities and agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bulkhead_core::policy::document::{
    Agent, Bounds, Callable, ClientFeatures, FORMAT, Forced, KeyExchange, PolicyDocument, RequestLimits,
    Tenant, Upstream,
};
use bulkhead_core::tokens::TokenKeys;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{
    client::{Client, Protocol},
    pki::{Authority, Leaf},
    tokens::Issuer,
    until,
};
use crate::{
    audit::AuditLog,
    config::Config,
    inventory,
    keyring::Keyring,
    limits::{Limits, RefusalPace},
    shared::Shared,
    sidecar::{self, ControlError, Listeners},
    workers::Workers,
};

/// The name that clients use.
pub const HOST: &str = "crm.acme.svc";

/// SPIFFE ID of the server.
pub const SPIFFE_ID: &str = "spiffe://acme.cluster.local/ns/acme/sa/crm";

/// The path of the endpoint.
pub const PATH: &str = "/mcp";

/// The identity value that forced arguments get.
pub const TENANT_ID: &str = "7f9c0d5e";

/// SPIFFE ID of an agent of the tenant.
pub fn spiffe(agent: &str) -> String {
    format!("spiffe://acme.cluster.local/ns/acme-agents/sa/{agent}")
}

/// What a sidecar starts with.
pub struct Setup {
    /// The policy.
    pub policy: PolicyDocument,
    /// Its bounds; times are short for tests.
    pub limits: Limits,
    /// What must be unreachable. None: a port where nothing listens, and the start waits for the proof.
    pub canary: Option<SocketAddr>,
    /// Whether it looks at the server's lists itself, as it does in a pod: then the server sees more than agents ask.
    pub inventory: bool,
}

impl Setup {
    /// Two agents and two tools: `billing` reads, `support` deletes.
    pub fn new(upstream_port: u16) -> Self {
        let limits = Limits {
            reload: Duration::from_millis(20),
            canary: Duration::from_millis(20),
            drain_grace: Duration::ZERO,
            // Tests ask in vain by the hundred.
            refusals: RefusalPace {
                each: Duration::ZERO,
                ..RefusalPace::default()
            },
            ..Limits::default()
        };
        Self {
            policy: policy(upstream_port),
            limits,
            canary: None,
            inventory: false,
        }
    }
}

/// The policy of [`Setup::new`].
pub fn policy(upstream_port: u16) -> PolicyDocument {
    let agent = |name: &str, role: &str| Agent {
        name: name.into(),
        spiffe_id: spiffe(name),
        roles: BTreeSet::from([role.to_owned()]),
        attributes: BTreeMap::new(),
        limits: RequestLimits::default(),
        clients: Vec::new(),
        requires_person: false,
    };
    let tool = |name: &str, role: &str| Callable {
        name: name.into(),
        roles: BTreeSet::from([role.to_owned()]),
        forced: BTreeMap::from([("tenant_id".into(), Forced::String(TENANT_ID.into()))]),
        bounds: BTreeMap::from([(
            "limit".into(),
            Bounds {
                maximum: Some(100),
                ..Bounds::default()
            },
        )]),
        forbidden: BTreeSet::new(),
        definitions: BTreeSet::new(),
        results: None,
    };
    PolicyDocument {
        format: FORMAT,
        tenant: Tenant {
            name: "acme".into(),
            uid: "0c5a".into(),
        },
        server: "crm".into(),
        hostnames: BTreeSet::from([HOST.to_owned()]),
        upstream: Upstream {
            port: upstream_port,
            path: PATH.into(),
        },
        key_exchange: KeyExchange::default(),
        limits: RequestLimits::default(),
        agents: vec![agent("billing", "reader"), agent("support", "admin")],
        issuers: Vec::new(),
        tools: vec![tool("list_invoices", "reader"), tool("delete_invoice", "admin")],
        prompts: Vec::new(),
        resources: Vec::new(),
        instructions: BTreeSet::new(),
        client_features: ClientFeatures::default(),
    }
}

/// A running sidecar.
pub struct TestSidecar {
    /// Signs the sidecar's certificate.
    pub servers_ca: Arc<Authority>,
    /// Signs the agents' certificates.
    pub agents_ca: Arc<Authority>,
    /// Issues the agents' tokens.
    pub issuer: Arc<Issuer>,
    /// What keys of handles are made of.
    handles_key: String,
    /// Its state.
    pub shared: Arc<Shared>,
    /// The mTLS endpoint.
    pub address: SocketAddr,
    /// Where other replicas come in.
    pub peers_address: SocketAddr,
    /// The drain endpoint.
    pub kubelet_address: SocketAddr,
    /// The keys of credentials.
    pub keys_address: SocketAddr,
    /// The metrics over TCP.
    pub metrics_address: SocketAddr,
    /// The admin socket.
    pub admin_socket: PathBuf,
    audit: Lines,
    folder: TempDir,
    tasks: Vec<JoinHandle<()>>,
    /// The control group, with how it ended.
    pub control: Option<JoinHandle<ControlError>>,
}

impl Drop for TestSidecar {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(control) = &self.control {
            control.abort();
        }
    }
}

/// Audit lines, kept in memory; refuses them when told to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    broken: bool,
    meanwhile: Option<(usize, Box<dyn FnMut() + Send>)>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap();
        if kept.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        kept.bytes.extend_from_slice(line);
        let meanwhile = kept.meanwhile.take();
        drop(kept);
        if let Some((times, mut happens)) = meanwhile {
            happens();
            if times > 1 {
                self.0.lock().unwrap().meanwhile = Some((times - 1, happens));
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TestSidecar {
    /// Starts one, with everything loaded.
    pub async fn start(setup: Setup) -> Self {
        let (servers_ca, agents_ca) = (Authority::new("servers"), Authority::new("agents"));
        let handles_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let issuer = Issuer::new("k1");
        Self::start_with(
            setup,
            servers_ca.into(),
            agents_ca.into(),
            issuer.into(),
            handles_key,
        )
        .await
    }

    /// Starts another replica of the same server.
    pub async fn replica(&self, setup: Setup) -> Self {
        let (servers_ca, agents_ca) = (Arc::clone(&self.servers_ca), Arc::clone(&self.agents_ca));
        let issuer = Arc::clone(&self.issuer);
        Self::start_with(setup, servers_ca, agents_ca, issuer, self.handles_key.clone()).await
    }

    /// The keys of this server's handles, as a replica at that address has them.
    pub fn keyring_at(&self, here: &str) -> Keyring {
        let key = PrivateKeyDer::from_pem_slice(self.handles_key.as_bytes()).unwrap();
        Keyring::of(here, key.secret_der()).unwrap()
    }

    async fn start_with(
        setup: Setup,
        servers_ca: Arc<Authority>,
        agents_ca: Arc<Authority>,
        issuer: Arc<Issuer>,
        handles_key: String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let json = setup.policy.to_json();
        let authorities = [&*servers_ca, &*agents_ca];
        mount_all(folder.path(), &json, authorities, &issuer, &handles_key);

        let admin_socket = folder.path().join("admin.sock");
        let config = Config {
            pod_ip: "127.0.0.1".parse().unwrap(),
            pod_name: "crm-0".into(),
            pod_uid: "pod-uid".into(),
            policy_revision: PolicyDocument::revision_of(json.as_bytes()),
            canary: Some(setup.canary.unwrap_or(CLOSED)),
            kubernetes_service_host: None,
            kubernetes_service_port: 443,
            mtls_port: 0,
            kubelet_port: 0,
            keys_port: 0,
            peers_port: 0,
            metrics_port: Some(0),
            policy_dir: folder.path().join("policy"),
            tls_dir: folder.path().join("tls"),
            trust_dir: folder.path().join("trust"),
            handles_dir: folder.path().join("handles"),
            control_token: folder.path().join("control-token"),
            admin_socket: admin_socket.clone(),
            termination_log: folder.path().join("termination-log"),
            workers: None,
        };
        config.validate().unwrap();
        let listeners = Listeners::bind(&config).unwrap();
        let (address, kubelet_address) = (
            listeners.mtls_address().unwrap(),
            listeners.kubelet_address().unwrap(),
        );
        let peers_address = listeners.peers_address().unwrap();
        let keys_address = listeners.keys_address().unwrap();
        let metrics_address = listeners.metrics_address().unwrap().unwrap();
        let audit = Lines::default();
        let shared = Shared::new(
            address.port(),
            peers_address,
            setup.limits,
            AuditLog::to(audit.clone()),
        );
        let shared = Arc::new(shared.unwrap());
        let (mtls, control) = listeners.split();
        let serving = Arc::clone(&shared);
        let data =
            tokio::spawn(async move { sidecar::serve_data(mtls, Workers::here(), serving).await.unwrap() });
        let controlling = Arc::clone(&shared);
        let control =
            tokio::spawn(async move { sidecar::serve_control(control, &config, controlling).await });
        let mut tasks = vec![data];
        if setup.inventory {
            tasks.push(tokio::spawn(inventory::keep(Arc::clone(&shared))));
        } else {
            shared.readiness.inventory_is_taken();
        }
        let live = Arc::clone(&shared.live);
        until("policy and certificate are loaded", || {
            live.policy().is_some()
                && live.tls().is_some()
                && live.peers().is_some()
                && live.token_keys().is_some()
        })
        .await;
        if setup.canary.is_none() {
            until("the network is proven closed", || {
                shared.readiness.network_is_closed()
            })
            .await;
        }
        Self {
            servers_ca,
            agents_ca,
            issuer,
            handles_key,
            shared,
            address,
            peers_address,
            kubelet_address,
            keys_address,
            metrics_address,
            admin_socket,
            audit,
            folder,
            tasks,
            control: Some(control),
        }
    }

    /// A connection of an agent.
    pub async fn client(&self, agent: &str) -> Client {
        self.client_with(&self.agents_ca.client(&[&spiffe(agent)]), Protocol::Http1)
            .await
    }

    /// A connection with any certificate, and the token of the agent that it names.
    pub async fn client_with(&self, leaf: &Leaf, protocol: Protocol) -> Client {
        self.try_client(Some(leaf), protocol).await.unwrap()
    }

    /// A connection with any certificate or none, if the handshake succeeds.
    pub async fn try_client(&self, leaf: Option<&Leaf>, protocol: Protocol) -> anyhow::Result<Client> {
        let client =
            Client::connect(self.address, HOST, PATH, &self.servers_ca.pem(), leaf, protocol).await?;
        Ok(match leaf {
            Some(leaf) => client.with_token(&self.issuer.token(&leaf.uri)),
            None => client,
        })
    }

    /// Mounts another policy and waits until it is in force.
    pub async fn mount_policy(&self, policy: &PolicyDocument) {
        let json = policy.to_json();
        let revision = PolicyDocument::revision_of(json.as_bytes());
        self.mount("policy/policy.json", &json);
        until("the policy is in force", || {
            self.shared
                .live
                .policy()
                .is_some_and(|policy| policy.revision() == revision)
        })
        .await;
    }

    /// Mounts another certificate of the sidecar.
    pub fn mount_leaf(&self, leaf: &Leaf) {
        write_leaf(self.folder.path(), leaf);
    }

    /// Mounts other keys of tokens and waits until they are in force.
    pub async fn mount_keys(&self, keys: &TokenKeys) {
        let before = self.shared.live.token_keys().unwrap();
        self.mount("trust/tokens.json", &keys.to_json());
        until("the keys are in force", || {
            !Arc::ptr_eq(&before, &self.shared.live.token_keys().unwrap())
        })
        .await;
    }

    /// Mounts any file.
    pub fn mount(&self, file: &str, content: &str) {
        write(&self.folder.path().join(file), content);
    }

    /// Audit records so far.
    pub fn audit(&self) -> Vec<Value> {
        let kept = self.audit.0.lock().unwrap();
        let text = std::str::from_utf8(&kept.bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// From now on no audit record can be written.
    pub fn break_audit(&self) {
        self.audit.0.lock().unwrap().broken = true;
    }

    /// This happens while the next audit record is being written.
    pub fn meanwhile(&self, happens: impl FnOnce() + Send + 'static) {
        let mut once = Some(happens);
        self.each_time(1, move || {
            if let Some(happens) = once.take() {
                happens();
            }
        });
    }

    /// This happens while each of so many audit records is being written, from the next one on.
    pub fn each_time(&self, times: usize, happens: impl FnMut() + Send + 'static) {
        self.audit.0.lock().unwrap().meanwhile = Some((times, Box::new(happens)));
    }

    /// The metrics' text.
    pub fn metrics(&self) -> String {
        self.shared.metrics.text().unwrap()
    }
}

/// Where nothing listens, and never will: a port that was free a moment ago may be another test's by now.
const CLOSED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// What a pod mounts, in folders of this one. The authorities: the servers', the agents'.
pub fn mount_all(
    folder: &Path,
    policy: &str,
    [servers_ca, agents_ca]: [&Authority; 2],
    issuer: &Issuer,
    handles_key: &str,
) {
    for name in ["policy", "tls", "trust", "handles"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    write(&folder.join("policy/policy.json"), policy);
    write_leaf(folder, &servers_ca.server(&[HOST], SPIFFE_ID));
    write(&folder.join("trust/ca.pem"), &agents_ca.pem());
    write(&folder.join("trust/servers.pem"), &servers_ca.pem());
    write(&folder.join("trust/tokens.json"), &issuer.document(&[]));
    write(&folder.join("handles/tls.key"), handles_key);
}

fn write_leaf(folder: &Path, leaf: &Leaf) {
    write(&folder.join("tls/tls.crt"), &leaf.certificate);
    write(&folder.join("tls/tls.key"), &leaf.key);
}

/// Replaced by rename, as the kubelet does: never half a file.
fn write(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}
