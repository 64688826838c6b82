//! The tools and prompts of a server: who may use them, and with which arguments.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// A tool that exists for clients.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Name of the tool, exact.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_./-]+$"))]
    pub name: String,
    /// Roles that may see and call it. Empty: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::roles")]
    pub roles: Vec<String>,
    /// Rules about its arguments.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub arguments: Arguments,
    /// Definitions that it may have: `sha256:` and 64 hex digits over the canonical form (RFC 8785) of its whole entry in
    /// the server's list, as the sidecar records it. With another one it is neither listed nor usable. None given: its server
    /// is held to the one that the sidecar saw first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::definitions")]
    pub definitions: Vec<String>,
    /// Rules about its results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub results: Option<Results>,
}

/// A prompt that exists for clients.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.arguments.bounds) || self.arguments.bounds.all(name, !has(self.arguments.bounds[name].minimum) && !has(self.arguments.bounds[name].maximum) && !has(self.arguments.bounds[name].minItems) && !has(self.arguments.bounds[name].maxItems) && (!has(self.arguments.bounds[name].type) || self.arguments.bounds[name].type == 'String'))")
    .message("arguments of prompts are texts: bound them by required, type: String, minLength, maxLength, pattern or enum"))]
pub struct Prompt {
    /// Name of the prompt, exact.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_./-]+$"))]
    pub name: String,
    /// Roles that may see and get it. Empty: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::roles")]
    pub roles: Vec<String>,
    /// Rules about its arguments, which are texts: a forced number or truth value is written as one.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub arguments: Arguments,
    /// Definitions that it may have: `sha256:` and 64 hex digits over the canonical form (RFC 8785) of its whole entry in
    /// the server's list, as the sidecar records it. With another one it is neither listed nor usable. None given: its server
    /// is held to the one that the sidecar saw first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::definitions")]
    pub definitions: Vec<String>,
}

/// Rules about the arguments of a tool or prompt, by argument name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("(has(self.forced) ? self.forced.size() : 0) + (has(self.bounds) ? self.bounds.size() : 0) + (has(self.forbidden) ? self.forbidden.size() : 0) <= 16")
        .message("at most 16 arguments of a tool or prompt can have a rule: forced, bounds and forbidden together"),
    validation = Rule::new("!has(self.forbidden) || self.forbidden.all(name, (!has(self.forced) || !(name in self.forced)) && (!has(self.bounds) || !(name in self.bounds)))")
        .message("a forbidden argument has no value that could be forced or bounded: keep one rule for it"),
    validation = Rule::new("!has(self.forced) || !has(self.bounds) || self.forced.all(name, !(name in self.bounds))")
        .message("an argument is either forced or bounded, not both: the caller's value for a forced one never counts"),
    validation = Rule::new("(!has(self.forced) || self.forced.all(name, name.size() >= 1 && name.size() <= 128)) && (!has(self.bounds) || self.bounds.all(name, name.size() >= 1 && name.size() <= 128))")
        .message("names of arguments are 1 to 128 characters long")
)]
pub struct Arguments {
    /// Set on every call, whatever the caller gave, and not shown in the tool's schema.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub forced: BTreeMap<String, ForcedValue>,
    /// What the caller's value must satisfy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub bounds: BTreeMap<String, Bounds>,
    /// Not to be given by a caller, whatever the value, and not shown in the tool's schema: for what a server takes but no
    /// agent shall say, such as an `all_tenants` switch. It need not be in the schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub forbidden: Vec<String>,
}

/// Rules about the results of a tool, or the contents of a resource. What breaks a bound is told as an error that says which:
/// of a tool as a tool error, which a model can correct.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.owned) || has(self.maxBytes)")
        .message("rules about results say something: give owned, maxBytes, or both"),
    validation = Rule::new("!has(self.maxRecords) || has(self.owned)")
        .message("maxRecords counts the records that owned finds: give owned too")
)]
pub struct Results {
    /// Only records that carry this value reach the client, and nothing beside them: other members, other text, images,
    /// links, `_meta`, questions to the user, log messages and the words of errors are left out. A result that has no
    /// records there is refused. On streams where it can't be told what a message is about (a session's own, a subscription's)
    /// no client of the server hears its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Owned>,
    /// Records that may be left at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_records: Option<u32>,
    /// Bytes of the result that the client would get, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 16_777_216))]
    pub max_bytes: Option<u32>,
    /// What becomes of other results: `Enforce` when left out. With `Report` foreign records reach the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
}

/// Which records of a result are the caller's own.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owned {
    /// Where the records are in the structured content, or in the text that holds it as JSON: `$`, or `$.name.name`. A list
    /// of records, or one record.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^\$(\.[A-Za-z0-9_-]+)*$"))]
    pub path: String,
    /// The field of a record that says whose it is: `name`, or `name.name`.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    )]
    pub field: String,
    /// The value that it must have, of the same type.
    pub equals: ForcedValue,
}

/// Where a forced value comes from: exactly one source.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.identity), has(self.attribute), has(self.agent), has(self.claim), has(self.string), has(self.int), has(self.bool)].exists_one(given, given)")
    .message("a forced value has exactly one source: identity, attribute, agent, claim, string, int or bool"))]
pub struct ForcedValue {
    /// A value of `spec.identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityKey>,
    /// Name of an entry of `spec.attributes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub attribute: Option<String>,
    /// Name of an entry of the calling agent's `attributes`. Every agent with one of the tool's roles must have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub agent: Option<String>,
    /// Name of a claim of the person that the agent acts for, or a JSON pointer (RFC 6901) to one: a text, a whole number
    /// or a truth value, from a token that one of `spec.issuers` signed. Without it, and for an agent that acts for nobody,
    /// the tool doesn't exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub claim: Option<String>,
    /// A constant text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub string: Option<String>,
    /// A constant whole number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int: Option<i64>,
    /// A constant truth value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bool: Option<bool>,
}

/// A value of `spec.identity`.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdentityKey {
    /// `spec.identity.tenantId`.
    TenantId,
}

/// What a caller's argument must satisfy; at least one rule. An absent argument satisfies all but `required`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.required) && self.required) || has(self.type) || has(self.minimum) || has(self.maximum) || has(self.minLength) || has(self.maxLength) || has(self.minItems) || has(self.maxItems) || has(self.pattern) || has(self.enum)")
        .message("empty bounds bound nothing: give at least one of required: true, type, minimum, maximum, minLength, maxLength, minItems, maxItems, pattern, enum"),
    validation = Rule::new("!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum")
        .message("minimum must not be greater than maximum"),
    validation = Rule::new("!has(self.minLength) || !has(self.maxLength) || self.minLength <= self.maxLength")
        .message("minLength must not be greater than maxLength"),
    validation = Rule::new("!has(self.minItems) || !has(self.maxItems) || self.minItems <= self.maxItems")
        .message("minItems must not be greater than maxItems"),
    validation = Rule::new("[has(self.minimum) || has(self.maximum), has(self.minLength) || has(self.maxLength) || has(self.pattern) || has(self.enum), has(self.minItems) || has(self.maxItems)].filter(given, given).size() <= 1")
        .message("no value is a number (minimum, maximum), a string (minLength, maxLength, pattern, enum) and an array (minItems, maxItems) at once: keep one kind"),
    validation = Rule::new("!has(self.type) || ((self.type == 'Number' || self.type == 'Integer' || (!has(self.minimum) && !has(self.maximum))) && (self.type == 'String' || (!has(self.minLength) && !has(self.maxLength) && !has(self.pattern) && !has(self.enum))) && (self.type == 'Array' || (!has(self.minItems) && !has(self.maxItems))))")
        .message("type must be what the other rules are about: Number or Integer for minimum and maximum, String for minLength, maxLength, pattern and enum, Array for minItems and maxItems")
)]
pub struct Bounds {
    /// It must be there, and not null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// What it must be. Needed only where no other rule says it, or for whole numbers.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<ArgumentType>,
    /// It must be a number, and at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    /// It must be a number, and at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<i64>,
    /// It must be a string of at least so many Unicode code points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_048_576))]
    pub min_length: Option<u32>,
    /// It must be a string of at most so many Unicode code points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_048_576))]
    pub max_length: Option<u32>,
    /// It must be an array of at least so many items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_048_576))]
    pub min_items: Option<u32>,
    /// It must be an array of at most so many items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_048_576))]
    pub max_items: Option<u32>,
    /// It must be a string, and the whole of it match this regular expression (Rust `regex` syntax, linear time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pattern: Option<String>,
    /// It must be one of these strings.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "enum")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub one_of: Vec<String>,
    /// What becomes of a call with another argument: `Enforce` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
}

/// What becomes of what a rule doesn't allow. A rule that narrows what is granted anyway can be tried out before it counts; what
/// grants (roles, forced and forbidden arguments) can't.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcement {
    /// It is refused, or taken out.
    Enforce,
    /// It passes as if there were no rule; audit records and the metric `bulkhead_reported_total` tell of it.
    Report,
}

/// A type of arguments, as JSON Schema has them.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArgumentType {
    /// A text.
    String,
    /// A number.
    Number,
    /// A number without a fraction, however it is written.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An array.
    Array,
    /// An object.
    Object,
}
