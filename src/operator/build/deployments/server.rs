//! The MCP server's container: a user of its own, a read-only root, and nothing of Bulkhead's.

use std::collections::BTreeMap;

use bulkhead_api::tenant::{EnvVar as EnvVarSpec, Probe as ProbeSpec};
use bulkhead_core::{credential, pod};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle,
        LifecycleHandler, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext,
        VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity as ApiQuantity, util::intstr::IntOrString},
};

use super::volume;
use crate::validate::{Amounts, Server, ValidatedTenant};

/// Where every server may write, unless it mounts a volume of its own there.
const TMP: &str = "/tmp";

/// Whether the pod has a volume for [`TMP`].
pub(super) fn needs_tmp(server: &Server) -> bool {
    server.volumes.iter().all(|declared| declared.mount_path != TMP)
}

pub(super) fn container(tenant: &ValidatedTenant, server: &Server) -> Container {
    // With them it can verify who calls; validation keeps their names free.
    let keys = format!("http://127.0.0.1:{}{}", pod::KEYS_PORT, pod::KEYS_PATH);
    let issuer = credential::issuer(tenant.name.as_str(), server.name.as_str());
    let ours = [(pod::ENV_JWKS_URL, keys), (pod::ENV_ISSUER, issuer)].map(|(name, value)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    });
    let some = |texts: &Vec<String>| (!texts.is_empty()).then(|| texts.clone());
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let mut mounts = Vec::new();
    if needs_tmp(server) {
        mounts.push(mount(volume::TMP, TMP));
    }
    mounts.extend(
        server
            .volumes
            .iter()
            .map(|declared| mount(declared.name.as_str(), &declared.mount_path)),
    );
    Container {
        name: pod::SERVER_CONTAINER.to_owned(),
        image: Some(server.image.clone()),
        command: some(&server.command),
        args: some(&server.args),
        env: Some(ours.into_iter().chain(server.env.iter().map(variable)).collect()),
        resources: Some(ResourceRequirements {
            requests: Some(amounts(&server.resources.requests)),
            limits: Some(amounts(&server.resources.limits)),
            claims: None,
        }),
        startup_probe: server.probes.startup.as_ref().map(probe),
        readiness_probe: server.probes.readiness.as_ref().map(probe),
        liveness_probe: server.probes.liveness.as_ref().map(probe),
        lifecycle: Some(Lifecycle {
            // Sidecars stop last, so the server would be told to stop under calls in flight: the
            // hook returns when there are none.
            pre_stop: Some(LifecycleHandler {
                http_get: Some(HTTPGetAction {
                    path: Some(pod::DRAIN_PATH.to_owned()),
                    port: IntOrString::Int(i32::from(pod::KUBELET_PORT)),
                    scheme: Some("HTTP".to_owned()),
                    ..HTTPGetAction::default()
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(restricted(server.run_as_user)),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..Container::default()
    }
}

/// What Pod Security `restricted` asks, and a read-only root.
pub(super) fn restricted(user: i64) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(user),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn amounts(amounts: &Amounts) -> BTreeMap<String, ApiQuantity> {
    [
        ("cpu".to_owned(), amounts.cpu.to_api()),
        ("memory".to_owned(), amounts.memory.to_api()),
        ("ephemeral-storage".to_owned(), amounts.ephemeral_storage.to_api()),
    ]
    .into()
}

fn variable(variable: &EnvVarSpec) -> EnvVar {
    EnvVar {
        name: variable.name.clone(),
        // The API server leaves an empty value out, so writing one would differ from what is read back.
        value: variable.value.clone().filter(|value| !value.is_empty()),
        value_from: variable.secret_key_ref.as_ref().map(|reference| EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: reference.name.clone(),
                key: reference.key.clone(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn probe(probe: &ProbeSpec) -> Probe {
    let seconds = |seconds: Option<u32>| seconds.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX));
    Probe {
        exec: probe.exec.as_ref().map(|exec| ExecAction {
            command: Some(exec.command.clone()),
        }),
        http_get: probe.http_get.as_ref().map(|get| HTTPGetAction {
            path: Some(get.path.clone()),
            port: IntOrString::Int(i32::from(get.port)),
            ..HTTPGetAction::default()
        }),
        // Left out by the API server when 0, as an empty value is.
        initial_delay_seconds: seconds(probe.initial_delay_seconds).filter(|delay| *delay != 0),
        period_seconds: seconds(probe.period_seconds),
        timeout_seconds: seconds(probe.timeout_seconds),
        failure_threshold: seconds(probe.failure_threshold),
        ..Probe::default()
    }
}
