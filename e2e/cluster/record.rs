//! What a local cluster is asked to be, and what is written down of it.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Cgroups,
    namespaces,
    node::component,
    parts::Part,
    plan::{MOST_NODES, Plan},
};

/// What `up` is asked for. Left out, a running cluster stays as it is, and a new one has two nodes.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// How many nodes. Nodes can be added to a running cluster.
    pub nodes: Option<u8>,
    /// A cluster whose network enforces no `NetworkPolicy`.
    pub no_network_policy: bool,
    /// The runtime class `gvisor`.
    pub gvisor: bool,
}

/// What is written down of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) number: u8,
    pub(crate) nodes: u8,
    pub(crate) network_policy: bool,
    pub(crate) gvisor: bool,
}

impl Record {
    /// The record that a cluster has after it was asked for these options.
    pub(crate) fn with(had: Option<&Self>, number: u8, options: &UpOptions) -> Result<Self> {
        let nodes = options.nodes.or(had.map(|had| had.nodes)).unwrap_or(2);
        ensure!(
            (1..=MOST_NODES).contains(&nodes),
            "a cluster has 1 to {MOST_NODES} nodes"
        );
        let Some(had) = had else {
            return Ok(Self {
                number,
                nodes,
                network_policy: !options.no_network_policy,
                gvisor: options.gvisor,
            });
        };
        ensure!(
            nodes >= had.nodes,
            "the cluster has {} nodes, and none can be taken away: run `down` first",
            had.nodes
        );
        ensure!(
            !(options.no_network_policy && had.network_policy),
            "the cluster enforces NetworkPolicies: run `down` first to have one that does not"
        );
        ensure!(
            !options.gvisor || had.gvisor,
            "the cluster was made without gVisor: run `down` first"
        );
        Ok(Self { nodes, ..had.clone() })
    }

    /// Every program that runs in a cluster like this.
    pub(crate) fn components(&self) -> Vec<String> {
        let mut names: Vec<String> = namespaces::holders(self.nodes);
        names.extend(
            [
                "etcd",
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
            ]
            .map(str::to_owned),
        );
        for node in 0..self.nodes {
            for program in ["containerd", "kubelet", "kube-proxy"] {
                names.push(component(node, program));
            }
            if self.network_policy {
                names.push(component(node, "kube-router"));
            }
        }
        names
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan { number: self.number }
    }

    pub(crate) fn cgroups(&self) -> Result<Cgroups> {
        Cgroups::of_this_machine(self.plan().cgroup())
    }

    /// The parts that have to be built.
    pub(crate) fn parts(&self) -> Result<Vec<&'static Part>> {
        let mut names = vec!["etcd", "kubernetes", "containerd", "cni", "pause", "coredns"];
        if self.network_policy {
            names.push("kube-router");
        }
        if self.gvisor {
            names.push("gvisor");
        }
        names.into_iter().map(Part::named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_cluster_grows_and_does_not_shrink_or_change_kind() {
        let had = Record {
            number: 3,
            nodes: 2,
            network_policy: true,
            gvisor: false,
        };
        let with = |options: &UpOptions| Record::with(Some(&had), 0, options);
        assert_eq!(with(&UpOptions::default()).unwrap(), had);
        assert_eq!(
            with(&UpOptions {
                nodes: Some(3),
                ..UpOptions::default()
            })
            .unwrap()
            .nodes,
            3
        );
        assert!(
            with(&UpOptions {
                nodes: Some(1),
                ..UpOptions::default()
            })
            .is_err()
        );
        assert!(
            with(&UpOptions {
                gvisor: true,
                ..UpOptions::default()
            })
            .is_err()
        );
        assert!(
            with(&UpOptions {
                no_network_policy: true,
                ..UpOptions::default()
            })
            .is_err()
        );
    }
}
