//! The sidecar, as it runs in a pod: with everything that it does there.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bulkhead_core::{
    pod,
    policy::CompiledPolicy,
    tokens::{IssuerKeys, TokenKeys},
};
use serde_json::{Value, json};

use super::{Stage, loopback};
use crate::{
    call::{AGENT, Form, HOST, NEIGHBOUR, TENANT, TOOL},
    contender::Contender,
    pki::ISSUER,
    plan::Plan,
};

/// How long the canary and the first loading may take.
const READY: Duration = Duration::from_mins(1);

/// What its policy asks of it.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Arguments.
    Call,
    /// And results.
    Owned,
    /// Arguments; the server answers with a stream of events.
    Events,
    /// Arguments, by a sidecar that makes no credential for the server.
    NoCredential,
    /// By one that records no call.
    NoRecords,
    /// By one that does neither.
    Neither,
}

impl Work {
    /// How its answers come.
    fn form(self) -> Form {
        match self {
            Self::Events => Form::Event,
            _ => Form::Json,
        }
    }

    /// The sidecar that does it.
    fn program(self, plan: &Plan) -> Result<PathBuf> {
        let part = match self {
            Self::Call | Self::Owned | Self::Events => return Ok(plan.proxy.clone()),
            Self::NoCredential => "credential",
            Self::NoRecords => "records",
            Self::Neither => "both",
        };
        let folder = plan.without.as_ref().context("no folder with such sidecars")?;
        Ok(folder.join(part))
    }
}

pub(super) fn start(name: &'static str, stage: &Stage<'_>, work: Work) -> Result<Contender> {
    let (file, slot, said) = match work {
        Work::Call => (
            "bulkhead",
            10,
            "mTLS, the caller's SPIFFE ID, its token (ES256, cached), strict parse, policy, the tool's definition, a forced and two bounded arguments, \
             all of them against the tool's schema, decided again, a fresh credential (EdDSA) for the server, two audit records",
        ),
        Work::Owned => (
            "bulkhead-owned",
            20,
            "the same, and only the tenant's own records of the answer, its text made anew",
        ),
        Work::Events => (
            "bulkhead-events",
            30,
            "as the row Bulkhead; the answer comes as an event of a stream, and each event is read and decided",
        ),
        Work::NoCredential => (
            "bulkhead-no-credential",
            40,
            "as the row Bulkhead, but the server gets no credential",
        ),
        Work::NoRecords => (
            "bulkhead-no-records",
            50,
            "as the row Bulkhead, but calls leave no records",
        ),
        Work::Neither => (
            "bulkhead-neither",
            60,
            "as the row Bulkhead, but the server gets no credential, and calls leave no records",
        ),
    };
    let home = stage.folder.join(file);
    let policy = policy(stage.upstream.port(), work).to_string();
    let compiled = CompiledPolicy::from_json(policy.as_bytes()).context("the bench's policy must compile")?;
    mount(stage, &home, &policy)?;
    let ports = [0, 1, 2, 3].map(|port| stage.plan.address(slot + port).port());
    let mut command = Command::new(work.program(stage.plan)?);
    command
        .args([
            "run",
            "--pod-ip",
            "127.0.0.1",
            "--pod-name",
            file,
            "--pod-uid",
            file,
        ])
        .args(["--policy-revision", compiled.revision()])
        // Nothing listens there, as nothing may be reachable from a pod.
        .args(["--canary", "127.0.0.1:1"])
        .args(["--mtls-port", &ports[0].to_string()])
        .args(["--kubelet-port", &ports[1].to_string()])
        .args(["--keys-port", &ports[2].to_string()])
        .args(["--peers-port", &ports[3].to_string()])
        .env("BULKHEAD_WORKERS", stage.plan.workers.to_string());
    for (flag, path) in [
        ("--policy-dir", "policy"),
        ("--tls-dir", "tls"),
        ("--handles-dir", "handles"),
        ("--trust-dir", "trust"),
        ("--admin-socket", "admin.sock"),
        ("--termination-log", "termination-log"),
    ] {
        command.arg(flag).arg(home.join(path));
    }
    let address = loopback(ports[0]);
    let process = stage.run(file, &mut command, address)?;
    ready(loopback(ports[1]))?;
    let tls = Some(stage.pki.client_config()?);
    let contender = Contender::new(name, said, address, tls, stage.pki, process)?.answering(work.form());
    match work {
        Work::Call => contender.with_neighbour(stage.pki),
        _ => Ok(contender),
    }
}

/// The policy of a row, for a server on this port.
pub(crate) fn policy(port: u16, work: Work) -> Value {
    let mut tool = |name: &str| {
        json!({
            "name": name, "roles": ["reader"],
            "forced": {"tenant_id": {"string": TENANT}},
            "bounds": {"limit": {"maximum": 100}, "query": {"maxLength": 200}},
        })
    };
    let mut tools = [TOOL, "search_notes", "get_invoice"].map(&mut tool);
    if matches!(work, Work::Owned) {
        tools[0]["results"] =
            json!({"owned": {"path": "$.rows", "field": "tenant_id", "equals": {"string": TENANT}}});
    }
    json!({
        "format": 1,
        "tenant": {"name": "acme", "uid": "b0b1b2b3-0000-4000-8000-000000000001"},
        "server": "ledger",
        "hostnames": [HOST],
        "upstream": {"port": port, "path": work.form().path()},
        "agents": [
            {"name": "billing", "spiffeId": AGENT, "roles": ["reader"]},
            {"name": "runaway", "spiffeId": NEIGHBOUR, "roles": ["reader"], "limits": {"concurrent": 4}},
        ],
        "tools": tools,
    })
}

/// Lays what a pod mounts into the folder.
fn mount(stage: &Stage<'_>, home: &Path, policy: &str) -> Result<()> {
    let put = |folder: &str, file: &str, content: &[u8]| -> Result<()> {
        fs::create_dir_all(home.join(folder))?;
        fs::write(home.join(folder).join(file), content)?;
        Ok(())
    };
    let made = |name: &str| fs::read(stage.pki.folder.join(name));
    put("policy", pod::POLICY_FILE, policy.as_bytes())?;
    put("tls", "tls.crt", &made("server.crt")?)?;
    put("tls", "tls.key", &made("server.key")?)?;
    put("handles", pod::HANDLES_FILE, &made("handles.key")?)?;
    put("trust", pod::TRUST_FILE, &made("ca.crt")?)?;
    put("trust", pod::PEERS_TRUST_FILE, &made("ca.crt")?)?;
    let jwks: Value = serde_json::from_slice(&made("jwks.json")?)?;
    let cluster = IssuerKeys {
        issuer: ISSUER.to_owned(),
        keys: jwks["keys"].as_array().cloned().unwrap_or_default(),
    };
    let keys = TokenKeys::new(cluster, Vec::new());
    put("trust", pod::TOKEN_KEYS_FILE, keys.to_json().as_bytes())
}

/// Waits until the sidecar says that it is ready, as the kubelet does: whatever else it meets, it asks again.
fn ready(kubelet: SocketAddr) -> Result<()> {
    let started = Instant::now();
    loop {
        let answer = ask(kubelet);
        if matches!(&answer, Ok(answer) if answer.starts_with("HTTP/1.1 200")) {
            return Ok(());
        }
        if started.elapsed() > READY {
            bail!("the sidecar isn't ready: {answer:?}");
        }
        sleep(Duration::from_millis(200));
    }
}

fn ask(kubelet: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(kubelet)?;
    write!(
        stream,
        "GET {} HTTP/1.1\r\nHost: sidecar\r\nConnection: close\r\n\r\n",
        pod::READY_PATH
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
