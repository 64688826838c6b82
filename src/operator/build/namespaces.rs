//! A tenant's two namespaces. The tenant owns them and nothing in them: were the others owned too, garbage
//! collection would delete network policies while pods still run.

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::meta::{owned_meta, tenant_labels};
use crate::{names::ANNOTATION_RUNTIME_CLASS, validate::ValidatedTenant};

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
            labels: Some(labels),
            // For the pods that developers make: the operator writes it into those that it makes itself.
            annotations: tenant
                .runtime_class
                .as_ref()
                .map(|class| [(ANNOTATION_RUNTIME_CLASS.to_owned(), class.clone())].into()),
            ..owned_meta(tenant, name)
        },
        ..Namespace::default()
    }
}
