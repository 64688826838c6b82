//! `ConfigMaps`: whom to trust, once it is known, and what is allowed.

use bulkhead_core::{
    control::Operator,
    pod,
    tokens::{IssuerKeys, TokenKeys},
};
use k8s_openapi::api::core::v1::ConfigMap;

use super::{
    Observed,
    meta::{labels, meta, server_labels, tenant_labels},
    pins::pins,
    policies::policy,
};
use crate::{names::TRUST, settings::Settings, validate::ValidatedTenant};

pub(super) fn config_maps(
    tenant: &ValidatedTenant,
    observed: &Observed,
    settings: &Settings,
) -> Vec<ConfigMap> {
    let (agents, servers) = (observed.agents_ca.as_ref(), observed.servers_ca.as_ref());
    let token_keys = observed
        .token_keys
        .as_ref()
        .map(|keys| token_keys(keys, tenant, observed));
    let operator = observed.operator.as_ref().map(Operator::to_json);
    // Crosswise: in the servers' namespace the agents' root, in the agents' the servers'. A server's replicas know each
    // other by the servers' root, in a file of its own: it lets nobody in where agents are let in.
    let trust = [
        agents.map(|root| {
            let files = [
                Some((pod::TRUST_FILE, root.as_str())),
                servers.map(|root| (pod::PEERS_TRUST_FILE, root.as_str())),
                token_keys.as_deref().map(|keys| (pod::TOKEN_KEYS_FILE, keys)),
                operator.as_deref().map(|operator| (pod::CONTROL_FILE, operator)),
            ];
            trust(
                tenant,
                tenant.name.servers_namespace(),
                files.into_iter().flatten(),
            )
        }),
        servers.map(|root| {
            trust(
                tenant,
                tenant.name.agents_namespace(),
                [(pod::TRUST_FILE, root.as_str())],
            )
        }),
    ];
    let policies = tenant.servers.iter().map(|server| ConfigMap {
        metadata: meta(
            tenant.name.servers_namespace(),
            server.name.policy(),
            server_labels(tenant, &server.name),
        ),
        data: Some(labels([
            (pod::POLICY_FILE, &*policy(tenant, server, settings).json),
            (pod::PINS_FILE, &*pins(server, observed).to_json()),
        ])),
        ..ConfigMap::default()
    });
    trust.into_iter().flatten().chain(policies).collect()
}

/// The keys of the cluster's own tokens, and of the tenant's issuers as far as they are known.
fn token_keys(cluster: &IssuerKeys, tenant: &ValidatedTenant, observed: &Observed) -> String {
    let issuers = tenant.issuers.iter().filter_map(|issuer| {
        let url = issuer.rules.url.clone();
        let keys = observed.issuers.get(&url)?.keys.clone()?;
        Some(IssuerKeys { issuer: url, keys })
    });
    TokenKeys::new(cluster.clone(), issuers.collect()).to_json()
}

fn trust<'a>(
    tenant: &ValidatedTenant,
    namespace: String,
    files: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> ConfigMap {
    let files = files.into_iter();
    ConfigMap {
        metadata: meta(namespace, TRUST, tenant_labels(tenant)),
        data: Some(
            files
                .map(|(file, content)| (file.to_owned(), content.to_owned()))
                .collect(),
        ),
        ..ConfigMap::default()
    }
}
