//! Checks on what people may do, and on what there is.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use http::Method;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    discovery::{Discovery, Scope, verbs},
};
use serde_json::{Value, json};

use super::{Bench, Outcome, Row, passed_unless};
use crate::people::{PLAIN, may, send};

const RBAC: &str = "rbac.authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
const NAMESPACES: [&str; 2] = ["umbra", "umbra-agents"];

impl Bench<'_> {
    /// The nineteen, in the benchmark's order of identifiers.
    pub(super) async fn implemented(&self) -> Vec<Row> {
        self.good_pod().await;
        let mut rows = vec![Row {
            id: "MTB-PL1-CC-CPI-1",
            title: "Block access to cluster resources",
            who: "admin, developer",
            how: "may they read or change any resource that is in no namespace (any of its objects)",
            outcome: passed_unless(&self.cluster_resources().await),
        }];
        for (who, client) in [
            ("admin", &self.people.admin),
            ("developer", &self.people.developer),
        ] {
            rows.push(Row {
                id: "MTB-PL1-BC-CPI-2",
                title: "Block Multitenant Resources",
                who,
                how: "delete, as a dry run, every object with the operator's label that they can list",
                outcome: self.multitenant_resources(client).await,
            });
        }
        rows.extend(
            self.pods(&[
                "Block add capabilities",
                "Require run as non-root user",
                "Block privileged containers",
                "Block privilege escalation",
            ])
            .await,
        );
        rows.push(Row {
            id: "MTB-PL1-CC-TI-1",
            title: "Block modification of resource quotas",
            who: "admin, developer",
            how: "may they, and does a real change come through",
            outcome: self.quotas_are_closed().await,
        });
        rows.push(Row {
            id: "MTB-PL1-CC-TI-2",
            title: "Block access to other tenant resources",
            who: "admin, developer, the other's admin",
            how: "may they read or change anything at all in the namespaces of the other tenant",
            outcome: passed_unless(&self.other_tenants().await),
        });
        rows.extend(self.quotas().await);
        rows.extend(self.pods(&["Block use of host path volumes"]).await);
        rows.push(Row {
            id: "MTB-PL1-BC-HI-1",
            title: "Block use of NodePort services",
            who: "admin, developer",
            how: "make one: they may make no Services, and the quota holds none",
            outcome: self.node_ports().await,
        });
        rows.extend(
            self.pods(&[
                "Block use of host networking and ports",
                "Block use of host PID",
                "Block use of host IPC",
            ])
            .await,
        );
        rows.push(Row {
            id: "MTB-PL1-CC-DI-1",
            title: "Require always imagePullPolicy",
            who: "developer",
            how: "a pod of another policy in the agents' namespace",
            outcome: self.always_pulled().await,
        });
        rows.push(Row {
            id: "MTB-PL2-CC-TI-1",
            title: "Block role privilege escalation",
            who: "admin, developer",
            how: "may they escalate roles, or bind cluster-admin or any other role",
            outcome: self.escalation().await,
        });
        for (id, title, group, kinds) in [
            (
                "MTB-PL2-BC-OPS-3",
                "Create Role Bindings",
                RBAC,
                &["roles", "rolebindings"][..],
            ),
            (
                "MTB-PL2-BC-OPS-4",
                "Create Network Policies",
                NETWORKING,
                &["networkpolicies"],
            ),
        ] {
            rows.push(Row {
                id,
                title,
                who: "admin, developer",
                how: "may they, and does a real one come through",
                outcome: self.self_service(group, kinds).await,
            });
        }
        rows
    }

    /// What the benchmark only ever announced.
    pub(super) async fn announced(&self) -> Vec<Row> {
        let row = |title, who, how, outcome| Row {
            id: "–",
            title,
            who,
            how,
            outcome,
        };
        vec![
            row(
                "Block network access across tenant namespaces",
                "–",
                "–",
                Outcome::NotJudged(
                    "an API server has no network; the scenario `crossing` shows it on a real cluster",
                ),
            ),
            row(
                "Require PersistentVolumeClaim for storage",
                "developer",
                "pods that name other storage in the agents' namespace",
                self.other_storage().await,
            ),
            row(
                "Block use of existing PVs",
                "admin, developer",
                "claim one by name",
                self.existing_volumes().await,
            ),
            row(
                "Require PV reclaim policy of delete",
                "–",
                "–",
                Outcome::NotJudged("the platform's storage classes say it"),
            ),
            row(
                "Create Roles",
                "admin, developer",
                "may they, and does a real one come through",
                self.self_service(RBAC, &["roles"]).await,
            ),
        ]
    }

    fn both(&self) -> [(&'static str, &Client); 2] {
        [
            ("admin", &self.people.admin),
            ("developer", &self.people.developer),
        ]
    }

    /// Every resource, whether it is in a namespace, and what can be done with it.
    async fn resources(&self) -> Vec<(ApiResource, bool, Vec<String>)> {
        let discovery = Discovery::new(self.fixture.admin.clone()).run().await.unwrap();
        discovery
            .groups()
            .flat_map(kube::discovery::ApiGroup::recommended_resources)
            .map(|(resource, can)| (resource, can.scope == Scope::Namespaced, can.operations))
            .collect()
    }

    /// Which of these somebody may: verb, resource, namespace.
    async fn allowed(
        &self,
        who: &str,
        client: &Client,
        asked: Vec<(&str, &ApiResource, &str)>,
    ) -> Vec<String> {
        stream::iter(asked)
            .map(async |(verb, resource, namespace)| {
                let may = may(client, verb, &resource.group, &resource.plural, "", namespace).await;
                may.then(|| format!("{who} may {verb} `{}` {namespace}", resource.plural))
            })
            .buffer_unordered(16)
            .filter_map(async |found| found)
            .collect()
            .await
    }

    async fn cluster_resources(&self) -> Vec<String> {
        let resources = self.resources().await;
        // Anybody may ask about themselves, by making a review.
        let about_oneself = |resource: &ApiResource| resource.plural.starts_with("selfsubject");
        let mut asked = Vec::new();
        for (resource, namespaced, _) in &resources {
            for verb in ["get", "list", "watch"].into_iter().chain(WRITES) {
                if !(*namespaced || verb == "create" && about_oneself(resource)) {
                    asked.push((verb, resource, ""));
                }
            }
        }
        assert!(asked.len() > 100, "{}", asked.len());
        self.control("get", "", "nodes", "").await;
        let mut found = Vec::new();
        for (who, client) in self.both() {
            found.extend(self.allowed(who, client, asked.clone()).await);
        }
        found
    }

    async fn other_tenants(&self) -> Vec<String> {
        let resources = self.resources().await;
        let asked = |namespaces: [&'static str; 2]| {
            let mut asked = Vec::new();
            for (resource, _, _) in resources.iter().filter(|(_, namespaced, _)| *namespaced) {
                for verb in ["get", "list", "create", "update", "delete"] {
                    asked.extend(namespaces.map(|namespace| (verb, resource, namespace)));
                }
            }
            asked
        };
        assert!(
            may(&self.people.admin, "get", "", "pods", "", "umbra").await,
            "the control"
        );
        assert!(
            may(&self.people.stranger, "get", "", "pods", "", "corona").await,
            "the control"
        );
        let mut found = Vec::new();
        for (who, client) in self.both() {
            found.extend(
                self.allowed(who, client, asked(["corona", "corona-agents"]))
                    .await,
            );
        }
        found.extend(
            self.allowed("the other's admin", &self.people.stranger, asked(NAMESPACES))
                .await,
        );
        found
    }

    async fn multitenant_resources(&self, client: &Client) -> Outcome {
        let labelled = ListParams::default().labels("app.kubernetes.io/managed-by=bulkhead");
        let (mut listed, mut found) = (0, Vec::new());
        for (resource, namespaced, operations) in self.resources().await {
            let can = |verb: &str| operations.iter().any(|operation| operation == verb);
            if !namespaced || !can(verbs::LIST) || !can(verbs::DELETE) {
                continue;
            }
            for namespace in NAMESPACES {
                let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
                let Ok(objects) = objects.list(&labelled).await else {
                    continue;
                };
                for object in objects {
                    listed += 1;
                    let name = object.metadata.name.unwrap_or_default();
                    let url = format!("{}/{name}", resource_path(&resource, namespace));
                    let as_operator = send(&self.unfenced, Method::DELETE, &url, &json!({})).await;
                    assert_eq!(as_operator.0, 200, "the control: {as_operator:?}");
                    if send(client, Method::DELETE, &url, &json!({})).await.0 == 200 {
                        found.push(format!("{} `{namespace}/{name}`", resource.kind));
                    }
                }
            }
        }
        assert!(listed > 0, "nothing to try it with");
        match passed_unless(&found) {
            Outcome::NotMet(found) => {
                Outcome::NotMet(format!("{found} can be deleted; the operator restores it"))
            }
            passed => passed,
        }
    }

    async fn quotas_are_closed(&self) -> Outcome {
        let mut found = self.writes("", "resourcequotas").await;
        for namespace in NAMESPACES {
            let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/bulkhead?dryRun=All");
            let more = json!({"spec": {"hard": {"pods": "1000"}}});
            let as_operator = send(&self.unfenced, Method::PATCH, &path, &more).await;
            assert_eq!(as_operator.0, 200, "the control: {as_operator:?}");
            for (who, client) in self.both() {
                for method in [Method::PATCH, Method::DELETE] {
                    if send(client, method.clone(), &path, &more).await.0 != 403 {
                        found.push(format!("{method} by {who} in {namespace}"));
                    }
                }
            }
        }
        passed_unless(&found)
    }

    /// Who may write this in the tenant's namespaces.
    async fn writes(&self, group: &str, resource: &str) -> Vec<String> {
        self.control("create", group, resource, PLAIN).await;
        let mut found = Vec::new();
        for (who, client) in self.both() {
            for namespace in NAMESPACES {
                for verb in WRITES {
                    if may(client, verb, group, resource, "", namespace).await {
                        found.push(format!("{who} may {verb} {resource} in {namespace}"));
                    }
                }
            }
        }
        found
    }

    /// What the quotas of both namespaces limit, as the people who may see them see them.
    async fn quotas(&self) -> Vec<Row> {
        let limited = async |client: &Client, namespace: &str| -> BTreeSet<String> {
            let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
            let quotas = quotas.list(&ListParams::default()).await.unwrap();
            let hard = quotas.items.into_iter().filter_map(|quota| quota.spec?.hard);
            hard.flat_map(std::collections::BTreeMap::into_keys).collect()
        };
        let missing = async |wanted: &[&str], has: fn(&str, &str) -> bool| {
            let plain = limited(&self.fixture.admin, PLAIN).await;
            assert!(plain.is_empty(), "the control: a namespace without quotas fails");
            let mut found = Vec::new();
            for namespace in NAMESPACES {
                let limited = limited(&self.people.admin, namespace).await;
                let missing = wanted
                    .iter()
                    .filter(|wanted| !limited.iter().any(|limit| has(limit, wanted)));
                let missing: Vec<_> = missing.map(|wanted| format!("`{wanted}`")).collect();
                if !missing.is_empty() {
                    found.push(format!("{namespace}: no limit of {}", missing.join(", ")));
                }
            }
            passed_unless(&found)
        };
        let amounts = ["cpu", "memory", "ephemeral-storage"];
        let objects = [
            "pods",
            "services",
            "replicationcontrollers",
            "resourcequotas",
            "secrets",
            "configmaps",
            "persistentvolumeclaims",
            "services.nodeports",
            "services.loadbalancers",
        ];
        let row = |id, title, outcome| Row {
            id,
            title,
            who: "admin",
            how: "what the quotas of both namespaces limit",
            outcome,
        };
        vec![
            row(
                "MTB-PL1-CC-FNS-1",
                "Configure namespace resource quotas",
                missing(&amounts, |limit, wanted| {
                    limit.strip_prefix("limits.").unwrap_or(limit) == wanted
                        || limit.strip_prefix("requests.") == Some(wanted)
                })
                .await,
            ),
            row(
                "MTB-PL1-CC-FNS-2",
                "Configure namespace object limits",
                missing(&objects, |limit, wanted| {
                    limit.strip_prefix("count/").unwrap_or(limit) == wanted
                })
                .await,
            ),
        ]
    }

    async fn node_ports(&self) -> Outcome {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "tried"},
            "spec": {"type": "NodePort", "selector": {"test": "multi"}, "ports": [{"port": 80}]},
        });
        let found = self.created("", "services", &service).await;
        // Not even who may make Services gets one that opens a node.
        for namespace in NAMESPACES {
            let path = format!("/api/v1/namespaces/{namespace}/services?dryRun=All");
            let (code, said) = send(&self.fixture.admin, Method::POST, &path, &service).await;
            assert_eq!(code, 403, "{said}");
        }
        passed_unless(&found)
    }

    /// Who gets this object made, of admin and developer in both namespaces; the administrator does elsewhere.
    async fn created(&self, group: &str, plural: &str, object: &Value) -> Vec<String> {
        let root = if group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{group}/v1")
        };
        let path = |namespace: &str| format!("{root}/namespaces/{namespace}/{plural}?dryRun=All");
        let (code, said) = send(&self.fixture.admin, Method::POST, &path(PLAIN), object).await;
        assert_eq!(code, 201, "the control: {said}");
        let mut found = Vec::new();
        for (who, client) in self.both() {
            for namespace in NAMESPACES {
                match send(client, Method::POST, &path(namespace), object).await {
                    (403, _) => {}
                    (code, said) => found.push(format!("{who} makes {plural} in {namespace}: {code} {said}")),
                }
            }
        }
        found
    }

    async fn escalation(&self) -> Outcome {
        let mut found = Vec::new();
        for (verb, resource, name) in [
            ("escalate", "roles", ""),
            ("escalate", "clusterroles", ""),
            ("bind", "roles", ""),
            ("bind", "clusterroles", ""),
            ("bind", "clusterroles", "cluster-admin"),
        ] {
            self.control(verb, RBAC, resource, PLAIN).await;
            for (who, client) in self.both() {
                for namespace in NAMESPACES.into_iter().chain([""]) {
                    if may(client, verb, RBAC, resource, name, namespace).await {
                        found.push(format!("{who} may {verb} {resource} {name} in {namespace}"));
                    }
                }
            }
        }
        passed_unless(&found)
    }

    /// What the benchmark wants tenants to make themselves. Here whoever could make one would open what is closed.
    async fn self_service(&self, group: &str, kinds: &[&str]) -> Outcome {
        let mut granted = Vec::new();
        for plural in kinds {
            granted.extend(self.writes(group, plural).await);
            let object = match *plural {
                "roles" => json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "tried"},
                    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
                }),
                "rolebindings" => json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "tried"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                }),
                _ => json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "tried"},
                    "spec": {"podSelector": {}},
                }),
            };
            granted.extend(self.created(group, plural, &object).await);
        }
        assert!(granted.is_empty(), "refused by design, and granted: {granted:?}");
        Outcome::RefusedByDesign
    }

    async fn existing_volumes(&self) -> Outcome {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "tried"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "volumeName": "somebodys", "storageClassName": "",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        passed_unless(&self.created("", "persistentvolumeclaims", &claim).await)
    }
}

fn resource_path(resource: &ApiResource, namespace: &str) -> String {
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    format!(
        "/{root}/{}/namespaces/{namespace}/{}",
        resource.api_version, resource.plural
    )
}
