//! What the sidecar asks the server for itself: the lists that its policy has rules about.
//!
//! Nobody calls, so nobody's rights are looked at: each of these messages is written here, whole, and can be nothing else.
//! What comes back is read as an agent's list would be, and goes no further than the [`Inventory`].

use bytes::Bytes;

use crate::{
    json::{self, Limits, Members, text::quoted},
    mcp::{
        self, Era, Inventory, Message, ProtocolVersion,
        envelope::Outcome,
        inventory::{Learned, Listing},
        methods::Method,
        version::{META_CAPABILITIES, META_VERSION},
    },
    policy::{
        answer::{DroppedEntry, malformed},
        compile::CompiledPolicy,
        instructions::Instructions,
        lists::{self, Reader},
        permit::{Expected, Forward, Permitted},
    },
    reason::Reason,
    refusal::Refusal,
};

/// `_meta` key of who asks. Nothing may be decided by it.
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";

/// Who asks, as MCP wants to know it.
const CLIENT: &str = concat!(
    r#"{"name":"bulkhead","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

/// The id of each inquiry: one is under way at a time.
const ID: &str = "1";

/// Something that the sidecar asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inquiry<'a> {
    /// `server/discover`: what the server offers in the modern era.
    Discover,
    /// `initialize`: the same in the legacy era.
    Initialize,
    /// `notifications/initialized`, which ends the handshake.
    Initialized(ProtocolVersion),
    /// A page of a list.
    Page {
        /// Which list.
        listing: Listing,
        /// The version that the server speaks.
        version: ProtocolVersion,
        /// Where the page before ended.
        cursor: Option<&'a str>,
    },
}

/// What the server said to an inquiry.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Inquiry::Discover`] and [`Inquiry::Initialize`].
    Offer {
        /// The newest version of the era that both speak.
        version: ProtocolVersion,
        /// The lists that it has.
        listings: Vec<Listing>,
        /// What it says to models, if anything.
        instructions: Option<Instructions>,
    },
    /// To [`Inquiry::Page`].
    Page {
        /// What it taught.
        learned: Vec<Learned>,
        /// What can't be offered.
        dropped: Vec<DroppedEntry>,
        /// Where the next page begins.
        next: Option<String>,
    },
    /// An error: it doesn't have what was asked for.
    Refused,
}

impl Inquiry<'_> {
    fn version(self) -> ProtocolVersion {
        match self {
            Self::Discover => ProtocolVersion::V20260728,
            Self::Initialize => ProtocolVersion::LATEST_LEGACY,
            Self::Initialized(version) | Self::Page { version, .. } => version,
        }
    }

    /// The method that it asks with.
    pub fn method(self) -> Method {
        match self {
            Self::Discover => Method::Discover,
            Self::Initialize => Method::Initialize,
            Self::Initialized(_) => Method::Initialized,
            Self::Page { listing, .. } => listing.method(),
        }
    }

    /// The message, permitted by what it is.
    pub fn message(self) -> Permitted<Forward> {
        let (version, method) = (self.version(), self.method());
        let mut params = match self {
            Self::Initialize => vec![
                format!(r#""protocolVersion":"{}""#, version.as_str()),
                r#""capabilities":{}"#.to_owned(),
                format!(r#""clientInfo":{CLIENT}"#),
            ],
            Self::Page {
                cursor: Some(cursor), ..
            } => vec![format!(r#""cursor":{}"#, quoted(cursor))],
            _ => Vec::new(),
        };
        let mut headers = Vec::new();
        // A handshake agrees on the version that the header has from then on.
        if self != Self::Initialize {
            headers.push(("MCP-Protocol-Version".into(), version.as_str().to_owned()));
        }
        if version.era() == Era::Modern {
            headers.push(("Mcp-Method".into(), method.name().to_owned()));
            params.push(format!(
                r#""_meta":{{"{META_VERSION}":"{}","{META_CAPABILITIES}":{{}},"{META_CLIENT}":{CLIENT}}}"#,
                version.as_str()
            ));
        }
        let is_request = !matches!(self, Self::Initialized(_));
        let id = if is_request {
            format!(r#""id":{ID},"#)
        } else {
            String::new()
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0",{id}"method":"{}","params":{{{}}}}}"#,
            method.name(),
            params.join(",")
        );
        Permitted::new(Forward {
            body: body.into(),
            headers,
            version,
            method: Some(method),
            expected: is_request.then(|| Expected {
                id: ID.to_owned(),
                method,
                version,
                progress_token: None,
                name: None,
                listens: Vec::new(),
            }),
            arguments_digest: None,
        })
    }
}

impl CompiledPolicy {
    /// Reads a message of the server in answer to an inquiry. `None`: it is something else, and the answer may follow.
    pub fn reply(
        &self,
        inquiry: Inquiry<'_>,
        body: &Bytes,
        inventory: &Inventory,
        limits: Limits,
    ) -> Result<Option<Reply>, Refusal> {
        let message = mcp::read(body, limits)
            .map_err(|refusal| malformed(&format!("it can't be read ({})", refusal.reason)))?;
        let Message::Response(response) = &message else {
            return Ok(None);
        };
        if !response.id.is_some_and(|id| id.is(ID)) {
            return Err(Refusal::plain(Reason::AnswerMismatch));
        }
        let Outcome::Result(result) = response.outcome else {
            return Ok(Some(Reply::Refused));
        };
        let members = json::members(result).ok_or_else(|| malformed("its result is no object"))?;
        match inquiry {
            Inquiry::Discover => self.offer(&members, newest_modern(&members)),
            Inquiry::Initialize => self.offer(&members, negotiated(&members)),
            Inquiry::Initialized(_) => Ok(Reply::Refused),
            Inquiry::Page { listing, version, .. } => {
                let page = lists::read(self, Reader::Sidecar, listing, version, &members, inventory)?;
                let next = match json::get(&members, "nextCursor").map(json::string) {
                    None => None,
                    Some(Some(next)) => Some(next.into_owned()),
                    Some(None) => return Err(malformed("its nextCursor is no string")),
                };
                Ok(Reply::Page {
                    learned: page.learned,
                    dropped: page.dropped,
                    next,
                })
            }
        }
        .map(Some)
    }

    /// Why an entry of a list can't be offered, as far as its definition goes.
    pub fn withheld(&self, entry: &Learned, inventory: &Inventory) -> Option<Reason> {
        let rule = match entry.listing {
            Listing::Tools => self.tools.get(&entry.name),
            Listing::Prompts => self.prompts.get(&entry.name),
            Listing::Resources | Listing::Templates => None,
        };
        let accepted = rule.map_or(&[][..], |rule| &rule.accepted);
        let facts = entry.facts.as_ref().map(drop).map_err(|reason| *reason);
        facts.and_then(|()| inventory.accepts(entry, accepted)).err()
    }

    /// What the server offers of what the policy has rules about.
    fn offer(&self, members: &Members<'_>, version: Option<ProtocolVersion>) -> Result<Reply, Refusal> {
        let version = version.ok_or_else(|| Refusal::plain(Reason::AnswerVersion))?;
        let offered = json::get(members, "capabilities").and_then(json::members);
        let offered = offered.ok_or_else(|| malformed("it has no capabilities"))?;
        let mut listings = Vec::new();
        if json::get(&offered, "tools").is_some() && self.tools.any() {
            listings.push(Listing::Tools);
        }
        if json::get(&offered, "prompts").is_some() && self.prompts.any() {
            listings.push(Listing::Prompts);
        }
        if json::get(&offered, "resources").is_some() && self.has_resources() {
            listings.extend([Listing::Resources, Listing::Templates]);
        }
        let instructions = self.instructions(members);
        Ok(Reply::Offer {
            version,
            listings,
            instructions: instructions.map(|(_, said)| said),
        })
    }
}

fn newest_modern(members: &Members<'_>) -> Option<ProtocolVersion> {
    let versions = json::get(members, "supportedVersions").and_then(json::items)?;
    let spoken = versions
        .into_iter()
        .filter_map(|raw| ProtocolVersion::parse(&json::string(raw)?));
    spoken.filter(|version| version.era() == Era::Modern).max()
}

fn negotiated(members: &Members<'_>) -> Option<ProtocolVersion> {
    let version = json::get(members, "protocolVersion").and_then(json::string)?;
    ProtocolVersion::parse(&version).filter(|version| version.era() == Era::Legacy)
}
