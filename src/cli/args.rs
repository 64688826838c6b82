//! The command line.

use clap::{Parser, Subcommand};

use crate::{
    agent_call::AgentCall, agent_connect::AgentConnect, call::Call, connect::Connect, connection::Connection,
    dev::Dev, explain::Explain, policy::Policy, render::Render, status::Status,
};

/// See and call the tenants of Bulkhead; render them, try and test their policies without a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-bulkhead",
    bin_name = "kubectl bulkhead",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 error, 2 tool error, 3 not ready, 4 not found, 5 refused, 6 no connection to the server, 7 not as expected."
)]
pub struct Cli {
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show tenants, or one of them with its servers, pods and certificates.
    Status(Status),
    /// Call a tool as an agent, from inside the cluster.
    Call(Call),
    /// Serve an MCP endpoint on this machine for a server in the cluster, as an agent.
    Connect(Connect),
    /// Show everything that a tenant becomes, without a cluster.
    Render(Box<Render>),
    /// Show what the sidecar would decide about a request, without a cluster.
    Explain(Explain),
    /// Test policies, without a cluster.
    Policy(Policy),
    /// Run the sidecar in front of an MCP server on this machine, without a cluster.
    Dev(Dev),
    /// Make one MCP call with the certificate mounted here. Started by `call`.
    #[command(hide = true)]
    AgentCall(AgentCall),
    /// Serve the way in with the certificate mounted here. Started by `connect`.
    #[command(hide = true)]
    AgentConnect(AgentConnect),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cluster_flags_may_stand_before_and_after_the_subcommand() {
        for line in [["x", "--context=a", "status"], ["x", "status", "--context=a"]] {
            assert!(Cli::try_parse_from(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        let lines: [&[&str]; 14] = [
            &["x", "connect", "acme/crm"],
            &["x", "connect", "acme/crm", "--agent=billing", "--for=9d"],
            &["x", "call", "acme/crm", "list_invoices"],
            &["x", "call", "acme", "list_invoices", "--agent=billing"],
            &["x", "call", "acme/crm", "--agent=billing"],
            &["x", "call", "acme/crm", "tool", "--list", "--agent=billing"],
            &["x", "call", "acme/crm", "tool", "[1]", "--agent=billing"],
            &[
                "x",
                "call",
                "acme/crm",
                "tool",
                "--agent=billing",
                "--timeout=soon",
            ],
            &["x", "status", "--output=xml"],
            &["x", "render"],
            &["x", "explain", "request.json"],
            &[
                "x",
                "explain",
                "-f",
                "acme.yaml",
                "-H",
                "no header",
                "request.json",
            ],
            &["x", "policy", "test"],
            &["x", "dev", "-f", "acme.yaml", "node"],
        ];
        for line in lines {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn the_agents_client_is_not_offered_to_people() {
        let help = Cli::command().render_long_help().to_string();
        assert!(
            !help.contains("agent-call") && !help.contains("agent-connect"),
            "{help}"
        );
    }
}
