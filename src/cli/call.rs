//! `kubectl bulkhead call`: one MCP call as an agent of a tenant, from inside the cluster.

pub mod answer;
pub mod audit;
pub mod follow;
pub mod job;
pub mod route;
pub mod target;
pub mod trace;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use rmcp::model::JsonObject;

use crate::{
    agent_call::{Request, report::Report},
    connection::Connection,
    exit::Exit,
    output::{self, Format},
    progress::Progress,
};
use answer::Answer;
use route::{Place, Route};
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
    #[command(flatten)]
    route: Route,
    /// The tool.
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    tool: Option<String>,
    /// The tool's arguments, a JSON object.
    #[arg(value_name = "JSON", value_parser = target::arguments, default_value = "{}")]
    arguments: JsonObject,
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
}

/// Makes the call and shows its answer.
pub async fn run(args: &Call, connection: &Connection) -> Result<Exit> {
    let client = connection.client().await?;
    let mut progress = Progress::new();
    let trace = Trace::random()?;
    let plan = plan(args, &trace, args.route.place(&client).await?);
    let started = Instant::now();
    let report = follow::run(&client, &job::build(&plan, &trace)?, args.timeout, &mut progress).await?;
    let explain = args.audit || !matches!(report.exit(), Exit::Success | Exit::CannotConnect);
    let audit = if explain {
        progress.set("looking for the call's audit record");
        audit::find(&client, &args.route.target, &trace, started.elapsed()).await
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

fn plan(args: &Call, trace: &Trace, place: Place) -> job::Plan {
    let work = job::Work::Call(Request {
        url: place.url,
        traceparent: trace.parent(),
        timeout_seconds: args.timeout.as_secs(),
        tool: args.tool.clone(),
        arguments: args.arguments.clone(),
    });
    args.route.plan(place.runtime_class, args.timeout, work)
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
    use super::*;

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
