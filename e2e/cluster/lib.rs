//! A real Kubernetes for tests and the demo: built from Go modules, or a context that is named.

mod api_server;
mod builder;
mod control_plane;
mod host;
mod kubeconfig;
mod parts;
mod paths;
mod pki;
mod run;

pub use crate::{
    api_server::ApiServer,
    builder::build,
    control_plane::AuditLevel,
    parts::{PARTS, Part, program},
    paths::Paths,
};
