//! The protocol headers that a well-behaved client sends with a message. A message in a file has none, and a sidecar
//! wants those of the modern era to agree with the body.

use anyhow::{Result, bail};
use bulkhead_core::{
    json::Limits,
    mcp::{
        self, Era, MirroredHeaders, ProtocolVersion,
        headers::encode,
        methods::{self, Direction},
        version::META_VERSION,
    },
};
use bytes::Bytes;
use serde_json::Value;

/// Headers, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// What a client sends with this body: nothing, unless its `_meta` says a protocol version.
    pub fn of(body: &Bytes) -> Self {
        Self(mirrored(body).unwrap_or_default())
    }

    /// The same with this header instead of one of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// As the sidecar reads them.
    pub fn read(&self) -> MirroredHeaders<'_> {
        MirroredHeaders::read(
            self.0
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        )
    }
}

/// `None`: a message of the legacy era, or one that can't be read; clients send none of these headers with it.
fn mirrored(body: &Bytes) -> Option<Vec<(String, String)>> {
    let message = mcp::read(body, Limits::default()).ok()?;
    let meta: Value = serde_json::from_str(message.params()?.get("_meta")?).ok()?;
    let version = meta.get(META_VERSION)?.as_str()?.to_owned();
    let era = ProtocolVersion::parse(&version).map_or(Era::Modern, ProtocolVersion::era);
    let method = message.method()?.to_owned();
    let name = methods::lookup(era, Direction::ToServer, &method)
        .and_then(|entry| message.params()?.text(entry.names()?))
        .map(|name| ("Mcp-Name".to_owned(), encode(&name).into_owned()));
    let mut headers = vec![
        ("MCP-Protocol-Version".to_owned(), version),
        ("Mcp-Method".to_owned(), method),
    ];
    headers.extend(name);
    Some(headers)
}

/// `NAME: VALUE`, as curl has it.
pub fn parse(text: &str) -> Result<(String, String)> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().into(), value.trim().into())),
        _ => bail!("not a header; write NAME: VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &'static str) -> Vec<(String, String)> {
        Headers::of(&Bytes::from_static(body.as_bytes())).0
    }

    #[test]
    fn only_a_message_with_a_version_in_its_meta_has_headers() {
        assert!(of(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).is_empty());
        assert!(of("{").is_empty());
        let modern = of(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"é","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        let modern: Vec<_> = modern
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            modern,
            [
                ("MCP-Protocol-Version", "2026-07-28"),
                ("Mcp-Method", "tools/call"),
                ("Mcp-Name", "=?base64?w6k=?="),
            ]
        );
    }

    #[test]
    fn a_given_header_takes_the_place_of_one_of_its_name() {
        let mut headers = Headers(vec![("Mcp-Method".into(), "a".into())]);
        let (name, value) = parse("mcp-method:  b ").unwrap();
        headers.set(&name, &value);
        assert_eq!(headers.0, [("mcp-method".to_owned(), "b".to_owned())]);
        assert!(parse("no header").is_err());
        assert!(parse(": value").is_err());
    }
}
