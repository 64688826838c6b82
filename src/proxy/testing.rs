//! A whole sidecar in one process, for tests and benches: certificate authorities, an MCP server
//! that records what it saw, a client that sends what no SDK would. All on loopback.

// What fails here fails a test, and says so by panicking.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)]

pub mod client;
pub mod pki;
pub mod sidecar;
pub mod streams;
pub mod tokens;
pub mod upstream;

use std::time::Duration;

pub use client::{Client, Protocol, Reply};
pub use pki::{Authority, Leaf};
pub use sidecar::{Setup, TestSidecar};
pub use streams::{Stream, Streams};
pub use tokens::Issuer;
pub use upstream::{Answer, RecordingUpstream, Seen};

/// Longest wait for something that must happen. Generous: it ends a hanging test, it measures
/// nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the condition holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "waited in vain: {what}"
    );
}
