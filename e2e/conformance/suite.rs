//! The suites: how they are run, and what they leave behind.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::gate::{Checks, Status};

/// Longest run; the longest that was seen takes 13 s.
const PATIENCE: Duration = Duration::from_mins(3);
const LOOK: Duration = Duration::from_millis(50);
/// `-2026-11-27T08-20-03-080Z`, at the end of the name of a scenario's folder.
const TIME_LENGTH: usize = 25;

/// A run of a suite.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What it is called.
    pub name: &'static str,
    /// The suite's folder of `node_modules`.
    suite: &'static str,
    arguments: &'static [&'static str],
    /// How many checks pass at a server that does all that is asked for.
    pub expected: u32,
}

/// The runs. Their totals are of these versions of the suites: they change with package.json alone.
pub const RUNS: [Run; 3] = [
    Run {
        name: "0.1.16",
        suite: "conformance-legacy",
        arguments: &[],
        expected: 40,
    },
    Run {
        name: "2025-11-25",
        suite: "conformance",
        arguments: &["--requirements", "2025-11-25"],
        expected: 83,
    },
    Run {
        name: "2026-07-28",
        suite: "conformance",
        arguments: &["--requirements", "2026-07-28"],
        expected: 197,
    },
];

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its checks.
    pub checks: Checks,
    /// Whether the suite says so too.
    pub ended_well: bool,
}

/// Where the suites and their Node.js are.
#[derive(Clone, Debug)]
pub struct Modules(pub PathBuf);

impl Modules {
    /// A command of their Node.js.
    pub fn node(&self) -> Result<Command> {
        let found = ["x64", "arm64"]
            .map(|machine| self.0.join(format!("node-linux-{machine}/bin/node")))
            .into_iter()
            .find(|node| node.exists());
        let node = found.with_context(|| format!("no Node.js in {}", self.0.display()))?;
        Ok(Command::new(node))
    }

    /// Runs a suite at a URL. What it leaves behind is in `folder`.
    pub fn run(&self, run: &Run, url: &str, folder: &Path) -> Result<Outcome> {
        self.suite(run.suite, run.arguments, url, folder)
    }

    /// Runs one scenario, in the newest protocol that it is of.
    pub fn scenario(&self, scenario: &str, url: &str, folder: &Path) -> Result<Outcome> {
        self.suite("conformance", &["--scenario", scenario], url, folder)
    }

    fn suite(&self, suite: &str, arguments: &[&str], url: &str, folder: &Path) -> Result<Outcome> {
        fs::create_dir_all(folder)?;
        let log = File::create(folder.join("log"))?;
        let mut command = self.node()?;
        command
            .arg(self.0.join(suite).join("dist/index.js"))
            .args(["server", "--url", url])
            .args(arguments)
            .arg("-o")
            .arg(folder)
            .stdout(log.try_clone()?)
            .stderr(log);
        let ended_well = ended(&mut command)?.success();
        let checks = read(folder)?;
        Ok(Outcome { checks, ended_well })
    }
}

/// Runs a command to its end, but not for ever.
pub fn ended(command: &mut Command) -> Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} did not end within {PATIENCE:?}");
        }
        sleep(LOOK);
    }
}

#[derive(Deserialize)]
struct Check {
    id: String,
    status: Status,
}

fn read(folder: &Path) -> Result<Checks> {
    let mut checks = Checks::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.path().join("checks.json");
        if !file.exists() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let scenario =
            scenario(&name).with_context(|| format!("{name} is not the name of a scenario's folder"))?;
        let text = fs::read_to_string(&file)?;
        let of: Vec<Check> = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        for check in of {
            checks.add(scenario, &check.id, check.status);
        }
    }
    Ok(checks)
}

fn scenario(folder: &str) -> Option<&str> {
    let name = folder.strip_prefix("server-")?;
    let (scenario, time) = name.split_at_checked(name.len().checked_sub(TIME_LENGTH)?)?;
    (time.starts_with('-') && time.ends_with('Z')).then_some(scenario)
}

#[cfg(test)]
mod tests {
    use super::scenario;

    #[test]
    fn a_folder_is_named_after_its_scenario_and_the_time() {
        assert_eq!(scenario("server-ping-2026-11-27T08-20-03-080Z"), Some("ping"));
        assert_eq!(
            scenario("server-server-initialize-2026-11-27T08-20-03-080Z"),
            Some("server-initialize")
        );
        for other in ["", "server-", "ping-2026-11-27T08-20-03-080Z", "server-ping"] {
            assert_eq!(scenario(other), None, "{other}");
        }
    }
}
