//! Makes, feeds and removes Kubernetes clusters for tests and the demo.
// What it prints is what it was asked for.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use anyhow::Result;
use bulkhead_cluster::{PARTS, Part, Paths, build, program};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
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
    /// Print the path of a program that was built.
    Tool {
        /// helm, kubectl, …
        name: String,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bulkhead-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let paths = Paths::from_env()?;
    match cli.command {
        Command::Build { parts, all } => {
            let parts: Vec<&'static Part> = if parts.is_empty() {
                PARTS.iter().filter(|part| all || !part.optional).collect()
            } else {
                parts.iter().map(|name| Part::named(name)).collect::<Result<_>>()?
            };
            build(&paths, &parts)?;
        }
        Command::Tool { name } => println!("{}", program(&paths, &name)?.display()),
    }
    Ok(ExitCode::SUCCESS)
}
