//! The tenant's namespaces: taken only when made by us, used only when proven to be this tenant's.

use bulkhead_api::tenant::NamespaceStatus;

use super::{Owner, desired::Desired, write};
use crate::{
    cache::Live,
    context::Context,
    error::{Doing, Error},
    kinds::Kind,
};

/// Why a tenant's namespaces can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// One of this name exists and isn't this tenant's.
    Taken(String),
    /// Somebody is deleting it. It is made again when it is gone.
    Terminating(String),
}

/// Makes both namespaces, or finds that they are this tenant's. Nothing is made unless both can be had.
pub async fn ensure(
    context: &Context,
    owner: Owner<'_>,
    desired: &[Desired],
) -> Result<Result<Vec<NamespaceStatus>, Refusal>, Error> {
    let mut found = Vec::new();
    for namespace in desired {
        let live = find(context, &namespace.name).await?;
        match &live {
            Some(live) if !is_ours(live, owner) => return Ok(Err(Refusal::Taken(namespace.name.clone()))),
            Some(live) if live.deleting => return Ok(Err(Refusal::Terminating(namespace.name.clone()))),
            _ => found.push((namespace, live)),
        }
    }
    let mut namespaces = Vec::new();
    for (namespace, live) in found {
        let uid = match live {
            Some(live) => {
                let uid = live.uid.clone();
                // One that lost our label is in no watch; it is given it back now.
                context.cache.put(live);
                uid
            }
            None => write::create(context, namespace).await?,
        };
        write::settle(context, namespace).await?;
        namespaces.push(NamespaceStatus {
            name: namespace.name.clone(),
            uid,
        });
    }
    Ok(Ok(namespaces))
}

/// Whether an object that is in no namespace is this tenant's: by the UID of its controlling owner, or, of a Namespace, by its own UID, which
/// was noted when it was made. A label proves nothing.
pub fn is_ours(live: &Live, owner: Owner<'_>) -> bool {
    live.controller.as_deref() == Some(owner.uid)
        || owner
            .namespaces
            .iter()
            .any(|known| live.kind == Kind::Namespace && known.name == live.name && known.uid == live.uid)
}

/// Looks a namespace up. The watch sees those with our label only, so a miss is asked again. The answer isn't kept
/// here: no watch would tell the end of a namespace without the label.
async fn find(context: &Context, name: &str) -> Result<Option<Live>, Error> {
    if let Some(live) = context.cache.get(Kind::Namespace, name, name) {
        return Ok(Some(Live::clone(&live)));
    }
    let api = context.api(Kind::Namespace, name);
    let object = api.get_opt(name).await.doing(format!("read Namespace {name}"))?;
    Ok(object.and_then(|object| Live::read(Kind::Namespace, object)))
}
