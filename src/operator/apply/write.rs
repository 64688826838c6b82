//! The writes themselves: apply, replace, delete. Every answer goes into the cache at once.

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Map, Value, json};
use tracing::info;

use super::{
    FIELD_MANAGER,
    desired::{Desired, Verdict},
};
use crate::{
    cache::Live,
    context::Context,
    error::{Doing, Error},
    kinds::Kind,
};

/// How often one object is written in one reconcile at most: an apply, a replacement of what a stranger added, and an
/// apply of what the replacement left.
const MOST_WRITES: usize = 4;

/// Makes the API server hold this object, writing only what differs.
pub async fn settle(context: &Context, desired: &Desired) -> Result<(), Error> {
    let Desired {
        kind,
        namespace,
        name,
        hash,
        ..
    } = desired;
    for written in 0..=MOST_WRITES {
        let live = context.cache.get(*kind, namespace, name);
        let verdict = desired.judge(live.as_deref());
        if let (Verdict::Changed(what) | Verdict::AddedTo(what), 0) = (&verdict, written) {
            info!(
                object = desired.reference(),
                what, "repairing what somebody changed"
            );
            context.metrics.repaired(*kind);
        }
        match (verdict, live) {
            (Verdict::Good, Some(live)) => {
                context.cache.judged_good(&live, hash);
                return Ok(());
            }
            // Its end will be seen, and asks for a reconcile.
            (Verdict::Deleting, _) => return Ok(()),
            (verdict, _) if written == MOST_WRITES => {
                // An admission webhook has the last word over us. What comes after this object may rely on it: no pod
                // starts behind a wall that isn't as it should be.
                return Err(Error::Contested {
                    object: desired.reference(),
                    what: verdict.to_string(),
                });
            }
            (Verdict::AddedTo(_), Some(_)) => replace(context, desired).await?,
            // An apply would take over one that somebody made in the meantime.
            (Verdict::Absent, _) if kind.is_cluster_scoped() => {
                create(context, desired).await?;
            }
            (verdict, live) => apply(context, desired, &verdict, live.as_deref()).await?,
        }
    }
    Ok(())
}

/// Makes an object that is in no namespace: by create, never by apply, which would take over one that exists.
/// Answers its UID.
pub async fn create(context: &Context, desired: &Desired) -> Result<String, Error> {
    let object: DynamicObject =
        serde_json::from_value(desired.object.clone()).map_err(|source| Error::Serialize {
            what: desired.reference(),
            source,
        })?;
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    // Somebody may have been faster: a conflict, which is tried again soon, and refused then.
    let object = context
        .api(desired.kind, &desired.namespace)
        .create(&parameters, &object)
        .await
        .doing(format!("create {}", desired.reference()))?;
    context.metrics.wrote(desired.kind, "create");
    info!(object = desired.reference(), "made");
    let uid = object.metadata.uid.clone().unwrap_or_default();
    remember(context, desired.kind, object);
    Ok(uid)
}

/// Server-side apply.
async fn apply(
    context: &Context,
    desired: &Desired,
    verdict: &Verdict,
    live: Option<&Live>,
) -> Result<(), Error> {
    let api = context.api(desired.kind, &desired.namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let object = match live {
        // With a UID, an apply never makes a new one in the place of the one that was proven to be ours, nor takes over
        // what took its name since.
        Some(live) if desired.kind.is_cluster_scoped() => {
            desired.with_metadata(Map::from_iter([("uid".to_owned(), live.uid.clone().into())]))
        }
        _ => desired.object.clone(),
    };
    match api
        .patch(&desired.name, &parameters, &Patch::Apply(&object))
        .await
    {
        Ok(object) => {
            context.metrics.wrote(desired.kind, "apply");
            remember(context, desired.kind, object);
            Ok(())
        }
        // A field that can't be changed back, a binding's role for example. The same object was accepted before, or
        // this one is a stranger's, so the fault is not in what we want.
        Err(kube::Error::Api(status))
            if status.code == 422
                && matches!(verdict, Verdict::Changed(_) | Verdict::Strange)
                && !desired.kind.outlives_its_wish() =>
        {
            let Some(live) = live else { return Ok(()) };
            delete(context, live).await
        }
        Err(error) => Err(error).doing(format!("apply {}", desired.reference())),
    }
}

/// Replaces the object, so that what a stranger added goes.
///
/// Our own mark stays that of an apply: were the fields ours by update as well, an apply could never remove one again.
async fn replace(context: &Context, desired: &Desired) -> Result<(), Error> {
    let api = context.api(desired.kind, &desired.namespace);
    let Some(live) = api
        .get_opt(&desired.name)
        .await
        .doing(format!("read {}", desired.reference()))?
    else {
        return Ok(());
    };
    let kept: Vec<_> = live
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| {
            entry.subresource.as_deref().is_some_and(|name| !name.is_empty())
                || (entry.manager.as_deref() == Some(FIELD_MANAGER)
                    && entry.operation.as_deref() == Some("Apply"))
        })
        .collect();
    let mut object = desired.with_metadata(Map::from_iter([
        ("uid".to_owned(), json!(live.metadata.uid)),
        (
            "resourceVersion".to_owned(),
            json!(live.metadata.resource_version),
        ),
        ("managedFields".to_owned(), json!(kept)),
    ]));
    // The Deployment's controller keeps its count of revisions in annotations, by way of the status.
    for (key, value) in live.metadata.annotations.iter().flatten() {
        if desired.kind == Kind::Deployment && key.starts_with("deployment.kubernetes.io/") {
            object["metadata"]["annotations"][key] = value.clone().into();
        }
    }
    let object: DynamicObject = serde_json::from_value(object).map_err(|source| Error::Serialize {
        what: desired.reference(),
        source,
    })?;
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    let object = api
        .replace(&desired.name, &parameters, &object)
        .await
        .doing(format!("replace {}", desired.reference()))?;
    context.metrics.wrote(desired.kind, "replace");
    remember(context, desired.kind, object);
    Ok(())
}

/// Deletes an object: this very one, not another that took its name since.
pub async fn delete(context: &Context, live: &Live) -> Result<(), Error> {
    let api = context.api(live.kind, &live.namespace);
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(live.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&live.name, &parameters).await {
        Ok(answer) => {
            context.metrics.wrote(live.kind, "delete");
            match answer
                .left()
                .filter(|object| object.metadata.deletion_timestamp.is_some())
            {
                // Something still holds it, a finalizer for example.
                Some(object) => remember(context, live.kind, object),
                None => {
                    context
                        .cache
                        .remove(live.kind, &live.namespace, &live.name, live.resource_version);
                }
            }
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error).doing(format!("delete {}", live.reference())),
    }
}

/// Puts the answer to a write into the cache.
pub fn remember(context: &Context, kind: Kind, object: DynamicObject) {
    if let Some(live) = Live::read(kind, object) {
        context.cache.put(live);
    }
}

/// A merge patch under our name, of the fields in `patch` alone.
pub async fn merge(context: &Context, live: &Live, patch: &Value) -> Result<(), Error> {
    let api = context.api(live.kind, &live.namespace);
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    match api.patch(&live.name, &parameters, &Patch::Merge(patch)).await {
        Ok(object) => {
            context.metrics.wrote(live.kind, "patch");
            remember(context, live.kind, object);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).doing(format!("patch {}", live.reference())),
    }
}
