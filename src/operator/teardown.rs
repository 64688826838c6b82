//! The end of a tenant: closed until it is gone.
//!
//! Garbage collection would delete network policies while pods still run. So a finalizer holds the tenant until its
//! pods are gone, and only then its namespaces go, with all that is in them, and then its claims:
//!
//! 1. no new pods: both quotas to zero, Deployments to zero replicas, what runs is asked to end;
//! 2. no pod is left in either namespace;
//! 3. both namespaces are deleted, by UID;
//! 4. both namespaces are gone;
//! 5. nobody may read the tenant any more, claims are released, the finalizer is removed.
//!
//! Each step looks at what there is, so a restart in the middle goes on where it was. Nothing is made anew but a
//! quota that is missing, and no step needs cert-manager. A step that somebody refuses keeps no other from being done.

use std::time::Duration;

use bulkhead_api::McpTenant;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams},
    core::DeserializeGuard,
};
use serde_json::json;
use tracing::{info, warn};

use crate::{
    apply::{self, FIELD_MANAGER, Owner, is_ours},
    build,
    cache::{Live, Report},
    claims,
    context::Context,
    error::{Doing, Error},
    kinds::Kind,
    names::QUOTA,
};

/// The finalizer that holds a tenant until its teardown is done.
pub const FINALIZER: &str = "bulkhead.dev/teardown";

/// How soon to look again for what no watch tells: pods without our label, the end of a namespace without it.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How far a teardown is.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for this.
    Waiting(String),
    /// Nothing is left of the tenant.
    Done,
}

/// Whether a tenant has the finalizer.
pub fn is_held(metadata: &ObjectMeta) -> bool {
    metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on a tenant, before anything is claimed or made for it.
pub async fn hold(context: &Context, metadata: &ObjectMeta) -> Result<(), Error> {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(context, metadata, &finalizers).await
}

/// Lets the tenant go.
pub async fn let_go(context: &Context, metadata: &ObjectMeta) -> Result<(), Error> {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    set_finalizers(context, metadata, &finalizers).await
}

async fn set_finalizers(
    context: &Context,
    metadata: &ObjectMeta,
    finalizers: &[String],
) -> Result<(), Error> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let api: Api<DeserializeGuard<McpTenant>> = Api::all(context.client.clone());
    // The resource version keeps another's finalizer that was added in the meantime.
    let patch = json!({"metadata": {
        "uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": finalizers,
    }});
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    match api.patch(name, &parameters, &Patch::Merge(&patch)).await {
        Ok(_) => {
            context.metrics.wrote_other("McpTenant", "patch");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).doing(format!("set the finalizers of McpTenant {name}")),
    }
}

/// Does what can be done now.
pub async fn tear_down(context: &Context, owner: Owner<'_>) -> Result<Progress, Error> {
    let names = [owner.name.to_owned(), format!("{}-agents", owner.name)];
    let mut namespaces = Vec::new();
    for name in &names {
        // A namespace of that name that isn't ours is none of our business.
        namespaces.extend(find(context, name).await?.filter(|live| is_ours(live, owner)));
    }
    let mut waiting = Vec::new();
    for namespace in namespaces.iter().filter(|namespace| !namespace.deleting) {
        let servers = namespace.name == owner.name;
        let closing = close(context, owner.name, &namespace.name, servers).await;
        waiting.extend(closing.waits_for(&namespace.name));
    }
    if !waiting.is_empty() {
        return Ok(Progress::Waiting(waiting.join(" ")));
    }
    for namespace in namespaces.iter().filter(|namespace| !namespace.deleting) {
        info!(namespace = namespace.name, "deleting a namespace");
        if let Err(error) = apply::delete(context, namespace).await {
            warn!(namespace = namespace.name, %error, "not deleted");
            waiting.push(format!(
                "Namespace {} can't be deleted: {}.",
                namespace.name,
                error.chain()
            ));
        }
    }
    if !namespaces.is_empty() {
        let names: Vec<_> = namespaces.iter().map(|namespace| &*namespace.name).collect();
        let gone = format!("Waiting for the namespaces to be gone: {}.", names.join(", "));
        waiting.insert(0, gone);
        return Ok(Progress::Waiting(waiting.join(" ")));
    }
    apply::remove_cluster_roles(context, owner).await?;
    claims::release(context, owner.name, owner.uid).await?;
    Ok(Progress::Done)
}

/// How far a namespace is from being closed and empty.
#[derive(Debug, Default, PartialEq, Eq)]
struct Closing {
    /// Pods that are left. None: the API server didn't say.
    pods: Option<usize>,
    /// Whether no pod can come back.
    closed: bool,
    /// What somebody refused, in the API server's words.
    refused: Vec<String>,
}

impl Closing {
    /// What is waited for. None: it is closed and empty.
    fn waits_for(&self, namespace: &str) -> Option<String> {
        let wait = match self.pods {
            Some(0) if self.closed => return None,
            Some(0) => format!("Waiting until no pod can start in {namespace}."),
            Some(left) => format!("Waiting for pods to end: {left} in {namespace}."),
            None => format!("Waiting for what is left in {namespace}."),
        };
        let refused = self.refused.iter().map(|refusal| format!(" {refusal}."));
        Some(wait + &refused.collect::<String>())
    }

    /// Takes what a step did; a refusal ends nothing but that step.
    fn note<T>(&mut self, namespace: &str, outcome: Result<T, Error>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                warn!(namespace, %error, "a step of a teardown was refused");
                self.refused.push(error.chain());
            })
            .ok()
    }
}

/// Lets no new pod start in a namespace, and ends those that run.
///
/// Each step is done whatever came of the others: a webhook of somebody else's that is down, and refuses what it would
/// have looked at, holds up what it refuses and nothing else.
async fn close(context: &Context, tenant: &str, namespace: &str, servers: bool) -> Closing {
    let mut closing = Closing::default();
    let quota = close_quota(context, tenant, namespace).await;
    closing.closed = closing.note(namespace, quota).is_some();
    for live in context.cache.of_kind(Kind::Deployment, namespace) {
        let runs = matches!(&live.report, Report::Deployment(state) if state.wanted != 0);
        if runs && !live.deleting {
            let scaled = apply::merge(context, &live, &json!({"spec": {"replicas": 0}})).await;
            if closing.note(namespace, scaled).is_none() {
                // What looks at changes often doesn't look at deletions.
                let deleted = apply::delete(context, &live).await;
                closing.note(namespace, deleted);
            }
        }
    }
    let pods = end_pods(context, namespace).await;
    closing.pods = closing.note(namespace, pods);
    if servers && !closing.closed {
        let makers = pod_makers(context, namespace).await;
        closing.closed = closing.note(namespace, makers) == Some(0);
    }
    closing
}

/// How many objects are left that make pods where servers run. Where agents run developers make others too, of kinds that
/// the operator may not even see.
async fn pod_makers(context: &Context, namespace: &str) -> Result<usize, Error> {
    // Garbage collection takes them some time after their Deployment.
    let api: Api<ReplicaSet> = Api::namespaced(context.client.clone(), namespace);
    let sets = api.list(&ListParams::default()).await;
    let sets = sets
        .doing(format!("list the ReplicaSets of {namespace}"))?
        .items
        .len();
    Ok(context.cache.of_kind(Kind::Deployment, namespace).len() + sets)
}

/// Admits no pod any more.
async fn close_quota(context: &Context, tenant: &str, namespace: &str) -> Result<(), Error> {
    let Some(quota) = context.cache.get(Kind::ResourceQuota, namespace, QUOTA) else {
        // Somebody deleted it, and without it a developer's own Deployment makes new pods as fast as they end.
        let quota = build::closing_quota(tenant, namespace);
        return apply::apply_one(context, Kind::ResourceQuota, &quota).await;
    };
    if matches!(&quota.report, Report::Quota(state) if state.pods.as_deref() == Some("0")) {
        return Ok(());
    }
    apply::merge(context, &quota, &json!({"spec": {"hard": {"pods": "0"}}})).await
}

/// Ends the pods of a namespace, and answers how many are left.
async fn end_pods(context: &Context, namespace: &str) -> Result<usize, Error> {
    // Asked for, not taken from the cache: an agent's pods carry no label of ours, and a stranger's neither.
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let doing = || format!("list the pods of {namespace}");
    let pods = api.list(&ListParams::default()).await.doing(doing())?.items;
    if pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_none()) {
        api.delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .doing(format!("end the pods of {namespace}"))?;
        context.metrics.wrote(Kind::Pod, "deletecollection");
        return Ok(api.list(&ListParams::default()).await.doing(doing())?.items.len());
    }
    Ok(pods.len())
}

async fn find(context: &Context, name: &str) -> Result<Option<Live>, Error> {
    // Not from the cache: whether it is gone must be known, also when it lost our label.
    let object = context
        .api(Kind::Namespace, name)
        .get_opt(name)
        .await
        .doing(format!("read Namespace {name}"))?;
    Ok(object.and_then(|object| Live::read(Kind::Namespace, object)))
}
