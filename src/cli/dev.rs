//! `kubectl bulkhead dev`: the real sidecar with a tenant's policy in front of an MCP server on this machine.

pub mod child;
pub mod issuers;
pub mod log;
pub mod pki;
pub mod sidecar;
pub mod tokens;

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bulkhead_core::policy::document::Agent;
use bulkhead_operator::issuers::IssuerRef;
use bulkhead_proxy::audit::AuditLog;
use clap::Args;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    door,
    exit::{Exit, ExitError},
    offline::{Policy, Tenant, outcome::tools},
    output, paint,
    progress::Progress,
};
use child::Child;
use log::Log;
use sidecar::Sidecar;

/// Pause between two looks at the tenant's file, and at a server that is starting.
const LOOK: Duration = Duration::from_millis(250);

/// Runs the sidecar in front of an MCP server on this machine.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl bulkhead dev -f acme.yaml --agent billing -- node server.js
  kubectl bulkhead dev -f acme.yaml --server ledger --agent ops --port 7000

COMMAND is to serve MCP over HTTP on 127.0.0.1, at the port and path of the tenant's server (servers[].http). Without
COMMAND one that listens there already is used. Clients connect to the URL that is printed, without certificate and
token: whoever reaches it on this machine is the agent. A client that sends an access token of a person (Authorization:
Bearer) has the agent act for them; the keys of the tenant's issuers are asked for here. A changed tenant file takes
effect at once.

The network is not isolated here, and not checked: the sidecar of a cluster starts no server before it is.

Exit codes: 0 COMMAND ended well, 1 it failed or another error, 4 no such server or agent, 6 nothing listens at the
server's port, 130 stopped by Ctrl-C or a signal.")]
pub struct Dev {
    /// File with the tenant.
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    tenant: PathBuf,
    /// The server that the sidecar is for; may be left out when the tenant has one.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The agent that clients are; may be left out when the tenant has one.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Port of the endpoint for clients, on 127.0.0.1. A free one by default.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// The MCP server's program and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why the session ends.
enum End {
    Interrupted,
    Command(ExitStatus),
}

/// Serves until Ctrl-C, or until COMMAND ends.
pub async fn run(args: &Dev) -> Result<Exit> {
    let mut file = TenantFile::new(&args.tenant);
    let tenant = file.load()?;
    let policy = tenant.server(args.server.as_deref())?;
    let agent = policy.agent(args.agent.as_deref())?.clone();
    let upstream = policy.document.upstream.port;
    let listener = listen(args.port, upstream).await?;
    let port = listener.local_addr()?.port();
    let mut interrupted = std::pin::pin!(interrupted()?);
    let sidecar = Sidecar::start(policy, AuditLog::to(Log::default())).await?;
    let mut child = start(&args.command, upstream, &sidecar.variables(policy)).await?;

    let end = tokio::select! {
        end = ended(child.as_mut()) => end.map(End::Command),
        () = &mut interrupted => Ok(End::Interrupted),
        failure = async {
            answering(upstream).await;
            announce(policy, &agent, port);
            let trusted = watch::Sender::new(tenant.issuers().to_vec());
            let doors = watch::Sender::new(Arc::new(sidecar.door(policy, &agent, port)?));
            let door = door::serve(listener, doors.subscribe());
            tokio::select! {
                () = door => anyhow::Ok(()),
                failure = reload(&mut file, policy, &agent, &sidecar, &trusted) => failure,
                failure = issuers::follow(trusted.subscribe(), &sidecar) => failure,
            }
        } => match failure {
            Ok(()) => Err(anyhow::anyhow!("the endpoint for clients ended")),
            Err(error) => Err(error),
        },
    };
    if let Some(child) = child {
        child.stop().await;
    }
    match end? {
        End::Interrupted => Err(ExitError {
            exit: Exit::Interrupted,
            message: "interrupted".into(),
        }
        .into()),
        End::Command(status) if status.success() => {
            output::note("the server ended");
            Ok(Exit::Success)
        }
        End::Command(status) => bail!("the server ended: {status}"),
    }
}

async fn listen(port: u16, upstream: u16) -> Result<TcpListener> {
    if port == upstream {
        bail!("port {port} is the MCP server's own: choose another one with --port");
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("port {port} is taken: choose another one with --port, or none for a free one")
        }
        bound => bound.with_context(|| format!("listening on 127.0.0.1:{port}")),
    }
}

/// Starts COMMAND. What the sidecar will talk to must be what was asked for: with a COMMAND its port is free before,
/// without one something listens there.
async fn start(command: &[OsString], upstream: u16, variables: &[(&str, String)]) -> Result<Option<Child>> {
    let taken = accepts(upstream).await;
    match command.split_first() {
        Some(_) if taken => bail!(
            "something listens on 127.0.0.1:{upstream} already, where COMMAND is to: stop it, or leave COMMAND out to use it"
        ),
        Some((program, arguments)) => Child::start(program, arguments, variables).map(Some),
        None if taken => Ok(None),
        None => Err(ExitError {
            exit: Exit::CannotConnect,
            message: format!(
                "nothing listens on 127.0.0.1:{upstream}: start the MCP server there, or give its COMMAND after --"
            ),
        }
        .into()),
    }
}

async fn accepts(port: u16) -> bool {
    TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .await
        .is_ok()
}

/// Ends when the MCP server accepts connections. COMMAND may have to build it first, so there is no deadline.
async fn answering(port: u16) {
    let mut progress = Progress::new();
    progress.set(format!(
        "waiting for the MCP server to listen on 127.0.0.1:{port}"
    ));
    while !accepts(port).await {
        progress.refresh();
        sleep(LOOK).await;
    }
}

/// When COMMAND ends; never without one.
async fn ended(child: Option<&mut Child>) -> Result<ExitStatus> {
    match child {
        Some(child) => child.ended().await,
        None => std::future::pending().await,
    }
}

fn interrupted() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn announce(policy: &Policy, agent: &Agent, port: u16) {
    let document = &policy.document;
    let (tenant, server, upstream) = (&document.tenant.name, &document.server, &document.upstream);
    let url = format!("http://127.0.0.1:{port}{}", upstream.path);
    for line in [
        format!(
            "{}  {tenant}/{server}, as agent {}",
            paint::strong(&url),
            agent.name
        ),
        in_force(policy, agent),
        format!(
            "{}: other programs here can reach the MCP server on 127.0.0.1:{} without the sidecar",
            paint::unclear("the network is not checked"),
            upstream.port
        ),
    ] {
        log::line(&line);
    }
}

fn in_force(policy: &Policy, agent: &Agent) -> String {
    let tools = policy
        .caller(agent, None)
        .map_or_else(|error| error.to_string(), |caller| tools(&caller));
    format!(
        "policy {}, tools of {}: {tools}",
        policy.compiled.revision(),
        agent.name
    )
}

/// Puts a changed file in force, for as long as the session lasts. One that can't be used changes nothing.
async fn reload(
    file: &mut TenantFile,
    first: &Policy,
    agent: &Agent,
    sidecar: &Sidecar,
    trusted: &watch::Sender<Vec<IssuerRef>>,
) -> Result<()> {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut revision = first.compiled.revision().to_string();
    loop {
        ticks.tick().await;
        let Some(tenant) = file.changed() else { continue };
        match tenant.and_then(|tenant| replaced(&tenant, first, sidecar).map(|policy| (policy, tenant))) {
            Ok((now, tenant)) if now != revision => {
                revision = now;
                trusted.send_if_modified(|trusted| {
                    let is_new = trusted != tenant.issuers();
                    tenant.issuers().clone_into(trusted);
                    is_new
                });
                let policy = tenant.server(Some(&first.document.server))?;
                log::line(&format!("{} {}", paint::good("changed"), in_force(policy, agent)));
            }
            Ok(_) => {}
            Err(error) => log::line(&format!(
                "{} policy {revision} stays in force: {error:#}",
                paint::bad("not changed")
            )),
        }
    }
}

/// Puts the tenant's policy in force. The certificates are of the first one's names.
fn replaced(tenant: &Tenant, first: &Policy, sidecar: &Sidecar) -> Result<String> {
    let policy = tenant.server(Some(&first.document.server))?;
    if tenant.name() != first.document.tenant.name {
        bail!("the tenant has another name now: start again");
    }
    sidecar.enforce(policy)?;
    Ok(policy.compiled.revision().to_string())
}

/// The tenant's file, and what was last read from it.
struct TenantFile {
    path: PathBuf,
    seen: Option<Vec<u8>>,
}

impl TenantFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
        }
    }

    fn load(&mut self) -> Result<Tenant> {
        self.seen = fs::read(&self.path).ok();
        Tenant::load(&self.path)
    }

    /// The tenant, if the file isn't what it was. One that isn't there, or is empty, is a moment of an editor that saves.
    fn changed(&mut self) -> Option<Result<Tenant>> {
        let now = fs::read(&self.path).ok().filter(|now| !now.is_empty())?;
        if self.seen.as_ref() == Some(&now) {
            return None;
        }
        let tenant = std::str::from_utf8(&now)
            .map_err(anyhow::Error::from)
            .and_then(Tenant::parse)
            .with_context(|| self.path.display().to_string());
        self.seen = Some(now);
        Some(tenant)
    }
}
