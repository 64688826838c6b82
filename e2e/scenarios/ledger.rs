//! What the fixture's MCP server was really asked: its own log, one JSON line a request.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{eventually, pods::all_said};

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

    /// The first record of a sidecar that is like this, once there is one.
    ///
    /// # Panics
    /// When there is none.
    pub fn recorded(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("a record of {}: {what}", self.tenant), || {
            let records = self.log("bulkhead-proxy")?;
            records.into_iter().find(&is_it).context("none like it")
        })
    }

    fn log(&self, container: &str) -> Result<Vec<Value>> {
        let selector = format!("bulkhead.dev/server={}", self.server);
        all_said(&self.tenant, &selector, container)
    }
}
