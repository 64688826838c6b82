//! What the fixture's MCP server was really asked: its own log, one JSON line a request.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{Kubectl, eventually};

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

    /// The requests whose line contains `marker`, once there are `count` of them: a log follows its program.
    ///
    /// # Panics
    /// When there aren't as many.
    pub fn asked_times(&self, marker: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{} asked {marker} {count} times", self.tenant), || {
            let asked = self.asked(marker)?;
            ensure!(asked.len() >= count, "{asked:?}");
            Ok(asked)
        })
    }

    /// Every request whose line contains `marker`, oldest first. To show that there is none, first see a later one
    /// with [`Self::asked_times`].
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
