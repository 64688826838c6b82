//! What the suites are pointed at: the fixture, the sidecar before another one, and a server that refuses everything.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest start.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at it.
pub const LOOK: Duration = Duration::from_millis(20);

/// A process that is stopped when it is dropped.
pub struct Server {
    child: Child,
    /// Where it is reached.
    pub url: String,
    /// The file of what it says.
    said: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            // One that has ended already is as good.
            let _ = kill_process(id, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the fixture on a free port.
    pub fn fixture(program: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]);
        Self::start(command, folder, "fixture")
    }

    /// Starts the sidecar before the fixture at this URL, with the tenant's policy, for this agent.
    pub fn sidecar(plugin: &Path, tenant: &Path, agent: &str, fixture: &str, folder: &Path) -> Result<Self> {
        let port = fixture
            .split(['/', ':'])
            .nth(4)
            .with_context(|| format!("no port in {fixture}"))?;
        let text = fs::read_to_string(tenant).with_context(|| tenant.display().to_string())?;
        let placed = text.replace("port: 3100", &format!("port: {port}"));
        if placed == text && port != "3100" {
            bail!(
                "{}: the fixture's port has to be written as `port: 3100`",
                tenant.display()
            );
        }
        let tenant = folder.join(format!("{agent}.yaml"));
        fs::write(&tenant, placed)?;
        let mut command = Command::new(plugin);
        command.args(["dev", "--agent", agent, "--filename"]).arg(&tenant);
        Self::start(command, folder, &format!("sidecar-{agent}"))
    }

    /// Starts a program that says its URL at the beginning of a line.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Result<Self> {
        let said = folder.join(format!("{name}.out"));
        let log = folder.join(format!("{name}.log"));
        let child = command
            .stdout(File::create(&said)?)
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let mut server = Self {
            child,
            url: String::new(),
            said,
        };
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&server.said)?;
            // Up to the last line feed, since a line may still be on its way.
            let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
            let mut words = complete.lines().filter_map(|line| line.split_whitespace().next());
            if let Some(url) = words.find(|word| word.starts_with("http://") || word.starts_with("https://"))
            {
                url.clone_into(&mut server.url);
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended: {status}: {}", fs::read_to_string(&log)?);
            }
            if begun.elapsed() > PATIENCE {
                bail!("{name} did not start within {PATIENCE:?}: {}", log.display());
            }
            sleep(LOOK);
        }
    }

    /// What is done with it, and what came to it meanwhile, which the fixture says a line each: method, name, arguments.
    pub fn seeing<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Value>)> {
        let before = fs::read_to_string(&self.said)?.len();
        let done = act()?;
        let said = fs::read_to_string(&self.said)?;
        let came = said[before..]
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>();
        Ok((done, came.context("what the fixture says")?))
    }
}

/// A server that answers every request with 401, for as long as the process lasts; its URL.
pub fn refusing() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || refuse(&stream));
        }
    });
    Ok(url)
}

fn refuse(stream: &TcpStream) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
