//! Removes servers' pods that have ended, when they become many.
//!
//! A pod that the kubelet evicted stays as an object for ever, beside the one that replaced it. The quota counts it, so a
//! server that is evicted again and again would one day get no more pods.

use bulkhead_api::tenant::NamespaceStatus;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};

use crate::{
    cache::Report,
    context::Context,
    error::{Doing, Error},
    kinds::Kind,
};

/// So many may stay, for a person to see why they ended. Fewer than the quota has room for.
const KEPT: usize = 16;

/// Every phase but that of a pod which has ended.
const ENDED: &str = "status.phase!=Pending,status.phase!=Running,status.phase!=Unknown";

/// Removes the pods that have ended, if there are many. The agents' pods are the developers' to remove.
pub async fn sweep(context: &Context, servers: &NamespaceStatus) -> Result<(), Error> {
    let pods = context.cache.of_kind(Kind::Pod, &servers.name);
    let ended = pods
        .iter()
        .filter(|live| !live.deleting && matches!(&live.report, Report::Pod(pod) if pod.finished))
        .count();
    if ended <= KEPT {
        return Ok(());
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &servers.name);
    api.delete_collection(&DeleteParams::default(), &ListParams::default().fields(ENDED))
        .await
        .doing(format!("remove pods of {} that have ended", servers.name))?;
    context.metrics.wrote(Kind::Pod, "deletecollection");
    Ok(())
}
