//! What is there of a local cluster, in lines for a person.

use anyhow::Result;

use crate::{local::Local, run::check};

impl Local {
    /// The lines, and whether the cluster is up.
    pub(crate) fn status(&self) -> Result<(Vec<String>, bool)> {
        let Some(record) = self.record() else {
            return Ok((vec![format!("cluster {} does not exist", self.name)], false));
        };
        let plan = record.plan();
        let healthy = self.is_healthy(&record)?;
        let mut lines = vec![
            format!(
                "cluster     {} ({})",
                self.name,
                if healthy { "up" } else { "not up" }
            ),
            format!("kubeconfig  {}", self.kubeconfig()?.display()),
            format!("logs        {}", self.logs().display()),
            format!(
                "network     {}, policies {}",
                plan.host(),
                if record.network_policy {
                    "enforced"
                } else {
                    "ignored"
                }
            ),
        ];
        if record.gvisor {
            lines.push("runtimes    runc, gvisor".into());
        }
        let supervisor = self.supervisor(&record)?;
        for name in record.components() {
            let state = supervisor
                .running(&name)
                .map_or("not running".into(), |identity| format!("pid {}", identity.pid));
            lines.push(format!("  {name:<26} {state}"));
        }
        if healthy && let Ok(nodes) = check(self.kubectl()?.args(["get", "nodes", "--request-timeout=5s"])) {
            lines.extend(nodes.lines().map(str::to_owned));
        }
        Ok((lines, healthy))
    }
}
