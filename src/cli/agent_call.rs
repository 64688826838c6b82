//! `kubectl-bulkhead agent-call`: the MCP client that runs in the agent's pod. Hidden: `call` starts it.

pub mod connect;
pub mod http;
pub mod report;
pub mod session;
pub mod tls;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bulkhead_core::pod;
use clap::Args;
use rmcp::model::JsonObject;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::{exit::Exit, output};
use http::{MtlsClient, system_resolver};
use report::Report;
use session::Ask;

/// Environment variable that carries the request into the pod. Not an argument: arguments are in every process list.
pub const ENV_REQUEST: &str = "BULKHEAD_CALL";

/// One call, as `call` hands it to the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The server's endpoint. Its host is the name that the server's certificate must carry.
    pub url: String,
    /// W3C trace context of the call.
    pub traceparent: String,
    /// Seconds until the call is given up.
    pub timeout_seconds: u64,
    /// The tool. None: list the tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The tool's arguments.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    pub arguments: JsonObject,
}

/// Arguments of `agent-call`.
#[derive(Args, Debug)]
pub struct AgentCall {
    /// The request, as JSON.
    #[arg(long, env = ENV_REQUEST, hide_env_values = true)]
    request: String,
    #[command(flatten)]
    identity: Identity,
}

/// What proves an agent in its pod, and the servers to it.
#[derive(Args, Debug)]
pub struct Identity {
    /// Folder with the agent's `tls.crt` and `tls.key`.
    #[arg(long = "identity", default_value = pod::TLS_DIR)]
    folder: PathBuf,
    /// The agent's token.
    #[arg(long, default_value_os_t = PathBuf::from(pod::TOKEN_DIR).join(pod::TOKEN_FILE))]
    token: PathBuf,
    /// The servers' CA (PEM).
    #[arg(long, default_value_os_t = PathBuf::from(pod::TRUST_DIR).join(pod::TRUST_FILE))]
    trust: PathBuf,
}

impl Identity {
    /// TLS as the agent.
    pub fn tls(&self) -> Result<ClientConfig, tls::TlsError> {
        tls::client_config(&self.folder, &self.trust)
    }

    /// The certificate and what the servers must chain to, as they are now: to see that they are others than before.
    pub fn certificate(&self) -> io::Result<[Vec<u8>; 2]> {
        Ok([fs::read(self.folder.join("tls.crt"))?, fs::read(&self.trust)?])
    }

    /// Where the token is.
    pub fn token_file(&self) -> &Path {
        &self.token
    }

    /// The token as it is now.
    pub fn token(&self) -> Result<String> {
        let token = fs::read_to_string(&self.token)
            .with_context(|| format!("the token in {}", self.token.display()))?;
        Ok(token.trim().to_owned())
    }
}

/// Makes the call and reports it on the last line of stdout.
pub async fn run(args: &AgentCall) -> Result<Exit> {
    let request: Request = serde_json::from_str(&args.request).context("the request is no call")?;
    let identity = || Ok::<_, anyhow::Error>((args.identity.tls()?, args.identity.token()?));
    let report = match identity() {
        Ok((tls, token)) => answer(MtlsClient::new(tls, system_resolver()), &token, request).await,
        Err(error) => Report::Failed {
            message: format!("{error:#}"),
        },
    };
    output::line(&report.to_line())?;
    Ok(report.exit())
}

async fn answer(client: MtlsClient, token: &str, request: Request) -> Report {
    let Request {
        url,
        traceparent,
        timeout_seconds,
        tool,
        arguments,
    } = request;
    let ask = tool.map_or(Ask::List, |tool| Ask::Call { tool, arguments });
    let timeout = Duration::from_secs(timeout_seconds);
    tokio::time::timeout(timeout, session::run(client, token, &url, ask, &traceparent))
        .await
        .unwrap_or_else(|_| Report::Failed {
            message: format!("no answer within {timeout_seconds} s"),
        })
}
