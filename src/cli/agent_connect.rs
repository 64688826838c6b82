//! `kubectl-bulkhead agent-connect`: the way in that runs in the agent's pod. Hidden: `connect` starts it.
//!
//! Both ports are on the pod's loopback, where nothing comes but what the API server forwards for somebody who may do so.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use bulkhead_core::pod;
use clap::Args;
use http::{HeaderValue, Uri};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    agent_call::{Identity, http::system_resolver},
    door::{self, Door},
    exit::Exit,
};

/// Port of clients' requests.
pub const DOOR_PORT: u16 = 8080;

/// Port of the one connection by which the person's side shows that it is still there.
pub const LIFELINE_PORT: u16 = 8081;

/// What is said to the person's side once everything listens.
pub const GREETING: u8 = b'+';

/// How long the person's side may be away or silent: at first, and when its connection breaks.
const AWAY: Duration = Duration::from_secs(30);

/// How often the person's side says that it is there. What is silent for long is cut off on the way, by the kubelet
/// after four hours, by others much sooner.
pub const BEAT: Duration = Duration::from_secs(10);

/// How often the certificate is read again. The kubelet replaces it in place.
const LOOK: Duration = Duration::from_secs(30);

/// Arguments of `agent-connect`.
#[derive(Args, Debug)]
pub struct AgentConnect {
    /// The server's endpoint. Its host is the name that the server's certificate must carry.
    #[arg(long)]
    url: Uri,
    /// The port by which clients name this endpoint.
    #[arg(long)]
    port: u16,
    #[command(flatten)]
    identity: Identity,
}

/// Serves for as long as the person's side is there.
pub async fn run(args: AgentConnect) -> Result<Exit> {
    let doors = watch::Sender::new(Arc::new(open(&args)?));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, DOOR_PORT)).await?;
    let lifeline = TcpListener::bind((Ipv4Addr::LOCALHOST, LIFELINE_PORT)).await?;
    tokio::select! {
        () = door::serve(listener, doors.subscribe()) => bail!("the endpoint for clients ended"),
        () = renew(&args, &doors) => Ok(Exit::Success),
        () = hold(&lifeline) => Ok(Exit::Success),
    }
}

/// Ends when nobody has held on for a while.
async fn hold(lifeline: &TcpListener) {
    let mut held = JoinSet::new();
    loop {
        tokio::select! {
            // One that breaks is followed by another, perhaps before it is known here to be broken.
            accepted = lifeline.accept() => if let Ok((stream, _)) = accepted {
                held.spawn(until_let_go(stream));
            },
            Some(_) = held.join_next() => {}
            () = sleep(AWAY), if held.is_empty() => return,
        }
    }
}

/// Ends when the other side has gone, or is silent.
async fn until_let_go(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(&[GREETING]).await?;
    while timeout(AWAY, stream.read(&mut [0; 64])).await?? > 0 {}
    Ok(())
}

/// Opens the way anew with each certificate that the kubelet brings. Never ends.
async fn renew(args: &AgentConnect, doors: &watch::Sender<Arc<Door>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = args.identity.certificate().ok();
    loop {
        ticks.tick().await;
        let now = args.identity.certificate().ok();
        if now == seen {
            continue;
        }
        match open(args) {
            Ok(door) => {
                doors.send_replace(Arc::new(door));
                seen = now;
            }
            // Perhaps half of it is there: the next look is soon.
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the new certificate can't be used yet"
            ),
        }
    }
}

fn open(args: &AgentConnect) -> Result<Door> {
    let tls = args.identity.tls()?;
    let token: PathBuf = args.identity.token_file().to_owned();
    let authorization = move || -> Result<HeaderValue> {
        let token = std::fs::read_to_string(&token).with_context(|| token.display().to_string())?;
        Ok(HeaderValue::try_from(format!("Bearer {}", token.trim()))?)
    };
    let authority = args.url.authority().context("the URL names no host")?;
    let port = authority.port_u16().unwrap_or(pod::MTLS_PORT);
    let authority = format!("{}:{port}", authority.host());
    Ok(Door::new(
        tls,
        authorization,
        &authority,
        system_resolver(),
        args.port,
    )?)
}
