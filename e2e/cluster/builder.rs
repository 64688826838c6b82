//! Builds the parts that are missing, with the ordinary `go` command, into the cache.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    Paths, host,
    parts::{Part, Patch, Source},
    run::{check, command, tail},
};

/// What all parts need while they are built; downloads and the compiler's cache are most of it.
const DISK_GIB: u64 = 12;

/// Builds what is missing of these parts, and says so. Finished parts stay when a later one fails.
pub fn build(paths: &Paths, parts: &[&'static Part]) -> Result<()> {
    let mut missing = Vec::new();
    for part in parts {
        if !part.is_built(paths)? {
            missing.push(*part);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        host::has("go"),
        "the parts of the cluster are built from Go modules, and there is no `go` on the PATH. Install Go 1.26 or later"
    );
    host::ensure_disk(&paths.cache, DISK_GIB)?;
    let seconds: u32 = missing.iter().map(|part| part.usual_seconds).sum();
    let names: Vec<&str> = missing.iter().map(|part| part.name).collect();
    let minutes = seconds.div_ceil(60);
    eprintln!(
        "building {} from Go modules, once: about {minutes} min on two idle cores",
        names.join(", ")
    );

    // One part keeps two cores busy; more at once only helps where there are more.
    let workers = thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).max(1));
    let queue = Mutex::new(missing.into_iter());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // The lock is released before the build begins: `while let` on the guard itself would hold it.
                let next = || queue.lock().ok().and_then(|mut queue| queue.next());
                while let Some(part) = next() {
                    if let Err(error) = build_part(paths, part)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(error);
                        return;
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn build_part(paths: &Paths, part: &Part) -> Result<()> {
    let goal = part.binaries(paths)?;
    let parent = goal.parent().context("a folder below the cache")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    // Two runs at once: the second waits here, and then finds the part built.
    let lock = host::lock(
        &parent.join(format!("{}.lock", part.name)),
        &format!("another build of {}", part.name),
    )?;
    if goal.is_dir() {
        return Ok(());
    }
    let log = paths.cache.join("log").join(format!("{}.log", part.name));
    let unfinished = goal.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    let source = match &part.source {
        Source::Tools | Source::Own => part.folder(paths),
        Source::Patched(patch) => patched(paths, part, patch)?,
    };
    compile(part, &source, &unfinished, &log)?;
    for (built, called) in part.programs {
        let from = unfinished.join(built);
        ensure!(
            from.is_file(),
            "{}: the build made no {built}; see {}",
            part.name,
            log.display()
        );
        if built != called {
            fs::rename(from, unfinished.join(called))?;
        }
    }
    // The folder appears whole: what exists under its final name is complete.
    fs::rename(&unfinished, &goal)?;
    drop(lock);
    Ok(())
}

fn compile(part: &Part, source: &Path, into: &Path, log: &Path) -> Result<()> {
    fs::create_dir_all(log.parent().context("a log has a folder")?)?;
    let file = fs::File::create(log).with_context(|| format!("write {}", log.display()))?;
    // Modules come from the network, so this is the one command that keeps the proxy's environment.
    let mut go = std::process::Command::new("nice");
    go.args([
        "-n",
        "5",
        "go",
        "build",
        "-trimpath",
        "-ldflags",
        part.ldflags,
        "-o",
    ])
    .arg(into);
    if !part.tags.is_empty() {
        go.args(["-tags", part.tags]);
    }
    go.arg(if matches!(part.source, Source::Own) {
        "."
    } else {
        "tool"
    });
    // Static programs: they go into images that hold nothing else.
    go.env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOWORK", "off");
    go.current_dir(source)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let mut child = go.spawn().context("start go")?;
    let start = Instant::now();
    let mut progress = Progress::new(part);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.tick(start.elapsed());
        thread::sleep(Duration::from_millis(500));
    };
    progress.end(start.elapsed(), status.success());
    if status.success() {
        return Ok(());
    }
    let end = tail(log, 25);
    let hint = match &end {
        end if [
            "dial tcp",
            "no such host",
            "i/o timeout",
            "connection refused",
            "TLS handshake",
            "disabled by GOPROXY",
        ]
        .iter()
        .any(|sign| end.contains(sign)) =>
        {
            "\nThe modules could not be downloaded: check the network, or name a module proxy in GOPROXY. \
             What is built stays built; run the same command again."
        }
        end if end.contains("no space left") => {
            "\nThe disk is full: make room, or name another folder in BULKHEAD_CACHE."
        }
        _ => "",
    };
    bail!(
        "building {} failed ({status}). {}:\n{end}{hint}",
        part.name,
        log.display()
    )
}

/// A copy of the part's module whose dependency is a changed copy. (`go build -overlay` refuses files that are in the
/// module cache.)
fn patched(paths: &Paths, part: &Part, patch: &Patch) -> Result<PathBuf> {
    let work = paths.cache.join("source").join(part.name);
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    for file in ["go.mod", "go.sum"] {
        fs::copy(part.folder(paths).join(file), work.join(file))?;
    }
    let original = module_folder(&work, patch.module)?;
    let copy = work.join("module");
    check(command("cp").arg("-r").arg(&original).arg(&copy))?;
    // The module cache is read-only, and so is what was copied from it.
    check(command("chmod").args(["-R", "u+w"]).arg(&copy))?;
    let file = copy.join(patch.file);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    ensure!(
        text.matches(patch.from).count() == 1,
        "{} has changed: {} is no longer there once",
        patch.file,
        patch.from
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    fs::write(&file, text.replace(patch.from, patch.to))?;
    let module = fs::read_to_string(work.join("go.mod"))?;
    fs::write(
        work.join("go.mod"),
        format!("{module}\nreplace {} => ./module\n", patch.module),
    )?;
    Ok(work)
}

/// Where the module cache has a module that the `go.mod` in `folder` pins; downloads it when it is not there.
pub fn module_folder(folder: &Path, module: &str) -> Result<PathBuf> {
    let go = |args: &[&str]| -> Result<String> {
        let mut go = std::process::Command::new("go");
        check(
            go.args(args)
                .current_dir(folder)
                .env("GOWORK", "off")
                .env("GOFLAGS", "-mod=readonly"),
        )
    };
    go(&["mod", "download", module])?;
    let found = go(&["list", "-m", "-f", "{{.Dir}}", module])?;
    let found = found.trim();
    if found.is_empty() {
        return Err(anyhow!("the go command did not say where it keeps {module}"));
    }
    Ok(PathBuf::from(found))
}

/// One line per part: rewritten in place on a terminal, repeated now and then in a log.
struct Progress {
    part: &'static str,
    usual: u32,
    terminal: bool,
    said: u64,
}

impl Progress {
    fn new(part: &Part) -> Self {
        Self {
            part: part.name,
            usual: part.usual_seconds,
            terminal: std::io::stderr().is_terminal(),
            said: 0,
        }
    }

    fn tick(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs();
        if self.terminal && seconds != self.said {
            eprint!("\r  {:<12} {seconds:>4} s (usually {} s)", self.part, self.usual);
            let _ = std::io::stderr().flush();
            self.said = seconds;
        } else if !self.terminal && seconds >= self.said + 30 {
            eprintln!("  {:<12} {seconds:>4} s (usually {} s)", self.part, self.usual);
            self.said = seconds;
        }
    }

    fn end(&self, elapsed: Duration, success: bool) {
        let back = if self.terminal { "\r" } else { "" };
        let outcome = if success { "built" } else { "failed" };
        eprintln!(
            "{back}  {:<12} {:>4} s {outcome}              ",
            self.part,
            elapsed.as_secs()
        );
    }
}
