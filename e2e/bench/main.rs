//! Measures the sidecar beside nginx, Envoy and a bare pass-through: the same calls, in turns, in one run.
//!
//! Machines differ and change under way, so a figure of one row means something only beside the others of its round.
#![allow(clippy::print_stdout, reason = "a program of tables")]

mod call;
mod contender;
mod contenders;
mod load;
mod passthrough;
mod pki;
mod plan;
mod process;
mod report;
mod steps;
mod upstream;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bulkhead-bench", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs everything, prints the table, and writes the page and the picture.
    Run(Box<plan::Plan>),
    /// Serves as the MCP server that all of them call.
    Upstream {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// Serves as a proxy that only ends TLS, made of the libraries that the sidecar is made of.
    Passthrough {
        /// Where to listen.
        listen: SocketAddr,
        /// The MCP server.
        upstream: SocketAddr,
        /// Folder with `server.crt`, `server.key` and `ca.crt`.
        pki: PathBuf,
    },
}

fn main() -> Result<()> {
    // infallible: nothing has installed a provider before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Arguments::parse().command {
        Command::Run(plan) => plan.run(),
        Command::Upstream { listen } => upstream::serve(listen),
        Command::Passthrough {
            listen,
            upstream,
            pki,
        } => passthrough::serve(listen, upstream, &pki),
    }
}
