//! Records in a result: which of them are the agent's own, and how many there may be.
//!
//! Of a filtered structure only what the filter has read is left: the members that lead to the records, and those records
//! that carry the right value. Everything beside them (totals, cursors, hints) could tell of what was taken out.

use std::sync::Arc;

use crate::{
    json::{self, Kind},
    policy::{compile::Value, document, lists::object},
    reason::Reason,
    refusal::Refusal,
};

/// Names from the root of a structure to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<String>);

/// What a tool's results, or a resource's contents, must satisfy, for one agent.
#[derive(Debug)]
pub(super) struct ResultRule {
    /// Whose the records must be.
    pub owned: Option<OwnedRule>,
    /// Records that are left at most.
    pub max_records: Option<usize>,
    /// Bytes of the result that the client would get, at most.
    pub max_bytes: Option<usize>,
    /// What becomes of other results.
    pub enforcement: document::Enforcement,
}

/// Where the records of a structure are, and where a record says whose it is.
#[derive(Debug)]
pub(super) struct OwnedPaths {
    records: Path,
    owner: Path,
}

/// An ownership filter.
#[derive(Debug)]
pub(super) struct OwnedRule {
    paths: Arc<OwnedPaths>,
    equals: Owner,
}

/// The value that an owned record has.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Text(String),
    Int(i64),
    Bool(bool),
}

/// How many records there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Left, because they are the agent's own.
    pub kept: usize,
    /// Taken out, because they aren't or don't say so.
    pub removed: usize,
}

impl Path {
    /// `$`, or `$.name.name`; the names are letters, digits, `_` and `-`.
    pub fn from_root(text: &str) -> Option<Self> {
        match text.strip_prefix('$')? {
            "" => Some(Self(Vec::new())),
            names => Self::of_names(names.strip_prefix('.')?),
        }
    }

    /// `name`, or `name.name`.
    pub fn of_names(text: &str) -> Option<Self> {
        let names: Vec<_> = text.split('.').map(str::to_owned).collect();
        let is_name = |name: &String| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        names.iter().all(is_name).then_some(Self(names))
    }
}

impl ResultRule {
    /// Refuses more records, or a longer result, than the rule allows.
    pub fn bound(&self, records: Option<Records>, length: usize) -> Result<(), Refusal> {
        let kept = records.map_or(0, |records| records.kept);
        if let Some(most) = self.max_records.filter(|most| kept > *most) {
            let message = format!("The answer has more than {most} records: ask for fewer.");
            return Err(Refusal::new(Reason::AnswerTooManyRecords, message));
        }
        if let Some(most) = self.max_bytes.filter(|most| length > *most) {
            let message = format!("The answer is longer than {most} bytes: ask for less.");
            return Err(Refusal::new(Reason::AnswerTooLong, message));
        }
        Ok(())
    }
}

impl OwnedPaths {
    /// The paths of a document's rule; `None` when one isn't a path.
    pub fn parse(owned: &document::Owned) -> Option<Self> {
        Some(Self {
            records: Path::from_root(&owned.path)?,
            owner: Path::of_names(&owned.field)?,
        })
    }
}

impl OwnedRule {
    /// The filter whose owner has this value.
    pub fn new(paths: &Arc<OwnedPaths>, value: &Value<'_>) -> Self {
        Self {
            paths: Arc::clone(paths),
            equals: match value {
                Value::Text(text) => Owner::Text((*text).to_owned()),
                Value::Int(int) => Owner::Int(*int),
                Value::Bool(value) => Owner::Bool(*value),
            },
        }
    }

    /// The structure with owned records alone. Fails when there is no list of records, nor a record, where there should be.
    pub fn filter(&self, raw: &str) -> Result<(String, Records), Reason> {
        let mut records = Records::default();
        let text = self.descend(raw, &self.paths.records.0, &mut records)?;
        Ok((text, records))
    }

    fn descend(&self, raw: &str, path: &[String], records: &mut Records) -> Result<String, Reason> {
        let Some((name, rest)) = path.split_first() else {
            return self.records(raw, records);
        };
        let members = json::members(raw)
            .filter(|_| Kind::of(raw) == Kind::Object)
            .ok_or(Reason::AnswerUnfiltered)?;
        let inner = json::get(&members, name).ok_or(Reason::AnswerUnfiltered)?;
        let inner = self.descend(inner, rest, records)?;
        Ok(object([(name.as_str(), inner.as_str())].into_iter()))
    }

    fn records(&self, raw: &str, records: &mut Records) -> Result<String, Reason> {
        let mut own = |record: &str| {
            let own = self.owns(record);
            *(if own {
                &mut records.kept
            } else {
                &mut records.removed
            }) += 1;
            own
        };
        match Kind::of(raw) {
            Kind::Array => {
                let mut items = json::items(raw).ok_or(Reason::AnswerUnfiltered)?;
                items.retain(|record| own(record));
                Ok(format!("[{}]", items.join(",")))
            }
            Kind::Object if own(raw) => Ok(raw.to_owned()),
            // A single record that is somebody else's: as if there were none.
            Kind::Object if self.paths.records.0.is_empty() => Ok("{}".to_owned()),
            Kind::Object | Kind::Null => Ok("null".to_owned()),
            _ => Err(Reason::AnswerUnfiltered),
        }
    }

    /// Whether a record says that it is the agent's own. One that doesn't say isn't.
    fn owns(&self, record: &str) -> bool {
        let mut raw = record;
        for name in &self.paths.owner.0 {
            if Kind::of(raw) != Kind::Object {
                return false;
            }
            let Some(members) = json::members(raw) else {
                return false;
            };
            let Some(inner) = json::get(&members, name) else {
                return false;
            };
            raw = inner;
        }
        match &self.equals {
            Owner::Text(text) => json::string(raw).is_some_and(|value| value == *text),
            Owner::Int(int) => Kind::of(raw) == Kind::Number && raw.parse() == Ok(*int),
            Owner::Bool(value) => raw == if *value { "true" } else { "false" },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::json::tests::json_text;

    fn rule(path: &str, field: &str, equals: &Value<'_>) -> OwnedRule {
        let owned = document::Owned {
            path: path.into(),
            field: field.into(),
            equals: document::Forced::Bool(true),
        };
        OwnedRule::new(&Arc::new(OwnedPaths::parse(&owned).unwrap()), equals)
    }

    #[test]
    fn only_records_that_say_whose_they_are_are_left_with_their_bytes() {
        let acme = Value::Text("acme");
        let table: [(&str, &str, &Value<'_>, &str, Option<&str>); 16] = [
            (
                "$.rows",
                "t",
                &acme,
                r#"{"total":3,"rows":[{"t":"acme", "n":1e0},{"t":"globex"},{"n":2}],"next":"x"}"#,
                Some(r#"{"rows":[{"t":"acme", "n":1e0}]}"#),
            ),
            (
                "$.a.b",
                "t",
                &acme,
                r#"{"a":{"b":[{"t":"globex"}],"c":1}}"#,
                Some(r#"{"a":{"b":[]}}"#),
            ),
            (
                "$",
                "t",
                &acme,
                r#"[{"t":"acme"},7,"acme",["acme"],null]"#,
                Some(r#"[{"t":"acme"}]"#),
            ),
            (
                "$.rows",
                "m.t",
                &acme,
                r#"{"rows":[{"m":{"t":"acme"}},{"m":"acme"},{"t":"acme"}]}"#,
                Some(r#"{"rows":[{"m":{"t":"acme"}}]}"#),
            ),
            // However it is escaped, and in no other spelling.
            (
                "$.rows",
                "t",
                &acme,
                r#"{"rows":[{"t":"\u0061cme"},{"t":"ACME"},{"T":"acme"},{"t":["acme"]},{"t":"acme "}]}"#,
                Some(r#"{"rows":[{"t":"\u0061cme"}]}"#),
            ),
            (
                "$.rows",
                "t",
                &Value::Int(7),
                r#"{"rows":[{"t":7},{"t":"7"},{"t":7.0},{"t":70}]}"#,
                Some(r#"{"rows":[{"t":7}]}"#),
            ),
            (
                "$.rows",
                "t",
                &Value::Bool(true),
                r#"{"rows":[{"t":true},{"t":"true"},{"t":false},{"t":1}]}"#,
                Some(r#"{"rows":[{"t":true}]}"#),
            ),
            // One record.
            (
                "$.row",
                "t",
                &acme,
                r#"{"row":{"t":"acme","n":1}}"#,
                Some(r#"{"row":{"t":"acme","n":1}}"#),
            ),
            (
                "$.row",
                "t",
                &acme,
                r#"{"row":{"t":"globex","n":1}}"#,
                Some(r#"{"row":null}"#),
            ),
            (
                "$.row",
                "t",
                &acme,
                r#"{"row":null,"hint":"globex has one"}"#,
                Some(r#"{"row":null}"#),
            ),
            ("$", "t", &acme, r#"{"t":"globex"}"#, Some("{}")),
            // Nothing to filter: nothing passes.
            ("$.rows", "t", &acme, r#"{"row":[]}"#, None),
            ("$.rows", "t", &acme, r#"{"rows":"globex"}"#, None),
            ("$.rows", "t", &acme, r#"[{"t":"acme"}]"#, None),
            ("$.a.b", "t", &acme, r#"{"a":[{"b":[]}]}"#, None),
            ("$", "t", &acme, "7", None),
        ];
        for (path, field, equals, raw, expected) in table {
            let filtered = rule(path, field, equals).filter(raw);
            assert_eq!(
                filtered.map(|(text, _)| text).ok().as_deref(),
                expected,
                "{path} {field} {raw}"
            );
        }
        let (_, records) = rule("$.rows", "t", &acme)
            .filter(r#"{"rows":[{"t":"acme"},{"t":"b"},1]}"#)
            .unwrap();
        assert_eq!(records, Records { kept: 1, removed: 2 });
    }

    #[test]
    fn paths_are_names_and_nothing_else() {
        for text in ["$", "$.a", "$.a_1.b-c"] {
            assert!(Path::from_root(text).is_some(), "{text}");
        }
        for text in [
            "", "a", "$a", "$.", "$..a", "$.a[0]", "$.a[*]", "$['a']", "$.a ", "$.*",
        ] {
            assert!(Path::from_root(text).is_none(), "{text}");
        }
        assert!(Path::of_names("").is_none() && Path::of_names("$.a").is_none());
    }

    proptest! {
        #[test]
        fn nothing_of_others_is_left_and_filtering_again_changes_nothing(
            owners in prop::collection::vec(prop_oneof!["acme", "globex", "[a-c]{0,2}"], 0..6), other in json_text(), total in 0u32..9
        ) {
            let rows: Vec<_> = owners.iter().map(|owner| format!("{{\"t\":\"{owner}\",\"o\":{other}}}")).collect();
            let raw = format!("{{\"total\":{total},\"rows\":[{}]}}", rows.join(","));
            prop_assume!(json::check(raw.as_bytes(), json::Limits::default()).is_ok());
            let rule = rule("$.rows", "t", &Value::Text("acme"));
            let (text, records) = rule.filter(&raw).unwrap();
            let left: Json = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(left.as_object().unwrap().len(), 1);
            prop_assert!(left["rows"].as_array().unwrap().iter().all(|row| row["t"] == json!("acme")));
            prop_assert_eq!(records.kept, owners.iter().filter(|owner| *owner == "acme").count());
            prop_assert_eq!(records.kept + records.removed, owners.len());
            prop_assert_eq!(rule.filter(&text).unwrap().0, text);
        }
    }
}
