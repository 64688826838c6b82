//! What sidecars tell the operator: who may, and what becomes of it.
//!
//! The leader alone takes reports: nobody else writes a status. A replica that stands by doesn't listen, and a sidecar
//! that comes to it tries again.

mod door;
mod files;
mod in_force;
mod parts;
mod proof;
mod sidecars;

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use door::Door;
pub use files::{Files, FilesError};
pub use in_force::{InForce, Offer, Shown, Withheld};
pub use parts::Whole;
pub use sidecars::Sidecars;

/// Where sidecars report.
#[derive(Args, Clone, Debug)]
// Its group would have the name of the group that it is in.
#[group(skip)]
pub struct Options {
    /// Address on which sidecars report while this replica leads.
    #[arg(
        long,
        env = "BULKHEAD_CONTROL_LISTEN",
        default_value_t = ([0, 0, 0, 0], bulkhead_core::control::PORT).into(),
        value_name = "IP:PORT"
    )]
    pub control_listen: std::net::SocketAddr,
    /// Folder with the certificate and key for that (tls.crt, tls.key) and the roots that the certificate chains to (ca.pem).
    #[arg(
        long,
        env = "BULKHEAD_CONTROL_DIR",
        default_value = "/etc/bulkhead/control",
        value_name = "FOLDER"
    )]
    pub control_dir: PathBuf,
}

/// Takes reports until told to stop.
pub async fn serve(listener: TcpListener, files: Arc<Files>, door: Door, shutdown: CancellationToken) {
    bulkhead_control::server::serve(listener, move || files.tls(), door, shutdown).await;
}
