//! The resources of a server, and what it may ask of its clients.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    schema,
    tools::{ForcedValue, Results},
};

/// A resource that exists for clients, or all resources of a template.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.forced) || self.forced.all(name, name.size() <= 63 && (self.uri.contains('{' + name + '}') || self.uri.contains('{+' + name + '}')))")
    .message("forced names a variable that the URI doesn't have as {name} or {+name}"))]
pub struct Resource {
    /// URI of the resource, exact. Or a URI template (RFC 6570): `{name}` stands for text without `/`, `?`
    /// and `#`, and `{+name}` for any; a client may read what it stands for, and see it as a template.
    /// When several cover a URI, an exact one is its rule, and else the first: whoever has no role for that one can't read it
    /// by another. An entry that is taken out leaves what it covered to the next one: to withdraw that, empty its roles.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[^\s{}]*(\{\+?[A-Za-z0-9_]+\}[^\s{}]*)*$")
    )]
    pub uri: String,
    /// Roles that may see, read and subscribe to it. Empty: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::roles")]
    pub roles: Vec<String>,
    /// Variables of the template that have one value for a client: it sees the template with that value in place,
    /// and nothing else of it exists for that client; nor does anything for one without the value. What it doesn't cover for a
    /// client, a later entry may.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub forced: BTreeMap<String, ForcedValue>,
    /// Rules about its contents. With `owned` each content must be a text that holds JSON, of which the client's own records
    /// are left; and of what a template stands for nothing is listed, completed or told of, since a URI can be a record's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub results: Option<Results>,
}

/// What the server may ask of its clients, and they of its log. Nothing is granted unless it is said here.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFeatures {
    /// The server may have the client's model complete texts (`sampling/createMessage`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampling: bool,
    /// The ways in which the server may ask the client's user (`elicitation/create`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub elicitation: Vec<ElicitationMode>,
    /// The server may ask for the folders that the client works in (`roots/list`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub roots: bool,
    /// Clients get the server's log messages (`notifications/message`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logging: bool,
}

/// How a server may ask the user.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElicitationMode {
    /// A form that the client shows. The answer goes through the client to the server.
    Form,
    /// A page at an `https` URL that the user opens.
    Url,
}
