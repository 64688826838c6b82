//! `kubectl bulkhead connect`: an MCP endpoint on this machine's loopback for clients that can't show a certificate.
//!
//! Certificate, key and token stay in the cluster: a pod of the agent's has them, and what clients send goes to it by the
//! API server (port-forward), so a person needs no right to read them.

use std::{net::Ipv4Addr, pin::Pin, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    agent_connect::{BEAT, DOOR_PORT, GREETING, LIFELINE_PORT},
    call::{
        follow, job,
        route::Route,
        target::{self, Target},
        trace::Trace,
    },
    connection::Connection,
    exit::Exit,
    output, paint,
    progress::Progress,
};

/// Until something listens in the pod.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(250);

/// A connection by which the pod knows that somebody is here.
type Lifeline = Pin<Box<dyn Stream>>;

trait Stream: AsyncRead + AsyncWrite {}
impl<S: AsyncRead + AsyncWrite> Stream for S {}

/// Serves an MCP endpoint on this machine for a server in the cluster, as an agent.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl bulkhead connect acme/crm --agent billing
  kubectl bulkhead connect acme/crm --agent billing --port 9000 --for 30m

Point any MCP client at the URL that is printed; it needs neither certificate nor token. Whoever reaches it on this
machine is the agent, for as long as this runs. A client that sends an access token of a person (Authorization: Bearer)
has the agent act for them, as the tenant's issuers say. A Job in the tenant's agents' namespace has the agent's certificate and
token, which never leave the cluster; requests go to it through the API server. You need the right to create Jobs and to
forward ports there, as the tenant's developers have it. The Job ends with this program, or when its time is over.

Exit codes: 0 its time is over, 1 error, 4 no such tenant, server or agent, 130 stopped by Ctrl-C or a signal.")]
pub struct Connect {
    #[command(flatten)]
    route: Route,
    /// Port of the endpoint, on 127.0.0.1. A free one by default.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// For how long.
    #[arg(long = "for", default_value = "8h", value_name = "DURATION", value_parser = target::session)]
    time: Duration,
}

/// Serves until Ctrl-C, or until its time is over.
pub async fn run(args: &Connect, connection: &Connection) -> Result<Exit> {
    let client = connection.client().await?;
    let place = args.route.place(&client).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .await
        .with_context(|| format!("port {} can't be had: choose another one with --port", args.port))?;
    let port = listener.local_addr()?.port();
    let work = job::Work::Connect { url: place.url, port };
    let plan = args.route.plan(place.runtime_class, args.time, work);
    let built = job::build(&plan, &Trace::random()?)?;
    let mut progress = Progress::new();
    follow::with_job(&client, &built, &mut progress, async |progress| {
        let pod = follow::until_running(&client, &built, follow::START, progress).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &job::namespace(&plan.tenant));
        progress.set("connecting to its pod");
        let lifeline = hold(&pods, &pod).await?;
        progress.clear();
        announce(args, &format!("http://127.0.0.1:{port}{}", place.path))?;
        serve(listener, &pods, &pod, lifeline).await
    })
    .await
}

fn announce(args: &Connect, url: &str) -> Result<()> {
    let Target { tenant, server } = &args.route.target;
    output::line(&format!(
        "{}  {tenant}/{server}, as agent {}, for {}",
        paint::strong(url),
        args.route.agent,
        target::spoken(args.time),
    ))
}

/// Says again and again that somebody is here. Ends when nobody can hear it any more.
async fn until_broken(lifeline: &mut Lifeline) {
    let mut beats = interval(BEAT);
    let mut rest = [0; 64];
    loop {
        tokio::select! {
            read = lifeline.read(&mut rest) => if !matches!(read, Ok(read) if read > 0) {
                return;
            },
            _ = beats.tick() => if lifeline.write_all(&[GREETING]).await.is_err() {
                return;
            },
        }
    }
}

/// The connection by which the pod knows that somebody is here. Had once everything listens there.
async fn hold(pods: &Api<Pod>, pod: &str) -> Result<Lifeline> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tried = async {
            let mut stream = forward(pods, pod, LIFELINE_PORT).await?;
            let greeting = timeout(PATIENCE, stream.read_u8()).await??;
            if greeting != GREETING {
                bail!("something else listens in the pod");
            }
            anyhow::Ok(Box::pin(stream) as Lifeline)
        };
        match tried.await {
            Ok(stream) => return Ok(stream),
            Err(error) if is_final(&error) || Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("forwarding to pod {pod}"));
            }
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Whether trying again won't help: what isn't permitted now won't be in a moment.
fn is_final(error: &anyhow::Error) -> bool {
    error.downcast_ref::<kube::Error>().is_some_and(|error| {
        matches!(error, kube::Error::Api(status) if status.is_forbidden())
            || matches!(error, kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(status)) if *status == 403)
    })
}

async fn forward(
    pods: &Api<Pod>,
    pod: &str,
    port: u16,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let mut forwarder = pods.portforward(pod, &[port]).await?;
    let stream = forwarder.take_stream(port).context("one stream for one port")?;
    // Ends with the stream, whose reader sees how.
    tokio::spawn(async move { drop(forwarder.join().await) });
    Ok(stream)
}

/// Carries each client's connection to the pod, for as long as the pod is there.
async fn serve(listener: TcpListener, pods: &Api<Pod>, pod: &str, mut lifeline: Lifeline) -> Result<Exit> {
    let mut gone = std::pin::pin!(async {
        loop {
            until_broken(&mut lifeline).await;
            match hold(pods, pod).await {
                Ok(again) => lifeline = again,
                Err(error) => break error,
            }
        }
    });
    let error = loop {
        tokio::select! {
            error = &mut gone => break error,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let (pods, pod) = (pods.clone(), pod.to_owned());
                    tokio::spawn(async move {
                        if let Err(error) = carry(client, &pods, &pod).await {
                            output::note(&format!("a connection of a client: {error:#}"));
                        }
                    });
                }
                Err(error) => {
                    output::note(&format!("accepting a client: {error}"));
                    sleep(AGAIN).await;
                }
            },
        }
    };
    match pods.get_opt(pod).await {
        Ok(Some(found)) if is_over(&found) => {
            output::note("its time is over");
            Ok(Exit::Success)
        }
        Ok(None) => bail!("pod {pod} was deleted"),
        _ => Err(error),
    }
}

fn is_over(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
    reason == Some("DeadlineExceeded") || pod.metadata.deletion_timestamp.is_some()
}

async fn carry(mut client: TcpStream, pods: &Api<Pod>, pod: &str) -> Result<()> {
    client.set_nodelay(true)?;
    let mut stream = forward(pods, pod, DOOR_PORT).await?;
    // How it ends is told to whoever speaks on it.
    drop(tokio::io::copy_bidirectional(&mut client, &mut stream).await);
    Ok(())
}
