//! `kubectl bulkhead explain`: what a sidecar would decide about a request, and why, without a cluster.

mod text;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bulkhead_core::policy::Person;
use bytes::Bytes;
use clap::Args;

use crate::{
    exit::Exit,
    offline::{
        self, Policy, Tenant,
        headers::{self, Headers},
        outcome::{self, Outcome, Verdict},
    },
    output::{self, Format},
};

/// Shows what the sidecar would decide about a request.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl bulkhead explain -f acme.yaml --agent billing request.json
  echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}' |
    kubectl bulkhead explain -f acme.yaml --agent billing --reply tools.json -

The request is one JSON-RPC message, byte for byte as a client would send it. Its protocol version is the one that its
_meta says; without one it is a message of the legacy era. The headers that a client sends with it are made from it.
Sessions, limits of the transport and what a server's lists teach about its tools are not part of it.

Exit codes: 0 permitted, 1 error, 2 the client gets a tool error, 4 no such server or agent, 5 refused.")]
pub struct Explain {
    /// File with the tenant, or - for stdin.
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    tenant: PathBuf,
    /// The server that is called; may be left out when the tenant has one.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The agent that calls; may be left out when the tenant has one.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The person that the agent acts for: a file with the claims of their verified token, as JSON.
    #[arg(long, value_name = "FILE")]
    person: Option<PathBuf>,
    /// What the server replies, as a JSON-RPC message: shows what becomes of it.
    #[arg(long, value_name = "FILE")]
    reply: Option<PathBuf>,
    /// A header that the client sends in place of the one that is made from the request; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = headers::parse)]
    headers: Vec<(String, String)>,
    /// Form of the output, for programs.
    #[arg(long, short, value_enum)]
    output: Option<Format>,
    /// File with the request, or - for stdin.
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
}

/// Explains one request.
pub fn run(args: &Explain) -> Result<Exit> {
    let files = [
        Some(&args.tenant),
        Some(&args.request),
        args.reply.as_ref(),
        args.person.as_ref(),
    ];
    if files
        .into_iter()
        .flatten()
        .filter(|file| file.as_os_str() == "-")
        .count()
        > 1
    {
        bail!("only one of tenant, request, reply and person can be read from stdin");
    }
    let tenant = Tenant::load(&args.tenant)?;
    let policy = tenant.server(args.server.as_deref())?;
    let agent = policy.agent(args.agent.as_deref())?;
    let person = args
        .person
        .as_deref()
        .map(|file| person(policy, file))
        .transpose()?;
    let caller = policy.caller(agent, person.as_ref())?;
    let request = bytes(&args.request)?;
    let reply = args.reply.as_deref().map(bytes).transpose()?;
    let mut headers = Headers::of(&request);
    for (name, value) in &args.headers {
        headers.set(name, value);
    }
    let outcome = outcome::of(policy, &caller, &request, &headers, reply.as_ref());
    match args.output {
        Some(format) => output::document(&outcome, format)?,
        None => output::text(&text::of(&outcome, &outcome::tools(&caller)))?,
    }
    if reply.is_some() && outcome.answer.is_none() {
        output::note("the reply is not looked at: nothing of this request waits for one");
    }
    if let (Some("malformed_json"), Err(error)) = (
        outcome.reason,
        serde_json::from_slice::<serde::de::IgnoredAny>(&request),
    ) {
        output::note(&format!("{}: {error}", args.request.display()));
    }
    Ok(exit(&outcome))
}

/// As `call` would end.
fn exit(outcome: &Outcome) -> Exit {
    match (outcome.decision, &outcome.refusal) {
        (Verdict::Permit, _) => Exit::Success,
        (Verdict::Refuse, Some(told)) if told.tool_error => Exit::ToolError,
        (Verdict::Refuse, _) => Exit::Refused,
    }
}

/// The person whose token claims what is in a file.
fn person(policy: &Policy, file: &Path) -> Result<Person> {
    let claims = serde_json::from_slice(&bytes(file)?);
    let claims = claims.with_context(|| format!("{} holds no claims", file.display()))?;
    policy.person(&claims).with_context(|| file.display().to_string())
}

/// A file's bytes, without the line feed that editors end a file with.
fn bytes(file: &Path) -> Result<Bytes> {
    let mut bytes = offline::read(file)?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() {
        bail!("{} is empty: a JSON-RPC message is wanted", file.display());
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
