//! The chart, rendered by Helm with its defaults and with each switch thrown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Clippy sees no tests in these helpers.

use std::process::Command;

use bulkhead_api::cert_manager::{Certificate, Issuer};
use bulkhead_cluster::{Paths, program};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        apps::v1::Deployment,
        core::v1::{Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Renders the chart with these `--set` arguments.
fn render(settings: &[&str]) -> Result<Vec<Value>, String> {
    let helm = program(&Paths::from_env().unwrap(), "helm").expect("Helm renders the chart");
    let mut command = Command::new(helm);
    command.args([
        "template",
        "bulkhead",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/bulkhead"),
    ]);
    command.args(["--namespace", "bulkhead-system"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let documents: Vec<Option<Value>> =
        serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    Ok(documents.into_iter().flatten().collect())
}

fn named<'a>(documents: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    documents
        .iter()
        .find(|document| document["kind"] == kind && document["metadata"]["name"] == name)
}

fn operator(documents: &[Value]) -> &Value {
    &named(documents, "Deployment", "bulkhead-operator").expect("a Deployment")["spec"]["template"]["spec"]
}

fn variable<'a>(documents: &'a [Value], name: &str) -> Option<&'a Value> {
    let variables = operator(documents)["containers"][0]["env"]
        .as_array()
        .expect("an environment");
    variables
        .iter()
        .find(|variable| variable["name"] == name)
        .map(|variable| &variable["value"])
}

/// Reads a document as its type and fails on whatever the type doesn't know.
fn read<T: DeserializeOwned + Serialize>(document: &Value) {
    let typed: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"));
    let back = serde_json::to_value(typed).unwrap();
    lost(document, &back, &document["kind"].to_string());
}

fn lost(given: &Value, kept: &Value, place: &str) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (name, value) in given {
                // Empty is as good as absent.
                let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
                let found = kept.get(name).unwrap_or(&Value::Null);
                assert!(empty || !found.is_null(), "{place}: no type knows {name}");
                lost(value, found, &format!("{place}.{name}"));
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            assert_eq!(given.len(), kept.len(), "{place}");
            for (given, kept) in given.iter().zip(kept) {
                lost(given, kept, &format!("{place}[]"));
            }
        }
        _ => {}
    }
}

/// Every switch and every value that changes what is rendered.
const SETTINGS: [&[&str]; 16] = [
    &[],
    &["crds.enabled=false"],
    &["crds.keep=false"],
    &["operator.replicas=1"],
    &["operator.podDisruptionBudget.enabled=false"],
    &[
        "operator.priorityClassName=system-cluster-critical",
        "operator.nodeSelector.pool=platform",
    ],
    &[
        "operator.tolerations[0].operator=Exists",
        "imagePullSecrets[0].name=registry",
    ],
    &["canary=192.0.2.1:443", "clusterDomain=cluster.example"],
    &[
        "metrics.namespace=monitoring",
        "proxy.metrics.enabled=true",
        "metrics.annotations=false",
    ],
    &[
        "metrics.namespace=monitoring",
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.team=a",
    ],
    &["networkPolicy.enabled=false"],
    &["fences.enabled=false"],
    &["fences.breakGlassGroup="],
    &[
        "fences.images.requireDigest=true",
        "fences.images.allowed[0]=registry.example.com/",
        "certManager.namespace=pki",
        "fences.exceptions[0].resources[0]=pods/status",
        "fences.exceptions[0].groups[0]=agents",
    ],
    &[
        "network.podCIDRs[0]=10.0.0.0/16",
        "network.podCIDRs[1]=fd00::/48",
        "network.serviceCIDRs[0]=10.1.0.0/16",
        "network.nodeCIDRs[0]=10.2.0.0/16",
        "network.apiServerCIDRs[0]=192.0.2.1/32",
    ],
    &[
        "networkPolicy.apiServer.cidrs[0]=192.0.2.1/32",
        "networkPolicy.apiServer.ports[0]=6443",
    ],
];

#[test]
fn every_rendered_document_is_one_that_its_type_knows() {
    for settings in SETTINGS {
        for document in render(settings).unwrap() {
            match document["kind"].as_str().unwrap() {
                "Certificate" => read::<Certificate>(&document),
                "ClusterRole" => read::<ClusterRole>(&document),
                "ClusterRoleBinding" => read::<ClusterRoleBinding>(&document),
                "CustomResourceDefinition" => read::<CustomResourceDefinition>(&document),
                "Deployment" => read::<Deployment>(&document),
                "Issuer" => read::<Issuer>(&document),
                "NetworkPolicy" => read::<NetworkPolicy>(&document),
                "PodDisruptionBudget" => read::<PodDisruptionBudget>(&document),
                "Role" => read::<Role>(&document),
                "RoleBinding" => read::<RoleBinding>(&document),
                "Service" => read::<Service>(&document),
                "ServiceAccount" => read::<ServiceAccount>(&document),
                "ValidatingAdmissionPolicy" => read::<ValidatingAdmissionPolicy>(&document),
                "ValidatingAdmissionPolicyBinding" => read::<ValidatingAdmissionPolicyBinding>(&document),
                // Of the Prometheus operator, which ships no types here.
                "ServiceMonitor" => assert_eq!(document["apiVersion"], "monitoring.coreos.com/v1"),
                other => panic!("{settings:?} renders a {other}"),
            }
        }
    }
}

#[test]
fn nothing_grants_everything_or_secrets_or_escalation() {
    for document in render(&[]).unwrap() {
        for rule in document["rules"].as_array().into_iter().flatten() {
            let place = format!("{}: {rule}", document["metadata"]["name"]);
            let has = |field: &str, words: &[&str]| {
                rule[field]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|word| words.contains(&word.as_str().unwrap()))
            };
            for field in ["apiGroups", "resources", "verbs"] {
                assert!(!has(field, &["*"]), "{place}");
            }
            assert!(
                !has("resources", &["secrets", "serviceaccounts/token"]),
                "{place}"
            );
            // How `connect` reaches the pod that it starts. The operator binds the role in agents' namespaces alone.
            let connects = document["metadata"]["name"] == "bulkhead:tenant:developer";
            assert!(!has("resources", &["pods/portforward"]) || connects, "{place}");
            assert!(
                !has(
                    "resources",
                    &[
                        "pods/exec",
                        "pods/attach",
                        "pods/proxy",
                        "pods/ephemeralcontainers"
                    ]
                ),
                "{place}"
            );
            assert!(!has("apiGroups", &["admissionregistration.k8s.io"]), "{place}");
            assert!(!has("verbs", &["escalate", "impersonate"]), "{place}");
            assert!(
                !has("verbs", &["bind"]) || !rule["resourceNames"].as_array().unwrap().is_empty(),
                "{place}"
            );
            // Without bind and escalate a role can be written that grants what its writer holds, and no other.
            assert!(!has("resources", &["roles"]), "{place}");
            let grants = has("resources", &["clusterroles", "clusterrolebindings"]);
            assert!(
                !grants || document["metadata"]["name"] == "bulkhead-operator",
                "{place}"
            );
        }
    }
}

#[test]
fn the_roles_of_a_tenants_people_do_not_write_where_servers_run() {
    let documents = render(&[]).unwrap();
    let admin = named(&documents, "ClusterRole", "bulkhead:tenant:admin").unwrap();
    for rule in admin["rules"].as_array().unwrap() {
        assert_eq!(
            rule["verbs"],
            serde_json::json!(["get", "list", "watch"]),
            "an admin runs nothing: {rule}"
        );
    }
}

#[test]
fn the_operator_meets_pod_security_restricted() {
    for settings in SETTINGS {
        let documents = render(settings).unwrap();
        let pod = operator(&documents);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for host in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"] {
            assert!(pod[host].is_null(), "{host}");
        }
        // Its certificate for sidecars, and of the CA no key.
        let sources = &pod["volumes"][0]["projected"]["sources"];
        let keys: Vec<_> = sources
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|source| source["secret"]["items"].as_array().unwrap())
            .map(|item| (item["key"].as_str().unwrap(), item["path"].as_str().unwrap()))
            .collect();
        assert_eq!(
            keys,
            [
                ("tls.crt", "tls.crt"),
                ("tls.key", "tls.key"),
                ("tls.crt", "ca.pem")
            ]
        );
        assert_eq!(pod["volumes"].as_array().unwrap().len(), 1);
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"], serde_json::json!({"drop": ["ALL"]}));
        }
    }
}

#[test]
fn switches_switch() {
    let crd = "mcptenants.bulkhead.dev";
    let present =
        |settings: &[&str], kind: &str, name: &str| named(&render(settings).unwrap(), kind, name).is_some();
    assert!(present(&[], "CustomResourceDefinition", crd));
    assert!(!present(&["crds.enabled=false"], "CustomResourceDefinition", crd));
    assert!(present(&[], "PodDisruptionBudget", "bulkhead-operator"));
    assert!(!present(
        &["operator.replicas=1"],
        "PodDisruptionBudget",
        "bulkhead-operator"
    ));
    assert!(!present(
        &["operator.podDisruptionBudget.enabled=false"],
        "PodDisruptionBudget",
        "bulkhead-operator"
    ));
    assert!(present(&[], "NetworkPolicy", "bulkhead-operator"));
    assert!(!present(
        &["networkPolicy.enabled=false"],
        "NetworkPolicy",
        "bulkhead-operator"
    ));
    for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        assert!(present(&[], kind, "bulkhead-writers"));
        assert!(!present(&["fences.enabled=false"], kind, "bulkhead-writers"));
        assert!(!present(
            &["fences.breakGlassGroup="],
            kind,
            "bulkhead-break-glass"
        ));
    }
    assert!(!present(&[], "ServiceMonitor", "bulkhead-operator"));
    assert!(present(
        &["metrics.serviceMonitor.enabled=true"],
        "ServiceMonitor",
        "bulkhead-operator"
    ));
}

#[test]
fn an_uninstall_keeps_the_tenants_only_when_told_to() {
    for (settings, kept) in [(&["crds.keep=true"], true), (&["crds.keep=false"], false)] {
        let documents = render(settings).unwrap();
        for (kind, name) in [
            ("CustomResourceDefinition", "mcptenants.bulkhead.dev"),
            ("ClusterRole", "bulkhead:tenant:admin"),
            ("ClusterRole", "bulkhead:tenant:developer"),
            ("ClusterRole", "bulkhead:secrets-writer"),
            ("ValidatingAdmissionPolicy", "bulkhead-writers"),
            ("ValidatingAdmissionPolicyBinding", "bulkhead-writers"),
        ] {
            let policy =
                &named(&documents, kind, name).unwrap()["metadata"]["annotations"]["helm.sh/resource-policy"];
            assert_eq!(policy == "keep", kept, "{name}");
        }
    }
}

/// A fence that fails open, that only warns, or that nothing binds, is none.
#[test]
fn every_fence_refuses_and_fails_closed() {
    let documents = render(&[]).unwrap();
    let of_kind = |kind: &str| {
        documents
            .iter()
            .filter(|document| document["kind"] == kind)
            .collect::<Vec<_>>()
    };
    let (fences, bindings) = (
        of_kind("ValidatingAdmissionPolicy"),
        of_kind("ValidatingAdmissionPolicyBinding"),
    );
    assert_eq!((fences.len(), bindings.len()), (8, 8));
    for fence in fences {
        let name = &fence["metadata"]["name"];
        assert_eq!(fence["spec"]["failurePolicy"], "Fail", "{name}");
        let binding = bindings
            .iter()
            .find(|binding| binding["spec"]["policyName"] == *name);
        // The record of emergencies alone lets pass what it sees.
        let action = if name == "bulkhead-break-glass" {
            "Warn"
        } else {
            "Deny"
        };
        assert_eq!(
            binding.unwrap()["spec"],
            serde_json::json!({"policyName": name, "validationActions": [action, "Audit"]})
        );
    }
}

#[test]
fn images_are_named_by_digest_tag_or_version() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let by_digest = format!("proxy.image.digest={digest}");
    for (setting, image) in [
        (
            "proxy.image.repository=localhost/proxy",
            format!("localhost/proxy:{}", env!("CARGO_PKG_VERSION")),
        ),
        ("proxy.image.tag=dev", "bulkhead-proxy:dev".to_owned()),
        (by_digest.as_str(), format!("bulkhead-proxy@{digest}")),
    ] {
        let documents = render(&[setting]).unwrap();
        assert_eq!(
            variable(&documents, "BULKHEAD_PROXY_IMAGE"),
            Some(&Value::from(image))
        );
    }
}

#[test]
fn the_operator_is_reached_by_sidecars_and_from_the_namespace_that_may_scrape_it() {
    let policy = |settings: &[&str]| {
        named(&render(settings).unwrap(), "NetworkPolicy", "bulkhead-operator")
            .unwrap()
            .clone()
    };
    assert_eq!(
        policy(&[])["spec"]["policyTypes"],
        serde_json::json!(["Ingress", "Egress"])
    );
    let reports = serde_json::json!({
        "from": [{
            "namespaceSelector": {"matchExpressions": [{"key": "bulkhead.dev/tenant", "operator": "Exists"}]},
            "podSelector": {"matchExpressions": [{"key": "bulkhead.dev/server", "operator": "Exists"}]},
        }],
        "ports": [{"port": 8447, "protocol": "TCP"}],
    });
    assert_eq!(policy(&[])["spec"]["ingress"], serde_json::json!([reports]));
    let scraped = policy(&["metrics.namespace=monitoring"]);
    assert_eq!(
        scraped["spec"]["ingress"][1]["ports"],
        serde_json::json!([{"port": 8080, "protocol": "TCP"}])
    );
    assert_eq!(
        scraped["spec"]["ingress"][1]["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        "monitoring"
    );
}

/// The one place where the chart's lists become the operator's flags.
#[test]
fn ranges_are_told_as_the_operator_reads_them() {
    let list = ["network.podCIDRs[0]=10.0.0.0/16", "network.podCIDRs[1]=fd00::/48"];
    let told = variable(&render(&list).unwrap(), "BULKHEAD_POD_CIDRS").cloned();
    assert_eq!(told, Some("10.0.0.0/16,fd00::/48".into()));
    let documents = render(&[]).unwrap();
    for kind in ["POD", "SERVICE", "NODE", "API_SERVER"] {
        assert_eq!(
            variable(&documents, &format!("BULKHEAD_{kind}_CIDRS")),
            None,
            "an empty list is no range"
        );
    }
}

#[test]
fn wrong_values_are_refused_with_their_name() {
    for (settings, says) in [
        (&["replicas=3"][..], "replicas"),
        (&["operator.image.digest=latest"], "digest"),
        (&["operator.replicas=0"], "replicas"),
        (&["canary=kubernetes.default:443"], "canary"),
        (&["metrics.namespace=Monitoring"], "namespace"),
        (&["proxy.metrics.enabled=true"], "metrics.namespace"),
        (&["operator.resync=often"], "resync"),
        (&["fences.exceptions[0].resources[0]=pods"], "exceptions"),
        (&["fences.images.allowed=registry.example.com"], "allowed"),
        (&["network.nodeCIDRs[0]=10.0.0.1"], "nodeCIDRs"),
        (
            &["proxy.resources.limits.ephemeral-storage=much"],
            "ephemeral-storage",
        ),
    ] {
        let refusal = render(settings).expect_err("it is wrong");
        assert!(refusal.contains(says), "{settings:?}: {refusal}");
    }
}

/// The README lists every value, and `values.yaml` says what each is for.
#[test]
fn every_value_is_documented() {
    let values = include_str!("../../../charts/bulkhead/values.yaml");
    let readme = include_str!("../../../charts/bulkhead/README.md");
    let mut comment = false;
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut documented = 0;
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(said) = text.strip_prefix('#') {
            comment |= said.starts_with(" -- ");
            continue;
        }
        let Some((name, _)) = text.split_once(':') else {
            continue;
        };
        while path.last().is_some_and(|(depth, _)| *depth >= indent) {
            path.pop();
        }
        path.push((indent, name));
        if comment {
            let full = path.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(".");
            assert!(
                readme.contains(&format!("| `{full}` |")),
                "{full} is not in charts/bulkhead/README.md"
            );
            documented += 1;
        }
        comment = false;
    }
    assert!(documented > 30, "{documented}");
}
