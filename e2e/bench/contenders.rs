//! The rows, each with its configuration: as its users would write it for this work.

pub(crate) mod bulkhead;
mod envoy;
mod nginx;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use anyhow::Result;

use crate::{contender::Contender, pki::Pki, plan::Plan, process::Process};

/// What all of them are started with.
struct Stage<'a> {
    plan: &'a Plan,
    pki: &'a Pki,
    /// Folder for configurations and logs.
    folder: &'a Path,
    /// The MCP server.
    upstream: SocketAddr,
}

/// Starts the row of this name.
type Start = fn(&'static str, &Stage<'_>) -> Result<Contender>;

/// Starts all that the plan wants; the first is the MCP server itself.
pub(crate) fn start(plan: &Plan, pki: &Pki, folder: &Path) -> Result<Vec<Contender>> {
    let upstream = plan.address(0);
    let stage = Stage {
        plan,
        pki,
        folder,
        upstream,
    };
    let mut rows: Vec<(&str, Start)> = vec![
        ("hyper + rustls", |name, stage| passthrough(name, stage)),
        ("nginx", nginx::start),
        ("Envoy, token", |name, stage| {
            envoy::start(name, stage, envoy::Work::Token)
        }),
        ("Envoy, token, MCP", |name, stage| {
            envoy::start(name, stage, envoy::Work::Mcp)
        }),
        ("Bulkhead", |name, stage| {
            bulkhead::start(name, stage, bulkhead::Work::Call)
        }),
        ("Bulkhead, owned records", |name, stage| {
            bulkhead::start(name, stage, bulkhead::Work::Owned)
        }),
        ("Bulkhead, events", |name, stage| {
            bulkhead::start(name, stage, bulkhead::Work::Events)
        }),
    ];
    if plan.without.is_some() {
        rows.extend::<[(&str, Start); 3]>([
            ("Bulkhead, no credential", |name, stage| {
                bulkhead::start(name, stage, bulkhead::Work::NoCredential)
            }),
            ("Bulkhead, no records", |name, stage| {
                bulkhead::start(name, stage, bulkhead::Work::NoRecords)
            }),
            ("Bulkhead, neither", |name, stage| {
                bulkhead::start(name, stage, bulkhead::Work::Neither)
            }),
        ]);
    }
    let mut all = vec![direct(&stage)?];
    for (name, start) in rows {
        if plan.wants(name) {
            all.push(start(name, &stage)?);
        }
    }
    Ok(all)
}

impl Stage<'_> {
    /// Starts a program and waits until it listens.
    fn run(&self, name: &str, command: &mut Command, address: SocketAddr) -> Result<Process> {
        let mut process = Process::start(name, command, self.folder)?;
        process.listening(address, &self.folder.join(format!("{name}.log")))?;
        Ok(process)
    }
}

fn direct(stage: &Stage<'_>) -> Result<Contender> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["upstream", &stage.upstream.to_string()]);
    let process = stage.run("direct", &mut command, stage.upstream)?;
    let work = "the MCP server alone, plain HTTP";
    Contender::new("direct", work, stage.upstream, None, stage.pki, process)
}

fn passthrough(name: &'static str, stage: &Stage<'_>) -> Result<Contender> {
    let address = stage.plan.address(1);
    let mut command = Command::new(std::env::current_exe()?);
    let arguments = [address, stage.upstream].map(|address| address.to_string());
    command.arg("passthrough").args(arguments).arg(&stage.pki.folder);
    let process = stage.run("passthrough", &mut command, address)?;
    let tls = Some(stage.pki.client_config()?);
    Contender::new(name, "mTLS, nothing else", address, tls, stage.pki, process)?.with_neighbour(stage.pki)
}

/// An address on loopback.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
