//! Headers that mirror the body: `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name`, `Mcp-Param-*`
//! (SEP-2243).
//!
//! The client's are compared with the client's body and then forgotten; what goes upstream is
//! written anew from the body that goes upstream.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{mcp::version::Era, reason::Reason, refusal::Refusal};

/// The protocol version, lower case as HTTP libraries keep names.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The method.
pub const METHOD: &str = "mcp-method";
/// The name of the tool.
pub const NAME: &str = "mcp-name";
/// What the names of mirrored arguments begin with.
pub const PARAM_PREFIX: &str = "mcp-param-";

const ENCODED_START: &str = "=?base64?";
const ENCODED_END: &str = "?=";

/// The mirrored headers of a request, as the client sent them.
#[derive(Debug, Default)]
pub struct MirroredHeaders<'a> {
    pub(crate) version: Option<&'a str>,
    pub(crate) method: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    /// The part of the name after the prefix, and the value.
    pub(crate) params: Vec<(&'a str, &'a str)>,
    fault: bool,
}

impl<'a> MirroredHeaders<'a> {
    /// Picks the mirrored ones out of all headers of a request. One that is repeated or isn't
    /// visible ASCII is remembered as a fault, so that the refusal can answer the request.
    pub fn read(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let slot = if name.eq_ignore_ascii_case(PROTOCOL_VERSION) {
                &mut found.version
            } else if name.eq_ignore_ascii_case(METHOD) {
                &mut found.method
            } else if name.eq_ignore_ascii_case(NAME) {
                &mut found.name
            } else if let Some(suffix) = param_suffix(name) {
                let repeated = found
                    .params
                    .iter()
                    .any(|(known, _)| known.eq_ignore_ascii_case(suffix));
                match visible(value) {
                    Some(value) if !repeated => found.params.push((suffix, value)),
                    _ => found.fault = true,
                }
                continue;
            } else {
                continue;
            };
            match visible(value) {
                Some(value) if slot.is_none() => *slot = Some(value),
                _ => found.fault = true,
            }
        }
        found
    }

    /// The refusal of headers that can't be read.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.fault {
            Err(Refusal::plain(Reason::HeaderMalformed))
        } else {
            Ok(())
        }
    }

    /// `Mcp-Method` and `Mcp-Name` say what the body says. In the modern era they must be there;
    /// in the legacy one nobody sends them, but who does may not lie to what reads them.
    pub(crate) fn agree(&self, era: Era, method: &str, name: Option<&str>) -> Result<(), Refusal> {
        let required = era == Era::Modern;
        compare("Mcp-Method", self.method, method, required)?;
        match name {
            Some(name) => compare("Mcp-Name", self.name, name, required),
            // A method that names nothing has nothing to agree with, and the header isn't sent on.
            None => Ok(()),
        }
    }
}

fn compare(header: &str, sent: Option<&str>, body: &str, required: bool) -> Result<(), Refusal> {
    match sent {
        None if required => Err(Refusal::new(
            Reason::HeaderMismatch,
            format!("the {header} header is missing"),
        )),
        None => Ok(()),
        Some(value) if decode(value)? == body => Ok(()),
        Some(_) => Err(Refusal::new(
            Reason::HeaderMismatch,
            format!("the {header} header doesn't say what the body says"),
        )),
    }
}

fn param_suffix(name: &str) -> Option<&str> {
    let (prefix, suffix) = name.split_at_checked(PARAM_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PARAM_PREFIX).then_some(suffix)
}

fn visible(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
        .then(|| text.trim_matches([' ', '\t']))
}

/// The value of a mirrored header: as it is, or from `=?base64?…?=`.
pub fn decode(value: &str) -> Result<Cow<'_, str>, Refusal> {
    let Some(encoded) = value
        .strip_prefix(ENCODED_START)
        .and_then(|rest| rest.strip_suffix(ENCODED_END))
    else {
        return Ok(Cow::Borrowed(value));
    };
    STANDARD
        .decode(encoded)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Cow::Owned)
        .ok_or_else(|| Refusal::plain(Reason::HeaderMalformed))
}

/// A value as a mirrored header carries it.
pub fn encode(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
        && value.trim_matches([' ', '\t']) == value
        && !(value.starts_with(ENCODED_START) && value.ends_with(ENCODED_END));
    if plain {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("{ENCODED_START}{}{ENCODED_END}", STANDARD.encode(value)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agree(headers: &[(&str, &str)], era: Era, name: Option<&str>) -> Option<Reason> {
        let headers = MirroredHeaders::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        headers
            .check()
            .and_then(|()| headers.agree(era, "tools/call", name))
            .err()
            .map(|refusal| refusal.reason)
    }

    #[test]
    fn mirrored_headers_must_say_what_the_body_says() {
        use Reason::{HeaderMalformed, HeaderMismatch};
        let method = ("mcp-method", "tools/call");
        let cases: &[(&[(&str, &str)], Option<Reason>, Option<Reason>)] = &[
            (&[method, ("mcp-name", "x")], None, None),
            (&[("MCP-METHOD", "tools/call"), ("Mcp-Name", "x")], None, None),
            (&[method, ("mcp-name", "=?base64?eA==?=")], None, None),
            (
                &[method, ("mcp-name", "=?BASE64?eA==?=")],
                Some(HeaderMismatch),
                Some(HeaderMismatch),
            ),
            (
                &[method, ("mcp-name", "=?base64?eA?=")],
                Some(HeaderMalformed),
                Some(HeaderMalformed),
            ),
            (
                &[method, ("mcp-name", "=?base64?/w==?=")],
                Some(HeaderMalformed),
                Some(HeaderMalformed),
            ),
            (&[], Some(HeaderMismatch), None),
            (&[method], Some(HeaderMismatch), None),
            (&[("mcp-name", "x")], Some(HeaderMismatch), None),
            (
                &[method, ("mcp-name", "X")],
                Some(HeaderMismatch),
                Some(HeaderMismatch),
            ),
            (
                &[("mcp-method", "tools/list"), ("mcp-name", "x")],
                Some(HeaderMismatch),
                Some(HeaderMismatch),
            ),
            (
                &[method, method, ("mcp-name", "x")],
                Some(HeaderMalformed),
                Some(HeaderMalformed),
            ),
            (
                &[method, ("mcp-name", "x"), ("Mcp-Name", "x")],
                Some(HeaderMalformed),
                Some(HeaderMalformed),
            ),
            (
                &[method, ("mcp-name", "\u{e9}")],
                Some(HeaderMalformed),
                Some(HeaderMalformed),
            ),
            (
                &[
                    method,
                    ("mcp-name", "x"),
                    ("mcp-param-a", "1"),
                    ("Mcp-Param-A", "1"),
                ],
                Some(HeaderMalformed),
                Some(HeaderMalformed),
            ),
        ];
        for (headers, modern, legacy) in cases {
            assert_eq!(
                agree(headers, Era::Modern, Some("x")),
                *modern,
                "modern {headers:?}"
            );
            assert_eq!(
                agree(headers, Era::Legacy, Some("x")),
                *legacy,
                "legacy {headers:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself_and_is_visible(value: String) {
            let encoded = encode(&value);
            prop_assert!(visible(encoded.as_bytes()).is_some());
            prop_assert_eq!(decode(visible(encoded.as_bytes()).unwrap()).unwrap(), value.as_str());
        }
    }
}
