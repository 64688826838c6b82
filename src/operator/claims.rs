//! What a tenant must hold alone in the cluster: its identity value, its two namespace names, and the audiences of the
//! tokens that it takes.
//!
//! A claim is a `ConfigMap` in the operator's namespace whose name follows from what is claimed. It is made by create,
//! which is atomic, so of two tenants that race exactly one wins. It has no owner reference: a claim whose holder
//! vanished without its teardown (somebody forced its finalizer off) stays, and an administrator decides about the data
//! behind it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions},
};

use crate::{
    apply::FIELD_MANAGER,
    cache::Report,
    context::Context,
    error::{Doing, Error},
    kinds::Kind,
    names::{self, ClaimKind},
};

/// Label of a claim, which tells it from the operator's other `ConfigMap`s.
pub const LABEL_CLAIM: &str = "bulkhead.dev/claim";
/// Key with the name of the tenant that holds a claim.
pub const KEY_TENANT: &str = "tenant";
/// Key with the UID of the tenant that holds a claim: the proof.
pub const KEY_UID: &str = "uid";

/// Takes these claims for a tenant, or finds that it has them. Answers the first that another tenant holds.
pub async fn take(
    context: &Context,
    tenant: &str,
    uid: &str,
    claims: &[(ClaimKind, String)],
) -> Result<Option<ClaimKind>, Error> {
    for (kind, value) in claims {
        if !take_one(context, tenant, uid, *kind, value).await? {
            return Ok(Some(*kind));
        }
    }
    Ok(None)
}

async fn take_one(
    context: &Context,
    tenant: &str,
    uid: &str,
    kind: ClaimKind,
    value: &str,
) -> Result<bool, Error> {
    let name = names::claim_name(kind, value);
    let namespace = &context.settings.namespace;
    // Only our own claim is believed from the cache: that another's is gone may not have arrived yet.
    if let Some(live) = context.cache.get(Kind::ConfigMap, namespace, &name)
        && !live.deleting
        && matches!(&live.report, Report::Claim(claim) if claim.uid == uid)
    {
        return Ok(true);
    }
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    // Asked before it is tried, so that a refused tenant doesn't write at every resync.
    if let Some(claim) = api.get_opt(&name).await.doing("read a claim")? {
        return Ok(held_by(&claim, uid));
    }
    let claim = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(BTreeMap::from([
                (names::LABEL_MANAGED_BY.into(), names::MANAGED_BY.into()),
                (names::LABEL_TENANT.into(), tenant.into()),
                (LABEL_CLAIM.into(), kind.as_str().into()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            (KEY_TENANT.into(), tenant.into()),
            (KEY_UID.into(), uid.into()),
        ])),
        // Nobody changes hands: a claim is released by deletion alone.
        immutable: Some(true),
        ..ConfigMap::default()
    };
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    match api.create(&parameters, &claim).await {
        Ok(_) => {
            context.metrics.wrote(Kind::ConfigMap, "create");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let claim = api.get_opt(&name).await.doing("read a claim")?;
            Ok(claim.is_some_and(|claim| held_by(&claim, uid)))
        }
        Err(error) => Err(error).doing("create a claim"),
    }
}

/// Releases every claim of a tenant.
pub async fn release(context: &Context, tenant: &str, uid: &str) -> Result<(), Error> {
    release_others(context, tenant, uid, &[]).await
}

/// Releases what a tenant holds and no longer claims.
pub async fn release_others(
    context: &Context,
    tenant: &str,
    uid: &str,
    keep: &[(ClaimKind, String)],
) -> Result<(), Error> {
    let keep: Vec<_> = keep
        .iter()
        .map(|(kind, value)| names::claim_name(*kind, value))
        .collect();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let selector = format!("{LABEL_CLAIM},{}={tenant}", names::LABEL_TENANT);
    let claims = api
        .list(&ListParams::default().labels(&selector))
        .await
        .doing("list claims")?;
    let is_kept = |claim: &ConfigMap| {
        claim
            .metadata
            .name
            .as_ref()
            .is_some_and(|name| keep.contains(name))
    };
    let unwanted = claims
        .items
        .into_iter()
        .filter(|claim| held_by(claim, uid) && !is_kept(claim));
    for claim in unwanted {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: claim.metadata.uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let name = claim.metadata.name.unwrap_or_default();
        match api.delete(&name, &parameters).await {
            Ok(_) => context.metrics.wrote(Kind::ConfigMap, "delete"),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => return Err(error).doing("release a claim"),
        }
    }
    Ok(())
}

fn held_by(claim: &ConfigMap, uid: &str) -> bool {
    claim
        .data
        .as_ref()
        .and_then(|data| data.get(KEY_UID))
        .is_some_and(|holder| holder == uid)
}
