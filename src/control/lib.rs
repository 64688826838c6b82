//! What sidecars and the operator say to each other: the protocol (`control.proto`), and both halves of it.
//!
//! gRPC over TLS 1.3, dialled by the sidecar. Each side proves itself by a certificate, the sidecar by a token of its own
//! pod besides. Reports go up; what is to be enforced comes down by what the pod mounts, which needs no operator. Only how
//! replicas divide an agent's limits among them comes down here.
//!
//! Between neighbouring releases the protocol only grows: fields are added and never given another meaning, and what a
//! side doesn't know, it leaves alone.

use std::time::Duration;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;

#[allow(missing_docs, clippy::pedantic)]
mod generated {
    tonic::include_proto!("bulkhead.control.v1");
}
pub use generated::{Amounts, Definition, Kind, Part, Parts, Reported, SidecarReport, Usage, Withheld};

/// Entries of [`SidecarReport::withheld`], and of [`SidecarReport::reported`], at most.
pub const MAX_ENTRIES: usize = 64;

/// Entries of [`SidecarReport::first`] at most: every tool and prompt of a server, in every version.
pub const MAX_FIRST: usize = 1024;

/// Entries of [`SidecarReport::usage`], and of [`Parts::parts`], at most: every agent of a tenant, and all together.
pub const MAX_USAGE: usize = 65;

/// What all agents of the tenant together are called where else an agent's name is. No agent has it.
pub const ALL_AGENTS: &str = "";

/// Bytes of one message at most: its entries with the longest names.
pub const MAX_MESSAGE: usize = 512 * 1024;

/// How often each side asks whether the other is still there, and how long it waits for the answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The only protocol on a connection.
pub const ALPN: &[u8] = b"h2";
