//! What the operator uses is what it is granted.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::Api;

use crate::{
    audit,
    fixture::{Fixture, NAMESPACE},
};

type Right = (String, String, String);

/// Rights whose use leaves no request of its own in the audit log, or that only a rare event needs.
const UNSEEN: [(&str, &str, &str, &str); 6] = [
    (
        "authentication.k8s.io",
        "tokenreviews",
        "create",
        "when a sidecar reports: see the tests of that",
    ),
    (
        "apps",
        "replicasets",
        "list",
        "when a tenant's quota can't be closed: see the tests of its end",
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterroles",
        "bind",
        "checked while a RoleBinding is written",
    ),
    (
        "bulkhead.dev",
        "mcptenants",
        "get",
        "granted to each tenant's people for their own, which only its holder may",
    ),
    (
        "bulkhead.dev",
        "mcptenants/finalizers",
        "update",
        "checked by OwnerReferencesPermissionEnforcement, where it is on",
    ),
    (
        "events.k8s.io",
        "events",
        "patch",
        "the same event again becomes a series",
    ),
];

/// Compares what was used so far with what the chart's roles grant, both ways.
pub async fn used_is_granted(fixture: &Fixture) {
    let requests = fixture.requests();
    let refused: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
    assert!(refused.is_empty(), "refused: {refused:?}");
    let mut used: BTreeSet<Right> = audit::used(&requests);
    // An apply that makes an object needs both.
    for made in requests
        .iter()
        .filter(|request| request.verb == "patch" && request.code == 201)
    {
        used.insert((made.group.clone(), made.resource.clone(), "create".to_owned()));
    }
    let role: ClusterRole = Api::all(fixture.admin.clone())
        .get("bulkhead-operator")
        .await
        .unwrap();
    let own: Role = Api::namespaced(fixture.admin.clone(), NAMESPACE)
        .get("bulkhead-operator")
        .await
        .unwrap();
    let api_server: Role = Api::namespaced(fixture.admin.clone(), "default")
        .get("bulkhead-operator-api-server")
        .await
        .unwrap();
    let granted: BTreeSet<Right> = role
        .rules
        .iter()
        .flatten()
        .chain(own.rules.iter().flatten())
        .chain(api_server.rules.iter().flatten())
        .flat_map(rights)
        .collect();
    assert!(
        !granted
            .iter()
            .any(|(group, resource, verb)| [group, resource, verb].contains(&&"*".to_owned()))
    );
    let unseen: BTreeSet<Right> = UNSEEN
        .map(|(group, resource, verb, _)| (group.to_owned(), resource.to_owned(), verb.to_owned()))
        .into();
    let superfluous: Vec<_> = granted
        .difference(&used)
        .filter(|right| !unseen.contains(*right))
        .collect();
    assert!(superfluous.is_empty(), "granted and never used: {superfluous:#?}");
    assert!(
        unseen.is_subset(&granted),
        "no longer granted: {:?}",
        unseen.difference(&granted)
    );
}

fn rights(rule: &PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                rights.push((group.clone(), resource.clone(), verb.clone()));
            }
        }
    }
    for path in rule.non_resource_urls.iter().flatten() {
        for verb in &rule.verbs {
            rights.push((String::new(), path.clone(), verb.clone()));
        }
    }
    rights
}

/// Whether the operator has used this right: group, resource, verb.
pub fn is_used(fixture: &Fixture, (group, resource, verb): (&str, &str, &str)) {
    let used = audit::used(&fixture.requests());
    let right = (group.to_owned(), resource.to_owned(), verb.to_owned());
    assert!(used.contains(&right), "{right:?} was never used");
}
