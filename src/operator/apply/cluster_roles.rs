//! What a tenant has outside of its namespaces: the role that lets its people read their own `McpTenant`, and its binding.
//!
//! No namespace proves that these are ours, so the owner reference does.

use std::collections::BTreeSet;

use super::{Owner, desired::Desired, is_ours, write};
use crate::{
    cache::{Key, Live},
    context::Context,
    error::Error,
    kinds::Kind,
    names::TenantName,
};

/// Makes the role, then the binding, unless somebody else's has the name: then neither that one nor what would come
/// after it, since a binding to a stranger's role grants what the stranger likes. Answers which one is in the way.
pub async fn ensure(
    context: &Context,
    owner: Owner<'_>,
    desired: impl IntoIterator<Item = Desired>,
    wanted: &mut BTreeSet<(String, Key)>,
) -> Result<Option<String>, Error> {
    for desired in desired {
        let live = context.cache.get(desired.kind, &desired.namespace, &desired.name);
        if live.is_some_and(|live| !is_ours(&live, owner)) {
            return Ok(Some(desired.reference()));
        }
        wanted.insert(desired.key());
        write::settle(context, &desired).await?;
    }
    Ok(None)
}

/// Deletes both, the binding first, at the end of a tenant.
///
/// Garbage collection would, too, but later: until then, who could read this tenant could read the next one of its name.
pub async fn remove(context: &Context, owner: Owner<'_>) -> Result<(), Error> {
    let Ok(tenant) = TenantName::new(owner.name) else {
        return Ok(());
    };
    let name = tenant.view_role();
    for kind in [Kind::ClusterRoleBinding, Kind::ClusterRole] {
        let live = context.cache.get(kind, owner.name, &name);
        if let Some(live) = live.filter(|live| may_delete(live, owner)) {
            write::delete(context, &live).await?;
        }
    }
    Ok(())
}

/// Whether one that isn't wanted may be deleted: this tenant's own alone.
pub fn may_delete(live: &Live, owner: Owner<'_>) -> bool {
    !live.deleting && is_ours(live, owner)
}
