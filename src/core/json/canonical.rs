//! The canonical form of a JSON value (RFC 8785), of which digests are made.
//!
//! Most values that are sent are all but in it: their keys only have to be sorted, and space between left out. What would
//! have to be written in another way (escapes, fractions, numbers beyond what a double holds) is left to
//! `serde_json_canonicalizer`, and so is what isn't sorted alike as UTF-8 and as UTF-16.

use serde_json::Value;

use super::{Kind, items, members};

/// Digits of an integer that a double holds for certain, and ECMAScript writes as they are.
const SAFE_DIGITS: usize = 15;

/// The canonical form of a raw value; `None` when it has none, which of what passed the strict reader nothing does.
pub fn canonical(raw: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    if write(raw.trim(), &mut out).is_some() {
        return Some(out);
    }
    let value: Value = serde_json::from_str(raw).ok()?;
    serde_json_canonicalizer::to_vec(&value).ok()
}

/// Appends a value that only needs sorting. `None`: it needs more.
fn write(raw: &str, out: &mut Vec<u8>) -> Option<()> {
    match Kind::of(raw) {
        Kind::Null | Kind::Bool => out.extend_from_slice(raw.as_bytes()),
        Kind::Number if is_plain_integer(raw) => out.extend_from_slice(raw.as_bytes()),
        Kind::String if is_plain_string(raw) => out.extend_from_slice(raw.as_bytes()),
        Kind::Number | Kind::String => return None,
        Kind::Array => {
            out.push(b'[');
            for (place, item) in items(raw)?.into_iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Kind::Object => {
            let mut members = members(raw)?;
            if !members.iter().all(|(key, _)| is_plain_key(key)) {
                return None;
            }
            members.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
            out.push(b'{');
            for (place, (key, value)) in members.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                out.push(b'"');
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b"\":");
                write(value, out)?;
            }
            out.push(b'}');
        }
    }
    Some(())
}

fn is_plain_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits.len() <= SAFE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) && raw != "-0"
}

fn is_plain_string(raw: &str) -> bool {
    !raw.contains('\\')
}

fn is_plain_key(key: &str) -> bool {
    key.bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::tests::json_text;

    /// What the library makes of it.
    fn reference(raw: &str) -> Vec<u8> {
        let value: Value = serde_json::from_str(raw).unwrap();
        serde_json_canonicalizer::to_vec(&value).unwrap()
    }

    #[test]
    fn it_is_what_the_library_makes() {
        for raw in [
            r#"{"b":1,"a":[true,null,{"z":"é","y":-12}],"aa":{}}"#,
            r#" { "b" : [ 1 , 2 ] , "a" : "\u007f \/ x" } "#,
            r#"{"é":1,"z":2,"\ud83d\ude00":3,"ﬀ":4}"#,
            r#"{"a\u0062":1,"aa":2}"#,
            r#"{"\"":1,"!":2}"#,
            "1.0",
            "-0",
            "0",
            "1e3",
            "999999999999999",
            "9007199254740993",
            "123456789012345678901234567890",
            "[]",
            r#""""#,
            "\"a\u{7f}b\"",
        ] {
            let made = canonical(raw).unwrap();
            assert_eq!(
                String::from_utf8(made).unwrap(),
                String::from_utf8(reference(raw)).unwrap(),
                "{raw}"
            );
        }
    }

    #[test]
    fn what_is_only_sorted_is_not_left_to_the_library() {
        let raw = r#"{"tenant_id": "7f9c", "limit": 10, "é": []}"#;
        assert_eq!(write(raw, &mut Vec::new()), None, "keys beyond ASCII are");
        let mut out = Vec::new();
        write(&raw.replace('é', "a"), &mut out).unwrap();
        assert_eq!(out, br#"{"a":[],"limit":10,"tenant_id":"7f9c"}"#);
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_as_the_library_writes_it(raw in json_text()) {
            if crate::json::check(raw.as_bytes(), crate::json::Limits::default()).is_ok() {
                prop_assert_eq!(canonical(&raw).unwrap(), reference(&raw));
            }
        }
    }
}
