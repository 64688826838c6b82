//! Programs that go on after we end: started apart from us, written down, and ended by what was written down.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::run::{command, tail, wait_for};

/// One process: its number, and when it started, because numbers are used again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    started: u64,
}

impl Identity {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    pub(crate) fn runs(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal to this process and to no other that has taken its number since.
    pub(crate) fn signal(self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return;
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        // Checked after the handle is taken: from here on it means one process, whatever happens to the number.
        if self.runs() {
            let _ = pidfd_send_signal(handle, signal);
        }
    }
}

/// State and start time out of `/proc/PID/stat`. The second field is a name in brackets that may hold anything.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut rest = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = rest.next()?.chars().next()?;
    let started = rest.nth(18)?.parse().ok()?;
    Some((state, started))
}

/// Asks processes to end, waits, and then ends them.
pub(crate) fn end(processes: &[Identity], patience: Duration) {
    for process in processes {
        process.signal(Signal::TERM);
    }
    let deadline = Instant::now() + patience;
    while processes.iter().any(|process| process.runs()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    for process in processes {
        process.signal(Signal::KILL);
    }
}

/// The programs of one cluster: a record and a log for each.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    records: PathBuf,
    logs: PathBuf,
    group: PathBuf,
}

impl Supervisor {
    /// `group` is the file that puts a process into the cluster's control group.
    pub(crate) fn new(records: PathBuf, logs: PathBuf, group: PathBuf) -> Result<Self> {
        for folder in [&records, &logs] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        Ok(Self { records, logs, group })
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The running process of that name.
    pub(crate) fn running(&self, name: &str) -> Option<Identity> {
        let text = fs::read_to_string(self.record(name)).ok()?;
        let identity: Identity = serde_json::from_str(&text).ok()?;
        identity.runs().then_some(identity)
    }

    /// The running process of that name, started when there is none.
    pub(crate) fn ensure(&self, name: &str, program: &Command) -> Result<Identity> {
        if let Some(identity) = self.running(name) {
            return Ok(identity);
        }
        let log = self.log(name);
        let pid_file = self.records.join(format!("{name}.pid"));
        let _ = fs::remove_file(&pid_file);
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("write {}", log.display()))?;
        // In a session of its own and a child of init, so that neither a Ctrl-C nor our end reaches it. The shell joins
        // the control group and leaves its number before it becomes the program.
        let mut detached = command("setsid");
        detached.args([
            "--fork",
            "sh",
            "-c",
            r#"echo $$ > "$1" && echo $$ > "$2" && shift 2 && exec "$@""#,
            "sh",
        ]);
        detached
            .arg(&self.group)
            .arg(&pid_file)
            .arg(program.get_program())
            .args(program.get_args());
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => detached.env(key, value),
                None => detached.env_remove(key),
            };
        }
        if let Some(folder) = program.get_current_dir() {
            detached.current_dir(folder);
        }
        detached
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let status = detached.status().context("start setsid")?;
        if !status.success() {
            bail!("{name} did not start ({status})");
        }
        let second = Duration::from_secs(5);
        let pid = wait_for(
            &format!("{name} started"),
            second,
            Duration::from_millis(5),
            || {
                Ok(fs::read_to_string(&pid_file)
                    .ok()
                    .and_then(|text| text.trim_end().parse::<u32>().ok()))
            },
        )
        .with_context(|| format!("{}:\n{}", log.display(), tail(&log, 15)))?;
        let _ = fs::remove_file(&pid_file);
        let Some(identity) = Identity::of(pid) else {
            bail!("{name} ended at once. {}:\n{}", log.display(), tail(&log, 15));
        };
        crate::kubeconfig::write_private(&self.record(name), &serde_json::to_string(&identity)?)?;
        Ok(identity)
    }

    /// Fails with the end of its log when the process of that name has ended.
    pub(crate) fn still_runs(&self, name: &str) -> Result<()> {
        if self.running(name).is_some() {
            return Ok(());
        }
        let log = self.log(name);
        bail!("{name} ended. {}:\n{}", log.display(), tail(&log, 15))
    }

    /// Ends the process of that name, when it runs.
    pub(crate) fn end(&self, name: &str, patience: Duration) {
        if let Some(identity) = self.running(name) {
            end(&[identity], patience);
        }
        let _ = fs::remove_file(self.record(name));
    }

    fn record(&self, name: &str) -> PathBuf {
        self.records.join(format!("{name}.json"))
    }

    /// The names of all programs that were ever started here.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.records)
    }
}

fn names(records: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(records)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .strip_suffix(".json")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "42 (a ) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200 18446744073709551615";
        assert_eq!(parse_stat(stat), Some(('S', 98765)));
    }

    #[test]
    fn a_process_with_a_used_number_is_not_the_recorded_one() {
        let ours = Identity::of(std::process::id()).unwrap();
        assert!(ours.runs());
        assert!(
            !Identity {
                started: ours.started + 1,
                ..ours
            }
            .runs()
        );
    }

    #[test]
    fn a_program_is_started_once_and_ended_by_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(
            dir.path().join("run"),
            dir.path().join("logs"),
            "/dev/null".into(),
        )
        .unwrap();
        let mut sleep = command("sleep");
        sleep.arg("60");
        let first = supervisor.ensure("sleeper", &sleep).unwrap();
        assert_eq!(supervisor.ensure("sleeper", &sleep).unwrap(), first);
        assert_eq!(supervisor.names(), ["sleeper"]);
        supervisor.end("sleeper", Duration::from_secs(5));
        assert!(!first.runs() && supervisor.running("sleeper").is_none());
    }

    #[test]
    fn a_program_that_ends_at_once_is_an_error_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(
            dir.path().join("run"),
            dir.path().join("logs"),
            "/dev/null".into(),
        )
        .unwrap();
        let mut fails = command("sh");
        fails.args(["-c", "echo no such flag >&2; exit 1"]);
        let started = supervisor.ensure("hasty", &fails);
        let outcome = started.and_then(|_| {
            std::thread::sleep(Duration::from_millis(200));
            supervisor.still_runs("hasty")
        });
        assert!(format!("{:#}", outcome.unwrap_err()).contains("no such flag"));
    }
}
