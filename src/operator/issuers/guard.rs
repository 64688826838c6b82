//! Where an issuer may be. A tenant's author names it, and the operator asks there: it must not become a way to ask what
//! only the operator, its node or the cluster can reach (server-side request forgery).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{ranges::ClusterRanges, settings::Settings};

/// Ranges that are nobody's on the internet (the IANA special-purpose address registries, RFC 6890), and those that stand
/// for addresses of IPv4, which may be one of them.
const NOT_PUBLIC: [&str; 28] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// Which addresses may be asked.
#[derive(Clone, Debug)]
pub struct Guard {
    allowed: Vec<IpNet>,
    refused: Vec<IpNet>,
}

impl Guard {
    /// Lets through public addresses that aren't the cluster's own, and `allowed` ones whatever they are.
    pub fn new(allowed: Vec<IpNet>, settings: &Settings) -> Self {
        let not_public = NOT_PUBLIC.iter().filter_map(|range| range.parse().ok());
        let guard = Self {
            allowed,
            refused: not_public.collect(),
        };
        guard.with(&ClusterRanges::told(settings))
    }

    /// Lets everything through: for whoever could ask there without us.
    pub fn none() -> Self {
        Self {
            allowed: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Refuses these as well.
    #[must_use]
    pub fn with(&self, cluster: &ClusterRanges) -> Self {
        let own = [
            &cluster.pods,
            &cluster.services,
            &cluster.nodes,
            &cluster.api_server,
        ];
        let mut guard = self.clone();
        guard.refused.extend(own.into_iter().flatten());
        guard
    }

    /// Whether an address may be asked.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
        within(&self.allowed) || !within(&self.refused)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn only_public_addresses_that_are_not_the_clusters_and_those_that_are_allowed() {
        for range in NOT_PUBLIC {
            assert!(range.parse::<IpNet>().is_ok(), "{range}");
        }
        let settings = Cli::parse_from(["x", "--node-cidrs", "8.0.0.0/24"]).settings;
        let guard = Guard::new(vec!["10.7.0.0/16".parse().unwrap()], &settings);
        let found = ClusterRanges {
            api_server: ["9.9.9.9/32".parse().unwrap()].into(),
            ..ClusterRanges::default()
        };
        let guard = guard.with(&found);
        for (address, allowed) in [
            ("1.1.1.1", true),
            ("8.8.8.8", true),
            ("2606:4700::1111", true),
            ("10.7.0.1", true),
            ("::ffff:10.7.0.1", true),
            ("10.8.0.1", false),
            ("8.0.0.7", false),
            ("9.9.9.9", false),
            ("::ffff:9.9.9.9", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("169.254.169.254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:a9fe:a9fe::1", false),
            ("100.100.0.1", false),
            ("172.31.255.255", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(guard.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }
}
