//! The kinds of objects that the operator watches, and what it may expect to find on them.

use bulkhead_api::cert_manager::{Certificate, CertificateRequest, Issuer};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{
        ConfigMap, LimitRange, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service,
        ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    networking::v1::{NetworkPolicy, ServiceCIDR},
    node::v1::RuntimeClass,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding},
};
use kube::{Resource, api::ApiResource};

use crate::names::viewed_tenant;

/// A kind that the operator watches. The order of the children's kinds is the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A tenant's namespace.
    Namespace,
    /// `v1/ResourceQuota`.
    ResourceQuota,
    /// `v1/LimitRange`.
    LimitRange,
    /// `v1/ServiceAccount`.
    ServiceAccount,
    /// `rbac.authorization.k8s.io/v1/RoleBinding`.
    RoleBinding,
    /// `rbac.authorization.k8s.io/v1/ClusterRole`.
    ClusterRole,
    /// `rbac.authorization.k8s.io/v1/ClusterRoleBinding`.
    ClusterRoleBinding,
    /// `networking.k8s.io/v1/NetworkPolicy`.
    NetworkPolicy,
    /// `cert-manager.io/v1/Issuer`.
    Issuer,
    /// `cert-manager.io/v1/Certificate`.
    Certificate,
    /// `v1/ConfigMap`: trust roots, policies, and (in the operator's namespace) claims.
    ConfigMap,
    /// `v1/Service`.
    Service,
    /// `v1/PersistentVolumeClaim`.
    PersistentVolumeClaim,
    /// `policy/v1/PodDisruptionBudget`.
    PodDisruptionBudget,
    /// `apps/v1/Deployment`.
    Deployment,
    /// `cert-manager.io/v1/CertificateRequest`: made by cert-manager, read for the CAs' certificates.
    CertificateRequest,
    /// `v1/Pod`: made by the Deployments' controllers, read for what the sidecars report.
    Pod,
    /// `node.k8s.io/v1/RuntimeClass`: read, so that a tenant isn't built on one that doesn't exist.
    RuntimeClass,
    /// `v1/Node`: read for its own addresses and those of its pods, which no tenant's rule may name.
    Node,
    /// `networking.k8s.io/v1/ServiceCIDR`: read for the addresses of Services, likewise.
    ServiceCidr,
    /// `discovery.k8s.io/v1/EndpointSlice` of the API server: read for its addresses, likewise.
    EndpointSlice,
}

/// What to make of a field manager that isn't the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Whatever it added is removed.
    Refused,
    /// It may add fields, because built-in parts of Kubernetes must, and no addition opens anything.
    Tolerated,
}

/// Which objects of a kind are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// All of the cluster.
    Whole,
    /// Those with Bulkhead's label.
    Ours,
    /// Those of the Service by which the API server is reached.
    OfApiServer,
}

/// Namespace and name of the Service by which the API server is reached. The API server itself keeps it.
pub const API_SERVER: (&str, &str) = ("default", "kubernetes");

impl Kind {
    /// Every kind, children first and in the order in which they are made.
    pub const ALL: [Self; 21] = [
        Self::Namespace,
        Self::ResourceQuota,
        Self::LimitRange,
        Self::ServiceAccount,
        Self::RoleBinding,
        Self::ClusterRole,
        Self::ClusterRoleBinding,
        Self::NetworkPolicy,
        Self::Issuer,
        Self::Certificate,
        Self::ConfigMap,
        Self::Service,
        Self::PersistentVolumeClaim,
        Self::PodDisruptionBudget,
        Self::Deployment,
        Self::CertificateRequest,
        Self::Pod,
        Self::RuntimeClass,
        Self::Node,
        Self::ServiceCidr,
        Self::EndpointSlice,
    ];

    /// Group, version, kind and plural, for requests.
    pub fn api_resource(self) -> ApiResource {
        match self {
            Self::Namespace => resource_of::<Namespace>(),
            Self::ResourceQuota => resource_of::<ResourceQuota>(),
            Self::LimitRange => resource_of::<LimitRange>(),
            Self::ServiceAccount => resource_of::<ServiceAccount>(),
            Self::RoleBinding => resource_of::<RoleBinding>(),
            Self::ClusterRole => resource_of::<ClusterRole>(),
            Self::ClusterRoleBinding => resource_of::<ClusterRoleBinding>(),
            Self::NetworkPolicy => resource_of::<NetworkPolicy>(),
            Self::Issuer => resource_of::<Issuer>(),
            Self::Certificate => resource_of::<Certificate>(),
            Self::ConfigMap => resource_of::<ConfigMap>(),
            Self::Service => resource_of::<Service>(),
            Self::PersistentVolumeClaim => resource_of::<PersistentVolumeClaim>(),
            Self::PodDisruptionBudget => resource_of::<PodDisruptionBudget>(),
            Self::Deployment => resource_of::<Deployment>(),
            Self::CertificateRequest => resource_of::<CertificateRequest>(),
            Self::Pod => resource_of::<Pod>(),
            Self::RuntimeClass => resource_of::<RuntimeClass>(),
            Self::Node => resource_of::<Node>(),
            Self::ServiceCidr => resource_of::<ServiceCIDR>(),
            Self::EndpointSlice => resource_of::<EndpointSlice>(),
        }
    }

    /// The kind's name, for messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ResourceQuota => "ResourceQuota",
            Self::LimitRange => "LimitRange",
            Self::ServiceAccount => "ServiceAccount",
            Self::RoleBinding => "RoleBinding",
            Self::ClusterRole => "ClusterRole",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Issuer => "Issuer",
            Self::Certificate => "Certificate",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Deployment => "Deployment",
            Self::CertificateRequest => "CertificateRequest",
            Self::Pod => "Pod",
            Self::RuntimeClass => "RuntimeClass",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// Whether the operator makes objects of this kind.
    pub fn is_child(self) -> bool {
        !matches!(
            self,
            Self::CertificateRequest
                | Self::Pod
                | Self::RuntimeClass
                | Self::Node
                | Self::ServiceCidr
                | Self::EndpointSlice
        )
    }

    /// Whether an object of this kind opens something merely by being there, so that a stranger's is removed from a
    /// tenant's namespaces and the watch must see all of them: network policies add up, and so do bindings.
    pub fn opens_by_existing(self) -> bool {
        matches!(self, Self::NetworkPolicy | Self::RoleBinding)
    }

    /// Whether we write every field that its specification has, so that any other is somebody's, whoever owns it:
    /// `managedFields` can be rewritten. The API server fills in nothing that we leave out.
    pub fn is_written_whole(self) -> bool {
        self.opens_by_existing() || matches!(self, Self::ClusterRole | Self::ClusterRoleBinding)
    }

    /// Whether an object that is no longer desired is left alone: what a tenant stored outlives a change of its
    /// specification, and goes with the tenant.
    pub fn outlives_its_wish(self) -> bool {
        matches!(self, Self::PersistentVolumeClaim | Self::Namespace)
    }

    /// What other field managers may do to objects of this kind. What they write to a subresource (`status`, the
    /// namespace's `finalize`) never counts: it can't change what we wrote.
    pub fn strangers(self) -> Strangers {
        match self {
            // The binder, the scheduler and the storage drivers write annotations and `spec.volumeName`. A claim
            // grants nothing to anybody but the pod that names it.
            Self::PersistentVolumeClaim => Strangers::Tolerated,
            _ => Strangers::Refused,
        }
    }

    /// Whether objects of this kind are in no namespace.
    pub fn is_cluster_scoped(self) -> bool {
        matches!(
            self,
            Self::Namespace
                | Self::ClusterRole
                | Self::ClusterRoleBinding
                | Self::RuntimeClass
                | Self::Node
                | Self::ServiceCidr
        )
    }

    /// Under which namespace an object is kept in the cache. `None`: it is no business of any tenant.
    ///
    /// A Namespace is found under its own name; what a tenant has in no namespace, under the tenant's name, which is that
    /// of its servers' namespace.
    pub fn place<'a>(self, namespace: Option<&'a str>, name: &'a str) -> Option<&'a str> {
        match self {
            Self::Namespace => Some(name),
            Self::ClusterRole | Self::ClusterRoleBinding => viewed_tenant(name),
            _ => Some(namespace.unwrap_or_default()),
        }
    }

    /// Which objects of this kind the watch sees.
    pub fn watched(self) -> Watched {
        match self {
            // A stranger's opens something, a tenant's specification may refer to it (a Service by the pods behind it),
            // or it would be mistaken for the tenant's by its name alone, with or without the label.
            Self::ClusterRole
            | Self::ClusterRoleBinding
            | Self::NetworkPolicy
            | Self::RoleBinding
            | Self::Service
            | Self::RuntimeClass
            | Self::Node
            | Self::ServiceCidr => Watched::Whole,
            Self::EndpointSlice => Watched::OfApiServer,
            _ => Watched::Ours,
        }
    }

    /// Whether objects of this kind tell where the cluster's own addresses are.
    pub fn tells_addresses(self) -> bool {
        matches!(self, Self::Node | Self::ServiceCidr | Self::EndpointSlice)
    }
}

fn resource_of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// The tenant that an object in this namespace may belong to, by name alone: the servers' namespace has the tenant's
/// name, the agents' has that name and a suffix. Whether it does belong is proven by UIDs.
pub fn tenants_of_namespace(namespace: &str) -> impl Iterator<Item = &str> {
    std::iter::once(namespace).chain(namespace.strip_suffix("-agents"))
}
