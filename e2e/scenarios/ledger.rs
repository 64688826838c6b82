//! What the fixture's MCP server was really asked: its own log, one JSON line a request.

use anyhow::Result;
use serde_json::Value;

use crate::Kubectl;

/// The log of a tenant's `ledger` servers.
#[derive(Debug)]
pub struct Ledger {
    tenant: String,
    server: String,
}

impl Ledger {
    /// The `ledger` server of a tenant.
    pub fn of(tenant: &str) -> Self {
        Self {
            tenant: tenant.into(),
            server: "ledger".into(),
        }
    }

    /// Every request whose line contains `marker`, oldest first.
    pub fn asked(&self, marker: &str) -> Result<Vec<Value>> {
        let lines = self.log("server")?;
        Ok(lines
            .into_iter()
            .filter(|line| line.get("asked").is_some() && line.to_string().contains(marker))
            .collect())
    }

    /// Every audit record whose line contains `marker`.
    pub fn audited(&self, marker: &str) -> Result<Vec<Value>> {
        let lines = self.log("bulkhead-proxy")?;
        Ok(lines
            .into_iter()
            .filter(|line| line.get("decision").is_some() && line.to_string().contains(marker))
            .collect())
    }

    fn log(&self, container: &str) -> Result<Vec<Value>> {
        let selector = format!("bulkhead.dev/server={}", self.server);
        let text = Kubectl::admin().run(&[
            "logs",
            "-n",
            &self.tenant,
            "-l",
            &selector,
            "-c",
            container,
            "--tail=-1",
        ])?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}
