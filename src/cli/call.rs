//! `kubectl bulkhead call`: one MCP call as an agent of a tenant, from inside the cluster.

pub mod answer;
pub mod audit;
pub mod follow;
pub mod job;
pub mod target;
pub mod trace;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bulkhead_api::{McpTenant, tenant::Tier};
use bulkhead_core::pod;
use clap::Args;
use kube::{Api, Client, ResourceExt as _};
use rmcp::model::JsonObject;

use crate::{
    agent_call::{Request, report::Report},
    connection::Connection,
    exit::{Exit, ExitError},
    output::{self, Format},
    progress::Progress,
};
use answer::Answer;
use target::Target;
use trace::Trace;

/// Calls a tool, or lists the tools, as an agent.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl bulkhead call acme/crm --list --agent billing
  kubectl bulkhead call acme/crm list_invoices '{\"limit\": 3}' --agent billing
  kubectl bulkhead call acme/crm get_invoice '{\"invoice_id\": 17}' --agent billing -o json | jq .result

The call runs in a Job in the tenant's agents' namespace, under the agent's service account and certificate, and goes
the way of every agent's call: network policy, mTLS, sidecar. You need the right to create Jobs there, as the tenant's
developers have it. After a refusal, those who may read the sidecar's log are shown its audit record.

Exit codes: 0 result, 1 other error, 2 tool error, 4 no such tenant, server or agent, 5 refused, 6 no connection.")]
pub struct Call {
    /// The server.
    #[arg(value_name = "TENANT/SERVER")]
    target: Target,
    /// The tool.
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    tool: Option<String>,
    /// The tool's arguments, a JSON object.
    #[arg(value_name = "JSON", value_parser = target::arguments, default_value = "{}")]
    arguments: JsonObject,
    /// The agent to call as.
    #[arg(long, value_name = "NAME", value_parser = target::name)]
    agent: String,
    /// List the tools that exist for the agent.
    #[arg(long)]
    list: bool,
    /// Form of the output, refusals included. Without it: the tool's text or structured content.
    #[arg(long, short, value_enum)]
    output: Option<Format>,
    /// How long the call may take, the start of its pod included.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = target::timeout)]
    timeout: Duration,
    /// Show the audit record also of a call that wasn't refused.
    #[arg(long)]
    audit: bool,
    /// Image of the Job: that of this kubectl-bulkhead.
    #[arg(
        long,
        env = "BULKHEAD_CLI_IMAGE",
        value_name = "IMAGE",
        default_value = concat!("bulkhead-cli:", env!("CARGO_PKG_VERSION"))
    )]
    image: String,
    /// Path of the server's endpoint, if you may not read the tenant and it isn't /mcp.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
}

/// Makes the call and shows its answer.
pub async fn run(args: &Call, connection: &Connection) -> Result<Exit> {
    let client = connection.client().await?;
    let mut progress = Progress::new();
    let trace = Trace::random()?;
    let plan = plan(
        args,
        &trace,
        known_tenant(&client, &args.target.tenant).await?.as_ref(),
    )?;
    let started = Instant::now();
    let report = follow::run(&client, &job::build(&plan, &trace)?, args.timeout, &mut progress).await?;
    let explain = args.audit || !matches!(report.exit(), Exit::Success | Exit::CannotConnect);
    let audit = if explain {
        progress.set("looking for the call's audit record");
        audit::find(&client, &args.target, &trace, started.elapsed()).await
    } else {
        audit::Found::NotAsked
    };
    drop(progress);
    let exit = report.exit();
    let answer = Answer {
        report,
        trace_id: trace.id().to_owned(),
        audit,
    };
    match args.output {
        Some(format) => output::document(&answer.document(), format)?,
        None => answer.print()?,
    }
    Ok(exit)
}

/// The tenant, for those who may read it.
pub async fn known_tenant(client: &Client, name: &str) -> Result<Option<McpTenant>> {
    match Api::<McpTenant>::all(client.clone()).get(name).await {
        Ok(tenant) => Ok(Some(tenant)),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            Err(ExitError::not_found(format!("no tenant `{name}`")).into())
        }
        // A developer of the tenant may call without seeing its specification.
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading tenant {name}")),
    }
}

/// Where a server is, and where an agent's pods run.
#[derive(Debug)]
pub struct Place {
    /// The server's endpoint.
    pub url: String,
    /// Its path.
    pub path: String,
    /// The runtime class of the tenant's pods.
    pub runtime_class: Option<String>,
}

/// Finds server and agent in the tenant; by convention, where it isn't known.
pub fn place(target: &Target, agent: &str, path: Option<&str>, tenant: Option<&McpTenant>) -> Result<Place> {
    let Target {
        tenant: tenant_name,
        server,
    } = target;
    let (mut declared_path, mut runtime_class) = ("/mcp".to_owned(), None);
    if let Some(tenant) = tenant {
        let spec = &tenant.spec;
        let Some(declared) = spec.servers.iter().find(|declared| declared.name == *server) else {
            let names = spec.servers.iter().map(|server| server.name.as_str());
            return Err(missing("server", server, &tenant.name_any(), names));
        };
        if !spec.agents.iter().any(|declared| declared.name == agent) {
            let names = spec.agents.iter().map(|agent| agent.name.as_str());
            return Err(missing("agent", agent, &tenant.name_any(), names));
        }
        declared_path.clone_from(&declared.http.path);
        if spec.isolation.tier == Tier::Sandbox {
            runtime_class = spec
                .isolation
                .sandbox
                .as_ref()
                .map(|sandbox| sandbox.runtime_class_name.clone());
        }
    }
    let path = path.unwrap_or(&declared_path);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    Ok(Place {
        url: format!("https://{server}.{tenant_name}.svc:{}{path}", pod::MTLS_PORT),
        path,
        runtime_class,
    })
}

fn plan(args: &Call, trace: &Trace, tenant: Option<&McpTenant>) -> Result<job::Plan> {
    let place = place(&args.target, &args.agent, args.path.as_deref(), tenant)?;
    Ok(job::Plan {
        tenant: args.target.tenant.clone(),
        agent: args.agent.clone(),
        runtime_class: place.runtime_class,
        image: args.image.clone(),
        timeout: args.timeout,
        work: job::Work::Call(Request {
            url: place.url,
            traceparent: trace.parent(),
            timeout_seconds: args.timeout.as_secs(),
            tool: args.tool.clone(),
            arguments: args.arguments.clone(),
        }),
    })
}

fn missing<'a>(
    kind: &str,
    name: &str,
    tenant: &str,
    declared: impl Iterator<Item = &'a str>,
) -> anyhow::Error {
    let declared: Vec<_> = declared.collect();
    let hint = if declared.is_empty() {
        "it has none".into()
    } else {
        format!("it has {}", declared.join(", "))
    };
    ExitError::not_found(format!("tenant `{tenant}` has no {kind} `{name}`; {hint}")).into()
}

impl Report {
    /// What a person reads of a call that has no result.
    pub fn complaint(&self) -> Option<String> {
        match self {
            Self::Result { .. } => None,
            Self::Refused {
                status,
                code,
                message,
            } => {
                let status = status.map(|status| format!("HTTP {status}"));
                let code = code.map(|code| format!("JSON-RPC error {code}"));
                let how = [status, code]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(", ");
                Some(format!("refused: {message} ({how})"))
            }
            Self::CannotConnect { message } => Some(format!("no connection: {message}")),
            Self::Failed { message } => Some(format!("failed: {message}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        args::{Cli, Command},
        exit::exit_of,
    };

    fn call(line: &[&str]) -> Call {
        let line = [
            "x",
            "call",
            "acme/crm",
            "list_invoices",
            "{\"limit\": 3}",
            "--agent=billing",
        ]
        .iter()
        .chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Call(call) => call,
            other => panic!("{other:?}"),
        }
    }

    fn tenant(tier: &str) -> McpTenant {
        let sandbox = if tier == "Sandbox" {
            "sandbox: {runtimeClassName: gvisor}"
        } else {
            ""
        };
        serde_saphyr::from_str(&format!(
            "metadata: {{name: acme}}
spec:
  isolation:
    tier: {tier}
    {sandbox}
  identity: {{tenantId: t}}
  quota: {{cpu: '1', memory: 1Gi, pods: 2}}
  agents: [{{name: billing}}]
  servers: [{{name: crm, image: i, http: {{port: 3000, path: /v2/mcp}}}}]"
        ))
        .unwrap()
    }

    fn planned(line: &[&str], tenant: Option<&McpTenant>) -> Result<(String, Option<String>)> {
        let plan = plan(&call(line), &Trace::for_test(), tenant)?;
        match plan.work {
            job::Work::Call(request) => Ok((request.url, plan.runtime_class)),
            job::Work::Connect { .. } => panic!("no call"),
        }
    }

    #[test]
    fn what_the_tenant_declares_decides_path_and_runtime_class() {
        let (url, runtime_class) = planned(&[], Some(&tenant("Sandbox"))).unwrap();
        assert_eq!(url, "https://crm.acme.svc:8443/v2/mcp");
        assert_eq!(runtime_class.as_deref(), Some("gvisor"));
        assert_eq!(planned(&[], Some(&tenant("Namespace"))).unwrap().1, None);
    }

    #[test]
    fn a_tenant_that_may_not_be_read_is_called_by_convention() {
        assert_eq!(planned(&[], None).unwrap().0, "https://crm.acme.svc:8443/mcp");
        assert_eq!(
            planned(&["--path=v2"], None).unwrap().0,
            "https://crm.acme.svc:8443/v2"
        );
    }

    #[test]
    fn what_the_tenant_does_not_have_is_not_found_and_what_it_has_is_named() {
        let mut tenant = tenant("Namespace");
        tenant.spec.agents[0].name = "support".into();
        let error = planned(&[], Some(&tenant)).unwrap_err();
        assert_eq!(
            (exit_of(&error), error.to_string().contains("it has support")),
            (Exit::NotFound, true)
        );
        tenant.spec.servers.clear();
        let error = planned(&[], Some(&tenant)).unwrap_err();
        assert_eq!(
            (exit_of(&error), error.to_string().contains("it has none")),
            (Exit::NotFound, true)
        );
    }

    #[test]
    fn a_complaint_says_how_and_why() {
        let refused = Report::Refused {
            status: Some(403),
            code: None,
            message: "unknown agent".into(),
        };
        assert_eq!(refused.complaint().unwrap(), "refused: unknown agent (HTTP 403)");
        let refused = Report::Refused {
            status: None,
            code: Some(-32_602),
            message: "unknown tool".into(),
        };
        assert_eq!(
            refused.complaint().unwrap(),
            "refused: unknown tool (JSON-RPC error -32602)"
        );
    }
}
