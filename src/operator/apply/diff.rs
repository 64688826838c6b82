//! Whether an object is as it should be: every desired field is there, and nothing else was put beside it.
//!
//! The comparison is one of meaning. The API server writes quantities in their canonical form, leaves out what is
//! empty, and fills in defaults, none of which is a difference.

use serde_json::{Map, Value};

use crate::quantity::Quantity;

/// Keys under which quantities stand. Anywhere else two texts are equal only if they are the same.
const QUANTITY_MAPS: [&str; 9] = [
    "requests",
    "limits",
    "hard",
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
    "capacity",
];
/// Keys whose own value is a quantity.
const QUANTITIES: [&str; 1] = ["sizeLimit"];
/// Maps from text to text, in which no key has a meaning here.
const OPAQUE: [&str; 7] = [
    "data",
    "labels",
    "annotations",
    "matchLabels",
    "env",
    "selector",
    "nodeSelector",
];
/// The path of the first desired field that the live object doesn't have. `None`: it has them all.
pub fn missing(desired: &Value, live: &Value) -> Option<String> {
    Comparison {
        quantity: false,
        quantities: false,
        opaque: false,
    }
    .missing(desired, live)
}

#[derive(Clone, Copy)]
struct Comparison {
    /// A text is a quantity here.
    quantity: bool,
    /// The values of a map are quantities here.
    quantities: bool,
    /// Keys are data here.
    opaque: bool,
}

impl Comparison {
    fn missing(self, desired: &Value, live: &Value) -> Option<String> {
        match (desired, live) {
            (Value::Object(desired), Value::Object(live)) => desired.iter().find_map(|(key, wanted)| {
                let found = match live.get(key) {
                    None | Some(Value::Null) if is_nothing(wanted) => return None,
                    None | Some(Value::Null) => return Some(format!(".{key}")),
                    Some(found) => found,
                };
                self.below(key)
                    .missing(wanted, found)
                    .map(|path| format!(".{key}{path}"))
            }),
            // A list with one item more is another list: what was added to it may open something.
            (Value::Array(desired), Value::Array(live)) if desired.len() == live.len() => desired
                .iter()
                .zip(live)
                .enumerate()
                .find_map(|(index, (wanted, found))| {
                    self.missing(wanted, found).map(|path| format!("[{index}]{path}"))
                }),
            (Value::String(wanted), Value::String(found)) if self.quantity => {
                let same = match (wanted.parse::<Quantity>(), found.parse::<Quantity>()) {
                    (Ok(wanted), Ok(found)) => wanted == found,
                    _ => wanted == found,
                };
                (!same).then(String::new)
            }
            _ => (desired != live).then(String::new),
        }
    }

    fn below(self, key: &str) -> Self {
        if self.opaque {
            return self;
        }
        Self {
            quantity: self.quantities || QUANTITIES.contains(&key),
            quantities: QUANTITY_MAPS.contains(&key),
            opaque: OPAQUE.contains(&key),
        }
    }
}

/// Whether the API server may leave this value out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The path of the first field that our name owns and that isn't desired: somebody applied under our name. `None`: what
/// our name owns is what we want. `owned` is in the form of `managedFields[].fieldsV1`.
pub fn surplus(owned: &Value, desired: &Value) -> Option<String> {
    let Value::Object(owned) = owned else { return None };
    owned.iter().find_map(|(step, below)| {
        let found = if step == "." {
            return None;
        } else if let Some(key) = step.strip_prefix("f:") {
            desired.get(key)
        } else if let Some(keys) = step.strip_prefix("k:") {
            item_with_keys(desired, keys)
        } else if let Some(text) = step.strip_prefix("v:") {
            let wanted = serde_json::from_str::<Value>(text).ok();
            desired
                .as_array()
                .and_then(|items| items.iter().find(|item| Some(*item) == wanted.as_ref()))
        } else if let Some(index) = step.strip_prefix("i:") {
            desired
                .as_array()
                .and_then(|items| items.get(index.parse::<usize>().ok()?))
        } else {
            None
        };
        match found {
            None => Some(format!("/{step}")),
            Some(found) => surplus(below, found).map(|path| format!("/{step}{path}")),
        }
    })
}

/// The item of a desired list that has these keys. A key that the item leaves out has its default there, and defaults
/// tell no items apart that we make.
fn item_with_keys<'a>(desired: &'a Value, keys: &str) -> Option<&'a Value> {
    let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
    desired.as_array()?.iter().find(|item| {
        let mut given = 0;
        let same = keys.iter().all(|(key, value)| match item.get(key) {
            Some(own) => {
                given += 1;
                own == value
            }
            None => true,
        });
        same && given > 0
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_changes_by_itself_is_no_difference() {
        for (name, desired, live) in [
            (
                "defaults",
                json!({"spec": {"a": 1}}),
                json!({"spec": {"a": 1, "b": 2}, "x": {}}),
            ),
            ("an empty list left out", json!({"egress": []}), json!({})),
            ("an empty map left out", json!({"labels": {}}), json!({})),
            ("a null left out", json!({"a": null}), json!({})),
            (
                "quantities",
                json!({"limits": {"cpu": "1000m"}}),
                json!({"limits": {"cpu": "1"}}),
            ),
            (
                "a quantity of its own",
                json!({"sizeLimit": "1024Ki"}),
                json!({"sizeLimit": "1Mi"}),
            ),
            (
                "defaults inside a list",
                json!({"ports": [{"port": 1}]}),
                json!({"ports": [{"port": 1, "protocol": "TCP"}]}),
            ),
        ] {
            assert_eq!(missing(&desired, &live), None, "{name}");
        }
    }

    #[test]
    fn what_somebody_changed_is_a_difference_and_its_path_is_told() {
        for (path, desired, live) in [
            (".spec.a", json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}})),
            (".spec.a", json!({"spec": {"a": false}}), json!({"spec": {}})),
            (".a", json!({"a": ""}), json!({})),
            (".a", json!({"a": [1]}), json!({"a": [1, 2]})),
            (".a[1]", json!({"a": [1, 2]}), json!({"a": [1, 3]})),
            (".a", json!({"a": [1]}), json!({"a": []})),
            (".a", json!({"a": []}), json!({"a": [1]})),
            (".a", json!({"a": {"b": 1}}), json!({"a": null})),
            (
                ".limits.cpu",
                json!({"limits": {"cpu": "1"}}),
                json!({"limits": {"cpu": "2"}}),
            ),
            (
                ".data.hard",
                json!({"data": {"hard": "1000m"}}),
                json!({"data": {"hard": "1"}}),
            ),
            (".image", json!({"image": "1"}), json!({"image": "1000m"})),
        ] {
            assert_eq!(missing(&desired, &live).as_deref(), Some(path));
        }
    }

    #[test]
    fn what_was_applied_under_our_name_must_be_desired() {
        let desired = json!({
            "metadata": {"labels": {"a": "b"}, "finalizers": ["x"]},
            "spec": {"containers": [{"name": "server", "ports": [{"containerPort": 80}], "args": ["1"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
        });
        let ours = json!({
            "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {
                ".": {}, "f:name": {}, "f:args": {}, "f:volumeMounts": {"k:{\"mountPath\":\"/v\"}": {".": {}, "f:name": {}}},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
            }}},
        });
        assert_eq!(surplus(&ours, &desired), None);
        for (path, owned) in [
            (
                "/f:metadata/f:labels/f:c",
                json!({"f:metadata": {"f:labels": {"f:a": {}, "f:c": {}}}}),
            ),
            (
                "/f:metadata/f:finalizers/v:\"y\"",
                json!({"f:metadata": {"f:finalizers": {"v:\"y\"": {}}}}),
            ),
            (
                "/f:spec/f:containers/k:{\"name\":\"other\"}",
                json!({"f:spec": {"f:containers": {"k:{\"name\":\"other\"}": {}}}}),
            ),
            ("/f:spec/f:hostNetwork", json!({"f:spec": {"f:hostNetwork": {}}})),
        ] {
            assert_eq!(surplus(&owned, &desired).as_deref(), Some(path));
        }
    }
}
