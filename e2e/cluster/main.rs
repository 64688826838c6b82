//! Makes, feeds and removes Kubernetes clusters for tests and the demo.

use std::{fmt::Display, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use bulkhead_cluster::{
    Cluster, Load, PARTS, Part, Paths, UpOptions, base_image, build, buildah, install_cert_manager, program,
};
use clap::{Args, Parser, Subcommand};

/// A real Kubernetes for tests and the demo.
///
/// By default a cluster of processes of this machine, built from Go modules. With `--context` the cluster that a
/// kubeconfig context points at.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Target {
    /// The local cluster.
    #[arg(long, global = true, default_value = "bulkhead")]
    name: String,
    /// A cluster that exists, by its kubeconfig context, instead of a local one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// With --context: the command that loads an image archive, as `kind load image-archive`.
    #[arg(long, global = true, conflicts_with = "registry")]
    load: Option<String>,
    /// With --context: a registry and a path in it to push images to.
    #[arg(long, global = true)]
    registry: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Build the programs of the cluster that are missing: these parts, or all that every cluster needs.
    Build {
        /// Parts by name.
        parts: Vec<String>,
        /// Optional parts too.
        #[arg(long)]
        all: bool,
    },
    /// Bring the cluster up, or make sure that it is.
    Up {
        /// How many nodes (a new cluster: 2).
        #[arg(long)]
        nodes: Option<u8>,
        /// A network that enforces no network policy.
        #[arg(long)]
        no_network_policy: bool,
        /// Add the runtime class `gvisor`.
        #[arg(long)]
        gvisor: bool,
    },
    /// Remove the cluster and everything that it made on this machine.
    Down,
    /// Make the image in an archive known to the cluster's nodes; prints what it is called there.
    LoadImage {
        /// An OCI or docker archive.
        archive: PathBuf,
    },
    /// Print the path of a kubeconfig: the administrator's, or another user's.
    Kubeconfig {
        /// A user to make one for.
        #[arg(long)]
        user: Option<String>,
        /// A group of that user.
        #[arg(long, requires = "user")]
        group: Vec<String>,
    },
    /// Run a command in a node's network and mounts.
    Exec {
        /// The node.
        node: String,
        /// The command.
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Print what runs; fails when the cluster is not up.
    Status,
    /// Print where the components' logs are.
    LogsDir,
    /// Install cert-manager with Helm, unless it is there.
    InstallCertManager,
    /// Print the path of a program: helm, kubectl, buildah, …
    Tool {
        /// Its name.
        name: String,
    },
    /// Make the base image for dynamic programs from Debian packages; prints its name in buildah's storage.
    BaseImage,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bulkhead-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was asked for. A reader that has gone away, as `head` does, is no failure.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let cluster = || match &cli.target.context {
        None => Cluster::local(&cli.target.name),
        Some(context) => {
            let command = cli.target.load.clone().map(Load::Command);
            Cluster::existing(
                context,
                command.or(cli.target.registry.clone().map(Load::Registry)),
            )
        }
    };
    match &cli.command {
        Command::Build { parts, all } => {
            let parts: Vec<&'static Part> = if parts.is_empty() {
                PARTS.iter().filter(|part| *all || !part.optional).collect()
            } else {
                parts
                    .iter()
                    .map(|name| Part::named(name))
                    .collect::<Result<_>>()?
            };
            build(&Paths::from_env()?, &parts)?;
            eprintln!(
                "built: {}",
                parts.iter().map(|part| part.name).collect::<Vec<_>>().join(", ")
            );
        }
        Command::Up {
            nodes,
            no_network_policy,
            gvisor,
        } => cluster()?.up(&UpOptions {
            nodes: *nodes,
            no_network_policy: *no_network_policy,
            gvisor: *gvisor,
        })?,
        Command::Down => cluster()?.down()?,
        Command::LoadImage { archive } => say(cluster()?.load_image(archive)?),
        Command::Kubeconfig { user, group } => {
            let cluster = cluster()?;
            let path = match user {
                None => cluster.kubeconfig()?,
                Some(user) => {
                    cluster.user_kubeconfig(user, &group.iter().map(String::as_str).collect::<Vec<_>>())?
                }
            };
            say(path.display());
        }
        Command::Exec { node, argv } => {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let status = cluster()?
                .command(node, &argv)?
                .status()
                .context("enter the node")?;
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        Command::Status => {
            let (lines, up) = cluster()?.status()?;
            say(lines.join("\n"));
            return Ok(if up { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::LogsDir => say(cluster()?.logs_dir()?.display()),
        Command::InstallCertManager => install_cert_manager(&cluster()?)?,
        Command::Tool { name } if name == "buildah" => say(buildah(&Paths::from_env()?)?.display()),
        Command::Tool { name } => say(program(&Paths::from_env()?, name)?.display()),
        Command::BaseImage => say(base_image(&Paths::from_env()?)?),
    }
    Ok(ExitCode::SUCCESS)
}
