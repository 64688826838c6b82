//! The whole set of children: each kind as it is written, and what must hold of all of them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{fixture, *};
use crate::names::{AgentName, ServerName, TenantName, VolumeName, viewed_tenant};

fn children() -> Children {
    let (settings, observed) = (fixture::settings(), fixture::observed());
    build(
        &fixture::validated(fixture::tenant(), &settings, &observed),
        &observed,
        &settings,
    )
}

/// A tenant whose every name is as long as it may be.
fn longest() -> Children {
    let mut tenant = fixture::tenant();
    tenant["metadata"]["name"] = "t".repeat(TenantName::MAX).into();
    tenant["spec"]["agents"][0]["name"] = "a".repeat(AgentName::MAX).into();
    tenant["spec"]["servers"][1]["name"] = "s".repeat(ServerName::MAX).into();
    tenant["spec"]["servers"][1]["volumes"][0]["name"] = "v".repeat(VolumeName::MAX).into();
    let (settings, observed) = (fixture::settings(), fixture::observed());
    build(
        &fixture::validated(tenant, &settings, &observed),
        &observed,
        &settings,
    )
}

/// Every object at `key`, at any depth, with the path to it.
fn find<'a>(value: &'a Value, key: &str, path: &str, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if name == key {
                    found.push((path.clone(), value));
                }
                find(value, key, &path, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                find(item, key, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

fn all<'a>(objects: &'a [Value], key: &str) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    for object in objects {
        let path = format!("{}/{}", object["kind"], object["metadata"]["name"]);
        find(object, key, &path, &mut found);
    }
    found
}

macro_rules! kind_is_written_as_recorded {
    ($($field:ident),* $(,)?) => {$(
        #[test]
        fn $field() {
            insta::assert_yaml_snapshot!(stringify!($field), children().$field);
        }
    )*};
}

mod every_kind_is_written_as_recorded {
    use super::children;

    kind_is_written_as_recorded!(
        namespaces,
        resource_quotas,
        limit_ranges,
        service_accounts,
        role_bindings,
        cluster_roles,
        cluster_role_bindings,
        network_policies,
        issuers,
        certificates,
        config_maps,
        services,
        persistent_volume_claims,
        pod_disruption_budgets,
        deployments,
    );
}

#[test]
fn the_same_tenant_gives_the_same_bytes() {
    let bytes = || serde_json::to_vec(&render(&children()).unwrap()).unwrap();
    assert_eq!(bytes(), bytes());
}

#[test]
fn objects_are_rendered_in_the_order_in_which_they_are_applied() {
    let objects = render(&children()).unwrap();
    let mut kinds: Vec<&str> = objects
        .iter()
        .filter_map(|object| object["kind"].as_str())
        .collect();
    assert_eq!(kinds.len(), objects.len(), "every object says what it is");
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "ResourceQuota",
            "LimitRange",
            "ServiceAccount",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
            "NetworkPolicy",
            "Issuer",
            "Certificate",
            "ConfigMap",
            "Service",
            "PersistentVolumeClaim",
            "PodDisruptionBudget",
            "Deployment",
        ]
    );
}

#[test]
fn every_object_is_named_once_labelled_and_of_the_tenant_or_in_its_namespaces() {
    let objects = render(&children()).unwrap();
    let mut seen = BTreeSet::new();
    for object in &objects {
        let metadata = &object["metadata"];
        let identity = (
            object["kind"].to_string(),
            metadata["namespace"].to_string(),
            metadata["name"].to_string(),
        );
        assert!(seen.insert(identity.clone()), "{identity:?} is there twice");
        assert_eq!(
            metadata["labels"]["app.kubernetes.io/managed-by"], "bulkhead",
            "{identity:?}"
        );
        assert_eq!(metadata["labels"]["bulkhead.dev/tenant"], "umbra", "{identity:?}");
        if ["Namespace", "ClusterRole", "ClusterRoleBinding"].contains(&object["kind"].as_str().unwrap()) {
            assert_eq!(
                metadata["ownerReferences"][0]["uid"],
                "0b7c7c0e-52a1-4e0c-8d59-0d4d0c4ae1f1"
            );
            assert!(metadata.get("namespace").is_none(), "{identity:?}");
        } else {
            let namespace = metadata["namespace"].as_str().unwrap();
            assert!(["umbra", "umbra-agents"].contains(&namespace), "{identity:?}");
            assert!(
                metadata.get("ownerReferences").is_none(),
                "{identity:?} must outlive a foreground deletion"
            );
        }
    }
}

#[test]
fn offline_nothing_claims_an_owner() {
    let mut tenant = fixture::tenant();
    tenant["metadata"].as_object_mut().unwrap().remove("uid");
    let (settings, observed) = (fixture::settings(), Observed::default());
    let children = build(
        &fixture::validated(tenant, &settings, &observed),
        &observed,
        &settings,
    );
    assert_eq!(all(&render(&children).unwrap(), "ownerReferences"), []);
}

#[test]
fn names_and_label_values_fit_at_the_maxima() {
    let objects = render(&longest()).unwrap();
    // Names of roles are bounded by nothing but the path of a URL.
    let bounded = |name: &str| name.len() <= 63 || viewed_tenant(name).is_some();
    for (path, name) in all(&objects, "name") {
        assert!(bounded(name.as_str().unwrap()), "{path}: {name}");
    }
    for (path, labels) in all(&objects, "labels")
        .into_iter()
        .chain(all(&objects, "matchLabels"))
    {
        for (key, value) in labels.as_object().unwrap() {
            assert!(value.as_str().unwrap().len() <= 63, "{path}.{key}");
        }
    }
    for (path, name) in all(&objects, "commonName") {
        assert!(
            name.as_str().unwrap().len() <= 64,
            "{path}: upper bound of RFC 5280"
        );
    }
}

#[test]
fn no_network_policy_opens_more_than_it_names() {
    let objects: Vec<Value> = render(&children())
        .unwrap()
        .into_iter()
        .filter(|object| object["kind"] == "NetworkPolicy")
        .collect();
    let empty = |value: &Value| {
        value.as_object().is_none_or(|fields| {
            fields.is_empty()
                || fields
                    .values()
                    .all(|part| part.as_object().is_some_and(serde_json::Map::is_empty))
        })
    };
    let mut peers = 0;
    for (path, list) in all(&objects, "from").into_iter().chain(all(&objects, "to")) {
        let list = list.as_array().unwrap();
        assert!(!list.is_empty(), "{path} without peers is everybody");
        for peer in list {
            peers += 1;
            assert!(!empty(peer), "{path}: {peer}");
            assert!(
                peer.get("ipBlock").is_some() || !empty(&peer["namespaceSelector"]),
                "{path}: {peer}"
            );
            if let Some(selector) = peer.get("podSelector") {
                assert!(!empty(selector), "{path}: {peer}");
            }
        }
    }
    assert!(peers > 0);
    for (path, rules) in all(&objects, "ingress")
        .into_iter()
        .chain(all(&objects, "egress"))
    {
        for rule in rules.as_array().unwrap() {
            assert!(
                rule["ports"].as_array().is_some_and(|ports| !ports.is_empty()),
                "{path} opens every port"
            );
            let (from, to) = (rule.get("from"), rule.get("to"));
            assert!(from.or(to).is_some(), "{path} without peers is everybody");
        }
    }
    for (path, port) in all(&objects, "port") {
        assert_ne!(port, 8444, "{path}: the kubelet's port is open to no pod");
    }
}

#[test]
fn without_a_namespace_for_metrics_their_port_stays_closed() {
    let ports = |settings: &Settings| {
        let observed = fixture::observed();
        let children = build(
            &fixture::validated(fixture::tenant(), settings, &observed),
            &observed,
            settings,
        );
        let objects = render(&children).unwrap();
        let text = serde_json::to_string(&objects).unwrap();
        text.matches("9464").count()
    };
    assert!(ports(&fixture::settings()) > 0);
    assert_eq!(ports(&fixture::defaults()), 0);
}

#[test]
fn every_container_is_restricted_and_no_two_of_a_pod_share_a_user() {
    let objects = render(&children()).unwrap();
    let mut pods = 0;
    for deployment in objects.iter().filter(|object| object["kind"] == "Deployment") {
        pods += 1;
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["runtimeClassName"], "gvisor", "the tier holds for every pod");
        let mut users = BTreeSet::new();
        for list in ["initContainers", "containers"] {
            for container in pod[list].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["readOnlyRootFilesystem"], true);
                assert_eq!(context["runAsNonRoot"], true);
                assert_eq!(context["capabilities"]["drop"][0], "ALL");
                assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
                assert!(users.insert(context["runAsUser"].as_i64().unwrap()));
                assert!(
                    container["resources"]["limits"]["cpu"].is_string(),
                    "a quota refuses the pod otherwise"
                );
            }
        }
    }
    assert_eq!(pods, 2);
}

#[test]
fn the_server_container_mounts_nothing_of_bulkheads() {
    let objects = render(&children()).unwrap();
    for deployment in objects.iter().filter(|object| object["kind"] == "Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        let server = &pod["containers"][0];
        for mount in server["volumeMounts"].as_array().unwrap() {
            let name = &mount["name"];
            let volume = pod["volumes"]
                .as_array()
                .unwrap()
                .iter()
                .find(|volume| &volume["name"] == name)
                .unwrap();
            assert!(
                volume.get("secret").is_none() && volume.get("configMap").is_none(),
                "{volume}"
            );
            assert_ne!(name, "bulkhead-admin", "the admin socket is the sidecar's alone");
        }
        for (path, reference) in all(std::slice::from_ref(server), "secretKeyRef") {
            assert!(!reference["name"].as_str().unwrap().ends_with("-tls"), "{path}");
        }
    }
}

#[test]
fn amounts_are_written_as_the_api_server_writes_them() {
    let objects = render(&children()).unwrap();
    for key in ["requests", "limits", "hard", "default", "defaultRequest"] {
        for (path, amounts) in all(&objects, key) {
            let Some(amounts) = amounts.as_object() else {
                continue;
            };
            for (name, amount) in amounts {
                let text = amount.as_str().unwrap();
                let quantity: crate::quantity::Quantity = text.parse().unwrap();
                assert_eq!(
                    quantity.to_string(),
                    text,
                    "{path}.{name} would differ from what is read back"
                );
            }
        }
    }
}

#[test]
fn what_the_api_server_would_leave_out_is_not_written() {
    let objects = render(&children()).unwrap();
    for (key, left_out) in [
        ("value", Value::from("")),
        ("initialDelaySeconds", Value::from(0)),
    ] {
        let found = all(&objects, key);
        assert!(!found.is_empty(), "nothing to look at");
        for (path, value) in found {
            assert_ne!(*value, left_out, "{path} would differ from what is read back");
        }
    }
}

#[test]
fn trust_waits_for_the_roots_and_is_published_crosswise() {
    let settings = fixture::settings();
    let tenant = fixture::validated(fixture::tenant(), &settings, &fixture::observed());
    let trust = |observed: &Observed| -> Vec<(String, String)> {
        build(&tenant, observed, &settings)
            .config_maps
            .into_iter()
            .filter(|map| map.metadata.name.as_deref() == Some("bulkhead-trust"))
            .map(|map| {
                (
                    map.metadata.namespace.unwrap(),
                    map.data.unwrap()["ca.pem"].clone(),
                )
            })
            .collect()
    };
    assert_eq!(trust(&Observed::default()), []);
    let observed = fixture::observed();
    let root = |pem: &Option<Pem>| pem.as_ref().unwrap().as_str().to_owned();
    assert_eq!(
        trust(&observed),
        [
            ("umbra".to_owned(), root(&observed.agents_ca)),
            ("umbra-agents".to_owned(), root(&observed.servers_ca)),
        ]
    );
}

#[test]
fn a_changed_policy_changes_the_template_of_its_server_alone() {
    let settings = fixture::settings();
    let observed = fixture::observed();
    let before = children();
    let mut tenant = fixture::tenant();
    tenant["spec"]["servers"][0]["tools"][1]["roles"] = serde_json::json!(["reader"]);
    let after = build(
        &fixture::validated(tenant, &settings, &observed),
        &observed,
        &settings,
    );
    assert_ne!(
        before.deployments[0].spec.template,
        after.deployments[0].spec.template
    );
    assert_eq!(before.deployments[1], after.deployments[1]);
}

/// The pod template of the server without DNS, with these Services in the cluster.
fn template(services: impl IntoIterator<Item = PeerService>) -> Value {
    let (settings, mut observed) = (fixture::settings(), fixture::observed());
    observed.services = services.into_iter().collect();
    let children = build(
        &fixture::validated(fixture::tenant(), &settings, &observed),
        &observed,
        &settings,
    );
    serde_json::to_value(&children.deployments[0].spec.template).unwrap()
}

#[test]
fn a_pod_is_restarted_for_a_service_that_it_may_dial_and_for_no_other() {
    let services = fixture::observed().services;
    let before = template(services.clone());
    assert!(before["spec"]["hostAliases"].is_array(), "there are some");
    let of_peer = |name: &str, address: &[&str]| PeerService {
        namespace: "stores".into(),
        name: name.into(),
        selector: [("app".to_owned(), "postgres".to_owned())].into(),
        addresses: address.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let with = |service: PeerService| services.iter().cloned().chain([service]);
    let unchanged = [
        ("in another order", template(services.iter().rev().cloned())),
        ("headless", template(with(of_peer("more-headless", &[])))),
        (
            "of other pods",
            template(with(PeerService {
                selector: [("app".to_owned(), "cache".to_owned())].into(),
                ..of_peer("cache", &["10.96.0.20"])
            })),
        ),
        (
            "of another namespace",
            template(with(PeerService {
                namespace: "gateway".into(),
                ..of_peer("rows", &["10.96.0.21"])
            })),
        ),
        (
            "without a selector",
            template(with(PeerService {
                selector: [].into(),
                ..of_peer("outside", &["10.96.0.22"])
            })),
        ),
        (
            "one of other pods removed",
            template(services.iter().filter(|service| service.name != "queue").cloned()),
        ),
    ];
    for (what, template) in unchanged {
        assert_eq!(template, before, "{what}");
    }
    let moved = services.iter().cloned().map(|service| match &*service.name {
        "all" => of_peer("all", &["10.96.0.80"]),
        _ => service,
    });
    let changed = [
        ("another address", template(moved)),
        ("another name", template(with(of_peer("replica", &["10.96.0.8"])))),
        (
            "one removed",
            template(services.iter().filter(|service| service.name != "all").cloned()),
        ),
    ];
    for (what, template) in changed {
        assert_ne!(template, before, "{what}");
    }
}

#[test]
fn a_changed_wall_changes_the_template_of_its_server_and_its_order_does_not() {
    type Change = fn(&mut Value);
    let (settings, observed) = (fixture::settings(), fixture::observed());
    let templates = |change: fn(&mut Value)| {
        let mut tenant = fixture::tenant();
        change(&mut tenant["spec"]);
        let valid = fixture::validated(tenant, &settings, &observed);
        build(&valid, &observed, &settings)
            .deployments
            .into_iter()
            .map(|deployment| deployment.spec.template)
            .collect::<Vec<_>>()
    };
    let before = templates(|_| {});
    let same: [(&str, Change); 3] = [
        ("rules in another order", |spec| {
            spec["servers"][0]["egress"].as_array_mut().unwrap().reverse();
        }),
        ("ports in another order, one twice", |spec| {
            spec["servers"][0]["egress"][0]["ports"] = serde_json::json!([5433, 5432, 5433]);
        }),
        ("an agent's wall", |spec| {
            spec["agents"][0]["egress"] = serde_json::json!([]);
        }),
    ];
    for (what, change) in same {
        assert_eq!(templates(change), before, "{what}");
    }
    let other: [(&str, Change); 4] = [
        ("a rule less", |spec| {
            spec["servers"][0]["egress"].as_array_mut().unwrap().pop();
        }),
        ("a port less", |spec| {
            spec["servers"][0]["egress"][0]["ports"] = serde_json::json!([5432]);
        }),
        ("other pods", |spec| {
            spec["servers"][0]["clients"][0]["podLabels"] = serde_json::json!({"app": "core"});
        }),
        ("a client less", |spec| {
            spec["servers"][0]["clients"] = serde_json::json!([]);
        }),
    ];
    for (what, change) in other {
        let after = templates(change);
        assert_ne!(after[0], before[0], "{what}");
        assert_eq!(after[1], before[1], "{what}: the other server's stays");
    }
}

#[test]
fn nobody_is_bound_when_nobody_is_named() {
    let mut tenant = fixture::tenant();
    tenant["spec"]["admins"] = serde_json::json!([]);
    tenant["spec"]["developers"] = serde_json::json!([]);
    let (settings, observed) = (fixture::settings(), fixture::observed());
    let children = build(
        &fixture::validated(tenant, &settings, &observed),
        &observed,
        &settings,
    );
    assert_eq!(children.role_bindings, []);
    assert_eq!(children.cluster_roles, []);
    assert_eq!(children.cluster_role_bindings, []);
}

#[test]
fn the_tenant_itself_is_read_by_admins_and_developers_each_once_and_by_name_alone() {
    let person = |name: &str| serde_json::json!({"kind": "Group", "name": name});
    let mut tenant = fixture::tenant();
    tenant["spec"]["admins"] = serde_json::json!([person("one"), person("both")]);
    tenant["spec"]["developers"] = serde_json::json!([person("both"), person("two")]);
    let (settings, observed) = (fixture::settings(), fixture::observed());
    let children = build(
        &fixture::validated(tenant, &settings, &observed),
        &observed,
        &settings,
    );
    let [role, binding] = [
        serde_json::to_value(&children.cluster_roles).unwrap(),
        serde_json::to_value(&children.cluster_role_bindings).unwrap(),
    ];
    assert_eq!(
        role[0]["rules"],
        serde_json::json!([{
            "apiGroups": ["bulkhead.dev"], "resources": ["mcptenants"], "resourceNames": ["umbra"],
            "verbs": ["get", "list", "watch"],
        }])
    );
    let people: Vec<_> = all(&[binding[0]["subjects"].clone()], "name")
        .into_iter()
        .map(|(_, name)| name.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(people, ["one", "both", "two"]);
    assert_eq!(binding[0]["roleRef"]["name"], role[0]["metadata"]["name"]);
}

#[test]
fn only_certificates_in_pem_are_published() {
    let root = fixture::observed().agents_ca.unwrap();
    assert!(
        Pem::new(&format!("{0}{0}", root.as_str())).is_ok(),
        "two slots while a CA rotates"
    );
    for text in [
        "",
        "no pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert_eq!(Pem::new(text), Err(PemError), "{text}");
    }
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(
        Pem::new(&format!("{}{key}", root.as_str())),
        Err(PemError),
        "a key would be published"
    );
}
