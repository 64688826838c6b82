//! `kubectl`, as a person or a program of the cluster.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setting;

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it ended with exit code 0.
    pub ok: bool,
    /// Its exit code, -1 for a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs `kubectl` on the cluster of `make e2e`, as its administrator or as somebody else.
#[derive(Clone, Debug, Default)]
pub struct Kubectl {
    impersonate: Vec<String>,
}

impl Kubectl {
    /// As the cluster's administrator.
    pub fn admin() -> Self {
        Self::default()
    }

    /// As a person with these groups.
    pub fn person(user: &str, groups: &[&str]) -> Self {
        let mut impersonate = vec!["--as".to_owned(), user.to_owned()];
        for group in groups {
            impersonate.extend(["--as-group".to_owned(), (*group).to_owned()]);
        }
        Self { impersonate }
    }

    /// As a program of the cluster, with every right that RBAC gives: what refuses it is a fence.
    fn program(account: &str) -> Self {
        Self::person(&format!("system:serviceaccount:{account}"), &["system:masters"])
    }

    /// As the operator: what its own mistakes could do, or who got hold of its token.
    pub fn operator() -> Self {
        Self::program("bulkhead-system:bulkhead-operator")
    }

    /// As cert-manager.
    pub fn cert_manager() -> Self {
        Self::program("cert-manager:cert-manager")
    }

    /// As an administrator in an emergency, on record.
    pub fn break_glass() -> Self {
        Self::person("on-call", &["system:masters", "bulkhead:break-glass"])
    }

    /// Runs `kubectl`, which a fence must refuse, and returns what it said.
    ///
    /// # Panics
    /// When it is not refused, or by something else.
    pub fn fenced(&self, args: &[&str], stdin: Option<&str>) -> Result<String> {
        let outcome = self.outcome(args, stdin)?;
        assert!(
            !outcome.ok && outcome.stderr.contains("ValidatingAdmissionPolicy"),
            "kubectl {}: {outcome:?}",
            args.join(" ")
        );
        Ok(outcome.stderr)
    }

    /// Runs `kubectl` with these arguments and reports whatever comes of it.
    pub fn outcome(&self, args: &[&str], stdin: Option<&str>) -> Result<Outcome> {
        let mut command = Command::new(setting("BULKHEAD_E2E_KUBECTL"));
        command
            .env("KUBECONFIG", setting("BULKHEAD_E2E_KUBECONFIG"))
            .args(&self.impersonate)
            .args(args);
        run(command, stdin)
    }

    /// Runs the plugin, as the cluster's administrator.
    pub fn plugin(args: &[&str]) -> Result<Outcome> {
        run(Self::admin().plugin_command(args), None)
    }

    /// The plugin with these arguments, not started yet.
    pub fn plugin_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(setting("BULKHEAD_E2E_PLUGIN"));
        command
            .env("KUBECONFIG", setting("BULKHEAD_E2E_KUBECONFIG"))
            .env("BULKHEAD_CLI_IMAGE", setting("BULKHEAD_E2E_IMAGE_CLI"))
            .args(&self.impersonate)
            .args(args);
        command
    }

    /// Runs `helm` on the cluster.
    pub fn helm(args: &[&str]) -> Result<Outcome> {
        let mut command = Command::new(setting("BULKHEAD_E2E_HELM"));
        command
            .env("KUBECONFIG", setting("BULKHEAD_E2E_KUBECONFIG"))
            .args(args);
        run(command, None)
    }

    /// Runs `kubectl`; anything but success is an error with what it said.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.feed(args, None)
    }

    /// Applies an object, as people do.
    pub fn apply(&self, object: &Value) -> Result<String> {
        self.feed(&["apply", "-f", "-"], Some(&object.to_string()))
    }

    /// Whether the person may do something, by the API server's own word.
    pub fn can(&self, verb: &str, resource: &str, namespace: &str) -> Result<bool> {
        let outcome = self.outcome(&["auth", "can-i", verb, resource, "-n", namespace], None)?;
        match outcome.stdout.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => bail!("kubectl auth can-i {verb} {resource}: {}", outcome.stderr),
        }
    }

    fn feed(&self, args: &[&str], stdin: Option<&str>) -> Result<String> {
        let outcome = self.outcome(args, stdin)?;
        if !outcome.ok {
            bail!("kubectl {}: {}", args.join(" "), outcome.stderr.trim());
        }
        Ok(outcome.stdout)
    }
}

fn run(mut command: Command, stdin: Option<&str>) -> Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    Ok(Outcome {
        ok: output.status.success(),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
