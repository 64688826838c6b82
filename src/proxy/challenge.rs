//! What an OAuth client is told: how it may prove itself (RFC 6750 §3), and where it gets a token (RFC 9728).

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::json;

use crate::{body::Body, gate, refusal, tokens::TokenError};

/// The challenge to a request whose token proves nothing.
pub fn of(error: TokenError) -> HeaderValue {
    let plain = HeaderValue::from_static("Bearer realm=\"bulkhead\"");
    if error == TokenError::Missing {
        return plain;
    }
    let challenge = format!(r#"Bearer realm="bulkhead", error="invalid_token", error_description="{error}""#);
    HeaderValue::try_from(challenge).unwrap_or(plain)
}

/// Adds to a challenge where the metadata of the resource is (RFC 9728 §5.1).
pub fn refer(headers: &mut HeaderMap, authority: &str, path: &str) {
    let Some(challenge) = headers
        .get(header::WWW_AUTHENTICATE)
        .and_then(|value| value.to_str().ok())
    else {
        return;
    };
    let metadata = gate::METADATA;
    let referring = format!(r#"{challenge}, resource_metadata="https://{authority}{metadata}{path}""#);
    if let Ok(value) = HeaderValue::try_from(referring) {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
}

/// By which of its names a request calls the server. The gate has compared it.
pub fn authority(request: &Parts) -> Option<&str> {
    let host = || {
        request
            .headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
    };
    request
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(host)
}

/// The metadata of the resource (RFC 9728 §2), as it is called by this name: a client compares `resource` with where it
/// asked.
pub fn metadata(authority: &str, path: &str, issuers: &BTreeSet<&str>) -> Response<Body> {
    let body = json!({
        "resource": format!("https://{authority}{path}"),
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
        "tls_client_certificate_bound_access_tokens": true,
    });
    refusal::json(StatusCode::OK, Bytes::from(body.to_string()))
}
