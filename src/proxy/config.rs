//! What a sidecar is told at its start: flags and environment, checked before any port is bound.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use bulkhead_core::pod;

/// Flags and environment of `bulkhead-proxy run`. The operator writes the pod so that the defaults
/// hold; the flags are for running a sidecar elsewhere.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Address of the pod: everything but the admin socket listens here.
    #[arg(long, env = pod::ENV_POD_IP)]
    pub pod_ip: IpAddr,

    /// Name of the pod, for audit records.
    #[arg(long, env = pod::ENV_POD_NAME)]
    pub pod_name: String,

    /// UID of the pod, for audit records.
    #[arg(long, env = pod::ENV_POD_UID)]
    pub pod_uid: String,

    /// Revision of the policy that must have been mounted before the first call.
    #[arg(long, env = pod::ENV_POLICY_REVISION)]
    pub policy_revision: String,

    /// IP:port that must be unreachable before the server may run; the API server by default.
    #[arg(long, env = pod::ENV_CANARY)]
    pub canary: Option<SocketAddr>,

    /// Address of the API server's Service, from the kubelet.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub kubernetes_service_host: Option<IpAddr>,

    /// Port of the API server's Service, from the kubelet.
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", hide = true, default_value_t = 443)]
    pub kubernetes_service_port: u16,

    /// Port of the mTLS endpoint.
    #[arg(long, default_value_t = pod::MTLS_PORT)]
    pub mtls_port: u16,

    /// Port of `GET /readyz` and `GET /drain`, for the kubelet.
    #[arg(long, default_value_t = pod::KUBELET_PORT)]
    pub kubelet_port: u16,

    /// Port on loopback of the keys that verify credentials of upstream requests.
    #[arg(long, default_value_t = pod::KEYS_PORT)]
    pub keys_port: u16,

    /// Port of the mTLS endpoint for other replicas.
    #[arg(long, default_value_t = pod::PEERS_PORT)]
    pub peers_port: u16,

    /// Also serve the metrics over TCP, on this port of the pod's address.
    #[arg(long, env = pod::ENV_METRICS_PORT)]
    pub metrics_port: Option<u16>,

    /// Folder with the policy document.
    #[arg(long, default_value = pod::POLICY_DIR)]
    pub policy_dir: PathBuf,

    /// Folder with the sidecar's certificate and key.
    #[arg(long, default_value = pod::TLS_DIR)]
    pub tls_dir: PathBuf,

    /// Folder with the key that keys of handles are made of.
    #[arg(long, default_value = pod::HANDLES_DIR)]
    pub handles_dir: PathBuf,

    /// Folder with the roots trusted for clients, and for other replicas.
    #[arg(long, default_value = pod::TRUST_DIR)]
    pub trust_dir: PathBuf,

    /// File with the token by which the sidecar proves itself to the operator.
    #[arg(long, default_value_os_t = Path::new(pod::CONTROL_TOKEN_DIR).join(pod::TOKEN_FILE))]
    pub control_token: PathBuf,

    /// Path of the admin socket.
    #[arg(long, default_value = pod::ADMIN_SOCKET)]
    pub admin_socket: PathBuf,

    /// Where the last words go when the network turns out not to be enforced.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,

    /// Threads of the data path; the number of CPUs by default.
    #[arg(long, env = "BULKHEAD_WORKERS")]
    pub workers: Option<NonZeroUsize>,
}

/// What is wrong with a [`Config`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// All addresses would include loopback, which belongs to the MCP server.
    #[error("{name} is {0}: the sidecar needs the pod's own address, since loopback belongs to the server", name = pod::ENV_POD_IP)]
    EveryAddress(IpAddr),
    /// Nothing to show that the network is closed.
    #[error("there is no canary: set {name} (IP:port) or run where KUBERNETES_SERVICE_HOST is set", name = pod::ENV_CANARY)]
    NoCanary,
    /// Not a revision.
    #[error("{name} is {0:?}: a policy revision is 16 hex digits", name = pod::ENV_POLICY_REVISION)]
    Revision(String),
    /// A name that audit records need is empty.
    #[error("{0} is empty: audit records need it")]
    Empty(&'static str),
}

impl Config {
    /// Checks what flags alone can't say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.pod_ip.is_unspecified() {
            return Err(ConfigError::EveryAddress(self.pod_ip));
        }
        if self.canary_address().is_none() {
            return Err(ConfigError::NoCanary);
        }
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.policy_revision.len() != 16 || !self.policy_revision.bytes().all(hex) {
            return Err(ConfigError::Revision(self.policy_revision.clone()));
        }
        for (name, value) in [
            (pod::ENV_POD_NAME, &self.pod_name),
            (pod::ENV_POD_UID, &self.pod_uid),
        ] {
            if value.is_empty() {
                return Err(ConfigError::Empty(name));
            }
        }
        Ok(())
    }

    /// The canary's address: what was asked for, or the API server's.
    pub fn canary_address(&self) -> Option<SocketAddr> {
        self.canary.or_else(|| {
            self.kubernetes_service_host
                .map(|host| SocketAddr::new(host, self.kubernetes_service_port))
        })
    }

    /// Number of threads of the data path.
    pub fn worker_threads(&self) -> usize {
        self.workers
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    fn config(extra: &[&str]) -> Config {
        let given = [
            "run",
            "--pod-ip",
            "10.1.2.3",
            "--pod-name",
            "crm-0",
            "--pod-uid",
            "u",
            "--policy-revision",
            "0123456789abcdef",
            "--canary",
            "10.96.0.1:443",
        ];
        Flags::parse_from(given.iter().chain(extra)).config
    }

    #[test]
    fn a_complete_configuration_is_accepted() {
        assert_eq!(config(&[]).validate(), Ok(()));
    }

    #[test]
    fn each_mistake_is_named() {
        let mut every = config(&[]);
        every.pod_ip = "0.0.0.0".parse().unwrap();
        let mut revision = config(&[]);
        revision.policy_revision = "0123456789ABCDEF".into();
        let mut canary = config(&[]);
        canary.canary = None;
        canary.kubernetes_service_host = None;
        let mut name = config(&[]);
        name.pod_name = String::new();
        for (config, says) in [
            (every, "loopback belongs"),
            (revision, "16 hex digits"),
            (canary, "no canary"),
            (name, "POD_NAME is empty"),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_canary_is_the_api_server_unless_named() {
        let mut config = config(&[]);
        assert_eq!(config.canary_address(), Some("10.96.0.1:443".parse().unwrap()));
        config.canary = None;
        config.kubernetes_service_host = Some("10.96.0.9".parse().unwrap());
        config.kubernetes_service_port = 6443;
        assert_eq!(config.canary_address(), Some("10.96.0.9:6443".parse().unwrap()));
    }
}
