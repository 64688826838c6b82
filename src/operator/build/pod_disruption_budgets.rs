//! A `PodDisruptionBudget` per server of two or more replicas.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::meta::{meta, server_labels, server_selector};
use crate::validate::ValidatedTenant;

pub(super) fn pod_disruption_budgets(tenant: &ValidatedTenant) -> Vec<PodDisruptionBudget> {
    tenant
        .servers
        .iter()
        // With a single replica a budget would only stop nodes from being drained.
        .filter(|server| server.replicas >= 2)
        .map(|server| PodDisruptionBudget {
            metadata: meta(
                tenant.name.servers_namespace(),
                server.name.as_str(),
                server_labels(tenant, &server.name),
            ),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(server_selector(tenant, &server.name)),
                // A pod that isn't ready serves nobody: it doesn't hold up a node's drain.
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        })
        .collect()
}
