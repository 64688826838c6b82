//! Running a command to its end, and waiting for something with a deadline.

use std::{
    ffi::OsStr,
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A command whose environment sends nothing through a proxy: everything here is on this machine.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command; its standard output, or an error with what it wrote to standard error.
pub(crate) fn check(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    succeeded(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with `input` on its standard input.
pub(crate) fn check_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("start {}", line(command)))?;
    let mut stdin = child.stdin.take().context("standard input was asked for")?;
    let output = thread::scope(|scope| {
        // Written beside the reading: a child that answers before it has read everything must not block us.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    })?;
    succeeded(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command and collects what it writes.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", line(command)))
}

/// Whether a command ends with success; what it writes is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn succeeded(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let said = if stderr.trim().is_empty() { stdout } else { stderr };
    bail!(
        "{} ({}):\n{}",
        line(command),
        output.status,
        last_lines(&said, 20)
    )
}

/// A command as a person would type it, cut where it gets long.
fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    if line.chars().count() > 200 {
        line = line.chars().take(200).chain(['…']).collect();
    }
    line
}

pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The end of a log file, for an error message.
pub(crate) fn tail(log: &Path, count: usize) -> String {
    const ENOUGH: u64 = 16 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => last_lines(&text, count),
        Err(error) => format!("({}: {error})", log.display()),
    }
}

/// Asks again and again until there is an answer. An error ends the waiting at once.
pub(crate) fn wait_for<T>(
    what: &str,
    within: Duration,
    every: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > within {
            bail!("{what}: not within {} s", within.as_secs());
        }
        thread::sleep(every);
    }
}

/// Does this for all of them at the same time. Waits for every one, and fails with the first failure.
pub(crate) fn at_once<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    act: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let act = &act;
    thread::scope(|scope| {
        let running: Vec<_> = items
            .into_iter()
            .map(|item| scope.spawn(move || act(item)))
            .collect();
        let done: Vec<_> = running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("a step that runs beside others panicked"))
            })
            .collect();
        done.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_what_it_wrote_to_standard_error() {
        let error = check(command("sh").args(["-c", "echo no room >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no room") && error.contains("exit status: 3"),
            "{error}"
        );
    }

    #[test]
    fn input_larger_than_a_pipe_passes_through() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(
            check_with_input(&mut command("cat"), &input).unwrap().len(),
            input.len()
        );
    }

    #[test]
    fn waiting_ends_with_the_deadline() {
        let millisecond = Duration::from_millis(1);
        let error = wait_for::<()>("rain", millisecond, millisecond, || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("rain"));
    }
}
