//! `kubectl-bulkhead`: a kubectl plugin.

use std::process::ExitCode;

use clap::Parser as _;
use kubectl_bulkhead::{
    agent_call, agent_connect,
    args::{Cli, Command},
    call, connect, connection, dev,
    exit::{Exit, exit_of},
    explain, output, policy, render, status,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // clap's own code for wrong usage is 2, which means a tool error here.
            return if error.use_stderr() {
                Exit::Failure
            } else {
                Exit::Success
            }
            .into();
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("error: no runtime: {error}"));
            return Exit::Failure.into();
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::note(&format!("error: {}", connection::explain(&error)));
            exit_of(&error).into()
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Status(args) => status::run(&args, cli.connection.client().await?).await,
        Command::Call(args) => Box::pin(call::run(&args, &cli.connection)).await,
        Command::Render(args) => render::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Dev(args) => Box::pin(dev::run(&args)).await,
        Command::Connect(args) => Box::pin(connect::run(&args, &cli.connection)).await,
        Command::AgentCall(args) => agent_call::run(&args).await,
        Command::AgentConnect(args) => agent_connect::run(args).await,
    }
}
