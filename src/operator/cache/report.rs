//! What other controllers report in the status of the objects that the operator makes or reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bulkhead_api::cert_manager::{CERTIFICATE_NAME_ANNOTATION, CERTIFICATE_REVISION_ANNOTATION};
use bulkhead_core::{mcp::Pins, pod};
use ipnet::IpNet;
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::DeploymentStatus,
        core::v1::{ContainerStatus, NodeSpec, NodeStatus, PodStatus, ServiceSpec},
        discovery::v1::Endpoint,
        networking::v1::{NetworkPolicyPeer, NetworkPolicySpec, ServiceCIDRSpec},
    },
};
use kube::api::DynamicObject;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{build::Overhead, claims, kinds::Kind, names, quantity::Quantity, ranges::ClusterRanges};

/// What the status of an object tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Report {
    /// Nothing that the operator asks for.
    #[default]
    Nothing,
    /// How far a Deployment is.
    Deployment(DeploymentState),
    /// Whether a certificate is issued.
    Certificate(CertificateState),
    /// A certificate that was issued on a request.
    Issued(IssuedCertificate),
    /// How a pod and its sidecar are.
    Pod(Box<PodState>),
    /// Where a Service is, and what is behind it.
    Service(ServiceState),
    /// Who holds a claim.
    Claim(ClaimState),
    /// What a server is held to.
    Pins(Box<Pins>),
    /// What a quota allows.
    Quota(QuotaState),
    /// What a runtime class adds to a pod.
    RuntimeClass(Overhead),
    /// What a persistent volume claim requests.
    Storage(Option<Quantity>),
    /// Addresses of the cluster's own.
    Addresses(Box<ClusterRanges>),
    /// Whom a network policy lets in or out.
    Wall(Wall),
}

/// How far a Deployment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentState {
    /// Whether its controller has seen the current specification.
    pub current: bool,
    /// Pods that should run.
    pub wanted: i32,
    /// Pods of the current template.
    pub updated: i32,
    /// Pods of any template.
    pub total: i32,
    /// Pods that are available.
    pub available: i32,
    /// Why pods can't be made, or the rollout doesn't get on.
    pub failure: Option<String>,
}

/// What a quota allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaState {
    /// Number of pods.
    pub pods: Option<String>,
}

/// Whom a network policy lets in or out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wall {
    /// Namespaces, by name.
    pub namespaces: BTreeSet<String>,
    /// Ranges of addresses, as they are written.
    pub ranges: BTreeSet<String>,
}

/// Who holds a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimState {
    /// Name of the tenant.
    pub tenant: String,
    /// UID of the tenant.
    pub uid: String,
}

/// Where a Service is, and what is behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// Labels of the pods behind it.
    pub selector: BTreeMap<String, String>,
    /// Its cluster addresses.
    pub addresses: Vec<IpAddr>,
}

/// Whether a certificate is issued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateState {
    /// Whether cert-manager says that it is ready, for the current specification.
    pub ready: bool,
    /// Why it isn't, in cert-manager's words.
    pub message: Option<String>,
    /// The revision that is in the Secret.
    pub revision: Option<i64>,
}

/// A certificate that was issued on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Name of the Certificate.
    pub certificate: String,
    /// Its revision.
    pub revision: i64,
    /// PEM.
    pub pem: String,
}

/// How a pod and its sidecar are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodState {
    /// The server that it runs, by label.
    pub server: Option<String>,
    /// The image that its server is of.
    pub image: Option<String>,
    /// Whether it ran to its end.
    pub finished: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// What its sidecar has shown.
    pub sidecar: SidecarState,
    /// Why a container doesn't start or run, with the container's name.
    pub problem: Option<String>,
}

/// What a sidecar has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SidecarState {
    /// Its startup probe passed: the canary was refused.
    pub started: bool,
    /// How it ended last.
    pub last_exit: Option<i32>,
}

impl Report {
    /// Reads the status of an object.
    pub fn read(kind: Kind, object: &DynamicObject) -> Self {
        let generation = object.metadata.generation.unwrap_or_default();
        match kind {
            Kind::Deployment => Self::Deployment(deployment(generation, object)),
            Kind::Certificate => Self::Certificate(certificate(generation, object)),
            Kind::CertificateRequest => issued(object).map_or(Self::Nothing, Self::Issued),
            Kind::Pod => Self::Pod(Box::new(pod(object))),
            Kind::ResourceQuota => Self::Quota(QuotaState {
                pods: object
                    .data
                    .pointer("/spec/hard/pods")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            }),
            Kind::Service => Self::Service(service(object)),
            Kind::PersistentVolumeClaim => Self::Storage(
                object
                    .data
                    .pointer("/spec/resources/requests/storage")
                    .and_then(Value::as_str)
                    .and_then(|size| size.parse().ok()),
            ),
            Kind::RuntimeClass => Self::RuntimeClass(overhead(object)),
            Kind::NetworkPolicy => Self::Wall(wall(object)),
            Kind::Node => Self::Addresses(Box::new(node(object))),
            Kind::ServiceCidr => Self::Addresses(Box::new(service_cidr(object))),
            Kind::EndpointSlice => Self::Addresses(Box::new(endpoints(object))),
            Kind::ConfigMap => config_map(object),
            _ => Self::Nothing,
        }
    }
}

/// A part of a foreign object. One that can't be read says nothing, and nothing is never good news.
fn part<T: DeserializeOwned + Default>(object: &DynamicObject, key: &str) -> T {
    object
        .data
        .get(key)
        .and_then(|value| T::deserialize(value).ok())
        .unwrap_or_default()
}

/// A claim, or a server's policy with its pins.
fn config_map(object: &DynamicObject) -> Report {
    if let Some(claim) = claim(object) {
        return Report::Claim(claim);
    }
    let json = object
        .data
        .pointer("/data")
        .and_then(|data| data.get(pod::PINS_FILE)?.as_str());
    match json.map(|json| Pins::from_json(json.as_bytes())) {
        Some(Ok(pins)) => Report::Pins(Box::new(pins)),
        Some(Err(_)) | None => Report::Nothing,
    }
}

fn claim(object: &DynamicObject) -> Option<ClaimState> {
    object.metadata.labels.as_ref()?.get(claims::LABEL_CLAIM)?;
    let data: BTreeMap<String, String> = part(object, "data");
    Some(ClaimState {
        tenant: data.get(claims::KEY_TENANT)?.clone(),
        uid: data.get(claims::KEY_UID)?.clone(),
    })
}

fn service(object: &DynamicObject) -> ServiceState {
    let spec: ServiceSpec = part(object, "spec");
    ServiceState {
        selector: spec.selector.unwrap_or_default(),
        // A headless Service has the text `None` here.
        addresses: spec
            .cluster_ips
            .iter()
            .flatten()
            .filter_map(|address| address.parse().ok())
            .collect(),
    }
}

fn overhead(object: &DynamicObject) -> Overhead {
    let amount = |name: &str| {
        let fixed = object.data.pointer("/overhead/podFixed")?.get(name)?;
        fixed.as_str()?.parse().ok()
    };
    Overhead {
        cpu: amount("cpu").unwrap_or_default(),
        memory: amount("memory").unwrap_or_default(),
        ephemeral_storage: amount("ephemeral-storage").unwrap_or_default(),
    }
}

fn wall(object: &DynamicObject) -> Wall {
    let spec: NetworkPolicySpec = part(object, "spec");
    let mut wall = Wall::default();
    let into = spec.ingress.into_iter().flatten().filter_map(|rule| rule.from);
    let out = spec.egress.into_iter().flatten().filter_map(|rule| rule.to);
    for peer in into.chain(out).flatten() {
        wall.namespaces.extend(namespace_of(&peer).map(str::to_owned));
        wall.ranges.extend(peer.ip_block.map(|block| block.cidr));
    }
    wall
}

/// The namespace that a peer of a network policy names.
pub fn namespace_of(peer: &NetworkPolicyPeer) -> Option<&str> {
    let labels = peer.namespace_selector.as_ref()?.match_labels.as_ref()?;
    labels.get(names::LABEL_NAMESPACE_NAME).map(String::as_str)
}

/// A node's own addresses and those of its pods. Whatever else a node tells, once in some seconds, is no matter.
fn node(object: &DynamicObject) -> ClusterRanges {
    let spec: NodeSpec = part(object, "spec");
    let status: NodeStatus = part(object, "status");
    let pods = spec.pod_cidrs.into_iter().flatten().chain(spec.pod_cidr);
    let own = status.addresses.into_iter().flatten();
    ClusterRanges {
        pods: pods.filter_map(|range| range.parse().ok()).collect(),
        nodes: own
            .filter(|own| matches!(own.type_.as_str(), "InternalIP" | "ExternalIP"))
            .filter_map(|own| address(&own.address))
            .collect(),
        ..ClusterRanges::default()
    }
}

fn service_cidr(object: &DynamicObject) -> ClusterRanges {
    let spec: ServiceCIDRSpec = part(object, "spec");
    let ranges = spec.cidrs.into_iter().flatten();
    ClusterRanges {
        services: ranges.filter_map(|range| range.parse().ok()).collect(),
        ..ClusterRanges::default()
    }
}

fn endpoints(object: &DynamicObject) -> ClusterRanges {
    let endpoints: Vec<Endpoint> = part(object, "endpoints");
    let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    ClusterRanges {
        api_server: addresses.filter_map(|text| address(text)).collect(),
        ..ClusterRanges::default()
    }
}

/// The range of one address.
fn address(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().ok().map(IpNet::from)
}

fn deployment(generation: i64, object: &DynamicObject) -> DeploymentState {
    let status: DeploymentStatus = part(object, "status");
    let says = |type_: &str, value: &str| {
        status.conditions.iter().flatten().find(|condition| {
            (condition.type_.as_deref(), condition.status.as_deref()) == (Some(type_), Some(value))
        })
    };
    // Why no pod can be made, a quota for example, says more than that a rollout took too long for it.
    let failure = says("ReplicaFailure", "True").or_else(|| says("Progressing", "False"));
    let wanted = object
        .data
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    DeploymentState {
        current: status
            .observed_generation
            .is_some_and(|observed| observed >= generation),
        wanted: i32::try_from(wanted).unwrap_or(i32::MAX),
        updated: status.updated_replicas.unwrap_or_default(),
        total: status.replicas.unwrap_or_default(),
        available: status.available_replicas.unwrap_or_default(),
        failure: failure.map(|condition| {
            let message = condition.message.as_deref().unwrap_or_default();
            format!("{}: {message}", condition.reason.as_deref().unwrap_or("Failed"))
        }),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CertManagerStatus {
    conditions: Vec<CertManagerCondition>,
    revision: Option<i64>,
    certificate: Option<ByteString>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CertManagerCondition {
    r#type: String,
    status: String,
    message: Option<String>,
    observed_generation: Option<i64>,
}

fn certificate(generation: i64, object: &DynamicObject) -> CertificateState {
    let status: CertManagerStatus = part(object, "status");
    let Some(ready) = status
        .conditions
        .iter()
        .find(|condition| condition.r#type == "Ready")
    else {
        return CertificateState {
            revision: status.revision,
            ..CertificateState::default()
        };
    };
    let current = ready
        .observed_generation
        .is_none_or(|observed| observed >= generation);
    CertificateState {
        ready: current && ready.status == "True",
        message: ready.message.clone().filter(|_| ready.status != "True"),
        revision: status.revision,
    }
}

fn issued(object: &DynamicObject) -> Option<IssuedCertificate> {
    let annotations = object.metadata.annotations.as_ref()?;
    let status: CertManagerStatus = part(object, "status");
    status
        .conditions
        .iter()
        .find(|condition| condition.r#type == "Ready" && condition.status == "True")?;
    Some(IssuedCertificate {
        certificate: annotations.get(CERTIFICATE_NAME_ANNOTATION)?.clone(),
        revision: annotations.get(CERTIFICATE_REVISION_ANNOTATION)?.parse().ok()?,
        pem: String::from_utf8(status.certificate?.0).ok()?,
    })
}

fn pod(object: &DynamicObject) -> PodState {
    let status: PodStatus = part(object, "status");
    let empty = BTreeMap::new();
    let labels = object.metadata.labels.as_ref().unwrap_or(&empty);
    let containers = || {
        status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten()
    };
    PodState {
        server: labels.get(names::LABEL_SERVER).cloned(),
        image: object
            .data
            .pointer("/spec/containers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|container| container["name"] == pod::SERVER_CONTAINER)
            .and_then(|container| Some(container["image"].as_str()?.to_owned())),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        ready: status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        sidecar: containers()
            .find(|container| container.name == pod::SIDECAR_CONTAINER)
            .map(sidecar_state)
            .unwrap_or_default(),
        problem: unschedulable(&status).or_else(|| containers().find_map(problem)),
    }
}

fn sidecar_state(status: &ContainerStatus) -> SidecarState {
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        state
            .and_then(|state| state.terminated.as_ref())
            .map(|terminated| terminated.exit_code)
    };
    SidecarState {
        started: status.started == Some(true),
        last_exit: ended(status.state.as_ref()).or_else(|| ended(status.last_state.as_ref())),
    }
}

fn unschedulable(status: &PodStatus) -> Option<String> {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    condition.message.clone()
}

/// Why a container waits, when that isn't the ordinary course of a start.
fn problem(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    Some(
        format!("container {}: {reason} {message}", status.name)
            .trim_end()
            .to_owned(),
    )
}

#[cfg(test)]
mod tests;
