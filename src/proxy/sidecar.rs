//! One sidecar, put together: its listeners, its tasks, and how they end.
//!
//! Tasks are in two groups, for two runtimes: the data path on worker threads, and everything else
//! (probes, metrics, reload, canary, drain) on a thread of its own, so that a slow scrape can't
//! hold up a call and a flood of calls can't hold up a probe.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, UnixListener},
    task::{JoinError, JoinSet},
};
use tracing::info;

use crate::{
    admin,
    canary::{self, NetworkNotEnforced},
    config::Config,
    kubelet, minter, operator, peers,
    reload::Reloader,
    server,
    shared::Shared,
    workers::Workers,
};

/// Sockets that are bound before anything runs.
#[derive(Debug)]
pub struct Listeners {
    mtls: StdTcpListener,
    peers: StdTcpListener,
    control: ControlListeners,
}

/// The sockets of the data path.
#[derive(Debug)]
pub struct DataListeners {
    mtls: StdTcpListener,
    peers: StdTcpListener,
}

/// The sockets of the control group.
#[derive(Debug)]
pub struct ControlListeners {
    kubelet: StdTcpListener,
    keys: StdTcpListener,
    metrics: Option<StdTcpListener>,
    admin: StdUnixListener,
}

/// Why a socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens where only the sidecar may.
    #[error(
        "incident: port {port} is taken by another process of this pod; only the sidecar may listen there"
    )]
    Taken {
        /// The port.
        port: u16,
    },
    /// The admin socket belongs to a running process.
    #[error("incident: {0} is served by another process of this pod; only the sidecar may listen there")]
    SocketTaken(PathBuf),
    /// Any other failure.
    #[error("{what} can't be bound: {source}")]
    Other {
        /// Address or path.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// Why the control group ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The cluster doesn't enforce network policies.
    #[error(transparent)]
    Network(#[from] NetworkNotEnforced),
    /// A task that must run as long as the process does has ended.
    #[error("a part of the sidecar stopped: {0:?}")]
    Stopped(Result<(), JoinError>),
    /// A socket can't be used.
    #[error("a socket can't be used: {0}")]
    Socket(#[from] io::Error),
}

impl Listeners {
    /// Binds everything. A taken port is an incident of its own: the server container shares the
    /// pod's network, and one that got there first would be talking in the sidecar's place.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        Ok(Self {
            mtls: bind_tcp(SocketAddr::new(config.pod_ip, config.mtls_port))?,
            peers: bind_tcp(SocketAddr::new(config.pod_ip, config.peers_port))?,
            control: ControlListeners {
                kubelet: bind_tcp(SocketAddr::new(config.pod_ip, config.kubelet_port))?,
                keys: bind_tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), config.keys_port))?,
                metrics: config
                    .metrics_port
                    .map(|port| bind_tcp(SocketAddr::new(config.pod_ip, port)))
                    .transpose()?,
                admin: bind_unix(&config.admin_socket)?,
            },
        })
    }

    /// Where the mTLS endpoint is.
    pub fn mtls_address(&self) -> io::Result<SocketAddr> {
        self.mtls.local_addr()
    }

    /// Where other replicas come in.
    pub fn peers_address(&self) -> io::Result<SocketAddr> {
        self.peers.local_addr()
    }

    /// Where the kubelet asks.
    pub fn kubelet_address(&self) -> io::Result<SocketAddr> {
        self.control.kubelet.local_addr()
    }

    /// Where the keys of credentials are.
    pub fn keys_address(&self) -> io::Result<SocketAddr> {
        self.control.keys.local_addr()
    }

    /// Where the metrics are over TCP, if anywhere.
    pub fn metrics_address(&self) -> io::Result<Option<SocketAddr>> {
        self.control
            .metrics
            .as_ref()
            .map(StdTcpListener::local_addr)
            .transpose()
    }

    /// The sockets of the data path and those of the control group.
    pub fn split(self) -> (DataListeners, ControlListeners) {
        let data = DataListeners {
            mtls: self.mtls,
            peers: self.peers,
        };
        (data, self.control)
    }
}

/// The data path. Ends only when it fails.
pub async fn serve_data(listeners: DataListeners, workers: Workers, shared: Arc<Shared>) -> io::Result<()> {
    let agents = TcpListener::from_std(listeners.mtls)?;
    let replicas = TcpListener::from_std(listeners.peers)?;
    tokio::join!(
        server::serve(agents, &workers, Arc::clone(&shared)),
        peers::door::serve(replicas, &workers, shared)
    );
    Ok(())
}

/// Everything but the data path. Ends only when the process has to.
pub async fn serve_control(
    listeners: ControlListeners,
    config: &Config,
    shared: Arc<Shared>,
) -> ControlError {
    match control(listeners, config, shared).await {
        Ok(never) => never,
        Err(error) => error.into(),
    }
}

async fn control(
    listeners: ControlListeners,
    config: &Config,
    shared: Arc<Shared>,
) -> io::Result<ControlError> {
    // A set, so that all tasks end with this future.
    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve_unix(
        UnixListener::from_std(listeners.admin)?,
        Arc::clone(&shared),
    ));
    tasks.spawn(kubelet::serve(
        TcpListener::from_std(listeners.kubelet)?,
        Arc::clone(&shared),
    ));
    tasks.spawn(admin::serve_keys(
        TcpListener::from_std(listeners.keys)?,
        Arc::clone(&shared),
    ));
    tasks.spawn(minter::rotate(Arc::clone(&shared)));
    if let Some(metrics) = listeners.metrics {
        tasks.spawn(admin::serve_metrics(
            TcpListener::from_std(metrics)?,
            Arc::clone(&shared),
        ));
    }
    tasks.spawn(operator::keep(Arc::clone(&shared), config.control_token.clone()));
    let reloader = Reloader::new(config, &shared);
    tasks.spawn(reloader.run(shared.limits.reload));
    let Some(canary) = config.canary_address() else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "there is no canary"));
    };
    let watch = canary::watch(
        canary,
        shared.limits.canary,
        Arc::clone(&shared.readiness),
        Arc::clone(&shared.metrics),
    );
    Ok(tokio::select! {
        failure = watch => failure.into(),
        ended = tasks.join_next() => ControlError::Stopped(ended.unwrap_or(Ok(()))),
    })
}

fn bind_tcp(address: SocketAddr) -> Result<StdTcpListener, BindError> {
    let bound = StdTcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match bound {
        Ok(listener) => {
            info!(%address, "listening");
            Ok(listener)
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(BindError::Taken { port: address.port() }),
        Err(source) => Err(BindError::Other {
            what: address.to_string(),
            source,
        }),
    }
}

fn bind_unix(path: &Path) -> Result<StdUnixListener, BindError> {
    let other = |source| BindError::Other {
        what: path.display().to_string(),
        source,
    };
    // A sidecar that was killed leaves its socket file behind in the pod's volume.
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if StdUnixStream::connect(path).is_ok() {
            return Err(BindError::SocketTaken(path.to_owned()));
        }
        fs::remove_file(path).map_err(other)?;
    }
    let listener = StdUnixListener::bind(path).map_err(other)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(other)?;
    listener.set_nonblocking(true).map_err(other)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_served_one_is_an_incident() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(bind_unix(&path).unwrap());
        let listener = bind_unix(&path).expect("the file that the first left must be replaced");
        assert!(bind_unix(&path).unwrap_err().to_string().starts_with("incident"));
        drop(listener);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "mine").unwrap();
        assert!(bind_unix(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn a_taken_port_is_an_incident() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind_tcp(first.local_addr().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("incident: port"), "{error}");
    }
}
