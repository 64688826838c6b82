//! An object as it should be, and whether the API server holds it so.

use std::fmt::{self, Write as _};

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    ANNOTATION_CONFIG_HASH,
    diff::{missing, surplus},
};
use crate::{
    cache::{Body, Key, Live, reference},
    error::Error,
    kinds::{Kind, Strangers},
};

/// An object as it should be.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; of what is in none, its [place](Kind::place).
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The object, with the annotation that holds its hash.
    pub object: Value,
    /// Its hash.
    pub hash: String,
}

/// How a live object compares with the desired one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// There is none.
    Absent,
    /// On its way out; nothing can be made of it until it is gone.
    Deleting,
    /// There is one that we never applied.
    Strange,
    /// We applied something else before.
    Outdated,
    /// Somebody changed or removed the field of this path.
    Changed(String),
    /// Somebody added something: a path or a field manager.
    AddedTo(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("nothing"),
            Self::Absent => f.write_str("it is absent"),
            Self::Deleting => f.write_str("it is being deleted"),
            Self::Strange => f.write_str("somebody else made it"),
            Self::Outdated => f.write_str("it has an earlier form"),
            Self::Changed(path) => write!(f, "changed: {path}"),
            Self::AddedTo(what) => write!(f, "added to: {what}"),
        }
    }
}

impl Desired {
    /// All objects of a kind.
    pub fn all<T: Serialize>(kind: Kind, objects: &[T]) -> Result<Vec<Self>, Error> {
        objects.iter().map(|object| Self::new(kind, object)).collect()
    }

    /// One object.
    pub fn new<T: Serialize>(kind: Kind, object: &T) -> Result<Self, Error> {
        let mut object = serde_json::to_value(object).map_err(|source| Error::Serialize {
            what: kind.name().to_owned(),
            source,
        })?;
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let name = text("/metadata/name");
        let namespace = text("/metadata/namespace");
        let namespace = kind.place(Some(&namespace), &name).unwrap_or_default().to_owned();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        // Map keys are sorted, so equal objects have equal bytes.
        let digest = Sha256::digest(object.to_string());
        let hash = digest[..16].iter().fold(String::new(), |mut hash, byte| {
            // Writing to a text never fails.
            let _ = write!(hash, "{byte:02x}");
            hash
        });
        object["metadata"]["annotations"][ANNOTATION_CONFIG_HASH] = hash.clone().into();
        Ok(Self {
            kind,
            namespace,
            name,
            object,
            hash,
        })
    }

    /// Where it is.
    pub fn key(&self) -> (String, Key) {
        (self.namespace.clone(), (self.kind, self.name.clone()))
    }

    /// For messages: kind, namespace and name.
    pub fn reference(&self) -> String {
        reference(self.kind, &self.namespace, &self.name)
    }

    /// Compares a live object with this one.
    pub fn judge(&self, live: Option<&Live>) -> Verdict {
        let Some(live) = live else { return Verdict::Absent };
        if live.deleting {
            return Verdict::Deleting;
        }
        let (object, owned) = match &live.body {
            Body::Foreign => return Verdict::Strange,
            Body::Judged { hash } if *hash == self.hash => return Verdict::Good,
            Body::Judged { .. } => return Verdict::Outdated,
            Body::Unjudged { object, owned } => (object, owned),
        };
        let object: Value = serde_json::from_str(object).unwrap_or_default();
        let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
        let applied = annotations
            .and_then(|annotations| annotations.get(ANNOTATION_CONFIG_HASH))
            .and_then(Value::as_str);
        if applied != Some(&self.hash) {
            return Verdict::Outdated;
        }
        let wanted = self.comparable();
        if let Some(path) = missing(&wanted, &object) {
            return Verdict::Changed(path);
        }
        if self.kind.is_written_whole()
            && let Some(path) = missing(&without_metadata(&object), &without_metadata(&wanted))
        {
            return Verdict::AddedTo(path);
        }
        if self.kind.strangers() == Strangers::Tolerated {
            return Verdict::Good;
        }
        if let Some(stranger) = live.strangers.first() {
            return Verdict::AddedTo(format!("by {stranger}"));
        }
        let owned: Vec<Value> = serde_json::from_str(owned).unwrap_or_default();
        owned
            .iter()
            .find_map(|owned| surplus(owned, &wanted))
            .map_or(Verdict::Good, Verdict::AddedTo)
    }

    /// The desired object without what says only which object it is.
    fn comparable(&self) -> Value {
        let mut wanted = self.object.clone();
        if let Some(fields) = wanted.as_object_mut() {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        wanted
    }

    /// The object with these fields of metadata added.
    pub fn with_metadata(&self, fields: Map<String, Value>) -> Value {
        let mut object = self.object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.extend(fields);
        }
        object
    }
}

fn without_metadata(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("metadata");
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Desired {
        Desired::new(
            Kind::NetworkPolicy,
            &json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "default-deny", "namespace": "acme", "labels": {"a": "b"}},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
            }),
        )
        .unwrap()
    }

    /// The object as the API server would hold it after our apply, then changed.
    fn live(desired: &Desired, change: impl FnOnce(&mut Value)) -> Live {
        let mut object = desired.object.clone();
        object["metadata"]["uid"] = "u".into();
        object["metadata"]["resourceVersion"] = "7".into();
        object["metadata"]["managedFields"] = json!([{
            "manager": "bulkhead-operator", "operation": "Apply", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:podSelector": {}}},
        }]);
        change(&mut object);
        Live::read(desired.kind, serde_json::from_value(object).unwrap()).unwrap()
    }

    type Change = Box<dyn FnOnce(&mut Value)>;

    #[test]
    fn each_way_in_which_an_object_can_be_wrong_has_its_verdict() {
        let desired = policy();
        let stranger = json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {}});
        let cases: [(&str, Change, Verdict); 10] = [
            ("as applied", Box::new(|_| {}), Verdict::Good),
            (
                "the API server annotates what we leave alone",
                Box::new(|object| object["metadata"]["annotations"]["x"] = "y".into()),
                Verdict::Good,
            ),
            (
                "a field that nobody owns was added to a wall",
                Box::new(|object| object["spec"]["ingress"] = json!([{}])),
                Verdict::AddedTo(".spec.ingress".into()),
            ),
            (
                "a wall was made narrower by nobody",
                Box::new(|object| object["spec"]["podSelector"] = json!({"matchLabels": {"a": "b"}})),
                Verdict::AddedTo(".spec.podSelector.matchLabels".into()),
            ),
            (
                "a field removed",
                Box::new(|object| object["spec"]["policyTypes"] = json!(["Ingress"])),
                Verdict::Changed(".spec.policyTypes".into()),
            ),
            (
                "another hash",
                Box::new(|object| object["metadata"]["annotations"][ANNOTATION_CONFIG_HASH] = "x".into()),
                Verdict::Outdated,
            ),
            (
                "a stranger owns a field",
                Box::new(move |object| {
                    let entries = object["metadata"]["managedFields"].as_array_mut().unwrap();
                    entries.push(stranger);
                }),
                Verdict::AddedTo("by kubectl-edit".into()),
            ),
            (
                "our name owns what we never wanted",
                Box::new(|object| {
                    object["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:ingress"] = json!({});
                }),
                Verdict::AddedTo("/f:spec/f:ingress".into()),
            ),
            (
                "nobody applied it",
                Box::new(|object| object["metadata"]["managedFields"] = json!([])),
                Verdict::Strange,
            ),
            (
                "being deleted",
                Box::new(|object| object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()),
                Verdict::Deleting,
            ),
        ];
        for (name, change, verdict) in cases {
            assert_eq!(desired.judge(Some(&live(&desired, change))), verdict, "{name}");
        }
        assert_eq!(desired.judge(None), Verdict::Absent);
    }

    #[test]
    fn a_judgement_stands_until_something_else_is_desired() {
        let desired = policy();
        let mut live = live(&desired, |_| {});
        live.body = Body::Judged {
            hash: desired.hash.clone(),
        };
        assert_eq!(desired.judge(Some(&live)), Verdict::Good);
        live.body = Body::Judged {
            hash: "another".into(),
        };
        assert_eq!(desired.judge(Some(&live)), Verdict::Outdated);
    }
}
