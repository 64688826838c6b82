//! What a tenant's people may do, as the API server tells it and as it does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use bulkhead_api::McpTenant;
use http::Method;
use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    fixture::{Fixture, NAMESPACE, agent_pod, until},
    people::{PLAIN, People, TENANTS, ask, send, tenant_of_its_own},
    table,
};

const VIEW: &str = "bulkhead:tenant:view:umbra";

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_people_may_do_what_the_table_says_and_of_other_tenants_learn_nothing() {
    let fixture = Fixture::start().await;
    let (people, operator) = People::around_two_tenants(&fixture).await;
    rights_are_those_of_the_table(&people).await;
    rights_hold_when_they_are_used(&people).await;
    operator.stop().await;
}

/// `kubectl auth can-i --list`, for each of them, everywhere.
async fn rights_are_those_of_the_table(people: &People) {
    const PLACES: [&str; 6] = [
        "umbra",
        "umbra-agents",
        "corona",
        "corona-agents",
        NAMESPACE,
        PLAIN,
    ];
    let mut text = "\
# What the API server answers to `kubectl auth can-i --list`, of people around the tenants umbra and corona.
# `everywhere`: in each namespace that was asked about, and so also of what is in none. Of the named people only what they may
# besides what anybody may.
#
# who | where | resource [only this name] | verbs
"
    .to_owned();
    let anybody = rights(&people.nobody, &PLACES).await;
    let mut rows = vec![("anybody", anybody.clone())];
    for (who, client) in [
        ("admin of umbra", &people.admin),
        ("developer of umbra", &people.developer),
        ("admin of corona", &people.stranger),
    ] {
        let all = rights(client, &PLACES).await;
        assert!(all.is_superset(&anybody), "{who}");
        rows.push((who, all.difference(&anybody).cloned().collect()));
    }
    for (who, rights) in rows {
        for (place, resource, verbs) in rights {
            // Writing to a text never fails.
            let _ = writeln!(text, "{who} | {place} | {resource} | {verbs}");
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api_server/fence_people/rights.txt");
    table::compare(&path, &text);
}

type Right = (String, String, String);

async fn rights(client: &Client, places: &[&str]) -> BTreeSet<Right> {
    let mut found: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
    for place in places {
        for right in rights_in(client, place).await {
            found.entry(right).or_default().insert(place);
        }
    }
    found
        .into_iter()
        .flat_map(|((resource, verbs), at)| {
            let at: Vec<_> = if at.len() == places.len() {
                vec!["everywhere"]
            } else {
                at.into_iter().collect()
            };
            at.into_iter()
                .map(move |place| (place.to_owned(), resource.clone(), verbs.clone()))
        })
        .collect()
}

/// Resources, and the verbs that may be used on them.
async fn rights_in(client: &Client, namespace: &str) -> BTreeSet<(String, String)> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    let status = answer.status.unwrap();
    assert!(!status.incomplete, "{:?}", status.evaluation_error);
    let mut rights: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in status.resource_rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let full = if group.is_empty() {
                    resource.clone()
                } else {
                    format!("{resource}.{group}")
                };
                let names = match rule.resource_names.as_deref() {
                    None | Some([]) => String::new(),
                    Some(names) => format!(" [{}]", names.join(" ")),
                };
                rights
                    .entry(full + &names)
                    .or_default()
                    .extend(rule.verbs.iter().cloned());
            }
        }
    }
    for rule in status.non_resource_rules {
        for url in rule.non_resource_urls.into_iter().flatten() {
            rights.entry(url).or_default().extend(rule.verbs.iter().cloned());
        }
    }
    let verbs = |verbs: BTreeSet<String>| verbs.into_iter().collect::<Vec<_>>().join(" ");
    rights
        .into_iter()
        .map(|(resource, with)| (resource, verbs(with)))
        .collect()
}

/// A request, and what it answers to an admin and a developer of `umbra`, to an admin of `corona` and to anybody.
type Row = (&'static str, &'static str, [u16; 4]);

/// Of what is in no namespace. `T` is the path of tenants.
const OF_THE_CLUSTER: [Row; 20] = [
    ("GET", "T/umbra", [200, 200, 403, 403]),
    ("GET", "T/corona", [403, 403, 200, 403]),
    ("GET", "T/nowhere", [403, 403, 403, 403]),
    ("GET", "T", [403, 403, 403, 403]),
    (
        "GET",
        "T?fieldSelector=metadata.name%3Dumbra",
        [200, 200, 403, 403],
    ),
    (
        "GET",
        "T?fieldSelector=metadata.name%3Dcorona",
        [403, 403, 200, 403],
    ),
    ("GET", "T?watch=1&timeoutSeconds=1", [403, 403, 403, 403]),
    (
        "GET",
        "T?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dumbra",
        [200, 200, 403, 403],
    ),
    (
        "GET",
        "T?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dcorona",
        [403, 403, 200, 403],
    ),
    ("POST", "T?dryRun=All", [403, 403, 403, 403]),
    ("PATCH", "T/umbra?dryRun=All", [403, 403, 403, 403]),
    ("PATCH", "T/umbra/status?dryRun=All", [403, 403, 403, 403]),
    ("DELETE", "T/umbra", [403, 403, 403, 403]),
    ("GET", "/api/v1/namespaces", [403, 403, 403, 403]),
    ("GET", "/api/v1/namespaces/corona", [403, 403, 403, 403]),
    ("GET", "/api/v1/pods", [403, 403, 403, 403]),
    ("GET", "/api/v1/events", [403, 403, 403, 403]),
    (
        "GET",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        [403, 403, 403, 403],
    ),
    (
        "GET",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        [403, 403, 403, 403],
    ),
    (
        "GET",
        "/api/v1/namespaces/bulkhead-system/configmaps",
        [403, 403, 403, 403],
    ),
];

/// In a namespace: the first codes are of `umbra`, the others of `umbra-agents`, each to admin and developer of the tenant.
/// To the admin of `corona` and to anybody every one is 403, and so it is to both of them in `corona` and `corona-agents`.
type Local = (&'static str, &'static str, [u16; 2], [u16; 2]);

const NO: [u16; 2] = [403, 403];

const IN_A_NAMESPACE: [Local; 34] = [
    ("GET", "pods", [200, 403], [200, 200]),
    ("GET", "pods/agent", [200, 403], [200, 200]),
    ("GET", "pods/agent/log", [200, 403], [200, 200]),
    ("GET", "events", [200, 403], [200, 200]),
    ("GET", "events.k8s.io/v1:events", [200, 403], [200, 200]),
    ("GET", "apps/v1:deployments", [200, 403], [200, 200]),
    ("GET", "services", [200, 403], [200, 403]),
    ("GET", "resourcequotas", [200, 403], [200, 200]),
    (
        "GET",
        "networking.k8s.io/v1:networkpolicies",
        [200, 403],
        [200, 403],
    ),
    ("GET", "cert-manager.io/v1:certificates", [200, 403], [200, 200]),
    ("GET", "configmaps", NO, [403, 200]),
    ("GET", "secrets", NO, NO),
    ("GET", "secrets/notes-tls", NO, NO),
    ("GET", "rbac.authorization.k8s.io/v1:rolebindings", NO, NO),
    ("GET", "pods/agent/proxy/", NO, NO),
    ("GET", "pods/agent/exec?command=id&stdout=1", NO, NO),
    ("POST", "pods/agent/exec?command=id&stdout=1", NO, NO),
    ("POST", "pods/agent/attach?stdout=1", NO, NO),
    ("POST", "pods/agent/portforward?ports=3000", NO, [403, 400]),
    ("PATCH", "pods/agent/ephemeralcontainers?dryRun=All", NO, NO),
    ("POST", "pods/agent/eviction", NO, NO),
    ("GET", "services/notes/proxy/", NO, NO),
    ("POST", "pods?dryRun=All", NO, [403, 201]),
    ("PATCH", "pods/agent?dryRun=All", NO, [403, 200]),
    ("DELETE", "pods/agent", NO, [403, 200]),
    ("PATCH", "apps/v1:deployments/notes?dryRun=All", NO, [403, 404]),
    (
        "PATCH",
        "apps/v1:deployments/notes/scale?dryRun=All",
        NO,
        [403, 404],
    ),
    ("PATCH", "resourcequotas/bulkhead?dryRun=All", NO, NO),
    ("POST", "networking.k8s.io/v1:networkpolicies?dryRun=All", NO, NO),
    (
        "DELETE",
        "networking.k8s.io/v1:networkpolicies/default-deny",
        NO,
        NO,
    ),
    (
        "POST",
        "rbac.authorization.k8s.io/v1:rolebindings?dryRun=All",
        NO,
        NO,
    ),
    ("POST", "cert-manager.io/v1:certificates?dryRun=All", NO, NO),
    ("POST", "serviceaccounts/default/token", NO, NO),
    ("POST", "services?dryRun=All", NO, NO),
];

async fn rights_hold_when_they_are_used(people: &People) {
    let People {
        admin,
        developer,
        stranger,
        nobody,
    } = people;
    let everybody = [
        ("ada", admin),
        ("dev", developer),
        ("eve", stranger),
        ("joe", nobody),
    ];
    let mut wrong = Vec::new();
    for (method, path, codes) in OF_THE_CLUSTER {
        let path = match path.strip_prefix('T') {
            Some(rest) => format!("{TENANTS}{rest}"),
            None => path.to_owned(),
        };
        for ((who, client), code) in everybody.into_iter().zip(codes) {
            try_it(who, client, method, &path, code, &mut wrong).await;
        }
    }
    for (method, resource, servers, agents) in IN_A_NAMESPACE {
        for (namespace, codes) in [
            ("umbra", [servers[0], servers[1], 403, 403]),
            ("umbra-agents", [agents[0], agents[1], 403, 403]),
            ("corona", [403, 403, servers[0].min(403), 403]),
            ("corona-agents", [403, 403, agents[0].min(403), 403]),
        ] {
            let path = match resource.split_once(':') {
                Some((group, resource)) => format!("/apis/{group}/namespaces/{namespace}/{resource}"),
                None => format!("/api/v1/namespaces/{namespace}/{resource}"),
            };
            for ((who, client), code) in everybody.into_iter().zip(codes) {
                // There are no pods there to look at.
                let same_tenant = namespace.starts_with("umbra") || who != "eve" || !path.contains("/agent");
                if same_tenant {
                    try_it(who, client, method, &path, code, &mut wrong).await;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Of a tenant that there is, and of one that there isn't, one hears the same.
    for suffix in ["", "?fieldSelector=metadata.name%3Dcorona"] {
        let of = async |name: &str| {
            let path = if suffix.is_empty() {
                format!("{TENANTS}/{name}")
            } else {
                format!("{TENANTS}{}", suffix.replace("corona", name))
            };
            ask(admin, Method::GET, &path).await.1.replace(name, "X")
        };
        assert_eq!(of("corona").await, of("nowhere").await);
    }
}

async fn try_it(who: &str, client: &Client, method: &str, path: &str, code: u16, wrong: &mut Vec<String>) {
    let body = if path.contains("/pods?") {
        agent_pod_named("another")
    } else {
        json!({})
    };
    let (found, said) = send(client, method.parse().unwrap(), path, &body).await;
    if found != code {
        wrong.push(format!("{who}: {method} {path}: {found} and not {code}: {said}"));
    }
    // What is granted speaks of one's own tenant, and a refusal of none but the one that was asked for.
    let own = match (who, found) {
        ("eve", 200 | 201) => "corona",
        ("ada" | "dev", 200 | 201) => "umbra",
        _ => "",
    };
    for tenant in ["umbra", "corona"] {
        if said.contains(tenant) && !path.contains(tenant) && tenant != own {
            wrong.push(format!("{who}: {method} {path} tells of {tenant}: {said}"));
        }
    }
}

fn agent_pod_named(name: &str) -> serde_json::Value {
    let mut pod = agent_pod();
    pod["metadata"]["name"] = name.into();
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_role_of_the_tenants_name_is_left_alone_and_never_bound() {
    let fixture = Fixture::start().await;
    let role = |kind: &str| fixture.api("rbac.authorization.k8s.io", kind, None);
    let (roles, bindings) = (role("ClusterRole"), role("ClusterRoleBinding"));
    // With our labels on it, which prove nothing, and more in it than anybody should be bound to.
    let theirs = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": VIEW, "labels": {
            "app.kubernetes.io/managed-by": "bulkhead", "bulkhead.dev/tenant": "umbra",
        }},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}],
    });
    let theirs: DynamicObject = serde_json::from_value(theirs).unwrap();
    let theirs = roles.create(&PostParams::default(), &theirs).await.unwrap();
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant_of_its_own("umbra")).await;
    fixture
        .until_condition("umbra", "Ready", "False", "ClusterRoleTaken")
        .await;
    until("everything else is built", async || {
        let deployments = fixture.api("apps", "Deployment", Some("umbra"));
        match deployments.get_opt("notes").await.unwrap() {
            Some(_) => Ok(()),
            None => Err("no Deployment"),
        }
        .map_err(str::to_owned)
    })
    .await;
    fixture.until_quiet().await;
    assert_eq!(roles.get(VIEW).await.unwrap(), theirs);
    assert!(bindings.get_opt(VIEW).await.unwrap().is_none());

    // It goes, and ours comes.
    roles.delete(VIEW, &DeleteParams::default()).await.unwrap();
    let ada = fixture.person("ada", &["umbra-seers"]).await;
    let reads = async || match ask(&ada, Method::GET, &format!("{TENANTS}/umbra")).await {
        (200, _) => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    until("an admin reads the tenant", reads).await;

    // A role that is ours no more might grant anything soon: nobody stays bound to it.
    let orphaned = json!({"metadata": {"ownerReferences": null}});
    roles
        .patch(VIEW, &PatchParams::default(), &Patch::Merge(&orphaned))
        .await
        .unwrap();
    until("the binding is gone", async || {
        match bindings.get_opt(VIEW).await.unwrap() {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        }
    })
    .await;
    fixture
        .until_condition("umbra", "Ready", "False", "ClusterRoleTaken")
        .await;
    roles.delete(VIEW, &DeleteParams::default()).await.unwrap();
    until("an admin reads the tenant again", reads).await;

    // Somebody forces the tenant off, without any teardown.
    operator.stop().await;
    let tenants: Api<McpTenant> = Api::all(fixture.admin.clone());
    tenants.delete("umbra", &DeleteParams::default()).await.unwrap();
    let forced = json!({"metadata": {"finalizers": null}});
    tenants
        .patch("umbra", &PatchParams::default(), &Patch::Merge(&forced))
        .await
        .unwrap();
    until("garbage collection takes both", async || {
        let labelled = ListParams::default().labels("bulkhead.dev/tenant=umbra");
        let left = [&roles, &bindings].map(|api| api.list(&labelled));
        let left = futures::future::try_join_all(left).await.unwrap();
        let left: usize = left.iter().map(|list| list.items.len()).sum();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
}
