//! The sidecar's container: the only one that mounts identity, trust and policy.

use bulkhead_core::pod;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, ObjectFieldSelector,
        Probe, ResourceRequirements, VolumeMount,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{server::restricted, volume};
use crate::{build::services::MTLS_PORT_NAME, quantity::Quantity, settings::Settings};

/// Startup probes after which the kubelet restarts a sidecar that has not started. Each waits for [`pod::STARTUP_PATIENCE`]:
/// together more than the sidecar takes to find out that network policies are not enforced, and to say so.
const STARTUP_ATTEMPTS: i32 = 60;

/// The sidecar of a pod whose policy has this revision.
pub(super) fn container(revision: &str, settings: &Settings) -> Container {
    let mut env = vec![
        from_field(pod::ENV_POD_IP, "status.podIP"),
        from_field(pod::ENV_POD_NAME, "metadata.name"),
        from_field(pod::ENV_POD_UID, "metadata.uid"),
        value(pod::ENV_POLICY_REVISION, revision.to_owned()),
    ];
    let mut ports = vec![
        port(MTLS_PORT_NAME, pod::MTLS_PORT),
        port("https-peers", pod::PEERS_PORT),
    ];
    env.extend(
        settings
            .canary
            .map(|canary| value(pod::ENV_CANARY, canary.to_string())),
    );
    if settings.proxy_metrics_namespace.is_some() {
        env.push(value(pod::ENV_METRICS_PORT, pod::METRICS_PORT.to_string()));
        ports.push(port("metrics", pod::METRICS_PORT));
    }
    Container {
        name: pod::SIDECAR_CONTAINER.to_owned(),
        image: Some(settings.proxy_image.clone()),
        image_pull_policy: Some(settings.proxy_image_pull_policy.as_str().to_owned()),
        args: Some(vec!["run".to_owned()]),
        // A native sidecar (KEP-753): the server container starts once its startup probe has passed.
        restart_policy: Some("Always".to_owned()),
        env: Some(env),
        ports: Some(ports),
        startup_probe: Some(startup_probe()),
        readiness_probe: Some(readiness_probe()),
        resources: Some(resources(settings)),
        security_context: Some(restricted(pod::SIDECAR_UID)),
        volume_mounts: Some(vec![
            mount(volume::POLICY, pod::POLICY_DIR, Some(true)),
            mount(volume::TLS, pod::TLS_DIR, Some(true)),
            mount(volume::HANDLES, pod::HANDLES_DIR, Some(true)),
            mount(volume::TRUST, pod::TRUST_DIR, Some(true)),
            mount(volume::CONTROL, pod::CONTROL_TOKEN_DIR, Some(true)),
            mount(volume::ADMIN, pod::ADMIN_DIR, None),
        ]),
        ..Container::default()
    }
}

/// Asks the sidecar over its admin socket, which no other container can touch. What it says is then in the pod's events.
fn startup_probe() -> Probe {
    let command = ["bulkhead-proxy", "probe", "startup"].map(str::to_owned);
    Probe {
        exec: Some(ExecAction {
            command: Some(command.into()),
        }),
        // It waits itself, and so is seldom asked twice.
        period_seconds: Some(1),
        timeout_seconds: Some(7),
        failure_threshold: Some(STARTUP_ATTEMPTS),
        ..Probe::default()
    }
}

/// Asks for as long as the pod lives, so without starting a program each time.
fn readiness_probe() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(pod::READY_PATH.to_owned()),
            port: IntOrString::Int(i32::from(pod::KUBELET_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(2),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn resources(settings: &Settings) -> ResourceRequirements {
    let amounts = |cpu: Quantity, memory: Quantity, ephemeral_storage: Quantity| {
        let amounts = [
            ("cpu", cpu),
            ("memory", memory),
            ("ephemeral-storage", ephemeral_storage),
        ];
        Some(
            amounts
                .map(|(name, amount)| (name.to_owned(), amount.to_api()))
                .into(),
        )
    };
    ResourceRequirements {
        requests: amounts(
            settings.proxy_cpu_request,
            settings.proxy_memory_request,
            settings.proxy_ephemeral_storage_request,
        ),
        limits: amounts(
            settings.proxy_cpu_limit,
            settings.proxy_memory_limit,
            settings.proxy_ephemeral_storage_limit,
        ),
        claims: None,
    }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn mount(volume: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    }
}
