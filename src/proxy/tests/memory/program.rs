//! The sidecar's program as a process of its own, as it runs in a pod, with what is mounted there.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use bulkhead_cluster::Port;
use bulkhead_core::policy::document::PolicyDocument;
use bulkhead_proxy::{
    probe::{self, Probe},
    testing::{
        Authority, Client, Issuer, Leaf, PATIENCE, Protocol,
        client::connect_tls,
        sidecar::{HOST, PATH, mount_all, policy, spiffe},
    },
};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{Duration, Instant, sleep},
};
use tokio_rustls::client::TlsStream;

/// A running sidecar.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    admin_socket: PathBuf,
    servers_ca: String,
    agents: [(&'static str, Leaf, String); 2],
    _folder: TempDir,
    _ports: [Port; 4],
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts one, for a server at this port, and waits until it is ready.
    pub async fn start(upstream_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [servers_ca, agents_ca] = ["servers", "agents"].map(Authority::new);
        let issuer = Issuer::new("k1");
        let handles_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let policy = policy(upstream_port).to_json();
        mount_all(
            folder.path(),
            &policy,
            [&servers_ca, &agents_ca],
            &issuer,
            &handles_key,
        );

        let ports = [(); 4].map(|()| Port::reserve().unwrap());
        let admin_socket = folder.path().join("admin.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-proxy"));
        command
            .args([
                "run",
                "--pod-ip",
                "127.0.0.1",
                "--pod-name",
                "crm-0",
                "--pod-uid",
                "u",
            ])
            .args([
                "--policy-revision",
                &PolicyDocument::revision_of(policy.as_bytes()),
            ])
            // Nothing listens there, as nothing may be reachable from a pod.
            .args(["--canary", "127.0.0.1:1", "--workers", "2"]);
        for (flag, port) in ["--mtls-port", "--kubelet-port", "--keys-port", "--peers-port"]
            .iter()
            .zip(&ports)
        {
            command.arg(flag).arg(port.number().to_string());
        }
        for (flag, path) in [
            ("--policy-dir", "policy"),
            ("--tls-dir", "tls"),
            ("--handles-dir", "handles"),
            ("--trust-dir", "trust"),
            ("--control-token", "control-token"),
            ("--admin-socket", "admin.sock"),
            ("--termination-log", "termination-log"),
        ] {
            command.arg(flag).arg(folder.path().join(path));
        }
        let child = command
            .env("RUST_LOG", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self {
            child,
            address: (Ipv4Addr::LOCALHOST, ports[0].number()).into(),
            admin_socket,
            servers_ca: servers_ca.pem(),
            agents: ["billing", "support"].map(|agent| {
                let id = spiffe(agent);
                (agent, agents_ca.client(&[&id]), issuer.token(&id))
            }),
            _folder: folder,
            _ports: ports,
        };
        let started = Instant::now();
        while let Err(error) = probe::ask(&program.admin_socket, Probe::Ready).await {
            assert!(started.elapsed() < PATIENCE, "it isn't ready: {error}");
            sleep(Duration::from_millis(20)).await;
        }
        program
    }

    fn agent(&self, name: &str) -> &(&'static str, Leaf, String) {
        self.agents.iter().find(|(agent, ..)| *agent == name).unwrap()
    }

    /// A connection of an agent.
    pub async fn client(&self, agent: &str, protocol: Protocol) -> Client {
        let (_, leaf, token) = self.agent(agent);
        Client::connect(self.address, HOST, PATH, &self.servers_ca, Some(leaf), protocol)
            .await
            .unwrap()
            .with_token(token)
    }

    /// A connection of an agent before any request.
    pub async fn connection(&self, agent: &str) -> TlsStream<TcpStream> {
        let (_, leaf, _) = self.agent(agent);
        connect_tls(self.address, HOST, &self.servers_ca, Some(leaf), None)
            .await
            .unwrap()
    }

    /// The head of an agent's request, but for how its body comes.
    pub fn head(&self, agent: &str) -> String {
        let (.., token) = self.agent(agent);
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-06-18\r\n"
        )
    }

    /// Waits until its metrics have these lines.
    pub async fn until_it_says(&self, lines: &[&str]) {
        let started = Instant::now();
        loop {
            let (_, metrics) = probe::get(&self.admin_socket, "/metrics").await.unwrap();
            if lines.iter().all(|line| metrics.lines().any(|said| said == *line)) {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain for {lines:?}: {metrics}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it holds once the allocator has given back what nobody holds, which takes it a tenth of a second.
    pub async fn settled(&self) -> u64 {
        let (mut quiet, mut least) = (0, self.resident());
        while quiet < 3 {
            sleep(Duration::from_millis(150)).await;
            let now = self.resident();
            quiet = if now + 256 >= least { quiet + 1 } else { 0 };
            least = least.min(now);
        }
        least
    }

    /// Memory that it holds, in KiB.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that it held since it was asked to forget.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// From now on the peak counts, where the kernel can do that: see proc(5).
    pub fn forget_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
