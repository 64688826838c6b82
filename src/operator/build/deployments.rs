//! A Deployment per server: the sidecar, which starts first and stops last, and the server
//! container behind it.

mod hosts;
mod server;
mod sidecar;

use bulkhead_api::tenant::Dns;
use bulkhead_core::{control, pod};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, LocalObjectReference,
            PersistentVolumeClaimVolumeSource, PodDNSConfig, PodDNSConfigOption, PodSecurityContext, PodSpec,
            PodTemplateSpec, ProjectedVolumeSource, SeccompProfile, SecretVolumeSource,
            ServiceAccountTokenProjection, TopologySpreadConstraint, Volume as PodVolume, VolumeProjection,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity as ApiQuantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString,
    },
};

use super::{
    Observed,
    meta::{labels, meta, server_labels, server_selector},
    network_policies,
    policies::{Policy, policy},
};
use crate::{
    names::{ANNOTATION_NETWORK_POLICY_REVISION, ANNOTATION_POLICY_REVISION, TRUST},
    settings::Settings,
    validate::{Server, ValidatedTenant, VolumeSource},
};

/// Time that calls in flight have to end in, before the pod's containers are killed.
const TERMINATION_GRACE_SECONDS: i64 = 60;

/// Lifetime of the token by which a sidecar proves itself to the operator: the shortest that there is. The kubelet renews it
/// after four fifths. One whose service account was deleted and made anew is worth nothing until then.
const CONTROL_TOKEN_SECONDS: i64 = 600;

/// Name server of pods without DNS. Nothing listens there, so that a lookup fails at once instead
/// of after a time-out; loopback is the server container's own, and the sidecar resolves no names.
const NO_NAME_SERVER: &str = "127.0.0.1";

/// Volumes of Bulkhead's. Names of a server's own volumes have no `-`.
mod volume {
    pub(super) const POLICY: &str = "bulkhead-policy";
    pub(super) const TLS: &str = "bulkhead-tls";
    pub(super) const HANDLES: &str = "bulkhead-handles";
    pub(super) const TRUST: &str = "bulkhead-trust";
    pub(super) const CONTROL: &str = "bulkhead-control";
    pub(super) const ADMIN: &str = "bulkhead-admin";
    pub(super) const TMP: &str = "bulkhead-tmp";
}

pub(super) fn deployments(
    tenant: &ValidatedTenant,
    observed: &Observed,
    settings: &Settings,
) -> Vec<Deployment> {
    tenant
        .servers
        .iter()
        .map(|server| deployment(tenant, server, observed, settings))
        .collect()
}

fn deployment(
    tenant: &ValidatedTenant,
    server: &Server,
    observed: &Observed,
    settings: &Settings,
) -> Deployment {
    let policy = policy(tenant, server, settings);
    let wall = network_policies::revision(&network_policies::of_server(tenant, server, settings));
    Deployment {
        metadata: meta(
            tenant.name.servers_namespace(),
            server.name.as_str(),
            server_labels(tenant, &server.name),
        ),
        spec: DeploymentSpec {
            replicas: Some(i32::try_from(server.replicas).unwrap_or(i32::MAX)),
            revision_history_limit: Some(3),
            selector: server_selector(tenant, &server.name),
            strategy: Some(strategy(server)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(server_labels(tenant, &server.name)),
                    annotations: Some(labels([
                        (ANNOTATION_POLICY_REVISION, policy.revision.as_str()),
                        (ANNOTATION_NETWORK_POLICY_REVISION, wall.as_str()),
                        ("kubectl.kubernetes.io/default-container", pod::SERVER_CONTAINER),
                    ])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(tenant, server, &policy, observed, settings)),
            },
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

/// One more pod before one fewer, so that no call fails. A volume that one pod at a time mounts
/// would hold such a rollout up for ever: its old pod goes first.
fn strategy(server: &Server) -> DeploymentStrategy {
    if server.has_persistent_volume() {
        return DeploymentStrategy {
            type_: Some("Recreate".to_owned()),
            rolling_update: None,
        };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn pod(
    tenant: &ValidatedTenant,
    server: &Server,
    policy: &Policy,
    observed: &Observed,
    settings: &Settings,
) -> PodSpec {
    let without_dns = server.dns == Dns::None;
    let hosts = if without_dns {
        hosts::aliases(server, observed, settings)
    } else {
        Vec::new()
    };
    PodSpec {
        service_account_name: Some(server.name.to_string()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        share_process_namespace: Some(false),
        runtime_class_name: tenant.runtime_class.clone(),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        dns_policy: Some(if without_dns { "None" } else { "ClusterFirst" }.to_owned()),
        dns_config: without_dns.then(|| PodDNSConfig {
            nameservers: Some(vec![NO_NAME_SERVER.to_owned()]),
            options: Some(vec![PodDNSConfigOption {
                name: Some("attempts".to_owned()),
                value: Some("1".to_owned()),
            }]),
            searches: None,
        }),
        host_aliases: (!hosts.is_empty()).then_some(hosts),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            // Gives persistent volumes to the server's group, and the sidecar its group-readable key.
            fs_group: Some(server.run_as_user),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: (!server.image_pull_secrets.is_empty()).then(|| {
            server
                .image_pull_secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect()
        }),
        topology_spread_constraints: (server.replicas >= 2).then(|| {
            vec![TopologySpreadConstraint {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".to_owned(),
                when_unsatisfiable: "ScheduleAnyway".to_owned(),
                label_selector: Some(server_selector(tenant, &server.name)),
                // Else a rollout's old pods push the new ones to the wrong nodes.
                match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
                ..TopologySpreadConstraint::default()
            }]
        }),
        init_containers: Some(vec![sidecar::container(&policy.revision, settings)]),
        containers: vec![server::container(tenant, server)],
        volumes: Some(volumes(server)),
        ..PodSpec::default()
    }
}

fn volumes(server: &Server) -> Vec<PodVolume> {
    let config_map = |name: &str, config_map: String| PodVolume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map,
            default_mode: Some(0o444),
            ..ConfigMapVolumeSource::default()
        }),
        ..PodVolume::default()
    };
    let secret = |name: &str, secret: String, keys: &[&str]| {
        let keys = keys.iter().map(|key| KeyToPath {
            key: (*key).to_owned(),
            path: (*key).to_owned(),
            ..KeyToPath::default()
        });
        PodVolume {
            name: name.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret),
                items: Some(keys.collect()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..PodVolume::default()
        }
    };
    let mut volumes = vec![
        config_map(volume::POLICY, server.name.policy()),
        // Not its `ca.crt`: nobody takes trust from a leaf's Secret.
        secret(volume::TLS, server.name.certificate(), &["tls.crt", "tls.key"]),
        secret(volume::HANDLES, server.name.handles(), &[pod::HANDLES_FILE]),
        config_map(volume::TRUST, TRUST.to_owned()),
        control_token(),
        empty_dir(volume::ADMIN, ApiQuantity("1Mi".to_owned())),
    ];
    if server::needs_tmp(server) {
        volumes.push(empty_dir(volume::TMP, ApiQuantity("64Mi".to_owned())));
    }
    volumes.extend(server.volumes.iter().map(|declared| match &declared.source {
        VolumeSource::Ephemeral(size) => empty_dir(declared.name.as_str(), size.to_api()),
        VolumeSource::Persistent { .. } => PodVolume {
            name: declared.name.to_string(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: server.name.volume_claim(&declared.name),
                read_only: None,
            }),
            ..PodVolume::default()
        },
    }));
    volumes
}

/// A token that nobody but the operator takes.
fn control_token() -> PodVolume {
    let token = ServiceAccountTokenProjection {
        audience: Some(control::AUDIENCE.to_owned()),
        expiration_seconds: Some(CONTROL_TOKEN_SECONDS),
        path: pod::TOKEN_FILE.to_owned(),
        ..ServiceAccountTokenProjection::default()
    };
    PodVolume {
        name: volume::CONTROL.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(token),
                ..VolumeProjection::default()
            }]),
            ..ProjectedVolumeSource::default()
        }),
        ..PodVolume::default()
    }
}

fn empty_dir(name: &str, size_limit: ApiQuantity) -> PodVolume {
    PodVolume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(size_limit),
            ..EmptyDirVolumeSource::default()
        }),
        ..PodVolume::default()
    }
}
