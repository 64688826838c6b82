//! `ServiceAccounts`, which are identities and carry no token, and the rights of a tenant's people.

use bulkhead_api::{
    McpTenant,
    tenant::{Subject as SubjectSpec, SubjectKind},
};
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleBinding, RoleRef, Subject},
};
use kube::Resource;

use super::meta::{Labels, agent_labels, meta, owned_meta, server_labels, tenant_labels};
use crate::{
    names::{ADMIN_ROLE, ADMINS, DEVELOPER_ROLE, DEVELOPERS},
    validate::ValidatedTenant,
};

/// API group of roles and their subjects.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn service_accounts(tenant: &ValidatedTenant) -> Vec<ServiceAccount> {
    let account = |namespace: &str, name: &str, labels: Labels| ServiceAccount {
        metadata: meta(namespace.to_owned(), name, labels),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let (servers, agents) = (tenant.name.servers_namespace(), tenant.name.agents_namespace());
    let mut accounts = vec![account(&servers, "default", tenant_labels(tenant))];
    for server in &tenant.servers {
        accounts.push(account(
            &servers,
            server.name.as_str(),
            server_labels(tenant, &server.name),
        ));
    }
    accounts.push(account(&agents, "default", tenant_labels(tenant)));
    for agent in &tenant.agents {
        accounts.push(account(
            &agents,
            agent.name.as_str(),
            agent_labels(tenant, &agent.name),
        ));
    }
    accounts
}

/// Admins see both namespaces, developers run agents in theirs. A binding of nobody isn't made.
pub(super) fn role_bindings(tenant: &ValidatedTenant) -> Vec<RoleBinding> {
    let (servers, agents) = (tenant.name.servers_namespace(), tenant.name.agents_namespace());
    [
        (&servers, ADMINS, ADMIN_ROLE, &tenant.admins),
        (&agents, ADMINS, ADMIN_ROLE, &tenant.admins),
        (&agents, DEVELOPERS, DEVELOPER_ROLE, &tenant.developers),
    ]
    .into_iter()
    .filter(|(.., people)| !people.is_empty())
    .map(|(namespace, name, role, people)| RoleBinding {
        metadata: meta(namespace.clone(), name, tenant_labels(tenant)),
        role_ref: cluster_role(role.to_owned()),
        subjects: Some(people.iter().map(subject).collect()),
    })
    .collect()
}

/// The one role that isn't the chart's: `resourceNames` can't be left to a binding, and a tenant is in no namespace whose
/// bindings could show it. A list or a watch is granted for this one name, so it must be asked for by a field selector.
pub(super) fn cluster_roles(tenant: &ValidatedTenant) -> Vec<ClusterRole> {
    if people(tenant).is_empty() {
        return Vec::new();
    }
    vec![ClusterRole {
        metadata: owned_meta(tenant, tenant.name.view_role()),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![McpTenant::group(&()).into_owned()]),
            resources: Some(vec![McpTenant::plural(&()).into_owned()]),
            resource_names: Some(vec![tenant.name.to_string()]),
            verbs: ["get", "list", "watch"].map(str::to_owned).into(),
            ..PolicyRule::default()
        }]),
        ..ClusterRole::default()
    }]
}

pub(super) fn cluster_role_bindings(tenant: &ValidatedTenant) -> Vec<ClusterRoleBinding> {
    let people = people(tenant);
    if people.is_empty() {
        return Vec::new();
    }
    vec![ClusterRoleBinding {
        metadata: owned_meta(tenant, tenant.name.view_role()),
        role_ref: cluster_role(tenant.name.view_role()),
        subjects: Some(people),
    }]
}

/// Admins and developers, each once.
fn people(tenant: &ValidatedTenant) -> Vec<Subject> {
    let mut people: Vec<Subject> = Vec::new();
    for person in tenant.admins.iter().chain(&tenant.developers).map(subject) {
        if !people.contains(&person) {
            people.push(person);
        }
    }
    people
}

fn cluster_role(name: String) -> RoleRef {
    RoleRef {
        api_group: Some(RBAC_GROUP.to_owned()),
        kind: "ClusterRole".to_owned(),
        name,
    }
}

fn subject(subject: &SubjectSpec) -> Subject {
    let kind = match subject.kind {
        SubjectKind::User => "User",
        SubjectKind::Group => "Group",
    };
    Subject {
        api_group: Some(RBAC_GROUP.to_owned()),
        kind: kind.to_owned(),
        name: subject.name.clone(),
        namespace: None,
    }
}
