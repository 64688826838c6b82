//! What can be wrong with a token.

/// Why a token proves nothing. The message is a client's to read and must not repeat the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error(
        "Authorization must carry the agent's ServiceAccount token, or a person's access token: Bearer TOKEN"
    )]
    Missing,
    /// It is no JWT, or lacks a claim.
    #[error("the token is no JWT with iss, sub, aud, iat and exp")]
    Malformed,
    /// It is of a type or algorithm that isn't taken, or has critical extensions.
    #[error(
        "the token is of a kind that is not taken here; use the token of a projected volume, or an access token"
    )]
    Kind,
    /// No key of its issuer has its `kid`.
    #[error("the token is signed by no known key of its issuer")]
    KeyUnknown,
    /// The signature is another's.
    #[error("the token's signature is wrong")]
    Signature,
    /// Another issuer.
    #[error("the token's issuer is neither this cluster nor one of the tenant's")]
    Issuer,
    /// Another audience.
    #[error(
        "the token's audience is not this tenant; project it with the audience bulkhead:TENANT, or have it issued for the tenant's own"
    )]
    Audience,
    /// It was good.
    #[error("the token has expired; read it again from its volume, or have a new one issued")]
    Expired,
    /// It isn't good yet.
    #[error("the token is not valid yet; the clocks differ")]
    NotYetValid,
    /// Good for longer than is taken.
    #[error(
        "the token is good for longer than is taken; project it with expirationSeconds 3600 or less, or have a shorter one issued"
    )]
    Lifetime,
    /// It is somebody else's.
    #[error("the token is not of the service account that the certificate names")]
    Subject,
    /// It is the agent's own, and that agent acts for persons only.
    #[error("this agent acts for persons only; present the access token of one")]
    PersonMissing,
    /// It is a person's, and nothing says that the agent may present it.
    #[error(
        "the token is neither bound to the client certificate (cnf, RFC 8705) nor made for an OAuth client of the certificate's agent"
    )]
    Binding,
}

impl TokenError {
    /// The stable code, for audit and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::Kind => "token_kind",
            Self::KeyUnknown => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Lifetime => "token_lifetime",
            Self::Subject => "token_subject",
            Self::PersonMissing => "token_person_missing",
            Self::Binding => "token_binding",
        }
    }
}
