//! What goes to stdout: results, in the form that was asked for. Everything else goes to stderr.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

/// A machine-readable form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Writes a value as one document.
pub fn document(value: &impl Serialize, format: Format) -> Result<()> {
    match format {
        Format::Json => line(&serde_json::to_string_pretty(value).context("writing JSON")?),
        Format::Yaml => text(&serde_saphyr::to_string(value).context("writing YAML")?),
    }
}

/// Writes a line.
pub fn line(text: &str) -> Result<()> {
    self::text(&format!("{text}\n"))
}

/// Writes text as it is, without its colours unless stdout is a terminal.
pub fn text(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // `kubectl bulkhead status | head -1` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to stdout"),
    }
}

/// Writes a line for people to stderr.
pub fn note(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}
