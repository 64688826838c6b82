//! Arguments that are mirrored in headers (SEP-2243): `x-mcp-header` in a tool's `inputSchema`.

use std::borrow::Cow;

use crate::{
    json::{self, Kind, number},
    mcp::headers::{MirroredHeaders, decode, encode},
    reason::Reason,
    refusal::{Refusal, named},
};

/// An argument that is mirrored in a header: `x-mcp-header` in the tool's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The way to the argument, through `properties`.
    pub path: Vec<String>,
    /// The header's name after `Mcp-Param-`.
    pub header: String,
}

/// Where a mirrored argument is in `arguments`: a raw value, or `None` when absent or null.
fn find<'a>(arguments: Option<&'a str>, path: &[String]) -> Option<&'a str> {
    let mut raw = arguments?;
    for step in path {
        raw = json::get(&json::members(raw)?, step)?;
    }
    (Kind::of(raw) != Kind::Null).then_some(raw)
}

/// A raw value as text, when it is of a kind that headers carry.
fn scalar(raw: &str) -> Option<Cow<'_, str>> {
    match Kind::of(raw) {
        Kind::String => json::string(raw),
        Kind::Bool | Kind::Number => Some(Cow::Borrowed(raw)),
        Kind::Null | Kind::Array | Kind::Object => None,
    }
}

/// Compares the client's `Mcp-Param-*` headers with the client's arguments. `hidden` says which
/// arguments the client can't know to be mirrored, because they aren't in the schema that it saw.
pub(crate) fn agree(
    mirrors: &[Mirror],
    headers: &MirroredHeaders<'_>,
    arguments: Option<&str>,
    hidden: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    for mirror in mirrors {
        let sent = headers
            .params
            .iter()
            .find(|(suffix, _)| suffix.eq_ignore_ascii_case(&mirror.header));
        let agrees = match (sent, find(arguments, &mirror.path)) {
            (None, None) => true,
            (None, Some(_)) => mirror.path.first().is_some_and(|name| hidden(name)),
            (Some(_), None) => false,
            (Some((_, value)), Some(raw)) => says(&decode(value)?, raw),
        };
        if !agrees {
            return Err(Refusal::new(
                Reason::HeaderMismatch,
                format!(
                    "the Mcp-Param-{} header doesn't say what the argument says",
                    mirror.header
                ),
            ));
        }
    }
    Ok(())
}

/// Whether a header's text says what a raw value says. Numbers compare by value.
fn says(text: &str, raw: &str) -> bool {
    match Kind::of(raw) {
        Kind::Number => number::compare(text, raw) == Some(std::cmp::Ordering::Equal),
        _ => scalar(raw).is_some_and(|value| value == text),
    }
}

/// The `Mcp-Param-*` headers of the final arguments: the whole set, to be sent instead of the
/// client's.
pub(crate) fn headers_of(mirrors: &[Mirror], arguments: Option<&str>) -> Vec<(String, String)> {
    mirrors
        .iter()
        .filter_map(|mirror| {
            let value = scalar(find(arguments, &mirror.path)?)?;
            Some((
                format!("Mcp-Param-{}", mirror.header),
                encode(&value).into_owned(),
            ))
        })
        .collect()
}

/// The annotations of a tool's `inputSchema`, or what is wrong with them. Only properties that are
/// reached through `properties` alone may be annotated (SEP-2243); an annotation anywhere else,
/// of another type, with a name that is no header name, or one too many makes the tool invalid.
pub(crate) fn mirrors_of(schema: &str) -> Result<Vec<Mirror>, Refusal> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found)?;
    for (index, mirror) in found.iter().enumerate() {
        let repeated = found[..index]
            .iter()
            .any(|other: &Mirror| other.header.eq_ignore_ascii_case(&mirror.header));
        if repeated {
            return Err(invalid(&mirror.header));
        }
    }
    Ok(found)
}

const ANNOTATION: &str = "x-mcp-header";

/// Mirrored arguments that a tool may have: each becomes a header of every call, and servers take
/// about a hundred headers.
const MAX_MIRRORS: usize = 64;

fn collect(schema: &str, path: &mut Vec<String>, found: &mut Vec<Mirror>) -> Result<(), Refusal> {
    // Schemas may be `true` or `false`.
    let Some(members) = json::members(schema) else {
        return Ok(());
    };
    for (key, raw) in &members {
        match key.as_ref() {
            ANNOTATION => {
                let header = json::string(raw).unwrap_or_default().into_owned();
                let kind = json::get(&members, "type").and_then(json::string);
                let mirrorable = matches!(kind.as_deref(), Some("string" | "integer" | "boolean"));
                if path.is_empty() || !mirrorable || !is_token(&header) || found.len() == MAX_MIRRORS {
                    return Err(invalid(&header));
                }
                found.push(Mirror {
                    path: path.clone(),
                    header,
                });
            }
            "properties" => {
                for (name, property) in json::members(raw).unwrap_or_default() {
                    path.push(name.into_owned());
                    collect(property, path, found)?;
                    path.pop();
                }
            }
            // Data, not schemas.
            "const" | "enum" | "default" | "examples" => {}
            _ if json::mentions_key(raw, ANNOTATION) => return Err(invalid("")),
            _ => {}
        }
    }
    Ok(())
}

fn invalid(header: &str) -> Refusal {
    Refusal::new(
        Reason::InvalidMirror,
        format!("invalid {ANNOTATION} {}", named(header)),
    )
}

/// A token of RFC 9110.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(path: &[&str], header: &str) -> Mirror {
        Mirror {
            path: path.iter().map(|step| (*step).to_owned()).collect(),
            header: header.to_owned(),
        }
    }

    #[test]
    fn annotations_are_found_where_the_specification_allows_them() {
        let valid = [
            (r#"{"type":"object"}"#, vec![]),
            (
                r#"{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}"#,
                vec![mirror(&["region"], "Region")],
            ),
            (
                r#"{"properties":{"at":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}"#,
                vec![mirror(&["at", "n"], "N")],
            ),
            (r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#, vec![]),
            (
                r#"{"properties":{"a":{"type":"object","default":{"x-mcp-header":"A"}}}}"#,
                vec![],
            ),
        ];
        for (schema, mirrors) in valid {
            assert_eq!(mirrors_of(schema), Ok(mirrors), "{schema}");
        }
        let invalid = [
            r#"{"x-mcp-header":"A"}"#,
            r#"{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}"#,
            r#"{"properties":{"a":{"x-mcp-header":"A"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":""}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":7}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A B"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A\r\nHost"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#,
            r#"{"properties":{"a":{"items":{"type":"string","x-mcp-header":"A"}}}}"#,
            r#"{"anyOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}"#,
            r#"{"$defs":{"a":{"type":"string","x-mcp-header":"A"}}}"#,
        ];
        let property = |n| format!(r#""a{n}":{{"type":"string","x-mcp-header":"A{n}"}}"#);
        let many = |count| {
            let properties: Vec<_> = (0..count).map(property).collect();
            format!(r#"{{"properties":{{{}}}}}"#, properties.join(","))
        };
        assert_eq!(mirrors_of(&many(64)).map(|found| found.len()), Ok(64));
        let too_many = many(65);
        for schema in invalid.into_iter().chain([too_many.as_str()]) {
            assert_eq!(
                mirrors_of(schema).map_err(|refusal| refusal.reason),
                Err(Reason::InvalidMirror),
                "{schema}"
            );
        }
    }

    #[test]
    fn mirrored_arguments_must_agree_with_their_headers() {
        let mirrors = [
            mirror(&["region"], "Region"),
            mirror(&["at", "n"], "N"),
            mirror(&["secret"], "Secret"),
        ];
        let cases: &[(&[(&str, &str)], Option<&str>, bool)] = &[
            (&[], None, true),
            (&[], Some(r#"{"region":null}"#), true),
            (&[("mcp-param-region", "eu")], Some(r#"{"region":"eu"}"#), true),
            (
                &[("mcp-param-region", "=?base64?ZXU=?=")],
                Some(r#"{"region":"e\u0075"}"#),
                true,
            ),
            (&[("mcp-param-n", "42")], Some(r#"{"at":{"n":42.0}}"#), true),
            (&[("mcp-param-other", "x")], None, true),
            (&[], Some(r#"{"secret":"x"}"#), true),
            (&[("mcp-param-secret", "y")], Some(r#"{"secret":"x"}"#), false),
            (&[("mcp-param-region", "us")], Some(r#"{"region":"eu"}"#), false),
            (&[("mcp-param-region", "EU")], Some(r#"{"region":"eu"}"#), false),
            (&[], Some(r#"{"region":"eu"}"#), false),
            (&[("mcp-param-region", "eu")], None, false),
            (&[("mcp-param-region", "eu")], Some(r#"{"region":null}"#), false),
            (&[("mcp-param-n", "42")], Some(r#"{"at":{"n":"42"}}"#), true),
            (&[("mcp-param-n", "forty-two")], Some(r#"{"at":{"n":42}}"#), false),
            (
                &[("mcp-param-region", "=?base64?!?=")],
                Some(r#"{"region":"eu"}"#),
                false,
            ),
        ];
        for (headers, arguments, agrees) in cases {
            let headers =
                MirroredHeaders::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
            let result = agree(&mirrors, &headers, *arguments, |name| name == "secret");
            assert_eq!(result.is_ok(), *agrees, "{headers:?} {arguments:?}");
        }
    }

    #[test]
    fn headers_are_written_from_the_final_arguments() {
        let mirrors = [
            mirror(&["region"], "Region"),
            mirror(&["at", "n"], "N"),
            mirror(&["all"], "All"),
        ];
        let headers = headers_of(&mirrors, Some(r#"{"region":" e\u00fc","at":{"n":42},"all":[1]}"#));
        let expected = [("Mcp-Param-Region", "=?base64?IGXDvA==?="), ("Mcp-Param-N", "42")];
        assert_eq!(
            headers,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
