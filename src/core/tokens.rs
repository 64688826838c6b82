//! What a token must say to prove an agent, beside its certificate; and the keys that verify tokens, as the operator
//! writes them and sidecars read them.
//!
//! The token is one of the agent's own `ServiceAccount`, made by the kubelet for this tenant (a projected volume,
//! KEP-1205). It proves that the caller runs in a pod of that account now; a copied certificate alone proves nothing.
//! Or it is an access token of a person that the agent acts for, of an issuer that the tenant names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format of [`TokenKeys`] that this code reads and writes.
pub const FORMAT: u32 = 1;

/// For how long a token may be good, from its making to its end, in seconds. The kubelet renews it after four fifths.
pub const MAX_LIFETIME: u64 = 3600;

/// The audience that a `ServiceAccount` token must have to be taken by a tenant's servers, among others or alone.
pub fn audience(tenant: &str) -> String {
    format!("bulkhead:{tenant}")
}

/// The subject of the tokens of the `ServiceAccount` that a SPIFFE ID stands for:
/// `spiffe://<trust domain>/ns/<namespace>/sa/<name>`. `None`: it stands for none.
pub fn subject(spiffe_id: &str) -> Option<String> {
    let (_, path) = spiffe_id.strip_prefix("spiffe://")?.split_once('/')?;
    let (namespace, name) = path.strip_prefix("ns/")?.split_once("/sa/")?;
    let is_segment = |text: &str| !text.is_empty() && !text.contains(['/', ':']);
    (is_segment(namespace) && is_segment(name)).then(|| format!("system:serviceaccount:{namespace}:{name}"))
}

/// The keys by which a sidecar verifies tokens without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenKeys {
    /// Format of the document, [`FORMAT`].
    pub format: u32,
    /// Of the cluster's `ServiceAccount` tokens.
    pub service_accounts: IssuerKeys,
    /// Of the tenant's issuers of persons' tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerKeys>,
}

/// The keys of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerKeys {
    /// The issuer, as its tokens name it.
    pub issuer: String,
    /// Its public keys (JWK, RFC 7517).
    pub keys: Vec<Value>,
}

impl TokenKeys {
    /// In today's format.
    pub fn new(service_accounts: IssuerKeys, issuers: Vec<IssuerKeys>) -> Self {
        Self {
            format: FORMAT,
            service_accounts,
            issuers,
        }
    }

    /// The document as it is mounted: compact JSON, keys in a fixed order.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the document has string keys only and must serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_s_spiffe_id_stands_for_its_service_account() {
        for (id, account) in [
            (
                "spiffe://acme.cluster.local/ns/acme-agents/sa/billing",
                Some("system:serviceaccount:acme-agents:billing"),
            ),
            ("spiffe://acme.cluster.local/ns/a/sa/b/c", None),
            ("spiffe://acme.cluster.local/ns/a/b/sa/c", None),
            ("spiffe://acme.cluster.local/ns/a:b/sa/c", None),
            ("spiffe://acme.cluster.local/ns//sa/c", None),
            ("spiffe://acme.cluster.local/ns/a/sa/", None),
            ("spiffe://acme.cluster.local/sa/c", None),
            ("spiffe://acme.cluster.local", None),
            ("https://acme.cluster.local/ns/a/sa/b", None),
        ] {
            assert_eq!(subject(id).as_deref(), account, "{id}");
        }
    }
}
