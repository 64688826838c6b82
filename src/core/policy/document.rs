//! The policy document of one MCP server, as the operator writes it and its sidecar reads it.
//!
//! The document is complete: references to identity and attributes of the tenant are already
//! resolved, so that a sidecar holds nothing that another tenant, or another server, could use.
//! Only what differs from agent to agent is left to look up.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The format that this code reads and writes.
pub const FORMAT: u32 = 1;

/// The policy of one MCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    /// Format of the document, [`FORMAT`].
    pub format: u32,
    /// The tenant that the server belongs to.
    pub tenant: Tenant,
    /// The server's name in the tenant.
    pub server: String,
    /// Host names that clients may use for this server (`Host`, `Origin`), without port, lower case.
    pub hostnames: BTreeSet<String>,
    /// Where the MCP server listens.
    pub upstream: Upstream,
    /// How keys are agreed on with clients.
    #[serde(default, skip_serializing_if = "KeyExchange::is_default")]
    pub key_exchange: KeyExchange,
    /// Who may call, by SPIFFE ID.
    pub agents: Vec<Agent>,
    /// Whose tokens prove the persons that agents act for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Issuer>,
    /// How much all agents together may ask of one sidecar.
    #[serde(default, skip_serializing_if = "RequestLimits::is_none")]
    pub limits: RequestLimits,
    /// The tools that may be called. One that isn't here doesn't exist.
    pub tools: Vec<Callable>,
    /// The prompts that may be got. One that isn't here doesn't exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<Callable>,
    /// The resources that may be read. One that isn't here doesn't exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// The definitions of the server's `instructions` that clients get, written as those of a [`Callable`]. Others are left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub instructions: BTreeSet<String>,
    /// What the server may ask of its clients, and they of its log.
    #[serde(default, skip_serializing_if = "ClientFeatures::is_none")]
    pub client_features: ClientFeatures,
}

/// The tenant that a server belongs to, for audit records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Name of the `McpTenant`.
    pub name: String,
    /// UID of the `McpTenant`.
    pub uid: String,
}

/// Where the MCP server listens: always on the pod's loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Path of the Streamable HTTP endpoint, with its leading slash.
    pub path: String,
}

/// How the keys of a TLS connection are agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyExchange {
    /// By a hybrid with ML-KEM where the client can.
    #[default]
    PostQuantumPreferred,
    /// By a hybrid with ML-KEM only.
    PostQuantumRequired,
}

impl KeyExchange {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A client of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// The agent's name in the tenant.
    pub name: String,
    /// The URI SAN of its certificate: `spiffe://<tenant>.<cluster domain>/ns/<namespace>/sa/<name>`.
    pub spiffe_id: String,
    /// Its roles.
    pub roles: BTreeSet<String>,
    /// Facts about it that forced arguments may take.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// How much it may ask of one sidecar.
    #[serde(default, skip_serializing_if = "RequestLimits::is_none")]
    pub limits: RequestLimits,
    /// The OAuth clients that it is to the issuers: persons' tokens that were made for one of them are its to present.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Client>,
    /// Whether it may do nothing for itself: its own token alone proves nothing then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requires_person: bool,
}

/// An OAuth client (RFC 6749 §2) of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Client {
    /// Name of the issuer in this document.
    pub issuer: String,
    /// What `client_id` or `azp` of a token must be.
    pub id: String,
}

/// An issuer of persons' access tokens (OpenID Connect Discovery 1.0, RFC 9068).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// Its name in the tenant.
    pub name: String,
    /// `iss` of its tokens, exact.
    pub url: String,
    /// Of these a token must have one in `aud`.
    pub audiences: BTreeSet<String>,
    /// For how long a token may be good, from its making to its end, in seconds.
    pub max_lifetime: u64,
    /// The roles that persons have. A person without any may do nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RolesOf>,
}

/// Roles of some persons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolesOf {
    /// Whose: all persons' when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimValue>,
    /// The roles.
    pub roles: BTreeSet<String>,
}

/// What a token must claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimValue {
    /// The claim: a name, or a JSON pointer (RFC 6901), which begins with a slash.
    pub name: String,
    /// Its value, or one of its values when it is a list.
    pub value: String,
}

/// What an agent, or all agents together, may ask of one sidecar: its share of what the tenant says, which is for all replicas
/// of the server together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestLimits {
    /// Requests in a minute. So many may come at once after a quiet minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests under way at once, streams included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<NonZeroU32>,
}

impl RequestLimits {
    /// Whether nothing is limited beyond the sidecar's own bounds.
    pub fn is_none(&self) -> bool {
        self == &Self::default()
    }
}

/// A tool or a prompt that exists for some role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Callable {
    /// Its name, exact.
    pub name: String,
    /// Roles for which it exists. Empty: for nobody.
    pub roles: BTreeSet<String>,
    /// Arguments that are set whatever the caller says, by name. Those of prompts are texts
    /// always: a number or a truth value is written as one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forced: BTreeMap<String, Forced>,
    /// What the caller's arguments must satisfy, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bounds: BTreeMap<String, Bounds>,
    /// Arguments that the caller must not give, whatever their value; clients aren't told that they are there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub forbidden: BTreeSet<String>,
    /// The definitions that it may have, `sha256:` and 64 hex digits over the canonical form (RFC 8785) of the whole entry
    /// in the server's list. None: the one that the sidecar sees first.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub definitions: BTreeSet<String>,
    /// What its results must satisfy. Of tools only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
}

/// What the results of a tool, or the contents of a resource, must satisfy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Results {
    /// Only records with this value pass, and nothing beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Owned>,
    /// Records that may be left at most. With `owned` only, which says where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_records: Option<u32>,
    /// Bytes of the result that the client would get, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u32>,
    /// What becomes of other results.
    #[serde(default, skip_serializing_if = "Enforcement::is_enforced")]
    pub enforcement: Enforcement,
}

/// Which records of a result are the agent's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owned {
    /// Where the records are: `$`, or `$.name.name`. A list of records, or one.
    pub path: String,
    /// The field of a record that says whose it is: `name`, or `name.name`.
    pub field: String,
    /// The value that it must have, of the same type.
    pub equals: Forced,
}

/// A resource, or the resources of a template, that exist for some role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource {
    /// The URI, exact; or a URI template (RFC 6570) with `{name}`, which stands for text without
    /// `/`, `?` and `#`, and `{+name}`, which stands for any.
    pub uri: String,
    /// Roles for which it exists. Empty: for nobody.
    pub roles: BTreeSet<String>,
    /// Variables of the template that have one value only, by name. Clients see the template with
    /// the values in place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forced: BTreeMap<String, Forced>,
    /// What its contents must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
}

/// What the server may ask of its clients (sampling, elicitation, roots), and whether they may have
/// its log. What isn't granted is taken out of the capabilities that either side is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientFeatures {
    /// `sampling/createMessage`: the client's model.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampling: bool,
    /// `elicitation/create`: questions to the client's user, by mode.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub elicitation: BTreeSet<ElicitationMode>,
    /// `roots/list`: the folders that the client works in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub roots: bool,
    /// `notifications/message`: the server's log, which is text by the server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logging: bool,
}

impl ClientFeatures {
    /// Whether nothing is granted.
    pub fn is_none(&self) -> bool {
        self == &Self::default()
    }

    /// What servers may ask, in few letters: equal for equal grants.
    pub(super) fn written(&self) -> String {
        let form = self.elicitation.contains(&ElicitationMode::Form);
        let url = self.elicitation.contains(&ElicitationMode::Url);
        [(self.sampling, 's'), (self.roots, 'r'), (form, 'f'), (url, 'u')]
            .into_iter()
            .filter_map(|(granted, letter)| granted.then_some(letter))
            .collect()
    }
}

/// How a server may ask the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ElicitationMode {
    /// A form that the client shows; the answer passes through the client and Bulkhead.
    Form,
    /// A page at an `https` URL that the user opens; the answer doesn't pass here.
    Url,
}

/// Where the value of a forced argument comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Forced {
    /// A text: a constant, or an identity value or attribute of the tenant.
    String(String),
    /// A whole number.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// The value of this attribute of the calling agent. An agent without it can't call the tool.
    Agent(String),
    /// The value of this claim of the token of the person that the agent acts for: a text, a whole number or a truth
    /// value. Without a person, or without the claim, the tool can't be called.
    Claim(String),
}

/// What a caller's argument must satisfy. An absent argument satisfies all but `required`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bounds {
    /// The argument must be there, and not null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// What the argument must be. Rules below must be about the same.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<ArgumentType>,
    /// Least number, inclusive. The argument must be a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    /// Greatest number, inclusive. The argument must be a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<i64>,
    /// Least length of a text, in Unicode code points. The argument must be a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// Greatest length of a text, in Unicode code points. The argument must be a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Least number of items. The argument must be an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_items: Option<u32>,
    /// Greatest number of items. The argument must be an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<u32>,
    /// A regular expression (linear time, no look-around) that the whole text must match. The
    /// argument must be a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The texts that are allowed. Empty: any. The argument must be a string.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", rename = "enum")]
    pub one_of: BTreeSet<String>,
    /// What becomes of a call with another argument.
    #[serde(default, skip_serializing_if = "Enforcement::is_enforced")]
    pub enforcement: Enforcement,
}

/// What becomes of what a rule doesn't allow. Only rules that narrow what is granted anyway can be tried out first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Enforcement {
    /// It is refused, or taken out.
    #[default]
    Enforce,
    /// It passes as if there were no rule, and is recorded and counted.
    Report,
}

impl Enforcement {
    /// Whether it is refused.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn is_enforced(&self) -> bool {
        *self == Self::Enforce
    }
}

/// A type of values, as JSON Schema has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ArgumentType {
    /// A text.
    String,
    /// A number.
    Number,
    /// A number without a fraction, however it is written: `1.0` and `1e2` are.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl PolicyDocument {
    /// The document as it is mounted: compact JSON, keys in a fixed order.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the document has string keys only and must serialize")
    }

    /// The revision of a document: the first 16 hex digits of the SHA-256 of its mounted bytes.
    /// Equal policies have equal revisions, whoever compiled them and when.
    pub fn revision_of(json: &[u8]) -> String {
        let digest = Sha256::digest(json);
        let hex = |byte: &u8| {
            [byte >> 4, byte & 0xf].map(|half| char::from(b"0123456789abcdef"[usize::from(half)]))
        };
        digest[..8].iter().flat_map(hex).collect()
    }
}
