//! Bounds of an argument: compiled once, checked exactly.

use std::{cmp::Ordering, collections::BTreeSet};

use regex::{Regex, RegexBuilder};

use crate::{
    json::{self, Kind, number},
    policy::document::{ArgumentType, Bounds},
};

/// Memory that one compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;

/// Nesting that a pattern may have.
const PATTERN_DEPTH: u32 = 64;

/// The compiled bounds of one argument.
#[derive(Debug)]
pub(super) struct CompiledBounds {
    required: bool,
    kind: Option<Kind>,
    /// Of numbers: without a fraction.
    integer: bool,
    minimum: Option<i64>,
    maximum: Option<i64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    pattern: Option<(String, Regex)>,
    one_of: BTreeSet<String>,
}

/// Compiles bounds, or says what is wrong with them: no rule at all, rules for several types, or
/// rules that nothing satisfies.
pub(super) fn compile(bounds: &Bounds) -> Result<CompiledBounds, String> {
    let number = bounds.minimum.is_some() || bounds.maximum.is_some();
    let string = bounds.min_length.is_some()
        || bounds.max_length.is_some()
        || bounds.pattern.is_some()
        || !bounds.one_of.is_empty();
    let array = bounds.min_items.is_some() || bounds.max_items.is_some();
    let ruled = match (number, string, array) {
        (false, false, false) => None,
        (true, false, false) => Some(Kind::Number),
        (false, true, false) => Some(Kind::String),
        (false, false, true) => Some(Kind::Array),
        _ => return Err("has rules for more than one type".into()),
    };
    let kind = match (bounds.kind.map(kind_of), ruled) {
        (None, None) if !bounds.required => return Err("has no rule".into()),
        (Some(kind), Some(ruled)) if kind != ruled => return Err("has a type, and rules for another".into()),
        (kind, ruled) => kind.or(ruled),
    };
    if matches!((bounds.minimum, bounds.maximum), (Some(least), Some(most)) if least > most) {
        return Err("has a minimum over its maximum".into());
    }
    if matches!((bounds.min_length, bounds.max_length), (Some(least), Some(most)) if least > most) {
        return Err("has a minLength over its maxLength".into());
    }
    if matches!((bounds.min_items, bounds.max_items), (Some(least), Some(most)) if least > most) {
        return Err("has a minItems over its maxItems".into());
    }
    let pattern = match &bounds.pattern {
        Some(pattern) => Some((pattern.clone(), compile_pattern(pattern)?)),
        None => None,
    };
    Ok(CompiledBounds {
        required: bounds.required,
        kind,
        integer: bounds.kind == Some(ArgumentType::Integer),
        minimum: bounds.minimum,
        maximum: bounds.maximum,
        min_length: bounds.min_length.map(size),
        max_length: bounds.max_length.map(size),
        min_items: bounds.min_items.map(size),
        max_items: bounds.max_items.map(size),
        pattern,
        one_of: bounds.one_of.clone(),
    })
}

fn kind_of(kind: ArgumentType) -> Kind {
    match kind {
        ArgumentType::String => Kind::String,
        ArgumentType::Number | ArgumentType::Integer => Kind::Number,
        ArgumentType::Boolean => Kind::Bool,
        ArgumentType::Array => Kind::Array,
        ArgumentType::Object => Kind::Object,
    }
}

fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE)
            .nest_limit(PATTERN_DEPTH)
            .build()
            .map_err(|error| format!("has a pattern that is refused: {error}"))
    };
    // By itself first: `a)|(b` is no pattern, but would become one in the group below and match
    // part of the text.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

impl CompiledBounds {
    /// What is wrong with an argument (a raw value, or `None` when absent), for a model to read.
    /// The value itself is not repeated.
    pub(super) fn violation(&self, raw: Option<&str>) -> Option<String> {
        let Some(raw) = raw else {
            return self.required.then(|| "is required".to_owned());
        };
        let kind = Kind::of(raw);
        if self.required && kind == Kind::Null {
            return Some("is required and must not be null".to_owned());
        }
        let wanted = self.kind?;
        if wanted != kind || (self.integer && number::is_integer(raw) != Some(true)) {
            return Some(format!("must be {}", self.named()));
        }
        match wanted {
            Kind::Number => self.number_violation(raw),
            Kind::String => self.string_violation(raw),
            Kind::Array => self.items_violation(raw),
            Kind::Null | Kind::Bool | Kind::Object => None,
        }
    }

    /// What it must be.
    fn named(&self) -> &'static str {
        match self.kind {
            Some(Kind::Number) if self.integer => "a whole number",
            Some(Kind::Number) => "a number",
            Some(Kind::String) => "a string",
            Some(Kind::Bool) => "true or false",
            Some(Kind::Object) => "an object",
            _ => "an array",
        }
    }

    fn number_violation(&self, raw: &str) -> Option<String> {
        // What doesn't compare is not within bounds.
        let least = |limit| number::compare_to_int(raw, limit).is_none_or(Ordering::is_lt);
        let most = |limit| number::compare_to_int(raw, limit).is_none_or(Ordering::is_gt);
        if let Some(limit) = self.minimum.filter(|limit| least(*limit)) {
            return Some(format!("must be at least {limit}"));
        }
        self.maximum
            .filter(|limit| most(*limit))
            .map(|limit| format!("must be at most {limit}"))
    }

    fn string_violation(&self, raw: &str) -> Option<String> {
        let Some(text) = json::string(raw) else {
            return Some("must be a string".to_owned());
        };
        let length = text.chars().count();
        if let Some(limit) = self.min_length.filter(|limit| length < *limit) {
            return Some(format!("must have at least {limit} characters"));
        }
        if let Some(limit) = self.max_length.filter(|limit| length > *limit) {
            return Some(format!("must have at most {limit} characters"));
        }
        if let Some((pattern, _)) = self.pattern.as_ref().filter(|(_, regex)| !regex.is_match(&text)) {
            return Some(format!("must match {pattern}"));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(text.as_ref()) {
            let allowed: Vec<_> = self.one_of.iter().map(String::as_str).collect();
            return Some(format!("must be one of: {}", allowed.join(", ")));
        }
        None
    }

    fn items_violation(&self, raw: &str) -> Option<String> {
        if Kind::of(raw) != Kind::Array {
            return Some("must be an array".to_owned());
        }
        let Some(count) = json::items(raw).map(|items| items.len()) else {
            return Some("has more items than can be counted".to_owned());
        };
        if let Some(limit) = self.min_items.filter(|limit| count < *limit) {
            return Some(format!("must have at least {limit} items"));
        }
        self.max_items
            .filter(|limit| count > *limit)
            .map(|limit| format!("must have at most {limit} items"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(bounds: &str) -> CompiledBounds {
        compile(&serde_json::from_str(bounds).unwrap()).unwrap()
    }

    #[test]
    fn more_items_than_are_looked_into_are_within_no_bound() {
        let bounds = compiled(r#"{"minItems":1,"maxItems":300000}"#);
        for (items, within) in [(200_000, true), (270_000, false)] {
            let list = format!("[{}]", vec!["0"; items].join(","));
            assert_eq!(bounds.violation(Some(&list)).is_none(), within, "{items}");
        }
    }

    #[test]
    fn values_are_held_against_bounds_exactly() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                r#"{"maximum":100}"#,
                &["100", "1e2", "100.0", "-1e300", "99.99999999999999999999"],
                &[
                    "101",
                    "100.00000000000000000001",
                    "1e3",
                    "12345678901234567890123",
                    "\"1\"",
                    "null",
                    "[1]",
                    "true",
                ],
            ),
            (
                r#"{"minimum":-5,"maximum":5}"#,
                &["-5", "0", "-0", "5e0"],
                &["-5.1", "6", "-1e1"],
            ),
            (
                r#"{"minimum":9007199254740993}"#,
                &["9007199254740993"],
                &["9007199254740992"],
            ),
            (
                r#"{"maxLength":2}"#,
                &[
                    r#""""#,
                    r#""ab""#,
                    r#""éé""#,
                    r#""\ud83d\ude00\u0041""#,
                    r#""😀😀""#,
                ],
                &[r#""abc""#, r#""a\nb""#, "12", "null"],
            ),
            (r#"{"minLength":1}"#, &[r#""a""#], &[r#""""#]),
            (
                r#"{"maxItems":2}"#,
                &["[]", "[1,[2,3,4]]"],
                &["[1,2,3]", "{}", "\"a\"", "null"],
            ),
            (
                r#"{"pattern":"[a-z]+|x"}"#,
                &[r#""abc""#, r#""\u0061""#],
                &[r#""""#, r#""abc1""#, r#""1x""#, r#""abc\n""#, r#""ABC""#],
            ),
            (
                r#"{"enum":["open","paid"]}"#,
                &[r#""open""#, r#""\u006fpen""#],
                &[r#""Open""#, "null", "1"],
            ),
            (
                r#"{"minItems":1,"maxItems":2}"#,
                &["[1]", "[1,2]"],
                &["[]", "[1,2,3]", "{}", "null"],
            ),
            (r#"{"required":true}"#, &["1", "\"\"", "{}", "false"], &["null"]),
            (
                r#"{"type":"integer"}"#,
                &[
                    "1",
                    "-0",
                    "1.0",
                    "1e2",
                    "1.50e1",
                    "0.0",
                    "0e-9",
                    "9007199254740993",
                ],
                &["1.5", "1e-1", "100.00000000000000000001", "\"1\"", "null", "[1]"],
            ),
            (r#"{"type":"integer","minimum":1}"#, &["1.0"], &["0", "1.5"]),
            (r#"{"type":"number"}"#, &["1.5"], &["\"1\"", "true", "null"]),
            (r#"{"type":"string"}"#, &["\"\""], &["1", "null", "[]"]),
            (
                r#"{"type":"boolean"}"#,
                &["true", "false"],
                &["1", "\"true\"", "null"],
            ),
            (r#"{"type":"object"}"#, &["{}"], &["[]", "\"{}\"", "null"]),
            (
                r#"{"type":"array","minItems":1}"#,
                &["[null]"],
                &["[]", "{\"0\":1}"],
            ),
        ];
        for (bounds, good, bad) in cases {
            let bounds = compiled(bounds);
            for raw in *good {
                assert_eq!(bounds.violation(Some(raw)), None, "{raw} {bounds:?}");
            }
            for raw in *bad {
                assert!(bounds.violation(Some(raw)).is_some(), "{raw} {bounds:?}");
            }
        }
    }

    #[test]
    fn an_absent_argument_satisfies_all_but_required() {
        assert_eq!(compiled(r#"{"maximum":1}"#).violation(None), None);
        assert!(
            compiled(r#"{"maximum":1,"required":true}"#)
                .violation(None)
                .is_some()
        );
    }

    #[test]
    fn bounds_that_say_nothing_or_contradict_themselves_are_refused() {
        let cases = [
            "{}",
            r#"{"maximum":1,"maxLength":1}"#,
            r#"{"maxItems":1,"enum":["a"]}"#,
            r#"{"minimum":2,"maximum":1}"#,
            r#"{"minLength":2,"maxLength":1}"#,
            r#"{"minItems":2,"maxItems":1}"#,
            r#"{"type":"string","maximum":1}"#,
            r#"{"type":"integer","pattern":"a"}"#,
            r#"{"type":"object","minItems":1}"#,
            r#"{"pattern":"a)|(b"}"#,
            r#"{"pattern":"("}"#,
            r#"{"pattern":"(?=a)"}"#,
            r#"{"pattern":"(a)\\1"}"#,
            r#"{"pattern":"(?x)a # comment"}"#,
            r#"{"pattern":"(((a{100}){100}){100}){100}"}"#,
        ];
        for bounds in cases {
            assert!(
                compile(&serde_json::from_str(bounds).unwrap()).is_err(),
                "{bounds}"
            );
        }
    }
}
