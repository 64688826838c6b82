//! Runs the MCP conformance suites at a server, again through the sidecar in front of it, and compares. Also that the
//! comparison can fail, that clients of other SDKs work through the sidecar unmodified, and that agents act for persons of
//! a real identity provider.
#![allow(clippy::print_stdout, reason = "the table is the output")]

mod clients;
mod gate;
mod persons;
mod servers;
mod suite;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::{Result, anyhow};
use clap::Parser;
use comfy_table::{Table, presets};

use crate::{
    gate::{Status, problems},
    servers::Server,
    suite::{Modules, Outcome, RUNS, Run},
};

/// Runs the MCP conformance suites at a server, and again through the sidecar.
#[derive(Parser)]
struct Cli {
    /// `node_modules` with the suites.
    #[arg(long)]
    modules: PathBuf,
    /// A Python with the SDK.
    #[arg(long)]
    python: PathBuf,
    /// The fixture server.
    #[arg(long)]
    fixture: PathBuf,
    /// `kubectl-bulkhead`.
    #[arg(long)]
    plugin: PathBuf,
    /// File of the tenant whose policy is in force.
    #[arg(long)]
    tenant: PathBuf,
    /// Folder of the clients' programs.
    #[arg(long)]
    clients: PathBuf,
    /// Folder of the identity provider and of persons' programs.
    #[arg(long)]
    persons: PathBuf,
    /// File of the tenant whose agents act for persons.
    #[arg(long)]
    persons_tenant: PathBuf,
    /// Folder for what suites and servers leave behind.
    #[arg(long)]
    results: PathBuf,
    /// Only this scenario, without a gate: to see what one is about.
    #[arg(long)]
    scenario: Option<String>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if cli.results.exists() {
        fs::remove_dir_all(&cli.results)?;
    }
    let modules = Modules(fs::canonicalize(&cli.modules)?);
    let folder = |name: &str| -> Result<PathBuf> {
        let folder = cli.results.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    // Two fixtures, so that neither way sees the other's changes and tasks.
    let (direct, through) = (folder("direct")?, folder("through")?);
    let alone = Server::fixture(&cli.fixture, &direct)?;
    let behind = Server::fixture(&cli.fixture, &through)?;
    let sidecar = Server::sidecar(&cli.plugin, &cli.tenant, "suite", &behind.url, &through)?;
    if let Some(scenario) = &cli.scenario {
        for (way, url, folder) in [("direct", &alone.url, direct), ("through", &sidecar.url, through)] {
            let outcome = modules.scenario(scenario, url, &folder.join(scenario))?;
            println!("{way}: {} passed", outcome.checks.count(Status::Success));
            outcome.checks.bad().for_each(|check| println!("  {check}"));
        }
        println!("what was said is in {}", cli.results.display());
        return Ok(ExitCode::SUCCESS);
    }
    let (at_server, at_sidecar) = thread::scope(|scope| {
        let runs = scope.spawn(|| all(&modules, &alone.url, &direct));
        let through = all(&modules, &sidecar.url, &through);
        (runs.join(), through)
    });
    let at_server = at_server.map_err(|_| anyhow!("the direct runs panicked"))??;
    let at_sidecar = at_sidecar?;

    println!("{}", table(&at_server, &at_sidecar));
    let mut tally = Tally::default();
    for (run, (direct, through)) in RUNS.iter().zip(at_server.iter().zip(&at_sidecar)) {
        let found = problems(&direct.checks, direct.ended_well, run.expected, None);
        tally.count(&format!("{} with no sidecar", run.name), &found);
        let found = problems(
            &through.checks,
            through.ended_well,
            run.expected,
            Some(&direct.checks),
        );
        tally.count(&format!("{} through the sidecar", run.name), &found);
    }
    tally.count(
        "a server that refuses everything",
        &control(&modules, &folder("refusing")?)?,
    );
    let clients = |url, fixture| clients::all(&cli.clients, &modules, &cli.python, url, fixture);
    for (client, verdict) in clients(&sidecar.url, &behind)? {
        tally.count(&client, verdict.wrong().as_slice());
    }
    // What they look for is the sidecar's doing, so they must miss it where there is none.
    let content = clients(&alone.url, &alone)?
        .into_iter()
        .filter(|(_, verdict)| verdict.said.is_none());
    let content: Vec<_> = content
        .map(|(client, _)| format!("nothing was wrong for {client}"))
        .collect();
    tally.count("the clients with no sidecar miss it", &content);
    let persons = persons::Stage {
        programs: &cli.persons,
        modules: &modules,
        plugin: &cli.plugin,
        tenant: &cli.persons_tenant,
        fixture: &behind,
        folder: folder("persons")?,
    };
    for (what, wrong) in persons.run()? {
        tally.count(what, wrong.as_slice());
    }
    println!("test result: {}", tally.line());
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All runs at a URL.
fn all(modules: &Modules, url: &str, folder: &Path) -> Result<Vec<Outcome>> {
    let run = |run: &Run| modules.run(run, url, &folder.join(run.name));
    RUNS.iter().map(run).collect()
}

/// What is wrong with the gate: a server that refuses everything passes many checks, and must not get through.
fn control(modules: &Modules, folder: &Path) -> Result<Vec<String>> {
    let run = &RUNS[1];
    let outcome = modules.run(run, &servers::refusing()?, folder)?;
    let passed = outcome.checks.count(Status::Success);
    let found = problems(&outcome.checks, true, passed, None);
    let mut wrong = Vec::new();
    if found.is_empty() {
        wrong.push("it gets through, whatever the suite says and the total is".to_owned());
    }
    if passed == 0 {
        wrong.push("it passes nothing, so it shows nothing".to_owned());
    }
    Ok(wrong)
}

fn table(direct: &[Outcome], through: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "run",
        "direct",
        "failed",
        "warned",
        "through the sidecar",
        "failed",
        "warned",
    ]);
    for (run, (direct, through)) in RUNS.iter().zip(direct.iter().zip(through)) {
        let mut row = vec![run.name.to_owned()];
        for outcome in [direct, through] {
            let statuses = [Status::Success, Status::Failure, Status::Warning];
            row.extend(statuses.map(|status| outcome.checks.count(status).to_string()));
        }
        table.add_row(row);
    }
    table
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn count(&mut self, name: &str, problems: &[impl std::fmt::Display]) {
        if problems.is_empty() {
            self.passed += 1;
            println!("ok      {name}");
        } else {
            self.failed += 1;
            println!("FAILED  {name}");
        }
        for problem in problems {
            println!("        {problem}");
        }
    }

    fn line(&self) -> String {
        let outcome = if self.failed == 0 { "ok" } else { "FAILED" };
        format!("{outcome}. {} passed; {} failed", self.passed, self.failed)
    }
}
