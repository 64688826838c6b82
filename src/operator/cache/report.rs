//! What other controllers report in the status of the objects that the operator makes or reads.

use std::{collections::BTreeMap, net::IpAddr};

use bulkhead_api::cert_manager::{CERTIFICATE_NAME_ANNOTATION, CERTIFICATE_REVISION_ANNOTATION};
use bulkhead_core::pod;
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::DeploymentStatus,
        core::v1::{ContainerStatus, PodSpec, PodStatus, ServiceSpec},
    },
};
use kube::api::DynamicObject;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{claims, kinds::Kind, names};

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
    /// What a quota allows.
    Quota(QuotaState),
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
    /// Revision of the policy that its sidecar must enforce.
    pub policy_revision: Option<String>,
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
    /// Its readiness probe passes: among other things, the canary can't be reached again.
    pub ready: bool,
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
            Kind::ConfigMap => claim(object).map_or(Self::Nothing, Self::Claim),
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

fn deployment(generation: i64, object: &DynamicObject) -> DeploymentState {
    let status: DeploymentStatus = part(object, "status");
    let failure = status.conditions.iter().flatten().find(|condition| {
        let said = (condition.type_.as_deref(), condition.status.as_deref());
        matches!(
            said,
            (Some("ReplicaFailure"), Some("True")) | (Some("Progressing"), Some("False"))
        )
    });
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
    let spec: PodSpec = part(object, "spec");
    let status: PodStatus = part(object, "status");
    let empty = BTreeMap::new();
    let labels = object.metadata.labels.as_ref().unwrap_or(&empty);
    let sidecar = spec
        .init_containers
        .iter()
        .flatten()
        .find(|container| container.name == pod::SIDECAR_CONTAINER);
    // What the sidecar itself was told, so that no annotation can say otherwise.
    let policy_revision = sidecar
        .and_then(|container| {
            container
                .env
                .iter()
                .flatten()
                .find(|env| env.name == pod::ENV_POLICY_REVISION)
        })
        .and_then(|env| env.value.clone());
    let containers = || {
        status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten()
    };
    PodState {
        server: labels.get(names::LABEL_SERVER).cloned(),
        policy_revision,
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
        ready: status.ready,
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
mod tests {
    use serde_json::json;

    use super::*;

    fn observe(kind: Kind, mut object: Value) -> Report {
        object["metadata"]["name"] = "crm".into();
        Report::read(kind, &serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_certificate_is_ready_for_the_specification_that_cert_manager_has_seen() {
        let of = |observed_generation: i64, status: &str| {
            let Report::Certificate(state) = observe(
                Kind::Certificate,
                json!({
                    "metadata": {"generation": 2},
                    "status": {"revision": 3, "conditions": [
                        {"type": "Ready", "status": status, "message": "why", "observedGeneration": observed_generation},
                    ]},
                }),
            ) else {
                panic!("a certificate is a certificate")
            };
            state
        };
        assert_eq!(
            of(2, "True"),
            CertificateState {
                ready: true,
                message: None,
                revision: Some(3)
            }
        );
        assert!(!of(1, "True").ready);
        assert_eq!(of(2, "False").message.as_deref(), Some("why"));
    }

    #[test]
    fn a_request_tells_its_certificate_once_it_is_issued() {
        let of = |status: &str| {
            observe(
                Kind::CertificateRequest,
                json!({
                    "metadata": {"annotations": {
                        "cert-manager.io/certificate-name": "agents-ca", "cert-manager.io/certificate-revision": "4",
                    }},
                    "status": {"certificate": "UEVN", "conditions": [{"type": "Ready", "status": status}]},
                }),
            )
        };
        let issued = IssuedCertificate {
            certificate: "agents-ca".into(),
            revision: 4,
            pem: "PEM".into(),
        };
        assert_eq!(of("True"), Report::Issued(issued));
        assert_eq!(of("False"), Report::Nothing);
    }

    #[test]
    fn a_sidecar_may_have_started_and_not_be_ready() {
        let of = |ready: bool| {
            let status = json!({
                "name": "bulkhead-proxy", "image": "", "imageID": "", "restartCount": 0,
                "started": true, "ready": ready,
            });
            sidecar_state(&serde_json::from_value(status).unwrap())
        };
        for ready in [true, false] {
            let state = SidecarState {
                started: true,
                ready,
                last_exit: None,
            };
            assert_eq!(of(ready), state);
        }
    }

    #[test]
    fn a_pod_tells_what_its_sidecar_was_told_and_how_it_ended() {
        let Report::Pod(state) = observe(
            Kind::Pod,
            json!({
                "metadata": {"labels": {"bulkhead.dev/server": "crm"}},
                "spec": {"containers": [], "initContainers": [
                    {"name": "bulkhead-proxy", "env": [{"name": "BULKHEAD_POLICY_REVISION", "value": "abc"}]},
                ]},
                "status": {
                    "phase": "Pending",
                    "conditions": [{"type": "Ready", "status": "False"}],
                    "initContainerStatuses": [{
                        "name": "bulkhead-proxy", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                        "started": false,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                        "lastState": {"terminated": {"exitCode": 70}},
                    }],
                },
            }),
        ) else {
            panic!("a pod is a pod")
        };
        assert_eq!(state.server.as_deref(), Some("crm"));
        assert_eq!(state.policy_revision.as_deref(), Some("abc"));
        assert_eq!(
            state.sidecar,
            SidecarState {
                started: false,
                ready: false,
                last_exit: Some(70)
            }
        );
        assert_eq!(
            state.problem.as_deref(),
            Some("container bulkhead-proxy: CrashLoopBackOff back-off")
        );
        assert!(!state.ready);
    }

    #[test]
    fn a_deployment_tells_why_its_pods_cannot_be_made() {
        let Report::Deployment(state) = observe(
            Kind::Deployment,
            json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 2},
                "status": {"observedGeneration": 1, "updatedReplicas": 1, "conditions": [
                    {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"},
                ]},
            }),
        ) else {
            panic!("a deployment is a deployment")
        };
        assert!(!state.current);
        assert_eq!((state.wanted, state.updated), (2, 1));
        assert_eq!(state.failure.as_deref(), Some("FailedCreate: exceeded quota"));
    }
}
