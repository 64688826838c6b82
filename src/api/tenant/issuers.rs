//! Whose tokens prove the persons that a tenant's agents act for.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// An issuer of access tokens (OpenID Connect Discovery 1.0, RFC 9068) of the persons that agents act for. Its keys are
/// found through `<url>/.well-known/openid-configuration` by the operator, over `https`, without redirects, and at public
/// addresses or those that the platform allows.
///
/// An agent that presents a person's token may do what both may. The token must be bound to the agent's certificate
/// (`cnf.x5t#S256`, RFC 8705), or made for one of its `clients`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// Name of the issuer in this tenant, and in its records.
    #[schemars(length(min = 1, max = 40), regex(pattern = schema::DNS_LABEL))]
    pub name: String,
    /// `iss` of its tokens, exact: an `https` URL without query and fragment.
    #[schemars(
        length(min = 9, max = 512),
        regex(
            pattern = r"^https://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~-]+)*/?$"
        )
    )]
    pub url: String,
    /// Of these a token must have one in `aud`. Claimed: no two tenants of a cluster take tokens of one issuer for one
    /// audience.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub audiences: Vec<String>,
    /// Certificates (PEM) of the authorities that the issuer's server is trusted by, in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16_384))]
    pub certificate_authority: Option<String>,
    /// For how long a token may be good, from its making to its end, as a Go duration. From 1m to 24h.
    #[serde(default = "default_lifetime")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('24h')")
        .message("maxTokenLifetime must be from 1m to 24h"))]
    pub max_token_lifetime: String,
    /// The roles that its persons have. Whoever has none may do nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub roles: Vec<PersonRoles>,
}

/// Roles of the persons whose token has a claim; without a claim, of all.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.claim) == has(self.value)")
    .message("claim and value belong together: say which value of the claim gives the roles, or leave both out for all persons"))]
pub struct PersonRoles {
    /// Name of a claim, for example `groups`, or a JSON pointer (RFC 6901) to one, for example `/realm_access/roles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub claim: Option<String>,
    /// The claim's value; one of its values when it is a list; one of its words when it is `scope` or `scp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub value: Option<String>,
    /// The roles. An agent that acts for the person has those of them that it has itself.
    #[schemars(schema_with = "schema::roles")]
    pub roles: Vec<String>,
}

/// What an agent is to an issuer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentClient {
    /// Name of an entry of `spec.issuers`.
    #[schemars(length(min = 1, max = 40), regex(pattern = schema::DNS_LABEL))]
    pub issuer: String,
    /// `client_id` or `azp` of the tokens that are made for it.
    #[schemars(length(min = 1, max = 256))]
    pub id: String,
}

fn default_lifetime() -> String {
    "1h".into()
}
