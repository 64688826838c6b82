//! Names, namespaces and labels of children.

use std::collections::BTreeMap;

use bulkhead_api::McpTenant;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;

use crate::{
    names::{AgentName, LABEL_AGENT, LABEL_MANAGED_BY, LABEL_SERVER, LABEL_TENANT, MANAGED_BY, ServerName},
    validate::ValidatedTenant,
};

/// Labels by key.
pub(super) type Labels = BTreeMap<String, String>;

/// Labels of everything of the tenant.
pub(super) fn tenant_labels(tenant: &ValidatedTenant) -> Labels {
    labels([
        (LABEL_MANAGED_BY, MANAGED_BY),
        (LABEL_TENANT, tenant.name.as_str()),
    ])
}

/// Labels of what belongs to a server.
pub(super) fn server_labels(tenant: &ValidatedTenant, server: &ServerName) -> Labels {
    let mut labels = tenant_labels(tenant);
    labels.insert(LABEL_SERVER.to_owned(), server.to_string());
    labels
}

/// Labels of what belongs to an agent.
pub(super) fn agent_labels(tenant: &ValidatedTenant, agent: &AgentName) -> Labels {
    let mut labels = tenant_labels(tenant);
    labels.insert(LABEL_AGENT.to_owned(), agent.to_string());
    labels
}

/// What selects a server's pods. A Deployment's selector can't change, so this never does.
pub(super) fn server_selector(tenant: &ValidatedTenant, server: &ServerName) -> LabelSelector {
    selector([
        (LABEL_TENANT, tenant.name.as_str()),
        (LABEL_SERVER, server.as_str()),
    ])
}

/// A selector of exactly these labels.
pub(super) fn selector<const N: usize>(pairs: [(&str, &str); N]) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels(pairs)),
        ..LabelSelector::default()
    }
}

/// Labels from pairs.
pub(super) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Metadata of a namespaced child.
pub(super) fn meta(namespace: String, name: impl Into<String>, labels: Labels) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

/// Metadata of a child that is in no namespace: the tenant owns it. Rendered offline there is no UID, and so no owner.
pub(super) fn owned_meta(tenant: &ValidatedTenant, name: String) -> ObjectMeta {
    let owner = |uid: &String| OwnerReference {
        api_version: McpTenant::api_version(&()).into_owned(),
        kind: McpTenant::kind(&()).into_owned(),
        name: tenant.name.to_string(),
        uid: uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    ObjectMeta {
        name: Some(name),
        labels: Some(tenant_labels(tenant)),
        owner_references: tenant.uid.as_ref().map(|uid| vec![owner(uid)]),
        ..ObjectMeta::default()
    }
}
