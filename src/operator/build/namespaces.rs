//! A tenant's two namespaces, the only children that it owns: were the others owned too, garbage
//! collection would delete network policies while pods still run.

use bulkhead_api::McpTenant;
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;

use super::meta::tenant_labels;
use crate::validate::ValidatedTenant;

pub(super) fn namespaces(tenant: &ValidatedTenant) -> Vec<Namespace> {
    [tenant.name.servers_namespace(), tenant.name.agents_namespace()]
        .map(|name| namespace(tenant, name))
        .into()
}

fn namespace(tenant: &ValidatedTenant, name: String) -> Namespace {
    let mut labels = tenant_labels(tenant);
    for mode in ["enforce", "audit", "warn"] {
        labels.insert(
            format!("pod-security.kubernetes.io/{mode}"),
            "restricted".to_owned(),
        );
        labels.insert(
            format!("pod-security.kubernetes.io/{mode}-version"),
            "latest".to_owned(),
        );
    }
    Namespace {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels),
            owner_references: tenant.uid.as_ref().map(|uid| vec![owner(tenant, uid)]),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

fn owner(tenant: &ValidatedTenant, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: McpTenant::api_version(&()).into_owned(),
        kind: McpTenant::kind(&()).into_owned(),
        name: tenant.name.to_string(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
