//! Where things are in a server pod: agreed between the operator, which writes the pod, and the
//! sidecar, which runs in it.
//!
//! The sidecar listens on the pod's address. Loopback belongs to the server container, but for the port where it finds the
//! keys of the credentials that it gets.

use std::time::Duration;

/// Port of the mTLS endpoint, the only one that other pods may open.
pub const MTLS_PORT: u16 = 8443;

/// Port of what the kubelet asks: `GET /readyz`, and `GET /drain`, which is the server container's `preStop` hook. It is on
/// the pod's address and not on loopback because the kubelet sends `httpGet` there. No pod may open it.
pub const KUBELET_PORT: u16 = 8444;

/// Port of the Prometheus endpoint, open only when the chart asks for it.
pub const METRICS_PORT: u16 = 9464;

/// Port on loopback of `GET /jwks.json`: the keys that verify the credentials of upstream requests.
pub const KEYS_PORT: u16 = 8445;

/// Port of the mTLS endpoint for the other replicas of the same server, and nobody else.
pub const PEERS_PORT: u16 = 8446;

/// Path of the readiness probe on [`KUBELET_PORT`].
pub const READY_PATH: &str = "/readyz";

/// Path of the `preStop` hook on [`KUBELET_PORT`].
pub const DRAIN_PATH: &str = "/drain";

/// Path of the keys on [`KEYS_PORT`].
pub const KEYS_PATH: &str = "/jwks.json";

/// What names of the server container's environment variables may not begin with.
pub const RESERVED_ENV_PREFIX: &str = "BULKHEAD_";

/// Environment of the server container: URL of the keys.
pub const ENV_JWKS_URL: &str = "BULKHEAD_JWKS_URL";

/// Environment of the server container: issuer and audience of the credentials.
pub const ENV_ISSUER: &str = "BULKHEAD_ISSUER";

/// Name of the sidecar's container.
pub const SIDECAR_CONTAINER: &str = "bulkhead-proxy";

/// Name of the MCP server's container.
pub const SERVER_CONTAINER: &str = "server";

/// User and group of the sidecar. No server container may run as it.
pub const SIDECAR_UID: i64 = 64_532;

/// Folder with the policy document; a `ConfigMap`.
pub const POLICY_DIR: &str = "/etc/bulkhead/policy";

/// Name of the policy document in [`POLICY_DIR`] and of its key in the `ConfigMap`.
pub const POLICY_FILE: &str = "policy.json";

/// Name of the definitions that the server is held to ([`crate::mcp::Pins`]) in [`POLICY_DIR`].
pub const PINS_FILE: &str = "pins.json";

/// Folder with the sidecar's certificate and key (`tls.crt`, `tls.key`); a Secret.
pub const TLS_DIR: &str = "/etc/bulkhead/tls";

/// Folder with the roots that the sidecar trusts for clients: the agents' CA alone; a `ConfigMap`.
pub const TRUST_DIR: &str = "/etc/bulkhead/trust";

/// Name of the root bundle (PEM) in [`TRUST_DIR`] and of its key in the trust `ConfigMaps`.
pub const TRUST_FILE: &str = "ca.pem";

/// Name of the bundle (PEM) in [`TRUST_DIR`] that other replicas' certificates chain to: the CA of the tenant's servers.
pub const PEERS_TRUST_FILE: &str = "servers.pem";

/// Name of the keys that verify tokens ([`crate::tokens::TokenKeys`]) in [`TRUST_DIR`].
pub const TOKEN_KEYS_FILE: &str = "tokens.json";

/// Name of where the operator is ([`crate::control::Operator`]) in [`TRUST_DIR`].
pub const CONTROL_FILE: &str = "control.json";

/// Folder with the token by which the sidecar proves itself to the operator; a projected volume.
pub const CONTROL_TOKEN_DIR: &str = "/etc/bulkhead/control";

/// Folder with the token in a pod of an agent that `kubectl bulkhead` makes; a projected volume.
pub const TOKEN_DIR: &str = "/etc/bulkhead/token";

/// Name of the token in [`TOKEN_DIR`] and in [`CONTROL_TOKEN_DIR`].
pub const TOKEN_FILE: &str = "token";

/// Folder with the key (PEM, PKCS #8) that the keys of handles are made of; a Secret, the same in all replicas.
pub const HANDLES_DIR: &str = "/etc/bulkhead/handles";

/// Name of the key in [`HANDLES_DIR`].
pub const HANDLES_FILE: &str = "tls.key";

/// Folder of the sidecar-only volume that holds the admin socket.
pub const ADMIN_DIR: &str = "/run/bulkhead";

/// The admin socket: probes and metrics. A unix socket, so that the server container, which
/// shares the pod's network, cannot open it.
pub const ADMIN_SOCKET: &str = "/run/bulkhead/admin.sock";

/// How long a startup probe waits for the start before it fails.
pub const STARTUP_PATIENCE: Duration = Duration::from_secs(3);

/// Exit code of a sidecar whose canary was still reachable at its deadline: the cluster does not
/// enforce `NetworkPolicy`.
pub const EXIT_NETWORK_NOT_ENFORCED: i32 = 70;

/// Environment of the sidecar: the revision of the policy that must be mounted before it starts.
pub const ENV_POLICY_REVISION: &str = "BULKHEAD_POLICY_REVISION";

/// Environment of the sidecar: `IP:port` that must be unreachable before a server may run.
/// Unset: the API server's service address.
pub const ENV_CANARY: &str = "BULKHEAD_CANARY";

/// Environment of the sidecar: its own pod's address, from the downward API.
pub const ENV_POD_IP: &str = "POD_IP";

/// Environment of the sidecar: its own pod's name, from the downward API.
pub const ENV_POD_NAME: &str = "POD_NAME";

/// Environment of the sidecar: its own pod's UID, from the downward API.
pub const ENV_POD_UID: &str = "POD_UID";

/// Environment of the sidecar: the port of its address on which it serves metrics. Unset: none.
pub const ENV_METRICS_PORT: &str = "BULKHEAD_METRICS_PORT";
