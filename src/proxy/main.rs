//! Bulkhead's enforcing sidecar: the only way into an MCP server.

use std::{fs, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use bulkhead_core::pod;
use bulkhead_proxy::{
    audit::AuditLog,
    config::Config,
    inventory,
    limits::Limits,
    probe::{self, Probe},
    record,
    shared::Shared,
    sidecar::{self, ControlError, Listeners},
    telemetry, tls,
    workers::Threads,
};
use clap::{Parser, Subcommand};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{error, info};

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a bad configuration (`EX_USAGE`).
const EXIT_CONFIG: u8 = 64;

/// Time that open connections get to flush after a drain.
const FLUSH: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(
    name = "bulkhead-proxy",
    about = "Bulkhead's enforcing sidecar: the only way into an MCP server",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the sidecar (the default).
    Run(Box<Config>),
    /// Ask the running sidecar; exits with 0 when nothing is missing.
    Probe {
        /// What to ask.
        probe: Probe,
        /// Path of the admin socket.
        #[arg(long, default_value = pod::ADMIN_SOCKET)]
        admin_socket: PathBuf,
    },
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    // First: whatever asks for cryptography must find the one provider.
    if tls::provider().install_default().is_err() {
        eprintln!("another cryptography provider is installed");
        return ExitCode::FAILURE;
    }
    match arguments() {
        Ok(Command::Run(config)) => run(&config),
        Ok(Command::Probe { probe, admin_socket }) => ask(probe, &admin_socket),
        #[allow(clippy::print_stdout)]
        Ok(Command::Version) => {
            println!("bulkhead-proxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// The command; `run` when none is given.
fn arguments() -> Result<Command, ExitCode> {
    let mut given: Vec<_> = std::env::args_os().collect();
    let flags_only = given
        .get(1)
        .is_none_or(|first| first.to_str().is_some_and(|first| first.starts_with('-')));
    let about = given
        .get(1)
        .is_some_and(|first| matches!(first.to_str(), Some("-h" | "--help" | "-V" | "--version")));
    if flags_only && !about {
        given.insert(given.len().min(1), "run".into());
    }
    Arguments::try_parse_from(given)
        .map(|arguments| arguments.command)
        .map_err(|error| {
            let is_mistake = error.use_stderr();
            // Nothing to be done when even that can't be printed.
            let _ = error.print();
            if is_mistake {
                ExitCode::from(EXIT_CONFIG)
            } else {
                ExitCode::SUCCESS
            }
        })
}

fn ask(probe: Probe, socket: &std::path::Path) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let asked = runtime.block_on(async {
        match probe {
            Probe::Startup => probe::await_start(socket).await,
            Probe::Ready => probe::ask(socket, probe).await,
        }
    });
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> ExitCode {
    telemetry::init();
    if let Err(error) = config.validate() {
        error!(%error, "bad configuration");
        return ExitCode::from(EXIT_CONFIG);
    }
    match serve(config) {
        Ok(code) => code,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let limits = Limits::default();
    let audit = AuditLog::stdout().context("standard output can't be used for the audit")?;
    let listeners = Listeners::bind(config)?;
    let port = listeners.mtls_address()?.port();
    let shared =
        Arc::new(Shared::new(port, listeners.peers_address()?, limits, audit).context("no randomness")?);
    record::start(&shared, &config.pod_name, &config.pod_uid).context("the audit can't be written")?;
    let (data_listeners, control) = listeners.split();

    let data = Threads::start(config.worker_threads())?;
    let workers = data.workers();
    let accepting = sidecar::serve_data(data_listeners, workers.clone(), Arc::clone(&shared));
    let serving = workers.place().runtime().spawn(accepting);
    let ended = Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            error = sidecar::serve_control(control, config, Arc::clone(&shared)) => anyhow::Ok(Some(error)),
            () = inventory::keep(Arc::clone(&shared)) => anyhow::bail!("the look at the server's lists stopped"),
            ended = serving => {
                ended?.context("the data path stopped")?;
                anyhow::bail!("the data path stopped");
            }
            () = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let drained = shared.drain.run(shared.limits.drain_grace, shared.limits.drain_deadline).await;
                info!(?drained, "stopping");
                // Idle connections were told to go; the last answers leave with them.
                shared.connections.close();
                let _ = timeout(FLUSH, shared.connections.wait()).await;
            } => Ok(None),
        }
    })?;
    data.stop();
    match ended {
        None => Ok(ExitCode::SUCCESS),
        Some(ControlError::Network(failure)) => {
            // The operator and `kubectl describe pod` show this line.
            if let Err(error) = fs::write(&config.termination_log, failure.to_string()) {
                error!(%error, "the termination log can't be written");
            }
            let code = u8::try_from(pod::EXIT_NETWORK_NOT_ENFORCED).context("the exit code must fit")?;
            Ok(ExitCode::from(code))
        }
        Some(error) => Err(error.into()),
    }
}
