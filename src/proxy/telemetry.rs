//! Logs: JSON lines on standard error, so that standard output carries the audit and nothing else.

use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` filters; `info` by default.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
