//! `ResourceQuota` and `LimitRange` of both namespaces.
//!
//! The servers get what the tenant was promised; what Bulkhead adds comes on top: a sidecar for
//! each replica, and for each server the one extra pod (server and sidecar) that a rollout starts
//! before it stops an old one. Certificate renewal runs no pods; its Secrets are bounded with room
//! to spare, so that a tenant that fills its quota never stops it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec, ResourceQuota, ResourceQuotaSpec},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::meta::{labels, meta, tenant_labels};
use crate::{
    names::{LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY, QUOTA},
    quantity::Quantity,
    settings::Settings,
    validate::{ValidatedTenant, VolumeSource},
};

/// Objects of a kind that a namespace may have besides Bulkhead's: a tenant's own Secrets for its
/// servers' environment, the cluster's root certificates, a developer's files.
const SPARE_OBJECTS: usize = 64;

/// Of each of Bulkhead's objects there may be two: while something is renamed, the new one is
/// made before the old one is removed.
const RENAMES: usize = 2;

/// Of each certificate there may be two Secrets: cert-manager keeps the next key in one of its own.
const SECRETS_PER_CERTIFICATE: usize = 2;

/// Defaults of containers that name no resources, without which a quota would refuse them.
const DEFAULT_REQUESTS: [(&str, &str); 3] =
    [("cpu", "50m"), ("memory", "64Mi"), ("ephemeral-storage", "64Mi")];
const DEFAULT_LIMITS: [(&str, &str); 3] = [
    ("cpu", "500m"),
    ("memory", "256Mi"),
    ("ephemeral-storage", "256Mi"),
];

pub(super) fn resource_quotas(tenant: &ValidatedTenant, settings: &Settings) -> Vec<ResourceQuota> {
    let quota = |namespace: String, hard: BTreeMap<String, ApiQuantity>| ResourceQuota {
        metadata: meta(namespace, QUOTA, tenant_labels(tenant)),
        spec: Some(ResourceQuotaSpec {
            hard: Some(hard),
            ..ResourceQuotaSpec::default()
        }),
        ..ResourceQuota::default()
    };
    vec![
        quota(tenant.name.servers_namespace(), servers(tenant, settings)),
        quota(tenant.name.agents_namespace(), agents(tenant)),
    ]
}

/// The quota that a tenant's end puts in the place of one that somebody deleted: no pod at all.
pub fn closing_quota(tenant: &str, namespace: &str) -> ResourceQuota {
    let labels = labels([(LABEL_MANAGED_BY, MANAGED_BY), (LABEL_TENANT, tenant)]);
    ResourceQuota {
        metadata: meta(namespace.to_owned(), QUOTA, labels),
        spec: Some(ResourceQuotaSpec {
            hard: Some([("pods".to_owned(), ApiQuantity("0".to_owned()))].into()),
            ..ResourceQuotaSpec::default()
        }),
        ..ResourceQuota::default()
    }
}

fn servers(tenant: &ValidatedTenant, settings: &Settings) -> BTreeMap<String, ApiQuantity> {
    let (mut cpu, mut memory, mut pods) = (tenant.quota.cpu, tenant.quota.memory, tenant.quota.pods);
    for server in &tenant.servers {
        let sidecars = server.replicas.saturating_add(1);
        cpu = cpu + settings.proxy_cpu_limit * sidecars + server.resources.limits.cpu;
        memory = memory + settings.proxy_memory_limit * sidecars + server.resources.limits.memory;
        pods = pods.saturating_add(1);
    }
    let claims: Vec<Quantity> = tenant
        .servers
        .iter()
        .flat_map(|server| &server.volumes)
        .filter_map(|volume| match volume.source {
            VolumeSource::Persistent { size, .. } => Some(size),
            VolumeSource::Ephemeral(_) => None,
        })
        .collect();
    let storage = claims.iter().copied().sum();
    let servers = tenant.servers.len();
    hard(
        [
            ("limits.cpu", cpu),
            ("limits.memory", memory),
            ("requests.storage", storage),
        ],
        [
            ("pods", usize::try_from(pods).unwrap_or(usize::MAX)),
            ("services", RENAMES * servers),
            ("persistentvolumeclaims", claims.len()),
            ("secrets", secrets(servers)),
            ("configmaps", RENAMES * servers + SPARE_OBJECTS),
        ],
    )
}

/// The agents' namespace gets the same again, for the pods that developers run. Nothing may
/// connect to them, so there is no use for Services, and no storage was promised to them.
fn agents(tenant: &ValidatedTenant) -> BTreeMap<String, ApiQuantity> {
    hard(
        [
            ("limits.cpu", tenant.quota.cpu),
            ("limits.memory", tenant.quota.memory),
            ("requests.storage", Quantity::ZERO),
        ],
        [
            ("pods", usize::try_from(tenant.quota.pods).unwrap_or(usize::MAX)),
            ("services", 0),
            ("persistentvolumeclaims", 0),
            ("secrets", secrets(tenant.agents.len())),
            ("configmaps", SPARE_OBJECTS),
        ],
    )
}

/// Secrets of so many leaves and a CA.
fn secrets(leaves: usize) -> usize {
    SECRETS_PER_CERTIFICATE * (RENAMES * leaves + 1) + SPARE_OBJECTS
}

fn hard(amounts: [(&str, Quantity); 3], counts: [(&str, usize); 5]) -> BTreeMap<String, ApiQuantity> {
    // A port of the node, or an address outside the cluster, would be a way past the sidecar's policies.
    let closed = [("services.nodeports", 0), ("services.loadbalancers", 0)];
    let amounts = amounts
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), amount.to_api()));
    let counts = counts
        .into_iter()
        .chain(closed)
        .map(|(name, count)| (name.to_owned(), ApiQuantity(canonical_count(count))));
    amounts.chain(counts).collect()
}

/// A count as the API server writes it: 1000 is `1k`.
fn canonical_count(count: usize) -> String {
    let text = count.to_string();
    text.parse::<Quantity>()
        .map_or(text, |quantity| quantity.to_string())
}

pub(super) fn limit_ranges(tenant: &ValidatedTenant) -> Vec<LimitRange> {
    let amounts = |pairs: [(&str, &str); 3]| {
        Some(
            pairs
                .into_iter()
                .map(|(name, amount)| (name.to_owned(), ApiQuantity(amount.to_owned())))
                .collect(),
        )
    };
    [tenant.name.servers_namespace(), tenant.name.agents_namespace()]
        .map(|namespace| LimitRange {
            metadata: meta(namespace, QUOTA, tenant_labels(tenant)),
            spec: Some(LimitRangeSpec {
                limits: vec![LimitRangeItem {
                    type_: "Container".to_owned(),
                    default: amounts(DEFAULT_LIMITS),
                    default_request: amounts(DEFAULT_REQUESTS),
                    ..LimitRangeItem::default()
                }],
            }),
        })
        .into()
}
