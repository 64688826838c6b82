//! One object as the API server holds it: what is needed to judge it, and no more.

use kube::api::DynamicObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::report::Report;
use crate::{apply::FIELD_MANAGER, kinds::Kind};

/// An object as the API server holds it.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; of what is in none, its [place](Kind::place).
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub resource_version: u64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// UID of its controlling owner.
    pub controller: Option<String>,
    /// Whether the operator ever applied it.
    pub applied: bool,
    /// Field managers of the object proper, without those of its subresources and without the operator.
    pub strangers: Vec<String>,
    /// What its status tells.
    pub report: Report,
    /// Digest of everything that the operator may have to repair.
    pub digest: [u8; 32],
    /// The content, until it was judged.
    pub body: Body,
}

/// The content of an object.
#[derive(Clone, Debug)]
pub enum Body {
    /// Not compared yet.
    Unjudged {
        /// The object as JSON, without `status` and without the metadata that only the API server writes.
        object: Box<str>,
        /// The fields that the operator's name owns: a list of `FieldsV1`. The name proves nothing, anybody can use it.
        owned: Box<str>,
    },
    /// Never applied by the operator: nothing to compare with.
    Foreign,
    /// Compared with the desired object of this hash, and good.
    Judged {
        /// Hash of the desired object.
        hash: String,
    },
}

impl Live {
    /// Reads an object. `None`: it lacks what every stored object has, or concerns no tenant.
    pub fn read(kind: Kind, object: DynamicObject) -> Option<Self> {
        let report = Report::read(kind, &object);
        let DynamicObject {
            types: _,
            metadata,
            data: Value::Object(mut data),
        } = object
        else {
            return None;
        };
        data.remove("status");
        let name = metadata.name?;
        let namespace = kind.place(metadata.namespace.as_deref(), &name)?.to_owned();
        let entries = metadata.managed_fields.unwrap_or_default();
        let proper = || {
            entries
                .iter()
                .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            proper().partition(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
        let strangers: Vec<_> = others
            .into_iter()
            .filter_map(|entry| entry.manager.clone())
            .collect();
        let applied = ours
            .iter()
            .any(|entry| entry.operation.as_deref() == Some("Apply"));
        let owned: Value = ours
            .iter()
            .filter_map(|entry| Some(entry.fields_v1.as_ref()?.0.clone()))
            .collect();
        let owned = owned.to_string();
        let owners = metadata.owner_references.unwrap_or_default();
        let controller = owners
            .iter()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.clone());
        data.insert(
            "metadata".into(),
            json!({
                "name": name,
                "namespace": (!kind.is_cluster_scoped()).then_some(&namespace),
                "labels": metadata.labels,
                "annotations": metadata.annotations,
                "ownerReferences": owners,
                "finalizers": metadata.finalizers,
            }),
        );
        let object = Value::Object(data).to_string();
        let mut digest = Sha256::new();
        digest.update(&object);
        digest.update([0]);
        digest.update(&owned);
        for stranger in &strangers {
            digest.update([0]);
            digest.update(stranger);
        }
        Some(Self {
            kind,
            namespace,
            name,
            uid: metadata.uid?,
            // Not a number: older than all, so that whatever comes next replaces it.
            resource_version: metadata
                .resource_version
                .and_then(|version| version.parse().ok())
                .unwrap_or(0),
            deleting: metadata.deletion_timestamp.is_some(),
            controller,
            applied,
            strangers,
            report,
            digest: digest.finalize().into(),
            body: if applied {
                Body::Unjudged {
                    object: object.into(),
                    owned: owned.into(),
                }
            } else {
                Body::Foreign
            },
        })
    }

    /// For messages: kind, namespace and name.
    pub fn reference(&self) -> String {
        reference(self.kind, &self.namespace, &self.name)
    }

    /// Whether nothing that matters to a tenant differs.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.deleting == other.deleting
            && self.report == other.report
            && (!self.kind.is_child() || self.digest == other.digest)
    }

    /// This object with the judgement that was passed on the same content before.
    pub(super) fn with_judgement_of(self, known: &Self) -> Self {
        if self.uid == known.uid && self.digest == known.digest {
            Self {
                body: known.body.clone(),
                ..self
            }
        } else {
            self
        }
    }
}

/// For messages: kind, namespace and name of an object.
pub fn reference(kind: Kind, namespace: &str, name: &str) -> String {
    if kind.is_cluster_scoped() {
        format!("{} {name}", kind.name())
    } else {
        format!("{} {namespace}/{name}", kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(managed_fields: &Value) -> Live {
        let object = json!({
            "metadata": {
                "name": "acme", "uid": "u", "resourceVersion": "7",
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "not-controlling"},
                    {"apiVersion": "v1", "kind": "Y", "name": "y", "uid": "controlling", "controller": true},
                ],
                "managedFields": managed_fields,
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        Live::read(Kind::Namespace, serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn status_is_no_content_and_subresources_are_no_managers() {
        let live = read(&json!([
            {"manager": "bulkhead-operator", "operation": "Apply", "fieldsV1": {"f:metadata": {}}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status"},
        ]));
        let Body::Unjudged { object, owned } = &live.body else {
            panic!("a fresh object is not judged")
        };
        assert!(!object.contains("Active"));
        assert_eq!(&**owned, r#"[{"f:metadata":{}}]"#);
        assert!(live.strangers.is_empty() && live.applied);
        assert_eq!(live.namespace, "acme");
        assert_eq!(live.controller.as_deref(), Some("controlling"));
    }

    #[test]
    fn of_the_clusters_roles_only_those_named_for_a_tenant_are_kept_and_under_its_name() {
        let role = |name: &str| {
            let object = json!({"metadata": {"name": name, "uid": "u"}, "rules": []});
            Live::read(Kind::ClusterRole, serde_json::from_value(object).unwrap())
        };
        let live = role("bulkhead:tenant:view:acme").unwrap();
        assert_eq!(
            (&*live.namespace, live.reference()),
            ("acme", "ClusterRole bulkhead:tenant:view:acme".to_owned())
        );
        for name in ["cluster-admin", "bulkhead:tenant:admin"] {
            assert!(role(name).is_none(), "{name}");
        }
    }

    #[test]
    fn whoever_else_wrote_to_the_object_itself_is_a_stranger() {
        let live = read(&json!([
            {"manager": "bulkhead-operator", "operation": "Update"},
            {"manager": "kubectl-edit", "operation": "Update"},
        ]));
        assert_eq!(live.strangers, ["kubectl-edit"]);
        assert!(!live.applied, "an update under our name is no apply");
        assert!(matches!(live.body, Body::Foreign));
    }
}
