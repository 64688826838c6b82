//! `ConfigMaps`: whom to trust, once it is known, and what is allowed.

use bulkhead_core::pod;
use k8s_openapi::api::core::v1::ConfigMap;

use super::{
    Observed, Pem,
    meta::{labels, meta, server_labels, tenant_labels},
    policies::policy,
};
use crate::{names::TRUST, settings::Settings, validate::ValidatedTenant};

pub(super) fn config_maps(
    tenant: &ValidatedTenant,
    observed: &Observed,
    settings: &Settings,
) -> Vec<ConfigMap> {
    // Crosswise: in the servers' namespace the agents' root, in the agents' the servers'.
    let roots = [
        (tenant.name.servers_namespace(), &observed.agents_ca),
        (tenant.name.agents_namespace(), &observed.servers_ca),
    ];
    let trust = roots
        .into_iter()
        .filter_map(|(namespace, root)| root.as_ref().map(|root| trust(tenant, namespace, root)));
    let policies = tenant.servers.iter().map(|server| ConfigMap {
        metadata: meta(
            tenant.name.servers_namespace(),
            server.name.policy(),
            server_labels(tenant, &server.name),
        ),
        data: Some(labels([(
            pod::POLICY_FILE,
            &policy(tenant, server, settings).json,
        )])),
        ..ConfigMap::default()
    });
    trust.chain(policies).collect()
}

fn trust(tenant: &ValidatedTenant, namespace: String, root: &Pem) -> ConfigMap {
    ConfigMap {
        metadata: meta(namespace, TRUST, tenant_labels(tenant)),
        data: Some(labels([(pod::TRUST_FILE, root.as_str())])),
        ..ConfigMap::default()
    }
}
