//! Closes what a refused tenant's network policies should no longer let in or out.
//!
//! While a specification is refused, nothing of it is built. But what was built before stands, and the cluster around it
//! changes: a node joins in a range that was outside, a namespace becomes another tenant's. From the policies as they
//! are, whatever specification they are of, peers that are closed by now are taken out. Nothing is ever added here; once
//! the specification is accepted, the policies follow it again.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicySpec};
use kube::api::ObjectMeta;
use tracing::info;

use super::{Owner, desired::Desired, is_ours, write};
use crate::{
    cache::{Report, Wall, namespace_of},
    context::Context,
    error::{Doing, Error},
    kinds::Kind,
    validate::Closed,
};

/// Takes closed peers out of every network policy that was applied for a tenant.
pub async fn narrow(context: &Context, owner: Owner<'_>, closed: &Closed<'_>) -> Result<(), Error> {
    for namespace in owner.namespaces {
        let proven = context
            .cache
            .get(Kind::Namespace, &namespace.name, &namespace.name)
            .is_some_and(|live| !live.deleting && is_ours(&live, owner));
        if !proven {
            continue;
        }
        for live in context.cache.of_kind(Kind::NetworkPolicy, &namespace.name) {
            let names_closed = matches!(&live.report, Report::Wall(wall) if names_closed(wall, closed));
            if live.applied && !live.deleting && names_closed {
                narrow_one(context, &namespace.name, &live.name, closed).await?;
            }
        }
    }
    Ok(())
}

async fn narrow_one(
    context: &Context,
    namespace: &str,
    name: &str,
    closed: &Closed<'_>,
) -> Result<(), Error> {
    let doing = || format!("read NetworkPolicy {namespace}/{name}");
    let api = context.api(Kind::NetworkPolicy, namespace);
    let Some(object) = api.get_opt(name).await.doing(doing())? else {
        return Ok(());
    };
    let policy = serde_json::to_value(object).and_then(serde_json::from_value::<NetworkPolicy>);
    let policy = policy.map_err(|source| Error::Serialize {
        what: format!("NetworkPolicy {namespace}/{name}"),
        source,
    })?;
    info!(
        namespace,
        name, "taking out of a network policy what may no longer be reached"
    );
    let narrowed = NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: policy.metadata.labels,
            ..ObjectMeta::default()
        },
        spec: policy.spec.map(|spec| without(spec, closed)),
    };
    write::settle(context, &Desired::new(Kind::NetworkPolicy, &narrowed)?).await
}

fn names_closed(wall: &Wall, closed: &Closed<'_>) -> bool {
    wall.namespaces
        .iter()
        .any(|namespace| closed.has_namespace(namespace))
        || wall.ranges.iter().any(|range| closed.has_range(range))
}

/// The same walls without closed peers. A rule that is left without peers would mean everybody: it goes as a whole.
fn without(spec: NetworkPolicySpec, closed: &Closed<'_>) -> NetworkPolicySpec {
    let open = |peers: Option<Vec<NetworkPolicyPeer>>| -> Option<Vec<NetworkPolicyPeer>> {
        let mut peers = peers?;
        peers.retain(|peer| !is_closed(peer, closed));
        (!peers.is_empty()).then_some(peers)
    };
    let ingress = spec.ingress.into_iter().flatten().filter_map(|mut rule| {
        rule.from = Some(open(rule.from)?);
        Some(rule)
    });
    let egress = spec.egress.into_iter().flatten().filter_map(|mut rule| {
        rule.to = Some(open(rule.to)?);
        Some(rule)
    });
    let (ingress, egress): (Vec<_>, Vec<_>) = (ingress.collect(), egress.collect());
    NetworkPolicySpec {
        ingress: (!ingress.is_empty()).then_some(ingress),
        egress: (!egress.is_empty()).then_some(egress),
        ..spec
    }
}

fn is_closed(peer: &NetworkPolicyPeer, closed: &Closed<'_>) -> bool {
    namespace_of(peer).is_some_and(|namespace| closed.has_namespace(namespace))
        || peer
            .ip_block
            .as_ref()
            .is_some_and(|block| closed.has_range(&block.cidr))
}
