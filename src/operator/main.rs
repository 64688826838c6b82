//! The operator's program: reads its flags, checks what it needs, runs.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bulkhead_operator::{
    run::{self, Options},
    settings::Settings,
    telemetry,
};
use clap::Parser;
use kube::Client;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Bulkhead's operator: makes and keeps every tenant's stack.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    settings: Settings,
}

#[tokio::main]
async fn main() -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        // Nothing ran before this, so nobody can have been faster.
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    telemetry::init();
    match operate(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = format!("{failure:#}"), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

async fn operate(Cli { options, settings }: Cli) -> Result<()> {
    let client = Client::try_default().await.context("find the API server")?;
    check_api(
        &client,
        "bulkhead.dev/v1alpha1",
        "kubectl apply --server-side -f crds/",
    )
    .await?;
    check_api(
        &client,
        "cert-manager.io/v1",
        "helm install cert-manager jetstack/cert-manager --namespace cert-manager --create-namespace --set crds.enabled=true",
    )
    .await?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listen on {}", options.listen))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        ?settings,
        ?options,
        "starting"
    );

    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("told to stop");
        told.cancel();
    });
    run::run(client, settings, options, listener, shutdown).await?;
    Ok(())
}

/// Ends the program, with the way out, when the cluster doesn't serve an API that the operator can't do without. Once it
/// runs, an API that goes away only makes it not ready: tenants stay as they are.
async fn check_api(client: &Client, group_version: &str, install: &str) -> Result<()> {
    match client.list_api_group_resources(group_version).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!("the cluster doesn't serve {group_version}; install it first: {install}")
        }
        Err(error) => Err(error).context(format!("ask the API server for {group_version}")),
    }
}
