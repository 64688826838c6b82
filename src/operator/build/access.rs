//! `ServiceAccounts`, which are identities and carry no token, and the bindings of a tenant's people.

use bulkhead_api::tenant::{Subject as SubjectSpec, SubjectKind};
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{RoleBinding, RoleRef, Subject},
};

use super::meta::{Labels, agent_labels, meta, server_labels, tenant_labels};
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
        role_ref: RoleRef {
            api_group: Some(RBAC_GROUP.to_owned()),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(people.iter().map(subject).collect()),
    })
    .collect()
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
