//! Ranges of addresses that are the cluster's own: what no tenant's rule may dial by address.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::settings::Settings;

/// The cluster's own ranges, by what has its addresses there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRanges {
    /// Pods, of whatever namespace.
    pub pods: BTreeSet<IpNet>,
    /// Services: behind each are pods, or the API server.
    pub services: BTreeSet<IpNet>,
    /// Nodes: the kubelet, and whatever else listens there.
    pub nodes: BTreeSet<IpNet>,
    /// The API server.
    pub api_server: BTreeSet<IpNet>,
}

impl ClusterRanges {
    /// What the operator was told, because the cluster doesn't tell it.
    pub fn told(settings: &Settings) -> Self {
        let set = |ranges: &[IpNet]| ranges.iter().copied().collect();
        Self {
            pods: set(&settings.pod_cidrs),
            services: set(&settings.service_cidrs),
            nodes: set(&settings.node_cidrs),
            api_server: set(&settings.api_server_cidrs),
        }
    }

    /// Adds the ranges of another.
    pub fn extend(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.pods, &other.pods),
            (&mut self.services, &other.services),
            (&mut self.nodes, &other.nodes),
            (&mut self.api_server, &other.api_server),
        ] {
            mine.extend(theirs);
        }
    }

    /// Whose addresses a range meets, for people. Never which ones: they come and go with the nodes, and what is told of
    /// a tenant would change with them.
    pub fn met_by(&self, range: &IpNet) -> Vec<&'static str> {
        [
            ("pods", &self.pods),
            ("Services", &self.services),
            ("nodes", &self.nodes),
            ("API server", &self.api_server),
        ]
        .into_iter()
        .filter(|(_, own)| own.iter().any(|own| meet(own, range)))
        .map(|(whose, _)| whose)
        .collect()
    }
}

/// Whether two ranges have an address in common. Two ranges are apart, or one is part of the other.
pub fn meet(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_meets_what_it_holds_and_what_holds_it() {
        let set = |text: &str| BTreeSet::from([text.parse::<IpNet>().unwrap()]);
        let own = ClusterRanges {
            pods: set("10.244.0.0/16"),
            services: set("10.96.0.0/12"),
            nodes: set("192.168.7.2/32"),
            api_server: set("fd00:1::1/128"),
        };
        for (range, whose) in [
            ("10.0.0.0/8", &["pods", "Services"][..]),
            ("10.244.3.4/32", &["pods"]),
            ("10.96.0.1/32", &["Services"]),
            ("192.168.7.0/30", &["nodes"]),
            ("fd00::/16", &["API server"]),
            ("192.168.7.3/32", &[]),
            ("::/16", &[]),
        ] {
            assert_eq!(own.met_by(&range.parse().unwrap()), whose, "{range}");
        }
    }
}
