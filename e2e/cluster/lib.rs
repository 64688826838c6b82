//! A real Kubernetes for tests and the demo: built from Go modules, or a context that is named.
//!
//! [`Cluster`] is a whole cluster: [`Cluster::local`] is made of processes of this machine, a network and mount namespace
//! per node; [`Cluster::existing`] is one that somebody has. [`ApiServer`] is an API server with its etcd and nothing
//! else, for tests of controllers. Both run the same programs, which [`build`] makes from pinned Go modules.

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
mod ports;
mod process;
mod record;
mod run;
mod start;
mod status;

pub use crate::{
    api_server::ApiServer,
    builder::{build, module_folder},
    cert_manager::{cert_manager_definitions, install_cert_manager},
    cluster::Cluster,
    context::Load,
    control_plane::AuditLevel,
    images::{base_image, buildah},
    parts::{PARTS, Part, program},
    paths::Paths,
    ports::Port,
    record::UpOptions,
};
