//! The other replicas of the server, and how a request gets to the one that it belongs to.
//!
//! A server keeps sessions and tasks in its memory, and a Service spreads an agent's requests over all replicas. A
//! handle says in which replica it was made ([`bulkhead_core::handles`]); a sidecar that opens one of another replica
//! hands the agent's request on to that one's sidecar ([`relay`]), once. There the request comes in by a port of its own
//! ([`door`]), with the agent's certificates ([`chain`]), and everything is decided anew, as if the agent had come
//! itself. One thing is believed of a replica: that it saw the proof of the certificate's key, whose chain it passes on.
//!
//! Between replicas both sides present the server's own certificate, and trust the tenant's CA of servers. The agents'
//! port trusts the CA of agents alone, so no server can come in there.

pub(crate) mod chain;
pub mod door;
pub(crate) mod relay;

use std::sync::Arc;

use bulkhead_core::policy::document::KeyExchange;
use http::HeaderValue;
use rustls::ServerConfig;

use crate::{
    limits::Limits,
    tls::{self, Credentials, TlsError, Trust},
};

/// What is needed to talk with other replicas.
pub struct Peers {
    spiffe_id: String,
    server: Arc<ServerConfig>,
    client: relay::Client,
    host: HeaderValue,
}

impl Peers {
    /// By the server's own certificate and the CA of the tenant's servers.
    pub fn new(credentials: &Credentials, roots: &Trust, limits: &Limits) -> Result<Self, TlsError> {
        let name = credentials.name()?.clone();
        let mut client = tls::client_config(credentials, roots)?;
        // Its end needs no consent of the other side.
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Both sides are ours.
        let mut server = tls::server_config(credentials, roots, KeyExchange::PostQuantumRequired)?;
        server.alpn_protocols.clone_from(&client.alpn_protocols);
        Ok(Self {
            spiffe_id: name.spiffe_id.clone(),
            host: HeaderValue::try_from(name.dns.to_str().as_ref()).map_err(|_| TlsError::Nameless)?,
            server: Arc::new(server),
            client: relay::client(client, name, limits),
        })
    }

    /// The SPIFFE ID of the server.
    pub fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("spiffe_id", &self.spiffe_id)
            .finish_non_exhaustive()
    }
}
