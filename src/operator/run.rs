//! Puts the operator together: watches, endpoint, lease, controller; and takes it apart in the right order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use ipnet::IpNet;
use kube::{Client, runtime::reflector};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    cache::Cache,
    context::{Context, Memories},
    control::{self, Door, Files, FilesError, Sidecars},
    controller,
    duration::GoDuration,
    events::Events,
    issuers::Guard,
    lease::{Lease, Lost},
    metrics::Metrics,
    server,
    settings::{Settings, range},
    watch::{Readiness, Watches},
};

/// How the operator runs, whatever the tenants are.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Running")]
pub struct Options {
    /// Tenants that are reconciled at the same time.
    #[arg(long, env = "BULKHEAD_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// How often a tenant is looked at when nothing happens, for example 5m.
    #[arg(long, env = "BULKHEAD_RESYNC", default_value = "5m", value_parser = at_least::<1>, value_name = "DURATION")]
    pub resync: GoDuration,
    /// How long a replica that is gone keeps the others waiting, for example 15s. Not less than 5s.
    #[arg(long, env = "BULKHEAD_LEASE_DURATION", default_value = "15s", value_parser = at_least::<5>, value_name = "DURATION")]
    pub lease_duration: GoDuration,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(
        long,
        env = "BULKHEAD_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "IP:PORT"
    )]
    pub listen: SocketAddr,
    /// Ranges that are not public, or the cluster's own, in which issuers of persons' tokens may be.
    #[arg(long, env = "BULKHEAD_ISSUER_CIDRS", value_name = "CIDR", value_delimiter = ',', value_parser = range)]
    pub issuer_cidrs: Vec<IpNet>,
    /// Where sidecars report.
    #[command(flatten)]
    pub control: control::Options,
    /// Name of this replica, which no other has.
    #[arg(long, env = "POD_NAME", default_value_t = identity(), hide_default_value = true, value_name = "NAME")]
    pub identity: String,
}

fn at_least<const SECONDS: u64>(text: &str) -> Result<GoDuration, String> {
    let duration: GoDuration = text
        .parse()
        .map_err(|error: crate::duration::DurationError| error.to_string())?;
    if duration.as_secs() < SECONDS {
        Err(format!("must be at least {SECONDS}s"))
    } else {
        Ok(duration)
    }
}

/// Outside a pod: the process, and when it began, since process ids come again.
fn identity() -> String {
    format!(
        "process-{}-{}",
        std::process::id(),
        jiff::Timestamp::now().as_millisecond()
    )
}

/// Why the operator ended without having been told to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Another replica may reconcile now.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A watch ended, which none ever should.
    #[error("a watch ended")]
    Watch,
    /// There is nothing to take sidecars' reports with.
    #[error("sidecars can't report: {0}")]
    Control(#[from] FilesError),
    /// Sidecars' reports have no port.
    #[error("sidecars can't report to {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

/// Runs until told to stop: stands by, then leads.
pub async fn run(
    client: Client,
    settings: Settings,
    options: Options,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Ended> {
    let files = Arc::new(Files::open(&options.control.control_dir)?);
    let metrics = Arc::new(Metrics::default());
    let readiness = Readiness::default();
    let cache = Arc::new(Cache::default());
    let (tenants, writer) = reflector::store();
    let (sender, mut requests) = mpsc::unbounded_channel();

    let sidecars = Sidecars::new(sender.clone());
    let mut watches = JoinSet::new();
    let following = Watches {
        client: client.clone(),
        namespace: settings.namespace.clone(),
        cache: cache.clone(),
        tenants: tenants.clone(),
        requests: sender,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
    };
    following
        .clone()
        .start(writer, Guard::new(options.issuer_cidrs, &settings), &mut watches);

    // Served to the very end, so that a replica that drains still answers its probes.
    let stop_serving = CancellationToken::new();
    let state = server::State {
        readiness: readiness.clone(),
        metrics: metrics.clone(),
    };
    let endpoint = tokio::spawn(server::serve(listener, state, stop_serving.clone()));
    let _stop_serving = stop_serving.drop_guard();

    let duration = Duration::from_secs(options.lease_duration.as_secs());
    let lease = Lease::new(
        client.clone(),
        &settings.namespace,
        options.identity.clone(),
        duration,
    );
    let acquired = async {
        // First the watches: a leader that knows nothing yet would find every tenant without its objects.
        readiness.wait().await;
        lease.acquire().await;
    };
    tokio::select! {
        () = acquired => {}
        // Nobody works on what is asked for now; the leader begins with everything.
        () = async { while requests.recv().await.is_some() {} } => return Err(Ended::Watch),
        _ = watches.join_next() => return Err(Ended::Watch),
        () = shutdown.cancelled() => return Ok(()),
    }
    metrics.leads(true);
    let address = options.control.control_listen;
    let control_listener = TcpListener::bind(address)
        .await
        .map_err(|error| Ended::Listen(address, error))?;

    let context = Arc::new(Context {
        client: client.clone(),
        resync: Duration::from_secs(options.resync.as_secs()),
        cache,
        tenants,
        control: files.clone(),
        sidecars: sidecars.clone(),
        events: Events::new(client, options.identity),
        metrics: metrics.clone(),
        memory: Memories::default(),
        settings,
    });
    let serving = control::serve(
        control_listener,
        files.clone(),
        Door::new(context.clone()),
        shutdown.clone(),
    );
    let mut serving = tokio::spawn(serving);
    let keeping_up = async {
        tokio::join!(files.follow(|| following.request_all()), async {
            sidecars.settle().await;
            // What only a predecessor's word stood for is looked at again.
            following.request_all();
        })
    };
    let result = tokio::select! {
        // Ends when told to stop, after what it had begun.
        () = controller::run(context, requests, options.concurrency, shutdown.clone()) => Ok(()),
        lost = lease.keep() => Err(Ended::Lost(lost)),
        _ = watches.join_next() => Err(Ended::Watch),
        // Never ends.
        _ = keeping_up => Err(Ended::Watch),
    };
    metrics.leads(false);
    if result.is_ok() {
        // Every sidecar is told to call the next leader.
        let _ = (&mut serving).await;
    }
    serving.abort();
    if result.is_ok() {
        info!("drained");
        if let Err(error) = lease.release().await {
            tracing::warn!(%error, "cannot release the lease; another replica waits for its end");
        }
    }
    drop(endpoint);
    result
}
