//! Reads `rules.yaml` and makes the objects of its rows.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The rows and what they change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub base: Value,
    pub rows: Vec<Row>,
}

/// One rule, both ways.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub about: String,
    pub by: By,
    pub says: String,
    pub old: Option<Changes>,
    pub accept: Vec<Changes>,
    pub reject: Vec<Changes>,
}

/// What checks a rule.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum By {
    Cel,
    Schema,
}

/// Values by JSON pointer; null removes.
pub type Changes = BTreeMap<String, Value>;

impl Table {
    pub fn read() -> Self {
        let table: Self =
            serde_saphyr::from_str(include_str!("../rules.yaml")).expect("rules.yaml is a table");
        for row in &table.rows {
            assert!(
                !row.accept.is_empty() && !row.reject.is_empty(),
                "“{}” must be shown both ways",
                row.about
            );
        }
        table
    }

    /// The base with these changes.
    pub fn object(&self, changes: &Changes) -> Value {
        let mut object = self.base.clone();
        for (pointer, value) in changes {
            set(&mut object, pointer, value);
        }
        object
    }
}

fn set(object: &mut Value, pointer: &str, value: &Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
    let mut place = object;
    for step in parent.split('/').skip(1) {
        place = match place {
            Value::Array(items) => &mut items[step.parse::<usize>().expect("an index")],
            Value::Object(fields) => fields.entry(step).or_insert_with(|| Value::Object(Map::new())),
            _ => panic!("{pointer} leads through a scalar"),
        };
    }
    match (place, value) {
        (Value::Array(items), value) if last == "-" => items.push(value.clone()),
        (Value::Array(items), Value::Null) => {
            items.remove(last.parse().expect("an index"));
        }
        (Value::Array(items), value) => items[last.parse::<usize>().expect("an index")] = value.clone(),
        (Value::Object(fields), Value::Null) => {
            assert!(fields.remove(last).is_some(), "{pointer}: nothing to remove");
        }
        (Value::Object(fields), value) => {
            fields.insert(last.to_owned(), value.clone());
        }
        _ => panic!("{pointer} leads into a scalar"),
    }
}
