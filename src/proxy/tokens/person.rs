//! The access token of a person that an agent acts for.
//!
//! It is the agent's to present when it is bound to the certificate of the connection (`cnf`, RFC 8705 §3.1), or was made
//! for an OAuth client that the policy declares for the agent. Otherwise it may have been stolen: no bearer token alone
//! proves anything.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_core::policy::{CompiledAgent, CompiledPolicy, Person};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::{LEEWAY, TokenError};

/// Claims that ID tokens and logout tokens have, and access tokens don't (OpenID Connect Core 1.0 §2, §3.3.2.11;
/// Back-Channel Logout 1.0 §2.4).
const OF_OTHER_KINDS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];

/// Member of `cnf`: SHA-256 of a certificate (RFC 8705 §3.1).
const CERTIFICATE: &str = "x5t#S256";

/// What the token of a person says.
pub(super) struct PersonToken {
    issuer: Box<str>,
    subject: Box<str>,
    /// What it claims, as JSON: read again when there is another policy.
    claims: Box<str>,
    audiences: Vec<String>,
    /// Seconds from its making to its end.
    lifetime: u64,
    /// The OAuth client that it was made for.
    client: Option<String>,
    /// SHA-256 of the certificate that it is bound to.
    certificate: Option<String>,
    /// Whether it is bound to something else than a certificate, alone or as well.
    otherwise_bound: bool,
    /// The agent that presented it last, as it acts for the person, and the revision of the policy that says so.
    acting: ArcSwapOption<(Arc<str>, Arc<CompiledAgent>)>,
}

impl fmt::Debug for PersonToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersonToken")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// Whether a token is an access token: not one that tells a client who has logged in, that renews others, or that is
/// exchanged for another.
pub(super) fn is_access_token(kind: Option<&str>, claims: &Value) -> bool {
    let kind = kind.unwrap_or("jwt").to_ascii_lowercase();
    // RFC 7515 §4.1.9: the prefix may be left out.
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        // RFC 9068 §2.1.
        "at+jwt" => true,
        // From before that. Some issuers write the kind into a claim.
        "jwt" => match (claims.get("typ"), claims.get("token_use")) {
            (Some(kind), _) => kind
                .as_str()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")),
            (None, Some(used)) => used == "access",
            (None, None) => !OF_OTHER_KINDS.iter().any(|name| claims.get(name).is_some()),
        },
        _ => false,
    }
}

impl PersonToken {
    /// Of the verified claims of `issuer`.
    pub(super) fn new(issuer: &str, claims: Value, lifetime: u64) -> Result<Self, TokenError> {
        let audiences = match claims.get("aud") {
            Some(Value::String(audience)) => vec![audience.clone()],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => return Err(TokenError::Malformed),
        };
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let (client, party) = (text("client_id"), text("azp"));
        if client.is_some() && party.is_some() && client != party {
            return Err(TokenError::Binding);
        }
        let confirmation = claims.get("cnf");
        let certificate = confirmation.and_then(|cnf| cnf.get(CERTIFICATE)?.as_str());
        let members = confirmation.map(|cnf| cnf.as_object().map_or(0, serde_json::Map::len));
        Ok(Self {
            audiences,
            lifetime,
            client: client.or(party),
            otherwise_bound: members.is_some_and(|members| members != 1 || certificate.is_none()),
            certificate: certificate.map(str::to_owned),
            claims: claims.to_string().into(),
            subject: Person::new(issuer, claims)
                .ok_or(TokenError::Malformed)?
                .subject()
                .into(),
            issuer: issuer.into(),
            acting: ArcSwapOption::empty(),
        })
    }

    /// Whether this agent may present it, over a connection with this certificate.
    pub(super) fn check(
        &self,
        agent: &CompiledAgent,
        certificate: &CertificateDer<'_>,
        policy: &CompiledPolicy,
    ) -> Result<(), TokenError> {
        let issuer = policy.issuer_of(&self.issuer).ok_or(TokenError::Issuer)?;
        if !self
            .audiences
            .iter()
            .any(|audience| issuer.audiences.contains(audience))
        {
            return Err(TokenError::Audience);
        }
        if self.lifetime > issuer.max_lifetime.saturating_add(LEEWAY) {
            return Err(TokenError::Lifetime);
        }
        let bound = match &self.certificate {
            // A proof of something else than the certificate would have to be asked for.
            _ if self.otherwise_bound => false,
            Some(thumbprint) => {
                let digest = digest::digest(&digest::SHA256, certificate);
                URL_SAFE_NO_PAD.encode(digest) == *thumbprint
            }
            None => self
                .client
                .as_ref()
                .is_some_and(|client| agent.is_client(&issuer.name, client)),
        };
        if bound { Ok(()) } else { Err(TokenError::Binding) }
    }

    /// The agent as it acts for the person.
    pub(super) fn acting(
        &self,
        agent: &Arc<CompiledAgent>,
        policy: &CompiledPolicy,
    ) -> Option<Arc<CompiledAgent>> {
        if let Some(last) = self.acting.load().as_deref()
            && *last.0 == **policy.revision()
            && last.1.spiffe_id() == agent.spiffe_id()
        {
            return Some(Arc::clone(&last.1));
        }
        let person = Person::new(&self.issuer, serde_json::from_str(&self.claims).ok()?)?;
        let acting = Arc::new(policy.acting_for(agent, &person)?);
        let memo = (Arc::clone(policy.revision()), Arc::clone(&acting));
        self.acting.store(Some(Arc::new(memo)));
        Some(acting)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_access_tokens_are() {
        let cases = [
            (Some("at+jwt"), json!({}), true),
            (Some("application/AT+JWT"), json!({"nonce": "n"}), true),
            (Some("JWT"), json!({}), true),
            (None, json!({}), true),
            (Some("JWT"), json!({"typ": "Bearer", "nonce": "n"}), true),
            (Some("JWT"), json!({"token_use": "access"}), true),
            (Some("JWT"), json!({"token_use": "id"}), false),
            (Some("JWT"), json!({"typ": "ID"}), false),
            (
                Some("JWT"),
                json!({"typ": "Refresh", "token_use": "access"}),
                false,
            ),
            (Some("JWT"), json!({"nonce": "n"}), false),
            (None, json!({"at_hash": "h"}), false),
            (None, json!({"c_hash": "h"}), false),
            (None, json!({"s_hash": "h"}), false),
            (None, json!({"events": {}}), false),
            (Some("oauth-id-jag+jwt"), json!({}), false),
            (Some("logout+jwt"), json!({}), false),
            (Some("secevent+jwt"), json!({}), false),
            (Some("dpop+jwt"), json!({}), false),
            (Some("token-introspection+jwt"), json!({}), false),
            (Some("bulkhead-call+jwt"), json!({}), false),
            (Some(""), json!({}), false),
        ];
        for (kind, claims, expected) in cases {
            assert_eq!(is_access_token(kind, &claims), expected, "{kind:?} {claims}");
        }
    }
}
