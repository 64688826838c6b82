//! `kubectl bulkhead policy test`: cases of requests with the decisions that are expected of a tenant's policies.

pub mod cases;
pub mod check;
pub mod report;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::{exit::Exit, output};

/// Works on policies without a cluster.
#[derive(Args, Debug)]
pub struct Policy {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// A subcommand of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Run cases against policies.
    Test(Test),
}

/// Decides the requests of all cases and compares.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl bulkhead policy test policy-tests/
  kubectl bulkhead policy test policy-tests/ --junit report.xml

Every *.yaml and *.yml below a folder is a file of cases; docs/policy-tests.md has what it may say.

Exit codes: 0 all as expected, 1 a case can't be run, 4 it names a server or agent that isn't there, 7 a decision is
another one.")]
pub struct Test {
    /// Folder with files of cases, or one such file; may be repeated.
    #[arg(value_name = "DIR", required = true)]
    paths: Vec<PathBuf>,
    /// Also write a `JUnit` report here.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Runs all cases.
pub fn run(policy: &Policy) -> Result<Exit> {
    let PolicyCommand::Test(args) = &policy.command;
    let mut files = Vec::new();
    for path in &args.paths {
        let found = cases::files(path)?;
        if found.is_empty() {
            bail!(
                "no cases in {}: no file there ends in .yaml or .yml",
                path.display()
            );
        }
        files.extend(found);
    }
    let suites: Vec<_> = files.iter().map(|file| check::suite(file)).collect();
    output::text(&report::text(&suites))?;
    if let Some(file) = &args.junit {
        let xml = report::junit(&suites)?;
        std::fs::write(file, xml).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(report::exit(&suites))
}
