//! A Service per server: the name under which agents reach its sidecars.

use bulkhead_core::pod;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::meta::{meta, server_labels, server_selector};
use crate::validate::ValidatedTenant;

/// Name of the sidecar's port.
pub(super) const MTLS_PORT_NAME: &str = "https-mcp";

pub(super) fn services(tenant: &ValidatedTenant) -> Vec<Service> {
    tenant
        .servers
        .iter()
        .map(|server| Service {
            metadata: meta(
                tenant.name.servers_namespace(),
                server.name.as_str(),
                server_labels(tenant, &server.name),
            ),
            spec: Some(ServiceSpec {
                type_: Some("ClusterIP".to_owned()),
                selector: server_selector(tenant, &server.name).match_labels,
                ports: Some(vec![ServicePort {
                    name: Some(MTLS_PORT_NAME.to_owned()),
                    protocol: Some("TCP".to_owned()),
                    port: i32::from(pod::MTLS_PORT),
                    // By number: a name could be taken by another container of the pod.
                    target_port: Some(IntOrString::Int(i32::from(pod::MTLS_PORT))),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        })
        .collect()
}
