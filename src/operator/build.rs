//! Everything that a tenant becomes: a pure function of the tenant, what was read from the
//! cluster, and the settings. The same input gives the same bytes.

mod access;
mod certificates;
mod config_maps;
mod deployments;
mod meta;
mod namespaces;
mod network_policies;
mod observed;
mod persistent_volume_claims;
mod pins;
mod pod_disruption_budgets;
mod policies;
mod quotas;
mod services;

use bulkhead_api::cert_manager::{Certificate, Issuer};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{
        ConfigMap, LimitRange, Namespace, PersistentVolumeClaim, ResourceQuota, Service, ServiceAccount,
    },
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding},
};
use serde::Serialize;

pub use bulkhead_api::cert_manager;
pub use observed::{Observed, Overhead, PeerService, Pem, PemError};
pub use pins::pins;
pub use policies::{Policy, policy};
pub use quotas::closing_quota;

use crate::{settings::Settings, validate::ValidatedTenant};

/// The objects of a tenant, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Children {
    /// Both namespaces, the servers' first.
    pub namespaces: Vec<Namespace>,
    /// A quota per namespace.
    pub resource_quotas: Vec<ResourceQuota>,
    /// Defaults per namespace, for pods that name no resources.
    pub limit_ranges: Vec<LimitRange>,
    /// Of servers, of agents, and `default` of both namespaces.
    pub service_accounts: Vec<ServiceAccount>,
    /// Of admins and developers.
    pub role_bindings: Vec<RoleBinding>,
    /// For reading the tenant itself, when there is anybody to read it.
    pub cluster_roles: Vec<ClusterRole>,
    /// Of admins and developers together.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// What may talk to what.
    pub network_policies: Vec<NetworkPolicy>,
    /// Two per namespace.
    pub issuers: Vec<Issuer>,
    /// Both CAs and all leaves.
    pub certificates: Vec<Certificate>,
    /// Trust (once the roots are known) and policies.
    pub config_maps: Vec<ConfigMap>,
    /// One per server.
    pub services: Vec<Service>,
    /// One per persistent volume.
    pub persistent_volume_claims: Vec<PersistentVolumeClaim>,
    /// One per server of two or more replicas.
    pub pod_disruption_budgets: Vec<PodDisruptionBudget>,
    /// One per server.
    pub deployments: Vec<Deployment>,
}

/// Builds the objects of a tenant. Trust is left out until `observed` has it.
pub fn build(tenant: &ValidatedTenant, observed: &Observed, settings: &Settings) -> Children {
    Children {
        namespaces: namespaces::namespaces(tenant),
        resource_quotas: quotas::resource_quotas(tenant, observed, settings),
        limit_ranges: quotas::limit_ranges(tenant),
        service_accounts: access::service_accounts(tenant),
        role_bindings: access::role_bindings(tenant),
        cluster_roles: access::cluster_roles(tenant),
        cluster_role_bindings: access::cluster_role_bindings(tenant),
        network_policies: network_policies::network_policies(tenant, settings),
        issuers: certificates::issuers(tenant),
        certificates: certificates::certificates(tenant, settings),
        config_maps: config_maps::config_maps(tenant, observed, settings),
        services: services::services(tenant),
        persistent_volume_claims: persistent_volume_claims::persistent_volume_claims(tenant),
        pod_disruption_budgets: pod_disruption_budgets::pod_disruption_budgets(tenant),
        deployments: deployments::deployments(tenant, observed, settings),
    }
}

/// The children as JSON, in the order in which they are applied.
pub fn render(children: &Children) -> Result<Vec<serde_json::Value>, serde_json::Error> {
    // Named one by one, so that a kind that is added to `Children` can't be forgotten here.
    let Children {
        namespaces,
        resource_quotas,
        limit_ranges,
        service_accounts,
        role_bindings,
        cluster_roles,
        cluster_role_bindings,
        network_policies,
        issuers,
        certificates,
        config_maps,
        services,
        persistent_volume_claims,
        pod_disruption_budgets,
        deployments,
    } = children;
    let mut objects = Vec::new();
    append(&mut objects, namespaces)?;
    append(&mut objects, resource_quotas)?;
    append(&mut objects, limit_ranges)?;
    append(&mut objects, service_accounts)?;
    append(&mut objects, role_bindings)?;
    append(&mut objects, cluster_roles)?;
    append(&mut objects, cluster_role_bindings)?;
    append(&mut objects, network_policies)?;
    append(&mut objects, issuers)?;
    append(&mut objects, certificates)?;
    append(&mut objects, config_maps)?;
    append(&mut objects, services)?;
    append(&mut objects, persistent_volume_claims)?;
    append(&mut objects, pod_disruption_budgets)?;
    append(&mut objects, deployments)?;
    Ok(objects)
}

fn append<T: Serialize>(
    objects: &mut Vec<serde_json::Value>,
    children: &[T],
) -> Result<(), serde_json::Error> {
    for child in children {
        objects.push(serde_json::to_value(child)?);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
