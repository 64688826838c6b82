//! What the operator is told at its start about the cluster and the sidecar: flags and environment.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::{names::is_label, quantity::Quantity};

/// What a tenant's objects depend on besides the tenant. The operator's and the CLI's `render` flags.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Rendering")]
pub struct Settings {
    /// Namespace of the operator. Never a tenant's.
    #[arg(
        id = "operator-namespace",
        long = "operator-namespace",
        env = "POD_NAMESPACE",
        default_value = "bulkhead-system",
        value_name = "NAMESPACE",
        value_parser = namespace
    )]
    pub namespace: String,
    /// Image of the sidecar.
    #[arg(long, env = "BULKHEAD_PROXY_IMAGE", default_value = concat!("bulkhead-proxy:", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    pub proxy_image: String,
    /// When nodes pull the sidecar's image.
    #[arg(
        long,
        env = "BULKHEAD_PROXY_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent",
        value_name = "POLICY"
    )]
    pub proxy_image_pull_policy: PullPolicy,
    /// The cluster's DNS domain: part of every trust domain and host name.
    #[arg(
        long,
        env = "BULKHEAD_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN",
        value_parser = domain
    )]
    pub cluster_domain: String,
    /// Address that must be unreachable from a server pod before its server may run.
    /// Without it: the API server's service address. An address and never a name: server pods resolve none.
    #[arg(long, env = "BULKHEAD_CANARY", value_name = "IP:PORT")]
    pub canary: Option<SocketAddr>,
    /// Namespace whose pods may scrape the sidecars' metrics. Without it, sidecars open no metrics port.
    #[arg(long, env = "BULKHEAD_PROXY_METRICS_NAMESPACE", value_name = "NAMESPACE",
        value_parser = namespace)]
    pub proxy_metrics_namespace: Option<String>,
    /// Ranges of the cluster's pods, besides the nodes' `spec.podCIDRs`: for a network plugin that has ranges of its own.
    #[arg(long, env = "BULKHEAD_POD_CIDRS", value_name = "CIDR", value_delimiter = ',', value_parser = range)]
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of the cluster's Services, besides its `ServiceCIDR` objects.
    #[arg(long, env = "BULKHEAD_SERVICE_CIDRS", value_name = "CIDR", value_delimiter = ',', value_parser = range)]
    pub service_cidrs: Vec<IpNet>,
    /// Ranges of the cluster's nodes, besides their addresses: the subnet in which new ones will be, for example.
    #[arg(long, env = "BULKHEAD_NODE_CIDRS", value_name = "CIDR", value_delimiter = ',', value_parser = range)]
    pub node_cidrs: Vec<IpNet>,
    /// Ranges of the API server, besides its endpoints: a load balancer or public endpoint before it, for example.
    #[arg(long, env = "BULKHEAD_API_SERVER_CIDRS", value_name = "CIDR", value_delimiter = ',', value_parser = range)]
    pub api_server_cidrs: Vec<IpNet>,
    /// CPU that a sidecar requests.
    #[arg(
        long,
        env = "BULKHEAD_PROXY_CPU_REQUEST",
        default_value = "50m",
        value_name = "QUANTITY"
    )]
    pub proxy_cpu_request: Quantity,
    /// CPU that a sidecar may use.
    #[arg(
        long,
        env = "BULKHEAD_PROXY_CPU_LIMIT",
        default_value = "1",
        value_name = "QUANTITY"
    )]
    pub proxy_cpu_limit: Quantity,
    /// Memory that a sidecar requests.
    #[arg(
        long,
        env = "BULKHEAD_PROXY_MEMORY_REQUEST",
        default_value = "32Mi",
        value_name = "QUANTITY"
    )]
    pub proxy_memory_request: Quantity,
    /// Memory that a sidecar may use.
    #[arg(
        long,
        env = "BULKHEAD_PROXY_MEMORY_LIMIT",
        default_value = "128Mi",
        value_name = "QUANTITY"
    )]
    pub proxy_memory_limit: Quantity,
    /// Ephemeral storage that a sidecar requests: what it writes is its log.
    #[arg(
        long,
        env = "BULKHEAD_PROXY_EPHEMERAL_STORAGE_REQUEST",
        default_value = "64Mi",
        value_name = "QUANTITY"
    )]
    pub proxy_ephemeral_storage_request: Quantity,
    /// Ephemeral storage that a sidecar may use. More than the kubelet keeps of a container's log.
    #[arg(
        long,
        env = "BULKHEAD_PROXY_EPHEMERAL_STORAGE_LIMIT",
        default_value = "256Mi",
        value_name = "QUANTITY"
    )]
    pub proxy_ephemeral_storage_limit: Quantity,
}

/// When a node pulls an image, as in a Pod.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node doesn't have it.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The value of `imagePullPolicy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

fn namespace(text: &str) -> Result<String, &'static str> {
    if is_label(text, 63) {
        Ok(text.to_owned())
    } else {
        Err("not a name of a namespace")
    }
}

/// Bits beyond the prefix would say that another range was meant.
pub(crate) fn range(text: &str) -> Result<IpNet, String> {
    let range: IpNet = text
        .trim()
        .parse()
        .map_err(|_| "not a range of addresses, for example 10.0.0.0/16".to_owned())?;
    if range.trunc() == range {
        Ok(range)
    } else {
        Err(format!("bits are set beyond the prefix: write {}", range.trunc()))
    }
}

/// A domain goes into SPIFFE IDs and host names, where anything else would only fail later.
fn domain(text: &str) -> Result<String, &'static str> {
    let labels = text.len() <= 190 && text.split('.').all(|label| is_label(label, 63));
    if labels {
        Ok(text.to_owned())
    } else {
        Err("not a DNS domain in lower case, of at most 190 characters")
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
    fn without_flags_the_documented_defaults_hold() {
        let settings = Cli::parse_from(["x"]).settings;
        assert_eq!(settings.cluster_domain, "cluster.local");
        assert_eq!(settings.proxy_image_pull_policy, PullPolicy::IfNotPresent);
        assert_eq!(settings.canary, None);
        assert_eq!(settings.proxy_memory_limit.to_string(), "128Mi");
    }

    #[test]
    fn a_canary_is_an_address_and_never_a_name() {
        assert!(Cli::try_parse_from(["x", "--canary", "10.0.0.1:443"]).is_ok());
        assert!(Cli::try_parse_from(["x", "--canary", "kubernetes.default:443"]).is_err());
    }

    #[test]
    fn a_domain_is_written_in_lower_case_labels() {
        assert!(Cli::try_parse_from(["x", "--cluster-domain", "k8s.example"]).is_ok());
        for domain in ["", "K8s.example", "k8s.example.", "a/b"] {
            assert!(
                Cli::try_parse_from(["x", "--cluster-domain", domain]).is_err(),
                "{domain}"
            );
        }
    }

    #[test]
    fn ranges_are_lists_of_whole_ranges() {
        let settings = Cli::parse_from(["x", "--pod-cidrs", "10.1.0.0/16, fd00::/48"]).settings;
        assert_eq!(settings.pod_cidrs.len(), 2);
        for wrong in ["10.1.0.1/16", "10.1.0.0", "pods", ""] {
            assert!(
                Cli::try_parse_from(["x", "--node-cidrs", wrong]).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_resource_that_is_no_quantity_is_refused_at_the_start() {
        assert!(Cli::try_parse_from(["x", "--proxy-cpu-limit", "many"]).is_err());
    }
}
