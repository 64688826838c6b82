//! One server: what its pod runs, with which resources, volumes and probes.

use std::collections::BTreeMap;

use bulkhead_api::{
    McpTenant,
    tenant::{ComputeResources, Probe, Server as ServerSpec, Volume as VolumeSpec},
};
use bulkhead_core::pod;

use super::{Amounts, Findings, Reason, Resources, Server, Volume, VolumeSource, offers, peers::Peers};
use crate::{
    names::{ServerName, VolumeName},
    quantity::Quantity,
};

/// Ports of the sidecar: the server shares its network.
const SIDECAR_PORTS: [u16; 5] = [
    pod::MTLS_PORT,
    pod::KUBELET_PORT,
    pod::KEYS_PORT,
    pod::PEERS_PORT,
    pod::METRICS_PORT,
];

/// What a server requests and is limited to when it doesn't say; documented in the API.
const DEFAULTS: [(&str, &str, &str); 3] = [
    ("cpu", "50m", "500m"),
    ("memory", "64Mi", "256Mi"),
    ("ephemeral-storage", "64Mi", "256Mi"),
];

/// Where nothing may be mounted over: what the kubelet or the sidecar has there means something.
const TAKEN_PATHS: [&str; 8] = [
    "/etc/bulkhead",
    "/run/bulkhead",
    "/var/run/bulkhead",
    "/run/secrets",
    "/var/run/secrets",
    "/proc",
    "/sys",
    "/dev",
];

/// Checks one server.
pub(super) fn server(
    server: &ServerSpec,
    tenant: &McpTenant,
    peers: &Peers<'_>,
    path: &str,
    findings: &mut Findings,
) -> Option<Server> {
    let name = findings.take(
        ServerName::new(&server.name),
        Reason::InvalidName,
        &format!("{path}.name"),
    );
    if server.image.is_empty() {
        findings.add(
            Reason::InvalidValue,
            format!("{path}.image"),
            "name the server's image",
        );
    }
    if server.replicas == 0 {
        findings.add(
            Reason::InvalidValue,
            format!("{path}.replicas"),
            "must be at least 1",
        );
    }
    port(server.http.port, &format!("{path}.http.port"), findings);
    if !server.http.path.starts_with('/') {
        findings.add(
            Reason::InvalidValue,
            format!("{path}.http.path"),
            "must start with /",
        );
    }
    user(server.run_as_user, &format!("{path}.runAsUser"), findings);
    environment(server, path, findings);
    for (which, probe) in [
        ("startup", &server.probes.startup),
        ("readiness", &server.probes.readiness),
        ("liveness", &server.probes.liveness),
    ] {
        if let Some(probe) = probe {
            check_probe(probe, &format!("{path}.probes.{which}"), findings);
        }
    }
    findings.unique(
        &format!("{path}.hostnames"),
        server.hostnames.iter().map(String::as_str),
    );
    let resources = resources(&server.resources, &format!("{path}.resources"), findings);
    let volumes = volumes(server, path, findings);
    let offers = offers::offers(server, tenant, path, findings);
    let egress = peers.egress(&server.egress, &format!("{path}.egress"), findings);
    let clients = peers.clients(&server.clients, &format!("{path}.clients"), findings);

    Some(Server {
        name: name?,
        image: server.image.clone(),
        replicas: server.replicas,
        http: server.http.clone(),
        hostnames: server.hostnames.clone(),
        command: server.command.clone(),
        args: server.args.clone(),
        env: server.env.clone(),
        resources,
        run_as_user: server.run_as_user,
        image_pull_secrets: server
            .image_pull_secrets
            .iter()
            .map(|secret| secret.name.clone())
            .collect(),
        volumes,
        probes: server.probes.clone(),
        dns: server.dns,
        egress,
        clients,
        offers,
        on_image_change: server.pinning.on_image_change,
    })
}

fn port(port: u16, path: &str, findings: &mut Findings) {
    if port == 0 {
        findings.add(Reason::InvalidValue, path, "must be from 1 to 65535");
    } else if SIDECAR_PORTS.contains(&port) {
        let message = format!("{port} is the sidecar's: let the server listen on another port");
        findings.add(Reason::InvalidValue, path, message);
    }
}

fn user(user: i64, path: &str, findings: &mut Findings) {
    if !(1..=i64::from(i32::MAX)).contains(&user) {
        findings.add(
            Reason::InvalidValue,
            path,
            "must be from 1 to 2147483647: servers don't run as root",
        );
    } else if user == pod::SIDECAR_UID {
        let message = format!("{user} is the sidecar's user: choose another");
        findings.add(Reason::InvalidValue, path, message);
    }
}

/// Bulkhead's Secrets (`*-tls`, `*-ca`) hold keys that a server must not have.
fn environment(server: &ServerSpec, path: &str, findings: &mut Findings) {
    findings.unique(
        &format!("{path}.env"),
        server.env.iter().map(|variable| variable.name.as_str()),
    );
    for (index, variable) in server.env.iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        if variable.name.starts_with(pod::RESERVED_ENV_PREFIX) {
            let message = "names that begin with BULKHEAD_ are the sidecar's: choose another";
            findings.add(Reason::InvalidValue, format!("{path}.name"), message);
        }
        if variable.value.is_some() == variable.secret_key_ref.is_some() {
            findings.add(
                Reason::InvalidValue,
                path.clone(),
                "give exactly one of value and secretKeyRef",
            );
        }
        if let Some(reference) = &variable.secret_key_ref {
            secret(&reference.name, &format!("{path}.secretKeyRef.name"), findings);
        }
    }
    for (index, reference) in server.image_pull_secrets.iter().enumerate() {
        secret(
            &reference.name,
            &format!("{path}.imagePullSecrets[{index}].name"),
            findings,
        );
    }
}

fn secret(name: &str, path: &str, findings: &mut Findings) {
    let ours = |name: &str| name.ends_with("-tls") || name.ends_with("-ca");
    // While cert-manager issues, the next key is in a Secret of the Certificate's name and five more characters.
    let next_key = name
        .rsplit_once('-')
        .is_some_and(|(certificate, suffix)| suffix.len() == 5 && ours(certificate));
    if ours(name) || next_key {
        let message = format!(
            "`{name}` is a name of Bulkhead's own Secrets (*-tls, *-ca, and *-tls-????? and *-ca-????? while they are issued): use another"
        );
        findings.add(Reason::ReservedObject, path, message);
    }
}

fn check_probe(probe: &Probe, path: &str, findings: &mut Findings) {
    match (&probe.exec, &probe.http_get) {
        (Some(exec), None) if !exec.command.is_empty() => {}
        (None, Some(get)) => port(get.port, &format!("{path}.httpGet.port"), findings),
        _ => findings.add(
            Reason::InvalidValue,
            path,
            "give exactly one of exec (with a command) and httpGet",
        ),
    }
}

fn resources(given: &ComputeResources, path: &str, findings: &mut Findings) -> Resources {
    let requests = amounts(
        &given.requests,
        DEFAULTS.map(|(_, request, _)| request),
        &format!("{path}.requests"),
        findings,
    );
    let limits = amounts(
        &given.limits,
        DEFAULTS.map(|(_, _, limit)| limit),
        &format!("{path}.limits"),
        findings,
    );
    for (what, request, limit) in [
        ("cpu", requests.cpu, limits.cpu),
        ("memory", requests.memory, limits.memory),
        (
            "ephemeral-storage",
            requests.ephemeral_storage,
            limits.ephemeral_storage,
        ),
    ] {
        if request > limit {
            let message = format!("{what} {request} is more than its limit, {limit}");
            findings.add(Reason::InvalidResources, format!("{path}.requests"), message);
        }
    }
    Resources { requests, limits }
}

fn amounts(
    given: &BTreeMap<String, String>,
    defaults: [&str; 3],
    path: &str,
    findings: &mut Findings,
) -> Amounts {
    for name in given.keys() {
        if !DEFAULTS.iter().any(|(known, ..)| known == name) {
            let message = format!("`{name}`: only cpu, memory and ephemeral-storage can be given");
            findings.add(Reason::InvalidResources, path, message);
        }
    }
    let [cpu, memory, ephemeral_storage] = [0, 1, 2].map(|index| {
        let name = DEFAULTS[index].0;
        let text = given.get(name).map_or(defaults[index], String::as_str);
        findings.quantity(text, &format!("{path}.{name}"))
    });
    Amounts {
        cpu,
        memory,
        ephemeral_storage,
    }
}

fn volumes(server: &ServerSpec, path: &str, findings: &mut Findings) -> Vec<Volume> {
    findings.unique(
        &format!("{path}.volumes"),
        server.volumes.iter().map(|volume| volume.name.as_str()),
    );
    findings.unique(
        &format!("{path}.volumes"),
        server.volumes.iter().map(|volume| volume.mount_path.as_str()),
    );
    if server.replicas > 1 && server.volumes.iter().any(|volume| volume.persistent.is_some()) {
        let message = "a persistent volume is mounted by one pod only: set replicas to 1, or use sizeLimit";
        findings.add(Reason::InvalidValue, format!("{path}.volumes"), message);
    }
    let mut checked = Vec::new();
    for (index, volume) in server.volumes.iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        let name = findings.take(
            VolumeName::new(&volume.name),
            Reason::InvalidName,
            &format!("{path}.name"),
        );
        if !is_mountable(&volume.mount_path) {
            findings.add(
                Reason::InvalidValue,
                format!("{path}.mountPath"),
                format!(
                    "`{}` can't be mounted: use an absolute path, not /, without . and .., and not in {}",
                    volume.mount_path,
                    TAKEN_PATHS.join(", ")
                ),
            );
        }
        let source = source(volume, &path, findings);
        if let (Some(name), Some(source)) = (name, source) {
            checked.push(Volume {
                name,
                mount_path: volume.mount_path.clone(),
                source,
            });
        }
    }
    checked
}

fn is_mountable(path: &str) -> bool {
    let whole = path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains([':', '\0']))
    });
    let taken = |taken: &str| {
        path.strip_prefix(taken)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    whole && !TAKEN_PATHS.into_iter().any(taken)
}

fn source(volume: &VolumeSpec, path: &str, findings: &mut Findings) -> Option<VolumeSource> {
    match (&volume.size_limit, &volume.persistent) {
        (Some(size), None) => Some(VolumeSource::Ephemeral(
            findings.quantity(size, &format!("{path}.sizeLimit")),
        )),
        (None, Some(persistent)) => {
            let size: Quantity = findings.quantity(&persistent.size, &format!("{path}.persistent.size"));
            Some(VolumeSource::Persistent {
                size,
                storage_class: persistent.storage_class_name.clone(),
            })
        }
        _ => {
            findings.add(
                Reason::InvalidValue,
                path,
                "give exactly one of sizeLimit and persistent",
            );
            None
        }
    }
}
