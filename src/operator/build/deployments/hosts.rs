//! `/etc/hosts` of a pod without DNS: the Services of the pods that its server may dial.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::HostAlias;

use crate::{
    build::{Observed, PeerService},
    settings::Settings,
    validate::{EgressPeer, PodPeer, Server},
};

/// Entries by address, in a fixed order: the same Services give the same pod template.
pub(super) fn aliases(server: &Server, observed: &Observed, settings: &Settings) -> Vec<HostAlias> {
    let peers: Vec<&PodPeer> = server
        .egress
        .iter()
        .filter_map(|rule| match &rule.to {
            EgressPeer::Pods(peer) => Some(peer),
            EgressPeer::Range(_) => None,
        })
        .collect();
    let mut names: BTreeMap<IpAddr, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for service in observed
        .services
        .iter()
        .filter(|service| peers.iter().any(|peer| is_of(service, peer)))
    {
        for address in &service.addresses {
            names
                .entry(*address)
                .or_default()
                .insert((&service.namespace, &service.name));
        }
    }
    names
        .into_iter()
        .map(|(address, services)| HostAlias {
            ip: address.to_string(),
            hostnames: Some(
                services
                    .into_iter()
                    .flat_map(|(namespace, name)| {
                        let short = format!("{name}.{namespace}");
                        let service = format!("{short}.svc");
                        let full = format!("{service}.{}", settings.cluster_domain);
                        [short, service, full]
                    })
                    .collect(),
            ),
        })
        .collect()
}

/// Whether a Service leads to the peer's pods: one of the two selections is part of the other. A
/// Service without a selector leads to addresses that nobody declared.
fn is_of(service: &PeerService, peer: &PodPeer) -> bool {
    let within = |part: &BTreeMap<String, String>, whole: &BTreeMap<String, String>| {
        part.iter().all(|(key, value)| whole.get(key) == Some(value))
    };
    service.namespace == peer.namespace
        && !service.selector.is_empty()
        && (within(&service.selector, &peer.labels) || within(&peer.labels, &service.selector))
}
