//! Everything that a tenant becomes: a pure function of the tenant, what was read from the
//! cluster, and the settings. The same input gives the same bytes.

mod observed;

use bulkhead_api::cert_manager::{Certificate, Issuer};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{
        ConfigMap, LimitRange, Namespace, PersistentVolumeClaim, ResourceQuota, Service, ServiceAccount,
    },
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::RoleBinding,
};

pub use bulkhead_api::cert_manager;
pub use observed::{Observed, PeerService, Pem, PemError};

/// The objects of a tenant, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Children {
    /// Both namespaces, the servers' first. They alone carry an owner reference.
    pub namespaces: Vec<Namespace>,
    /// A quota per namespace.
    pub resource_quotas: Vec<ResourceQuota>,
    /// Defaults per namespace, for pods that name no resources.
    pub limit_ranges: Vec<LimitRange>,
    /// Of servers, of agents, and `default` of both namespaces.
    pub service_accounts: Vec<ServiceAccount>,
    /// Of admins and developers.
    pub role_bindings: Vec<RoleBinding>,
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
