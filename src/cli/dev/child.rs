//! COMMAND: an MCP server in a process group of its own, which ends with the session, and all that it started with it.

use std::{
    ffi::{OsStr, OsString},
    io::stderr,
    os::fd::AsFd as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

/// Time that the group has to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// A started COMMAND. Dropping it kills what is left of it.
pub struct Child {
    leader: tokio::process::Child,
    group: Pid,
}

impl Drop for Child {
    fn drop(&mut self) {
        // Nothing is left, as a rule.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Child {
    /// Starts a program. Its output goes to our stderr: stdout is for decisions.
    pub fn start(program: &OsStr, arguments: &[OsString], variables: &[(&str, String)]) -> Result<Self> {
        let output = || stderr().as_fd().try_clone_to_owned().map(Stdio::from);
        let leader = Command::new(program)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            // Of its own, so that a terminal's Ctrl-C comes to us alone and we end it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let group = leader
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .context("a started process must have an id")?;
        Ok(Self { leader, group })
    }

    /// Waits until the program ends. What it has started may go on.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.leader.wait().await.context("waiting for COMMAND")
    }

    /// Ends the program and all that it has started: asks first, and insists later.
    pub async fn stop(mut self) {
        let _ = kill_process_group(self.group, Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        // An ended leader stays in its group until it is waited for.
        while self.leader.try_wait().is_ok_and(|ended| ended.is_none())
            || test_kill_process_group(self.group).is_ok()
        {
            if Instant::now() >= deadline {
                let _ = kill_process_group(self.group, Signal::KILL);
                let _ = self.leader.wait().await;
                return;
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shell(script: &str, file: &std::path::Path) -> Child {
        let arguments: [OsString; 3] = ["-c".into(), script.into(), file.into()];
        Child::start(OsStr::new("sh"), &arguments, &[]).unwrap()
    }

    /// The process id that a script wrote, once it has.
    async fn written(file: &std::path::Path) -> Pid {
        loop {
            let id = fs::read_to_string(file).unwrap_or_default();
            if let Some(id) = id.strip_suffix('\n') {
                return Pid::from_raw(id.parse().unwrap()).unwrap();
            }
            sleep(LOOK).await;
        }
    }

    /// Whether a process runs: one that has ended may stay as a zombie until init looks after it.
    fn runs(process: Pid) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
        stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
    }

    #[tokio::test]
    async fn what_the_program_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let child = shell("sleep 1000 & echo $! > $0; wait", &file);
        let grandchild = written(&file).await;
        assert!(runs(grandchild));
        child.stop().await;
        assert!(!runs(grandchild));
    }

    #[tokio::test]
    async fn a_program_that_ended_by_itself_leaves_nothing_behind_either() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let mut child = shell("sleep 1000 & echo $! > $0; exit 3", &file);
        assert_eq!(child.ended().await.unwrap().code(), Some(3));
        let grandchild = written(&file).await;
        drop(child);
        while runs(grandchild) {
            sleep(LOOK).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_listen_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let child = shell("trap '' TERM; echo $$ > $0; while :; do sleep 0.1; done", &file);
        let leader = written(&file).await;
        child.stop().await;
        assert!(!runs(leader));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let error = Child::start(OsStr::new("/nowhere/server"), &[], &[])
            .err()
            .unwrap();
        assert!(error.to_string().contains("starting /nowhere/server"), "{error}");
    }
}
