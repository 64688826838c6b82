//! What may be dialled, and who may be let in.

use std::{collections::BTreeMap, net::IpAddr};

use bulkhead_api::{
    McpTenant,
    tenant::{ClientPeer, EgressPeer as EgressPeerSpec, EgressRule as EgressRuleSpec},
};
use ipnet::IpNet;

use super::{EgressPeer, EgressRule, Findings, PodPeer, Reason};
use crate::{
    build::Observed,
    names::{self, is_label},
    ranges::{ClusterRanges, meet},
    settings::Settings,
};

/// Ranges that no rule may meet, and what they are.
const CLOSED_RANGES: [(&str, &str); 16] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, with the cloud's metadata service"),
    ("224.0.0.0/3", "multicast and reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
    // Ways to write an IPv4 address that the IPv4 ranges above would not see.
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("64:ff9b::/96", "IPv4 through NAT64"),
    ("2002::/16", "IPv4 through 6to4"),
    ("64:ff9b:1::/48", "IPv4 through a network's own NAT64"),
    ("::/96", "IPv4-compatible"),
    // Not link-local, and the same to who may dial it.
    ("fd00:ec2::254/128", "a cloud's metadata service"),
    ("100.100.100.200/32", "a cloud's metadata service"),
    ("168.63.129.16/32", "a cloud's platform service"),
];

/// Ranges wider than these mean everybody.
const WIDEST: (u8, u8) = (8, 16);

/// Knows what is closed to the rules of every tenant, whoever declared it and when.
pub struct Closed<'a> {
    observed: &'a Observed,
    told: ClusterRanges,
}

impl<'a> Closed<'a> {
    /// What is closed as the cluster is now.
    pub fn new(settings: &Settings, observed: &'a Observed) -> Self {
        Self {
            observed,
            told: ClusterRanges::told(settings),
        }
    }

    /// Whether a namespace is another tenant's.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.observed.tenant_namespaces.contains(namespace)
    }

    /// Whether a range, as it is written, is closed or no range at all.
    pub fn has_range(&self, text: &str) -> bool {
        text.parse().map_or(true, |range| self.why(&range).is_some())
    }

    /// Why nothing may dial a range.
    fn why(&self, range: &IpNet) -> Option<String> {
        let widest = match range.network() {
            IpAddr::V4(_) => WIDEST.0,
            IpAddr::V6(_) => WIDEST.1,
        };
        if range.prefix_len() < widest {
            return Some(format!(
                "`{range}` is wider than a /{widest}: name the ranges that are meant"
            ));
        }
        for (closed, what) in CLOSED_RANGES {
            if closed.parse().is_ok_and(|closed| meet(&closed, range)) {
                return Some(format!(
                    "`{range}` meets {closed} ({what}), which nothing may dial"
                ));
            }
        }
        let mut whose = self.observed.cluster.met_by(range);
        whose.extend(self.told.met_by(range));
        whose.sort_unstable();
        whose.dedup();
        (!whose.is_empty()).then(|| {
            format!(
                "`{range}` meets addresses of this cluster's own ({}), which nothing may dial by address: name the \
                 ranges outside the cluster that are meant, and pods inside it by namespace and podLabels",
                whose.join(", ")
            )
        })
    }
}

/// Checks a tenant's rules.
pub(super) struct Peers<'a> {
    own: [String; 2],
    settings: &'a Settings,
    closed: Closed<'a>,
}

impl<'a> Peers<'a> {
    pub(super) fn new(tenant: &McpTenant, settings: &'a Settings, observed: &'a Observed) -> Self {
        let name = tenant.metadata.name.clone().unwrap_or_default();
        let agents = format!("{name}-agents");
        Self {
            own: [name, agents],
            settings,
            closed: Closed::new(settings, observed),
        }
    }

    /// The rules of a server or agent.
    pub(super) fn egress(
        &self,
        rules: &[EgressRuleSpec],
        path: &str,
        findings: &mut Findings,
    ) -> Vec<EgressRule> {
        let mut checked = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if rule.ports.is_empty() || rule.ports.contains(&0) {
                let message =
                    "name at least one port from 1 to 65535: a rule without ports would open all of them";
                findings.add(Reason::InvalidValue, format!("{path}.ports"), message);
            }
            let to = self.egress_peer(&rule.to, &format!("{path}.to"), findings);
            checked.extend(to.map(|to| EgressRule {
                to,
                ports: rule.ports.iter().copied().collect(),
            }));
        }
        checked
    }

    /// A server's further clients.
    pub(super) fn clients(
        &self,
        clients: &[ClientPeer],
        path: &str,
        findings: &mut Findings,
    ) -> Vec<PodPeer> {
        let mut checked = Vec::new();
        for (index, client) in clients.iter().enumerate() {
            let path = format!("{path}[{index}]");
            checked.extend(self.pods(&client.namespace, &client.pod_labels, &path, findings));
        }
        checked
    }

    fn egress_peer(&self, to: &EgressPeerSpec, path: &str, findings: &mut Findings) -> Option<EgressPeer> {
        match (&to.namespace, &to.cidr) {
            (Some(namespace), None) => self
                .pods(namespace, &to.pod_labels, path, findings)
                .map(EgressPeer::Pods),
            (None, Some(cidr)) if to.pod_labels.is_empty() => {
                range(cidr, &self.closed, &format!("{path}.cidr"), findings).map(EgressPeer::Range)
            }
            _ => {
                let message = "give either namespace with podLabels, or cidr";
                findings.add(Reason::InvalidValue, path, message);
                None
            }
        }
    }

    fn pods(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        path: &str,
        findings: &mut Findings,
    ) -> Option<PodPeer> {
        let before = findings.0.len();
        if !is_label(namespace, 63) {
            findings.add(
                Reason::InvalidName,
                format!("{path}.namespace"),
                format!("`{namespace}` is no name of a namespace"),
            );
        } else if self.own.iter().any(|own| own == namespace)
            || self.settings.namespace == namespace
            || self.closed.has_namespace(namespace)
        {
            // The same words for every case: they tell nobody who else is a tenant.
            findings.add(
                Reason::ForbiddenPeer,
                format!("{path}.namespace"),
                format!("`{namespace}` may not be named here: Bulkhead alone decides what reaches it"),
            );
        }
        if labels.is_empty() {
            let message = "name the pods' labels: a peer is a namespace and labels, never a whole namespace";
            findings.add(Reason::ForbiddenPeer, format!("{path}.podLabels"), message);
        }
        for (key, value) in labels {
            if !names::is_label_key(key) || !names::is_label_value(value) {
                let message = format!("`{key}: {value}` is no label");
                findings.add(Reason::InvalidValue, format!("{path}.podLabels"), message);
            }
        }
        (findings.0.len() == before).then(|| PodPeer {
            namespace: namespace.to_owned(),
            labels: labels.clone(),
        })
    }
}

fn range(text: &str, closed: &Closed<'_>, path: &str, findings: &mut Findings) -> Option<IpNet> {
    let syntax = || format!("`{text}` is no range of addresses, for example 203.0.113.0/24 or 2001:db8::/32");
    let range: IpNet = findings.take(text.parse().map_err(|_| syntax()), Reason::InvalidValue, path)?;
    if range.trunc() != range {
        let message = format!("`{text}` has bits set beyond its prefix: write {}", range.trunc());
        findings.add(Reason::InvalidValue, path, message);
        return None;
    }
    if let Some(message) = closed.why(&range) {
        findings.add(Reason::ForbiddenPeer, path, message);
        return None;
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build::fixture, validate::Invalid};

    #[test]
    fn every_closed_range_is_a_range() {
        for (closed, _) in CLOSED_RANGES {
            assert!(closed.parse::<IpNet>().is_ok(), "{closed}");
        }
    }

    /// What is said of a range, where the cluster and the settings say this of themselves.
    fn judged(text: &str, cluster: &ClusterRanges, settings: &Settings) -> Result<IpNet, Invalid> {
        let observed = Observed {
            cluster: cluster.clone(),
            ..Observed::default()
        };
        let mut findings = Findings::default();
        let closed = Closed::new(settings, &observed);
        let range = range(text, &closed, "cidr", &mut findings);
        assert_eq!(closed.has_range(text), range.is_none(), "{text}");
        range.ok_or_else(|| findings.0.remove(0))
    }

    fn in_general(text: &str) -> Result<IpNet, Invalid> {
        judged(text, &ClusterRanges::default(), &fixture::settings())
    }

    #[test]
    fn ranges_of_the_node_of_everybody_or_of_nobody_are_refused() {
        for text in [
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "0.0.0.0/32",
            "127.0.0.1/32",
            "169.254.169.254/32",
            "169.0.0.0/8",
            "224.0.0.1/32",
            "255.255.255.255/32",
            "::1/128",
            "fe80::/64",
            "ff02::1/128",
            "::ffff:127.0.0.1/128",
            "64:ff9b::7f00:1/128",
            "2002:7f00:1::/48",
            "64:ff9b:1::7f00:1/128",
            "::7f00:1/128",
            "fd00:ec2::/32",
            "100.100.0.0/16",
            "168.63.129.16/32",
            "2000::/3",
        ] {
            assert_eq!(
                in_general(text).unwrap_err().reason,
                Reason::ForbiddenPeer,
                "{text}"
            );
        }
    }

    #[test]
    fn ranges_outside_are_taken_as_they_are() {
        for text in ["203.0.113.0/24", "10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"] {
            assert_eq!(in_general(text).map(|range| range.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn ranges_that_meet_the_clusters_own_are_refused_with_whose_they_are() {
        let cluster = fixture::observed().cluster;
        let told = Settings {
            pod_cidrs: vec!["10.200.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.201.0.0/16".parse().unwrap()],
            node_cidrs: vec!["10.202.0.0/16".parse().unwrap()],
            api_server_cidrs: vec!["198.51.100.0/28".parse().unwrap()],
            ..fixture::settings()
        };
        for (text, whose) in [
            ("10.244.0.9/32", "(pods)"),
            ("10.100.0.0/16", "(Services)"),
            ("192.168.7.0/24", "(nodes)"),
            ("2001:db9::/64", "(nodes)"),
            ("192.168.9.9/32", "(API server)"),
            ("192.168.0.0/16", "(API server, nodes)"),
            ("10.200.3.0/24", "(pods)"),
            ("10.201.0.1/32", "(Services)"),
            ("10.202.0.0/15", "(nodes)"),
            ("198.51.100.0/24", "(API server)"),
            // Found and told: named once.
            ("10.0.0.0/8", "(Services, nodes, pods)"),
        ] {
            let refused = judged(text, &cluster, &told).unwrap_err();
            assert_eq!(refused.reason, Reason::ForbiddenPeer, "{text}");
            assert!(refused.message.contains(whose), "{text}: {}", refused.message);
            assert!(
                refused.message.contains("podLabels"),
                "it says what to do instead"
            );
        }
        for text in [
            "10.245.0.0/16",
            "192.168.7.3/32",
            "203.0.113.0/24",
            "2001:db9:1::/48",
        ] {
            assert!(judged(text, &cluster, &told).is_ok(), "{text}");
        }
    }
}
