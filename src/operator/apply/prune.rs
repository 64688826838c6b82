//! Removes from a tenant's namespaces, and from beside them, what should not be there: what the tenant no longer is, and what a stranger put
//! beside it that opens something by merely being there.

use std::collections::BTreeSet;

use bulkhead_api::tenant::NamespaceStatus;
use tracing::info;

use super::{Owner, cluster_roles, write};
use crate::{
    cache::{Key, Live},
    context::Context,
    error::Error,
    kinds::Kind,
    names::TRUST,
};

/// Deletes what isn't wanted, pods' makers first and walls last.
pub async fn prune(
    context: &Context,
    owner: Owner<'_>,
    namespaces: &[NamespaceStatus],
    wanted: &BTreeSet<(String, Key)>,
) -> Result<(), Error> {
    for namespace in namespaces {
        for live in context.cache.in_namespace(&namespace.name).into_iter().rev() {
            let key = (live.namespace.clone(), (live.kind, live.name.clone()));
            if !wanted.contains(&key) && is_unwanted(&live, owner) {
                info!(
                    kind = live.kind.name(),
                    namespace = live.namespace,
                    name = live.name,
                    "removing"
                );
                write::delete(context, &live).await?;
            }
        }
    }
    Ok(())
}

/// Whether an object that isn't wanted has to go.
fn is_unwanted(live: &Live, owner: Owner<'_>) -> bool {
    if matches!(live.kind, Kind::ClusterRole | Kind::ClusterRoleBinding) {
        return cluster_roles::may_delete(live, owner);
    }
    let ours = live.kind.is_child() && live.applied;
    // Between two revisions of a CA nobody may know its root for a moment: what was published stays.
    let trust = live.kind == Kind::ConfigMap && live.name == TRUST;
    (ours || live.kind.opens_by_existing()) && !live.deleting && !live.kind.outlives_its_wish() && !trust
}
