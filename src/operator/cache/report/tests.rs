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
fn a_pod_tells_how_its_sidecar_started_and_ended() {
    let Report::Pod(state) = observe(
        Kind::Pod,
        json!({
            "metadata": {"labels": {"bulkhead.dev/server": "crm"}},
            "spec": {"containers": [{"name": "helper", "image": "h"}, {"name": "server", "image": "crm:1"}]},
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
    assert_eq!(
        (state.server.as_deref(), state.image.as_deref()),
        (Some("crm"), Some("crm:1"))
    );
    assert_eq!(
        state.sidecar,
        SidecarState {
            started: false,
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
fn a_node_tells_addresses_and_its_heartbeats_tell_nothing() {
    let of = |heartbeat: &str| {
        observe(
            Kind::Node,
            json!({
                "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
                "status": {
                    "addresses": [
                        {"type": "InternalIP", "address": "192.168.7.2"},
                        {"type": "ExternalIP", "address": "2001:db9::2"},
                        {"type": "Hostname", "address": "192.168.7.99"},
                    ],
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}],
                },
            }),
        )
    };
    let set = |ranges: &[&str]| ranges.iter().map(|range| range.parse().unwrap()).collect();
    let own = ClusterRanges {
        pods: set(&["10.244.1.0/24", "fd00:1::/64"]),
        nodes: set(&["192.168.7.2/32", "2001:db9::2/128"]),
        ..ClusterRanges::default()
    };
    assert_eq!(of("2026-01-01T00:00:00Z"), Report::Addresses(Box::new(own)));
    assert_eq!(of("2026-01-01T00:00:00Z"), of("2026-01-01T00:00:10Z"));
}

#[test]
fn the_cluster_tells_where_services_and_the_api_server_are() {
    let services = observe(
        Kind::ServiceCidr,
        json!({"spec": {"cidrs": ["10.96.0.0/12", "fd00:2::/112"]}}),
    );
    let endpoints = observe(
        Kind::EndpointSlice,
        json!({"addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["192.168.9.9"]}, {"addresses": ["192.168.9.10"]}]}),
    );
    let found = [services, endpoints].map(|report| match report {
        Report::Addresses(own) => (own.services.len(), own.api_server.len()),
        other => panic!("{other:?}"),
    });
    assert_eq!(found, [(2, 0), (0, 2)]);
}

#[test]
fn a_runtime_class_tells_what_it_adds() {
    let class = json!({"handler": "runsc", "overhead": {"podFixed": {"memory": "48Mi"}}});
    let added = Overhead {
        memory: "48Mi".parse().unwrap(),
        ..Overhead::default()
    };
    assert_eq!(observe(Kind::RuntimeClass, class), Report::RuntimeClass(added));
}

#[test]
fn a_network_policy_tells_whom_it_names() {
    let named =
        |name: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let Report::Wall(wall) = observe(
        Kind::NetworkPolicy,
        json!({"spec": {"podSelector": {},
            "ingress": [{"from": [named("gateway"), {"podSelector": {}}]}],
            "egress": [{"to": [named("stores"), {"ipBlock": {"cidr": "203.0.113.0/24"}}]}, {"ports": []}],
        }}),
    ) else {
        panic!("a wall is a wall")
    };
    assert_eq!(wall.namespaces, ["gateway", "stores"].map(str::to_owned).into());
    assert_eq!(wall.ranges, ["203.0.113.0/24".to_owned()].into());
}

#[test]
fn a_service_tells_what_leads_to_it_and_not_what_is_written_on_it() {
    let of = |labels: Value, address: &str| {
        observe(
            Kind::Service,
            json!({
                "metadata": {"labels": labels, "annotations": labels},
                "spec": {"selector": {"app": "postgres"}, "clusterIP": address, "clusterIPs": [address]},
            }),
        )
    };
    assert_eq!(of(json!({}), "10.96.0.7"), of(json!({"team": "a"}), "10.96.0.7"));
    assert_ne!(of(json!({}), "10.96.0.7"), of(json!({}), "10.96.0.8"));
}

#[test]
fn why_no_pod_can_be_made_comes_before_that_it_takes_long() {
    let Report::Deployment(state) = observe(
        Kind::Deployment,
        json!({"status": {"conditions": [
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too long"},
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"},
        ]}}),
    ) else {
        panic!("a deployment is a deployment")
    };
    assert_eq!(state.failure.as_deref(), Some("FailedCreate: exceeded quota"));
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
