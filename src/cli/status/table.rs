//! Tenants, one a line.

use bulkhead_api::McpTenant;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;

use super::view::{Summary, summary};
use crate::{call::answer::trimmed, paint};

/// One tenant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name.
    pub name: String,
    /// The resource itself.
    #[serde(flatten)]
    pub summary: Summary,
    /// Servers whose pods are all ready.
    pub servers_ready: usize,
    /// Servers.
    pub servers: usize,
    /// Agents.
    pub agents: usize,
}

/// The line of a tenant.
pub fn row(tenant: &McpTenant, now: Timestamp) -> Row {
    let servers = tenant
        .status
        .as_ref()
        .map(|status| status.servers.as_slice())
        .unwrap_or_default();
    Row {
        name: tenant.name_any(),
        summary: summary(tenant, now),
        servers_ready: servers
            .iter()
            .filter(|server| server.ready_replicas >= server.replicas)
            .count(),
        servers: tenant.spec.servers.len(),
        agents: tenant.spec.agents.len(),
    }
}

/// The table.
pub fn render(rows: &[Row], wide: bool) -> String {
    let mut table = Table::new();
    let mut header = vec!["NAME", "READY", "REASON", "TIER", "SERVERS", "AGE"];
    if wide {
        header.extend(["AGENTS", "GENERATION", "OBSERVED", "MESSAGE"]);
    }
    table.load_preset(presets::NOTHING).set_header(header);
    for Row {
        name,
        summary,
        servers_ready,
        servers,
        agents,
    } in rows
    {
        let reason = if summary.deleting {
            "Deleting"
        } else {
            &summary.reason
        };
        let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
        let mut line = vec![
            name.clone(),
            if summary.ready { "True" } else { "False" }.to_owned(),
            reason.to_owned(),
            summary.tier.clone(),
            format!("{servers_ready}/{servers}"),
            summary.age_seconds.map(paint::span).unwrap_or_default(),
        ];
        if wide {
            let ready = summary
                .conditions
                .iter()
                .find(|condition| condition.kind == "Ready");
            line.extend([
                agents.to_string(),
                number(summary.generation),
                number(summary.observed_generation),
                ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            ]);
        }
        table.add_row(line);
    }
    trimmed(&table)
}
