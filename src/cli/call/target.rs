//! What the command line of `call` names: a server, a tool's arguments, a time.

use std::{str::FromStr, time::Duration};

use jiff::SignedDuration;
use rmcp::model::JsonObject;
use serde_json::Value;

/// Greatest text of arguments: the request travels in one environment variable, of which Linux takes 128 KiB.
const MAX_ARGUMENTS: usize = 96 << 10;

/// A server of a tenant, `TENANT/SERVER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The tenant's name.
    pub tenant: String,
    /// The server's name.
    pub server: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((tenant, server)) => Ok(Self {
                tenant: name(tenant)?,
                server: name(server)?,
            }),
            None => Err("expected TENANT/SERVER, for example acme/crm".into()),
        }
    }
}

/// A name of a tenant, server or agent: an RFC 1035 label, so that it can be part of a host name and of a label selector.
pub fn name(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let valid = (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is no name: a-z, 0-9 and -, starting with a letter, at most 63 characters"
        ))
    }
}

/// A tool's arguments: one JSON object. Read here, so that a slip of the keyboard starts no pod.
pub fn arguments(text: &str) -> Result<JsonObject, String> {
    if text.len() > MAX_ARGUMENTS {
        return Err(format!(
            "{} bytes of arguments; at most {MAX_ARGUMENTS} fit a call",
            text.len()
        ));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(other) => Err(format!(
            "the arguments of a tool are a JSON object, this is {}",
            kind(&other)
        )),
        Err(error) => Err(pointed(text, &error)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The error under the place where it is. serde counts columns in bytes, people in characters.
fn pointed(text: &str, error: &serde_json::Error) -> String {
    let line = text
        .lines()
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let before = line
        .as_bytes()
        .get(..error.column().saturating_sub(1))
        .unwrap_or(line.as_bytes());
    let column = String::from_utf8_lossy(before).chars().count();
    format!("not JSON: {error}\n  {line}\n  {}^", " ".repeat(column))
}

/// A time to wait, for example `30s` or `2m`.
pub fn timeout(text: &str) -> Result<Duration, String> {
    within(text, "1s", "1h")
}

/// For how long something is served, for example `30m` or `8h`.
pub fn session(text: &str) -> Result<Duration, String> {
    within(text, "1m", "24h")
}

fn within(text: &str, least: &str, most: &str) -> Result<Duration, String> {
    let duration = |text: &str| {
        let duration: SignedDuration = text
            .parse()
            .map_err(|error| format!("{error}; for example {least} or {most}"))?;
        Duration::try_from(duration).map_err(|_| format!("between {least} and {most}"))
    };
    let given = duration(text)?;
    if (duration(least)?..=duration(most)?).contains(&given) {
        Ok(given)
    } else {
        Err(format!("between {least} and {most}"))
    }
}

/// A time as people write it: `8h`, `1m 30s`.
pub fn spoken(time: Duration) -> String {
    SignedDuration::try_from(time).map_or_else(|_| format!("{time:?}"), |time| format!("{time:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_two_names() {
        let target: Target = "acme/crm".parse().unwrap();
        assert_eq!(
            target,
            Target {
                tenant: "acme".into(),
                server: "crm".into()
            }
        );
        for text in [
            "",
            "acme",
            "acme/",
            "/crm",
            "acme/crm/x",
            "Acme/crm",
            "acme/crm.globex",
            "acme/-crm",
            "a b/c",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn arguments_are_one_object() {
        assert_eq!(arguments(r#"{"limit": 3}"#).unwrap()["limit"], 3);
        for (text, says) in [
            ("[1]", "an array"),
            ("3", "a number"),
            ("null", "null"),
            ("\"x\"", "a string"),
        ] {
            assert!(arguments(text).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn a_slip_in_the_arguments_is_pointed_at() {
        let error = arguments("{\"é\": nope}").unwrap_err();
        let (line, caret) = (error.lines().nth(1).unwrap(), error.lines().nth(2).unwrap());
        assert_eq!(line.chars().nth(caret.chars().count() - 1), Some('o'), "{error}");
        assert!(error.contains("line 1 column"), "{error}");
        assert!(arguments("{} {}").unwrap_err().contains("trailing"));
    }

    #[test]
    fn arguments_too_large_for_a_pod_are_refused_here() {
        let text = format!(r#"{{"x": "{}"}}"#, "x".repeat(MAX_ARGUMENTS));
        assert!(arguments(&text).unwrap_err().contains("at most"));
    }

    #[test]
    fn a_timeout_has_a_unit_and_sensible_limits() {
        assert_eq!(timeout("2m").unwrap(), Duration::from_mins(2));
        for text in ["", "2", "soon", "0s", "-3s", "2h"] {
            assert!(timeout(text).is_err(), "{text}");
        }
        assert_eq!(spoken(session("8h").unwrap()), "8h");
        for text in ["59s", "25h", "a day"] {
            assert!(session(text).is_err(), "{text}");
        }
    }
}
