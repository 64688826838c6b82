//! Protocol versions and the two eras of the protocol.
//!
//! *Legacy* (2025-11-25 and before): a handshake, then sessions; the version is in a header from
//! then on. *Modern* (2026-07-28): no handshake, each request says its version in `_meta` and in
//! the header, and both must agree. 2024-11-05 is not spoken: its transport is another one.

use crate::{
    json::{self, text::is_case_variant},
    mcp::{envelope::Params, headers::MirroredHeaders},
    reason::Reason,
    refusal::Refusal,
};

/// `_meta` key of the protocol version, required of every modern request.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// `_meta` key of the client's capabilities, required of every modern request.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// An era of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// Up to 2025-11-25: `initialize`, sessions.
    Legacy,
    /// From 2026-07-28: every request stands for itself.
    Modern,
}

/// A protocol version that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProtocolVersion {
    /// 2025-03-26, without its batches.
    V20250326,
    /// 2025-06-18
    V20250618,
    /// 2025-11-25
    V20251125,
    /// 2026-07-28
    V20260728,
}

impl ProtocolVersion {
    /// Every version that is spoken here, oldest first.
    pub const ALL: [Self; 4] = [Self::V20250326, Self::V20250618, Self::V20251125, Self::V20260728];

    /// The newest version with a handshake: what is offered to a client that asks for one that is
    /// not spoken here.
    pub const LATEST_LEGACY: Self = Self::V20251125;

    /// The version as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V20250326 => "2025-03-26",
            Self::V20250618 => "2025-06-18",
            Self::V20251125 => "2025-11-25",
            Self::V20260728 => "2026-07-28",
        }
    }

    /// The version of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Its era.
    pub const fn era(self) -> Era {
        match self {
            Self::V20260728 => Era::Modern,
            _ => Era::Legacy,
        }
    }
}

/// The version that a client's message is in, from its header and its `_meta`.
///
/// `initialize` is how a legacy client says its version first; one without a header is read as the
/// oldest version, like any message without one (2025-06-18, "Protocol Version Header").
pub fn of_message(
    headers: &MirroredHeaders<'_>,
    params: Option<&Params<'_>>,
) -> Result<ProtocolVersion, Refusal> {
    let meta = match params.and_then(|params| params.get("_meta")) {
        Some(raw) => meta_version(raw)?,
        None => None,
    };
    match (headers.version, meta) {
        (None, None) => Ok(ProtocolVersion::V20250326),
        (Some(header), Some(meta)) if header != meta => Err(Refusal::new(
            Reason::HeaderMismatch,
            "MCP-Protocol-Version and _meta say different protocol versions",
        )),
        (None, Some(_)) => Err(Refusal::new(
            Reason::HeaderMismatch,
            "the MCP-Protocol-Version header is missing, _meta has a protocol version",
        )),
        (Some(header), meta) => {
            let version = ProtocolVersion::parse(header).ok_or_else(|| Refusal::version(header))?;
            match (version.era(), meta) {
                (Era::Modern, None) => Err(Refusal::new(
                    Reason::MetaMissing,
                    format!("params._meta lacks {META_VERSION}"),
                )),
                // A legacy version in _meta is a modern envelope around it: neither era has that.
                (Era::Legacy, Some(meta)) => Err(Refusal::version(&meta)),
                _ => Ok(version),
            }
        }
    }
}

fn meta_version(raw: &str) -> Result<Option<String>, Refusal> {
    let meta =
        json::members(raw).ok_or_else(|| Refusal::new(Reason::InvalidParams, "params._meta is no object"))?;
    for (key, _) in &meta {
        if [META_VERSION, META_CAPABILITIES]
            .into_iter()
            .any(|name| is_case_variant(key, name))
        {
            return Err(Refusal::plain(Reason::CaseVariant));
        }
    }
    let Some(raw) = json::get(&meta, META_VERSION) else {
        return Ok(None);
    };
    json::string(raw)
        .map(|text| Some(text.into_owned()))
        .ok_or_else(|| {
            Refusal::new(
                Reason::InvalidParams,
                format!("params._meta[{META_VERSION}] is no string"),
            )
        })
}

/// Which version a handshake may end in: the one asked for when it is spoken here and has
/// handshakes, else the newest one that does. So a server never sees, and can't echo, a version
/// that isn't spoken here.
pub fn negotiated(requested: &str) -> ProtocolVersion {
    ProtocolVersion::parse(requested)
        .filter(|version| version.era() == Era::Legacy)
        .unwrap_or(ProtocolVersion::LATEST_LEGACY)
}
