//! Programs that are measured: started, waited for, looked at, and ended with what they started.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio, exit},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    runtime::Builder,
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
};

/// How long a program may take until it listens.
const START: Duration = Duration::from_secs(30);

/// How long a program may take to end when it is asked to.
const END: Duration = Duration::from_secs(20);

/// The exit code of a program that was interrupted, as shells have it.
const INTERRUPTED: i32 = 130;

/// The process groups that run.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends what runs when this program is asked to end: in groups of their own nobody else would.
pub(crate) fn end_with_us() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        let asked: Result<()> = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                interrupted = ctrl_c() => interrupted?,
                _ = terminate.recv() => {}
            }
            Ok(())
        });
        if let Err(error) = asked {
            eprintln!("not listening for signals: {error:#}");
            return;
        }
        for group in groups().iter() {
            // One that has ended already is no matter.
            let _ = kill_process_group(*group, Signal::KILL);
        }
        exit(INTERRUPTED);
    });
    Ok(())
}

/// A running program, in a process group of its own.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a program; what it says goes to `log`, and its standard output to `out` in the same folder.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(folder.join(format!("{name}.out")))?)
            .stderr(File::create(&log)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name}: {}", command.get_program().display()))?;
        groups().extend(group(&child));
        Ok(Self {
            name: name.to_owned(),
            child,
        })
    }

    /// Waits until it listens there.
    pub(crate) fn listening(&mut self, address: SocketAddr, log: &Path) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || started.elapsed() > START {
                let log = fs::read_to_string(log).unwrap_or_default();
                bail!("{} does not listen on {address}: {log}", self.name);
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// CPU time that it and its workers have used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let ticks = self.members()?.iter().map(|pid| ticks(*pid)).sum::<u64>();
        Ok(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    /// Memory that it and its workers hold, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        Ok(self.members()?.iter().map(|pid| resident(*pid)).sum())
    }

    /// Its process group.
    fn members(&self) -> Result<Vec<u32>> {
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if field(pid, 5) == Some(u64::from(self.child.id())) {
                members.push(pid);
            }
        }
        Ok(members)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = group(&self.child) {
            // As a kubelet ends it: a program that counts what it executes writes that down at its end. One that has ended
            // already is no matter.
            let _ = kill_process_group(group, Signal::TERM);
            let asked = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < END {
                sleep(Duration::from_millis(20));
            }
            let _ = kill_process_group(group, Signal::KILL);
            groups().retain(|other| *other != group);
        }
        let _ = self.child.wait();
    }
}

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn group(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// A field of `/proc/PID/stat`, counted from 1 as proc(5) does; of a process that is still there.
fn field(pid: u32, number: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may have spaces, and ends with the last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn ticks(pid: u32) -> u64 {
    field(pid, 14).unwrap_or_default() + field(pid, 15).unwrap_or_default()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
    kib.unwrap_or_default() * 1024
}
