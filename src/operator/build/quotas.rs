//! `ResourceQuota` and `LimitRange` of both namespaces.
//!
//! The servers get what the tenant was promised; what Bulkhead adds comes on top: a sidecar for
//! each replica, and for each server the one extra pod (server and sidecar) that a rollout starts
//! before it stops an old one; and for each pod what the tier's runtime class adds to it.
//!
//! Certificate renewal runs no pods, and nobody of a tenant may write what it writes. So Certificates and their requests
//! aren't counted: a limit would keep nobody from anything, and one day stop a renewal. Secrets are counted with room for
//! every next key.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec, ResourceQuota, ResourceQuotaSpec},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::{
    Observed, Overhead,
    meta::{labels, meta, tenant_labels},
};
use crate::{
    names::{LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY, QUOTA},
    quantity::Quantity,
    settings::Settings,
    validate::{Quota, ValidatedTenant, VolumeSource},
};

/// Objects of a kind that a namespace may have besides Bulkhead's: a tenant's own Secrets for its
/// servers' environment, a developer's files and Deployments, pods that have ended.
const SPARE_OBJECTS: usize = 64;

/// Trust roots, and the API server's own root that Kubernetes puts into every namespace.
const SHARED_CONFIG_MAPS: usize = 2;

/// Of each Deployment there may be this many `ReplicaSet`s: the current one, the next, and three to go back to.
const REPLICA_SETS: usize = 5;

/// What is kept of each Deployment's or `CronJob`'s past in the agents' namespace: four Jobs are a `CronJob`'s default.
const HISTORY: usize = 4;

/// Of each of Bulkhead's objects there may be two: while something is renamed, the new one is
/// made before the old one is removed.
const RENAMES: usize = 2;

/// A server has its own certificate and the one whose key its handles are sealed with.
const LEAVES_PER_SERVER: usize = 2;

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

/// What a quota allows at most.
type Hard = BTreeMap<String, ApiQuantity>;

pub(super) fn resource_quotas(
    tenant: &ValidatedTenant,
    observed: &Observed,
    settings: &Settings,
) -> Vec<ResourceQuota> {
    let quota = |namespace: String, hard: Hard| ResourceQuota {
        metadata: meta(namespace, QUOTA, tenant_labels(tenant)),
        spec: Some(ResourceQuotaSpec {
            hard: Some(hard),
            ..ResourceQuotaSpec::default()
        }),
        ..ResourceQuota::default()
    };
    vec![
        quota(
            tenant.name.servers_namespace(),
            servers(tenant, observed, settings),
        ),
        quota(tenant.name.agents_namespace(), agents(tenant, observed)),
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

fn servers(tenant: &ValidatedTenant, observed: &Observed, settings: &Settings) -> Hard {
    let Quota {
        mut cpu,
        mut memory,
        mut ephemeral_storage,
        mut pods,
    } = tenant.quota;
    for server in &tenant.servers {
        let sidecars = server.replicas.saturating_add(1);
        let limits = &server.resources.limits;
        cpu = cpu + settings.proxy_cpu_limit * sidecars + limits.cpu;
        memory = memory + settings.proxy_memory_limit * sidecars + limits.memory;
        ephemeral_storage =
            ephemeral_storage + settings.proxy_ephemeral_storage_limit * sidecars + limits.ephemeral_storage;
        pods = pods.saturating_add(1);
    }
    let overhead = overhead(tenant, observed);
    cpu = cpu + overhead.cpu * pods;
    memory = memory + overhead.memory * pods;
    ephemeral_storage = ephemeral_storage + overhead.ephemeral_storage * pods;
    // One that is no longer declared keeps what it stored, and so takes nothing from those that are.
    let mut claims = observed.volume_claims.clone();
    for server in &tenant.servers {
        for volume in &server.volumes {
            if let VolumeSource::Persistent { size, .. } = volume.source {
                let claim = claims
                    .entry(server.name.volume_claim(&volume.name))
                    .or_insert(size);
                *claim = size.max(*claim);
            }
        }
    }
    let servers = tenant.servers.len();
    hard(
        [
            ("limits.cpu", cpu),
            ("limits.memory", memory),
            ("limits.ephemeral-storage", ephemeral_storage),
            ("requests.storage", claims.values().copied().sum()),
        ],
        pods,
        [
            ("services", RENAMES * servers),
            ("persistentvolumeclaims", claims.len()),
            ("secrets", secrets(LEAVES_PER_SERVER * servers)),
            (
                "configmaps",
                RENAMES * servers + SHARED_CONFIG_MAPS + SPARE_OBJECTS,
            ),
            ("count/deployments.apps", RENAMES * servers),
            // A rollout that never ends keeps the template of each that came before it.
            (
                "count/replicasets.apps",
                RENAMES * servers * REPLICA_SETS + SPARE_OBJECTS,
            ),
            ("count/jobs.batch", 0),
            ("count/cronjobs.batch", 0),
        ],
    )
}

/// The agents' namespace gets the same again, for the pods that developers run. Nothing may
/// connect to them, so there is no use for Services, and no storage was promised to them.
fn agents(tenant: &ValidatedTenant, observed: &Observed) -> Hard {
    let (quota, overhead) = (&tenant.quota, overhead(tenant, observed));
    hard(
        [
            ("limits.cpu", quota.cpu + overhead.cpu * quota.pods),
            ("limits.memory", quota.memory + overhead.memory * quota.pods),
            (
                "limits.ephemeral-storage",
                quota.ephemeral_storage + overhead.ephemeral_storage * quota.pods,
            ),
            ("requests.storage", Quantity::ZERO),
        ],
        quota.pods,
        [
            ("services", 0),
            ("persistentvolumeclaims", 0),
            ("secrets", secrets(tenant.agents.len())),
            ("configmaps", SHARED_CONFIG_MAPS + SPARE_OBJECTS),
            ("count/deployments.apps", SPARE_OBJECTS),
            ("count/replicasets.apps", HISTORY * SPARE_OBJECTS),
            ("count/jobs.batch", HISTORY * SPARE_OBJECTS),
            ("count/cronjobs.batch", SPARE_OBJECTS),
        ],
    )
}

/// What the tier's runtime class adds to each pod, a sandbox's kernel for example: it isn't the tenant's to pay.
fn overhead(tenant: &ValidatedTenant, observed: &Observed) -> Overhead {
    let classes = observed.runtime_classes.iter().flatten();
    classes
        .filter(|(name, _)| Some(*name) == tenant.runtime_class.as_ref())
        .map(|(_, overhead)| *overhead)
        .next()
        .unwrap_or_default()
}

/// Secrets of so many leaves and a CA.
fn secrets(leaves: usize) -> usize {
    SECRETS_PER_CERTIFICATE * (RENAMES * leaves + 1) + SPARE_OBJECTS
}

fn hard(amounts: [(&str, Quantity); 4], pods: u32, counts: [(&str, usize); 8]) -> Hard {
    let pods = usize::try_from(pods).unwrap_or(usize::MAX);
    let pods = [
        ("pods", pods),
        // Those that have ended as well.
        ("count/pods", pods.saturating_add(SPARE_OBJECTS)),
    ];
    let closed = [
        // A port of the node, or an address outside the cluster, would be a way past the sidecar's policies.
        ("services.nodeports", 0),
        ("services.loadbalancers", 0),
        // Nobody of a tenant may make these.
        ("count/statefulsets.apps", 0),
        ("count/daemonsets.apps", 0),
        ("replicationcontrollers", 0),
        // This one, and one of the platform's that says less.
        ("resourcequotas", 2),
    ];
    let amounts = amounts
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), amount.to_api()));
    let counts = pods
        .into_iter()
        .chain(counts)
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
