//! Where a sidecar finds the operator: written by the operator, mounted by the pod.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The format of [`Operator`] that this code reads and writes.
pub const FORMAT: u32 = 1;

/// Audience of the token by which a sidecar proves itself to the operator. The API server takes no such token, and neither
/// does a tenant's server.
pub const AUDIENCE: &str = "bulkhead.dev/control";

/// Port on which the leading replica of the operator takes reports.
pub const PORT: u16 = 8447;

/// Where the operator is, and how it is told from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operator {
    /// Format of the document, [`FORMAT`].
    pub format: u32,
    /// Address of its Service: a server's pod resolves no names.
    pub address: SocketAddr,
    /// The host name that its certificate has.
    pub host: String,
    /// The roots that its certificate chains to, PEM.
    pub roots: String,
}

impl Operator {
    /// In today's format.
    pub fn new(address: SocketAddr, host: String, roots: String) -> Self {
        Self {
            format: FORMAT,
            address,
            host,
            roots,
        }
    }

    /// The document as it is mounted: compact JSON, keys in a fixed order.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the document has string keys only and must serialize")
    }
}
