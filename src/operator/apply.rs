//! Makes the API server hold what was built, and writes nothing where it does already.

mod cluster_roles;
mod desired;
mod diff;
mod finished;
mod namespaces;
mod narrow;
mod prune;
mod write;

use std::collections::BTreeSet;

use bulkhead_api::tenant::NamespaceStatus;
use serde::Serialize;

use crate::{
    build::Children,
    cache::{Key, Report},
    context::Context,
    error::Error,
    kinds::Kind,
    names::ServerName,
};

pub use cluster_roles::remove as remove_cluster_roles;
pub use namespaces::{Refusal, is_ours};
pub use narrow::narrow;
pub use write::{delete, merge};

use desired::Desired;

/// The name under which the operator owns fields.
pub const FIELD_MANAGER: &str = "bulkhead-operator";

/// Annotation with the hash of the desired object that was applied last.
pub const ANNOTATION_CONFIG_HASH: &str = "bulkhead.dev/config-hash";

/// What came of an apply.
#[derive(Debug, Default)]
pub struct Applied {
    /// The tenant's namespaces.
    pub namespaces: Vec<NamespaceStatus>,
    /// Why the tenant's namespaces can't be used: nothing was built.
    pub refused: Option<Refusal>,
    /// Somebody else's object that has the name of the tenant's `ClusterRole` or of its binding.
    pub taken: Option<String>,
    /// Servers whose Deployment waits for what it mounts.
    pub held_back: Vec<String>,
}

/// Whose objects are applied.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Name of the tenant.
    pub name: &'a str,
    /// UID of the tenant.
    pub uid: &'a str,
    /// The namespaces that were made for it before.
    pub namespaces: &'a [NamespaceStatus],
}

/// Applies everything that a tenant becomes, then removes what it no longer is.
///
/// In the order of the fields, closed before anything runs: walls before pods, what is mounted before what mounts it.
pub async fn apply(
    context: &Context,
    owner: Owner<'_>,
    children: Children,
    trust_known: bool,
) -> Result<Applied, Error> {
    // Without `..`: a new kind of child must not be forgotten here.
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

    let namespaces = Desired::all(Kind::Namespace, &namespaces)?;
    let mut applied = Applied::default();
    match namespaces::ensure(context, owner, &namespaces).await? {
        Ok(namespaces) => applied.namespaces = namespaces,
        Err(refusal) => {
            applied.refused = Some(refusal);
            return Ok(applied);
        }
    }

    let mut wanted: BTreeSet<(String, Key)> = BTreeSet::new();
    let before_walls = [
        Desired::all(Kind::ResourceQuota, &resource_quotas)?,
        Desired::all(Kind::LimitRange, &limit_ranges)?,
        Desired::all(Kind::ServiceAccount, &service_accounts)?,
        Desired::all(Kind::RoleBinding, &role_bindings)?,
    ];
    let in_no_namespace = [
        Desired::all(Kind::ClusterRole, &cluster_roles)?,
        Desired::all(Kind::ClusterRoleBinding, &cluster_role_bindings)?,
    ];
    let before_pods = [
        Desired::all(Kind::NetworkPolicy, &network_policies)?,
        Desired::all(Kind::Issuer, &issuers)?,
        Desired::all(Kind::Certificate, &certificates)?,
        Desired::all(Kind::ConfigMap, &config_maps)?,
        Desired::all(Kind::Service, &services)?,
        Desired::all(Kind::PersistentVolumeClaim, &persistent_volume_claims)?,
        Desired::all(Kind::PodDisruptionBudget, &pod_disruption_budgets)?,
    ];
    for desired in before_walls.into_iter().flatten() {
        wanted.insert(desired.key());
        write::settle(context, &desired).await?;
    }
    // Whoever took these names keeps people from reading, and nothing else from being built or repaired.
    let in_no_namespace = in_no_namespace.into_iter().flatten();
    applied.taken = cluster_roles::ensure(context, owner, in_no_namespace, &mut wanted).await?;
    for desired in before_pods.into_iter().flatten() {
        wanted.insert(desired.key());
        write::settle(context, &desired).await?;
    }
    // Strangers' policies and bindings go before any pod of this revision starts.
    let deployments = Desired::all(Kind::Deployment, &deployments)?;
    wanted.extend(deployments.iter().map(Desired::key));
    prune::prune(context, owner, &applied.namespaces, &wanted).await?;
    // Before the Deployments, whose pods they would keep from being made.
    if let Some(servers) = applied.namespaces.first() {
        finished::sweep(context, servers).await?;
    }
    for desired in deployments {
        if may_run(context, &desired, trust_known) {
            write::settle(context, &desired).await?;
        } else {
            applied.held_back.push(desired.name);
        }
    }
    Ok(applied)
}

/// Makes the API server hold one object that isn't part of an apply of everything.
pub async fn apply_one<T: Serialize>(context: &Context, kind: Kind, object: &T) -> Result<(), Error> {
    write::settle(context, &Desired::new(kind, object)?).await
}

/// Whether what a server's pods mount is there. Pods that came too early would wait for it with the kubelet's growing
/// patience. One that runs already is kept up to date whatever happens to its certificate.
fn may_run(context: &Context, deployment: &Desired, trust_known: bool) -> bool {
    let Desired { namespace, name, .. } = deployment;
    let issued = |certificate: &String| {
        context
            .cache
            .get(Kind::Certificate, namespace, certificate)
            .is_some_and(|live| matches!(&live.report, Report::Certificate(state) if state.ready))
    };
    let leaves = ServerName::new(name).map(|name| [name.certificate(), name.handles()]);
    let leaves_ready = leaves.is_ok_and(|leaves| leaves.iter().all(issued));
    (trust_known && leaves_ready)
        || context
            .cache
            .get(Kind::Deployment, namespace, name)
            .is_some_and(|live| live.applied)
}
