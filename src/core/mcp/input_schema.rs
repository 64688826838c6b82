//! A tool's own `inputSchema`, against which the final arguments of a call are checked.
//!
//! The schema is the server's and the arguments are the client's, so neither may cost more than it is worth: a schema is
//! bounded in size and in what it unfolds to, patterns match in linear time, and no reference leaves the document. A schema
//! that keeps to none of that can't be checked, and then its tool isn't offered.

use std::fmt;

use jsonschema::{PatternOptions, Validator, error::ValidationErrorKind};
use serde_json::Value;

use crate::reason::Reason;

/// Longest schema, in bytes.
const MAX_BYTES: usize = 128 * 1024;

/// Subschemas that a schema may come to, with each reference replaced by what it refers to.
const MAX_UNFOLDED: usize = 10_000;

/// Nesting of a schema, references followed: each level is a call on the stack.
const MAX_NESTING: usize = 256;

/// Levels of arguments times levels of a schema that contains itself: what a check takes of the stack.
const MAX_LEVELS: usize = 2048;

/// Checks that arguments may cause a schema that contains itself to make: what bounds their depth.
const MAX_RECURSION: usize = 100_000;

/// Memory that one compiled pattern may take, and how many there may be.
const PATTERN_SIZE: usize = 256 * 1024;
const MAX_PATTERNS: usize = 64;

/// Longest message about a violation, in characters: it may quote the schema.
const MAX_MESSAGE: usize = 300;

/// Keywords by which a reference depends on where it is reached from.
const UNSUPPORTED: [&str; 3] = ["$dynamicRef", "$recursiveRef", "$dynamicAnchor"];

/// A compiled schema. Two are equal when their texts are.
pub struct InputSchema {
    text: String,
    validator: Validator,
    max_depth: usize,
}

/// What is wrong with arguments.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    /// The argument that it is about, if it is about one.
    pub argument: Option<String>,
    /// For a model to read. The value itself is not repeated.
    pub message: String,
}

impl PartialEq for InputSchema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for InputSchema {}

impl fmt::Debug for InputSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InputSchema").field(&self.text).finish()
    }
}

impl InputSchema {
    /// Compiles a schema. Without `$schema` it is one of 2020-12, as MCP has it; formats are annotations, as there.
    pub fn compile(text: &str) -> Result<Self, Reason> {
        let unusable = Reason::SchemaUnusable;
        if text.len() > MAX_BYTES {
            return Err(unusable);
        }
        let schema: Value = serde_json::from_str(text).map_err(|_| unusable)?;
        let mut unfolding = Unfolding {
            root: &schema,
            left: MAX_UNFOLDED,
            patterns: 0,
            nesting: 0,
            deepest: 0,
            within: Vec::new(),
            returns: 0,
        };
        unfolding.walk(&schema).ok_or(unusable)?;
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE);
        let validator = jsonschema::options()
            .with_pattern_options(patterns)
            .should_validate_formats(false)
            .build(&schema)
            .map_err(|_| unusable)?;
        Ok(Self {
            max_depth: unfolding.max_depth(),
            text: text.to_owned(),
            validator,
        })
    }

    /// The schema, as the server wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with arguments (a raw object), if anything.
    pub fn violation(&self, arguments: &str) -> Option<Violation> {
        let about_all = |message: &str| {
            Some(Violation {
                argument: None,
                message: message.to_owned(),
            })
        };
        let Ok(value) = serde_json::from_str::<Value>(arguments) else {
            return about_all("have a number that is out of range");
        };
        if depth(&value) > self.max_depth {
            return about_all("are nested too deeply for the tool's schema");
        }
        let error = self.validator.validate(&value).err()?;
        let path = error.instance_path().to_string();
        let argument = path.split('/').nth(1).map(unescaped);
        let message = match error.kind() {
            ValidationErrorKind::FalseSchema => "must not be given".to_owned(),
            _ => error.masked().to_string(),
        };
        Some(Violation {
            argument,
            message: message.chars().take(MAX_MESSAGE).collect(),
        })
    }
}

/// A name in a JSON pointer (RFC 6901).
fn unescaped(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A walk through a schema, through references too.
struct Unfolding<'s> {
    root: &'s Value,
    /// Subschemas that may still come.
    left: usize,
    patterns: usize,
    nesting: usize,
    deepest: usize,
    /// What the references on the way here refer to.
    within: Vec<&'s str>,
    /// References that lead back to where they are within.
    returns: usize,
}

impl<'s> Unfolding<'s> {
    /// How deep arguments may be. Where the schema refers to itself, at each level every such reference may be tried.
    fn max_depth(&self) -> usize {
        let by_stack = MAX_LEVELS / self.deepest.max(1);
        match self.returns {
            0 => usize::MAX,
            1 => by_stack,
            many => by_stack.min(MAX_RECURSION.ilog(many) as usize),
        }
    }

    /// `None`: it is too large, or has a reference that can't be followed.
    fn walk(&mut self, node: &'s Value) -> Option<()> {
        self.nesting += 1;
        self.deepest = self.deepest.max(self.nesting);
        if self.nesting > MAX_NESTING {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        self.walk_into(node)?;
        self.nesting -= 1;
        Some(())
    }

    fn walk_into(&mut self, node: &'s Value) -> Option<()> {
        match node {
            Value::Array(items) => items.iter().try_for_each(|item| self.walk(item)),
            Value::Object(members) => {
                let is_root = std::ptr::eq(node, self.root);
                if members.contains_key("$id") && !is_root
                    || UNSUPPORTED.iter().any(|keyword| members.contains_key(*keyword))
                {
                    return None;
                }
                for (key, inner) in members {
                    self.patterns += match (key.as_str(), inner) {
                        ("pattern", Value::String(_)) => 1,
                        ("patternProperties", Value::Object(patterns)) => patterns.len(),
                        _ => 0,
                    };
                    if self.patterns > MAX_PATTERNS {
                        return None;
                    }
                    match inner {
                        Value::String(target) if key == "$ref" => self.follow(target)?,
                        // They count where they are referred to. Deeper down these could be names of arguments.
                        _ if is_root && matches!(key.as_str(), "$defs" | "definitions") => {}
                        _ => self.walk(inner)?,
                    }
                }
                Some(())
            }
            _ => Some(()),
        }
    }

    fn follow(&mut self, target: &'s str) -> Option<()> {
        let pointer = target.strip_prefix('#')?;
        if self.within.contains(&target) || pointer.is_empty() {
            self.returns += 1;
            return Some(());
        }
        let node = if pointer.starts_with('/') {
            // Percent-encoded ones would have to be decoded as jsonschema does, and nobody writes them.
            self.root.pointer(pointer).filter(|_| !pointer.contains('%'))?
        } else {
            let mut found = Vec::new();
            anchored(self.root, pointer, &mut found);
            match found.as_slice() {
                [node] => *node,
                _ => return None,
            }
        };
        self.within.push(target);
        self.walk(node)?;
        self.within.pop();
        Some(())
    }
}

/// The subschemas with this `$anchor`.
fn anchored<'s>(node: &'s Value, name: &str, found: &mut Vec<&'s Value>) {
    match node {
        Value::Array(items) => items.iter().for_each(|item| anchored(item, name, found)),
        Value::Object(members) => {
            if members.get("$anchor").and_then(Value::as_str) == Some(name) {
                found.push(node);
            }
            members.values().for_each(|inner| anchored(inner, name, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compiled(schema: &Value) -> Result<InputSchema, Reason> {
        InputSchema::compile(&schema.to_string())
    }

    #[test]
    fn arguments_are_held_against_the_schema_and_no_value_is_repeated() {
        let schema = compiled(&json!({"type": "object", "required": ["q"], "additionalProperties": false, "properties": {
            "q": {"type": "string", "pattern": "^[a-z]+$"}, "n": {"type": "integer", "maximum": 9}, "a/b": {"enum": ["x"]},
            "in": {"type": "object", "properties": {"deep": {"type": "array", "items": {"type": "number"}}}}, "no": false}}))
        .unwrap();
        for good in [r#"{"q":"a"}"#, r#"{"q":"a","n":9.0,"in":{"deep":[1,2.5]}}"#] {
            assert_eq!(schema.violation(good), None, "{good}");
        }
        for (bad, argument) in [
            ("{}", None),
            (r#"{"q":"a","secret":"secret"}"#, None),
            (r#"{"q":"SECRET"}"#, Some("q")),
            (r#"{"q":"a","n":10}"#, Some("n")),
            (r#"{"q":"a","n":"secret"}"#, Some("n")),
            (r#"{"q":"a","a/b":"secret"}"#, Some("a/b")),
            (r#"{"q":"a","in":{"deep":[1,"secret"]}}"#, Some("in")),
            (r#"{"q":"a","no":"secret"}"#, Some("no")),
            (r#"{"q":"a","n":1e999}"#, None),
        ] {
            let found = schema.violation(bad).unwrap_or_else(|| panic!("{bad}"));
            assert_eq!(found.argument.as_deref(), argument, "{bad}");
            let quoted = found.message.to_lowercase().contains("secret");
            assert!(!quoted || bad.contains(r#""secret":"#), "{}", found.message);
        }
    }

    #[test]
    fn what_can_not_be_checked_is_unusable() {
        let doubling = |levels: usize| {
            let refer = |level: usize| json!({"$ref": format!("#/$defs/d{level}")});
            let mut defs: serde_json::Map<_, _> = (0..levels)
                .map(|level| {
                    (
                        format!("d{level}"),
                        json!({"allOf": [refer(level + 1), refer(level + 1)]}),
                    )
                })
                .collect();
            defs.insert(format!("d{levels}"), json!({"type": "object"}));
            json!({"$defs": defs, "$ref": "#/$defs/d0"})
        };
        let chain = |length: usize| {
            let mut defs: serde_json::Map<_, _> = (0..length)
                .map(|link| {
                    (
                        format!("d{link}"),
                        json!({"$ref": format!("#/$defs/d{}", link + 1)}),
                    )
                })
                .collect();
            defs.insert(format!("d{length}"), json!({"type": "object"}));
            json!({"$defs": defs, "$ref": "#/$defs/d0"})
        };
        for schema in [
            json!({"$ref": "https://example.com/schema"}),
            json!({"$ref": "file:///etc/hostname"}),
            json!({"$ref": "other.json"}),
            json!({"$ref": "#/$defs/none"}),
            json!({"$ref": "#none"}),
            json!({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}, "b": {"$anchor": "a"}}}),
            json!({"$schema": "https://example.com/dialect"}),
            json!({"type": "objekt"}),
            json!({"properties": {"q": {"pattern": "(?=a)"}}}),
            json!({"properties": {"q": {"pattern": "(((a{100}){100}){100}){100}"}}}),
            json!({"properties": {"q": {"$id": "https://example.com/", "$ref": "#/$defs/a"}}, "$defs": {"a": {}}}),
            json!({"$dynamicRef": "#a", "$defs": {"b": {"$dynamicAnchor": "a"}}}),
            json!({"description": "x".repeat(MAX_BYTES)}),
            json!({"properties": (0..=MAX_PATTERNS).map(|n| (n.to_string(), json!({"pattern": "a"}))).collect::<serde_json::Map<_, _>>()}),
            doubling(20),
            chain(1000),
        ] {
            assert_eq!(
                compiled(&schema),
                Err(Reason::SchemaUnusable),
                "{:.200}",
                schema.to_string()
            );
        }
        for schema in [
            json!({}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}),
            json!({"$id": "https://example.com/tool", "$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}),
            json!({"$ref": "#a", "$defs": {"b": {"$anchor": "a", "type": "object"}}}),
            doubling(5),
            chain(50),
        ] {
            assert!(compiled(&schema).is_ok(), "{schema}");
        }
    }

    #[test]
    fn a_schema_that_contains_itself_bounds_the_depth_of_arguments() {
        let nested = |levels: usize| {
            let mut value = json!({});
            for _ in 0..levels {
                value = json!({"and": [value]});
            }
            value.to_string()
        };
        let branch = |key: &str| json!({"properties": {key: {"items": {"$ref": "#/$defs/filter"}}}});
        let branching = |branches: &[&str]| {
            let any: Vec<_> = branches.iter().map(|key| branch(key)).collect();
            compiled(
                &json!({"$ref": "#/$defs/filter", "$defs": {"filter": {"type": "object", "anyOf": any}}}),
            )
            .unwrap()
        };
        assert_eq!(branching(&["and"]).violation(&nested(60)), None);
        let branching = branching(&["and", "and", "or", "not"]);
        assert_eq!(branching.violation(&nested(3)), None);
        let refused = branching.violation(&nested(60)).unwrap();
        assert!(refused.message.contains("nested too deeply"), "{refused:?}");
        // One reference alone, within so much that the stack is what bounds it.
        let mut wrapped = json!({"properties": {"and": {"items": {"$ref": "#/$defs/filter"}}}});
        for _ in 0..50 {
            wrapped = json!({"allOf": [wrapped]});
        }
        let wrapped = compiled(&json!({"$ref": "#/$defs/filter", "$defs": {"filter": wrapped}})).unwrap();
        assert_eq!(wrapped.violation(&nested(4)), None);
        assert!(wrapped.violation(&nested(60)).is_some());
        // References in a circle that take in nothing on the way.
        for circle in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}),
        ] {
            let schema = compiled(&circle).unwrap();
            assert_eq!(schema.violation("{}"), None, "{circle}");
        }
    }
}
