//! TLS between a tenant's agents and its servers.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// TLS between a tenant's agents and its servers. It is TLS 1.3 with certificates on both sides always.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// `PostQuantumPreferred` (the default) or `PostQuantumRequired`.
    #[serde(default)]
    pub key_exchange: KeyExchange,
}

/// How the keys of a connection are agreed on.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyExchange {
    /// By a hybrid of a classical exchange and ML-KEM (`X25519MLKEM768`) with every client that can, by a classical one
    /// with others.
    #[default]
    PostQuantumPreferred,
    /// By a hybrid only: what is recorded today can't be read with tomorrow's machines. A client that can't is refused in
    /// the handshake; many SDKs with older TLS libraries can't.
    PostQuantumRequired,
}
