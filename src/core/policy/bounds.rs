//! Bounds of an argument: compiled once, checked exactly.

use std::{cmp::Ordering, collections::BTreeSet};

use regex::{Regex, RegexBuilder};

use crate::{
    json::{self, Kind, number},
    policy::document::Bounds,
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
    minimum: Option<i64>,
    maximum: Option<i64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
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
    let array = bounds.max_items.is_some();
    let kind = match (number, string, array) {
        (false, false, false) if !bounds.required => return Err("has no rule".into()),
        (false, false, false) => None,
        (true, false, false) => Some(Kind::Number),
        (false, true, false) => Some(Kind::String),
        (false, false, true) => Some(Kind::Array),
        _ => return Err("has rules for more than one type".into()),
    };
    if matches!((bounds.minimum, bounds.maximum), (Some(least), Some(most)) if least > most) {
        return Err("has a minimum over its maximum".into());
    }
    if matches!((bounds.min_length, bounds.max_length), (Some(least), Some(most)) if least > most) {
        return Err("has a minLength over its maxLength".into());
    }
    let pattern = match &bounds.pattern {
        Some(pattern) => Some((pattern.clone(), compile_pattern(pattern)?)),
        None => None,
    };
    Ok(CompiledBounds {
        required: bounds.required,
        kind,
        minimum: bounds.minimum,
        maximum: bounds.maximum,
        min_length: bounds.min_length.map(size),
        max_length: bounds.max_length.map(size),
        max_items: bounds.max_items.map(size),
        pattern,
        one_of: bounds.one_of.clone(),
    })
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
        if self.kind.is_some_and(|wanted| wanted != kind) {
            return Some(match self.kind {
                Some(Kind::Number) => "must be a number".to_owned(),
                Some(Kind::String) => "must be a string".to_owned(),
                _ => "must be an array".to_owned(),
            });
        }
        match self.kind? {
            Kind::Number => self.number_violation(raw),
            Kind::String => self.string_violation(raw),
            _ => self.items_violation(raw),
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
        let count = json::items(raw).map_or(usize::MAX, |items| items.len());
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
            (r#"{"required":true}"#, &["1", "\"\"", "{}", "false"], &["null"]),
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
