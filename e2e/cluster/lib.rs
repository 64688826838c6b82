//! A real Kubernetes for tests and the demo: built from Go modules, or a context that is named.

mod api_server;
mod builder;
mod cert_manager;
mod cgroup;
mod cluster;
mod context;
mod control_plane;
mod host;
mod images;
mod kubeconfig;
mod local;
mod machine;
mod manifests;
mod namespaces;
mod node;
mod oci;
mod parts;
mod paths;
mod pki;
mod plan;
mod process;
mod record;
mod run;
mod start;
mod status;

pub use crate::{
    api_server::ApiServer,
    builder::build,
    cert_manager::install_cert_manager,
    cluster::Cluster,
    context::Load,
    control_plane::AuditLevel,
    images::{Image, base_image, buildah},
    parts::{PARTS, Part, program},
    paths::Paths,
    record::UpOptions,
};
