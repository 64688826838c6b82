//! What HTTP itself must look like before a body is read: name, origin, path, method, type. Pure.

use std::collections::BTreeSet;

use bulkhead_core::mcp::{Era, ProtocolVersion, headers};
use http::{HeaderMap, HeaderName, Method, header, request::Parts};

use crate::refusal::EdgeRefusal;

/// The protocol version of a message.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static(headers::PROTOCOL_VERSION);

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// A message.
    Message,
    /// A stream of a session's messages.
    Stream,
    /// The end of a session.
    EndSession,
    /// How to get a token (RFC 9728).
    Metadata,
}

/// Where a protected resource says how to get a token for it: this, followed by the resource's own path (RFC 9728 §3.1).
pub const METADATA: &str = "/.well-known/oauth-protected-resource";

/// What the gate compares with.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// The server's names, lower case, without port.
    pub hostnames: &'a BTreeSet<String>,
    /// The only port that may follow a name.
    pub port: u16,
    /// The only path.
    pub path: &'a str,
    /// Whether persons' tokens are taken, and so there is something to say about them.
    pub has_issuers: bool,
}

/// Checks a request's head.
pub fn check(request: &Parts, endpoint: Endpoint<'_>) -> Result<Intent, EdgeRefusal> {
    check_host(request, endpoint)?;
    check_origin(&request.headers, endpoint)?;
    let about = request.uri.path().strip_prefix(METADATA);
    if endpoint.has_issuers && about == Some(endpoint.path) && request.uri.query().is_none() {
        return match request.method {
            Method::GET => Ok(Intent::Metadata),
            _ => Err(EdgeRefusal::MetadataMethod),
        };
    }
    if request.uri.path() != endpoint.path || request.uri.query().is_some() {
        return Err(EdgeRefusal::PathUnknown);
    }
    match request.method {
        Method::POST => check_content(&request.headers).map(|()| Intent::Message),
        // The newer era has neither.
        Method::GET | Method::DELETE if is_modern(&request.headers)? => Err(EdgeRefusal::LegacyMethod),
        Method::GET if accepts_events(&request.headers) => Ok(Intent::Stream),
        Method::GET => Err(EdgeRefusal::NotAcceptable),
        Method::DELETE => Ok(Intent::EndSession),
        _ => Err(EdgeRefusal::MethodNotAllowed),
    }
}

fn is_modern(headers: &HeaderMap) -> Result<bool, EdgeRefusal> {
    let version = match single(headers, &PROTOCOL_VERSION)? {
        None => return Ok(false),
        Some(text) => ProtocolVersion::parse(text).ok_or(EdgeRefusal::VersionUnsupported)?,
    };
    Ok(version.era() == Era::Modern)
}

fn accepts_events(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|kind| {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                ["text/event-stream", "text/*", "*/*"]
                    .iter()
                    .any(|known| kind.eq_ignore_ascii_case(known))
            })
        })
    })
}

/// A header that may occur once, as text.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, EdgeRefusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(EdgeRefusal::HeaderMalformed);
    }
    value.to_str().map(Some).map_err(|_| EdgeRefusal::HeaderMalformed)
}

/// A page of another origin can make a browser call a name that resolves here (DNS rebinding):
/// only the server's own names are served. `:authority` of HTTP/2, the target of an absolute-form
/// request and `Host` must all be one.
fn check_host(request: &Parts, endpoint: Endpoint<'_>) -> Result<(), EdgeRefusal> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let host = single(&request.headers, &header::HOST).map_err(|_| EdgeRefusal::HostNotAllowed)?;
    let named = [authority, host].into_iter().flatten();
    let mut count = 0;
    for name in named {
        if !is_own(name, endpoint) {
            return Err(EdgeRefusal::HostNotAllowed);
        }
        count += 1;
    }
    // Two own names would be two statements about one request.
    if count == 0 || matches!((authority, host), (Some(a), Some(h)) if !a.eq_ignore_ascii_case(h)) {
        return Err(EdgeRefusal::HostNotAllowed);
    }
    Ok(())
}

fn check_origin(headers: &HeaderMap, endpoint: Endpoint<'_>) -> Result<(), EdgeRefusal> {
    let origin = single(headers, &header::ORIGIN).map_err(|_| EdgeRefusal::OriginNotAllowed)?;
    let Some(origin) = origin else { return Ok(()) };
    match origin.strip_prefix("https://") {
        Some(name) if is_own(name, endpoint) => Ok(()),
        _ => Err(EdgeRefusal::OriginNotAllowed),
    }
}

fn is_own(name: &str, endpoint: Endpoint<'_>) -> bool {
    let host = match name.split_once(':') {
        None => name,
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && port.parse() == Ok(endpoint.port) =>
        {
            host
        }
        Some(_) => return false,
    };
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        endpoint.hostnames.contains(&host.to_ascii_lowercase())
    } else {
        endpoint.hostnames.contains(host)
    }
}

fn check_content(headers: &HeaderMap) -> Result<(), EdgeRefusal> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(EdgeRefusal::ContentEncoding);
    }
    let value = single(headers, &header::CONTENT_TYPE)?.ok_or(EdgeRefusal::ContentType)?;
    let mut parts = value.split(';').map(str::trim);
    if !parts
        .next()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
    {
        return Err(EdgeRefusal::ContentType);
    }
    // Another charset would make the server read other text than we decided on.
    let utf8 = |part: &str| {
        part.split_once('=').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    };
    if parts.all(utf8) {
        Ok(())
    } else {
        Err(EdgeRefusal::ContentType)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn verdict(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Intent, EdgeRefusal> {
        let hostnames = BTreeSet::from(["crm.acme.svc".to_owned(), "crm.acme.svc.cluster.local".to_owned()]);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(
            &parts,
            Endpoint {
                hostnames: &hostnames,
                port: 8443,
                path: "/mcp",
                has_issuers: uri.ends_with("/mcp"),
            },
        )
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn own_names_are_served_with_and_without_the_port() {
        for host in [
            "crm.acme.svc",
            "crm.acme.svc:8443",
            "CRM.acme.SVC",
            "crm.acme.svc.cluster.local",
        ] {
            assert_eq!(
                verdict("POST", "/mcp", &[("host", host), JSON]),
                Ok(Intent::Message),
                "{host}"
            );
        }
        assert_eq!(
            verdict("POST", "https://crm.acme.svc:8443/mcp", &[JSON]),
            Ok(Intent::Message)
        );
    }

    #[test]
    fn foreign_names_are_not() {
        let host = EdgeRefusal::HostNotAllowed;
        for name in [
            "evil.example",
            "10.1.2.3",
            "10.1.2.3:8443",
            "127.0.0.1",
            "localhost",
            "[::1]:8443",
            "crm.acme.svc:443",
            "crm.acme.svc:08443x",
            "crm.acme.svc:+8443",
            "crm.acme.svc.",
            "user@crm.acme.svc",
            "crm.globex.svc",
            "",
        ] {
            assert_eq!(
                verdict("POST", "/mcp", &[("host", name), JSON]),
                Err(host),
                "{name}"
            );
        }
        assert_eq!(verdict("POST", "/mcp", &[JSON]), Err(host));
        let twice = [("host", "crm.acme.svc"), ("host", "evil.example"), JSON];
        assert_eq!(verdict("POST", "/mcp", &twice), Err(host));
        let differs = [("host", "crm.acme.svc.cluster.local"), JSON];
        assert_eq!(verdict("POST", "https://crm.acme.svc/mcp", &differs), Err(host));
        let evil = [("host", "evil.example"), JSON];
        assert_eq!(verdict("POST", "https://crm.acme.svc/mcp", &evil), Err(host));
    }

    #[test]
    fn an_origin_must_be_the_server_s_own() {
        let with = |origin| {
            verdict(
                "POST",
                "/mcp",
                &[("host", "crm.acme.svc"), ("origin", origin), JSON],
            )
        };
        for origin in ["https://crm.acme.svc", "https://crm.acme.svc:8443"] {
            assert_eq!(with(origin), Ok(Intent::Message), "{origin}");
        }
        for origin in [
            "http://crm.acme.svc",
            "https://evil.example",
            "null",
            "",
            "https://crm.acme.svc/",
            "crm.acme.svc",
        ] {
            assert_eq!(with(origin), Err(EdgeRefusal::OriginNotAllowed), "{origin}");
        }
    }

    #[test]
    fn only_what_the_transport_has_at_the_one_path() {
        let host = ("host", "crm.acme.svc");
        for (method, uri, expected) in [
            ("DELETE", "/mcp", Ok(Intent::EndSession)),
            ("GET", "/mcp", Err(EdgeRefusal::NotAcceptable)),
            ("PUT", "/mcp", Err(EdgeRefusal::MethodNotAllowed)),
            ("OPTIONS", "/mcp", Err(EdgeRefusal::MethodNotAllowed)),
            ("POST", "/", Err(EdgeRefusal::PathUnknown)),
            ("POST", "/mcp/", Err(EdgeRefusal::PathUnknown)),
            ("POST", "/MCP", Err(EdgeRefusal::PathUnknown)),
            ("POST", "/mcp/../mcp", Err(EdgeRefusal::PathUnknown)),
            ("POST", "/%6dcp", Err(EdgeRefusal::PathUnknown)),
            ("POST", "/mcp?a=b", Err(EdgeRefusal::PathUnknown)),
            ("GET", "/sse", Err(EdgeRefusal::PathUnknown)),
            (
                "GET",
                "/.well-known/oauth-protected-resource/mcp",
                Ok(Intent::Metadata),
            ),
            (
                "POST",
                "/.well-known/oauth-protected-resource/mcp",
                Err(EdgeRefusal::MetadataMethod),
            ),
            (
                "GET",
                "/.well-known/oauth-protected-resource",
                Err(EdgeRefusal::PathUnknown),
            ),
            (
                "GET",
                "/.well-known/oauth-protected-resource/mcp?a=/mcp",
                Err(EdgeRefusal::PathUnknown),
            ),
        ] {
            assert_eq!(verdict(method, uri, &[host, JSON]), expected, "{method} {uri}");
        }
    }

    #[test]
    fn a_stream_is_for_events_and_of_the_legacy_era() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<Intent, EdgeRefusal>);
        let host = ("host", "crm.acme.svc");
        let cases: &[Case<'_>] = &[
            (&[("accept", "text/event-stream")], Ok(Intent::Stream)),
            (
                &[("accept", "application/json, Text/Event-Stream;q=0.5")],
                Ok(Intent::Stream),
            ),
            (&[("accept", "*/*")], Ok(Intent::Stream)),
            (&[("accept", "application/json")], Err(EdgeRefusal::NotAcceptable)),
            (
                &[("accept", "*/*"), ("mcp-protocol-version", "2025-03-26")],
                Ok(Intent::Stream),
            ),
            (
                &[("accept", "*/*"), ("mcp-protocol-version", "2026-07-28")],
                Err(EdgeRefusal::LegacyMethod),
            ),
            (
                &[("accept", "*/*"), ("mcp-protocol-version", "2099-01-01")],
                Err(EdgeRefusal::VersionUnsupported),
            ),
        ];
        for (headers, expected) in cases {
            let headers: Vec<_> = [host].into_iter().chain(headers.iter().copied()).collect();
            assert_eq!(&verdict("GET", "/mcp", &headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn only_plain_json_in_utf_8() {
        let host = ("host", "crm.acme.svc");
        for (headers, expected) in [
            (
                &[("content-type", "application/json; charset=utf-8")][..],
                Ok(Intent::Message),
            ),
            (
                &[("content-type", "Application/JSON;charset=\"UTF-8\"")],
                Ok(Intent::Message),
            ),
            (
                &[("content-type", "application/json; charset=utf-16")],
                Err(EdgeRefusal::ContentType),
            ),
            (&[("content-type", "text/plain")], Err(EdgeRefusal::ContentType)),
            (
                &[("content-type", "application/jsonp")],
                Err(EdgeRefusal::ContentType),
            ),
            (&[], Err(EdgeRefusal::ContentType)),
            (
                &[JSON, ("content-type", "text/plain")],
                Err(EdgeRefusal::HeaderMalformed),
            ),
            (
                &[JSON, ("content-encoding", "gzip")],
                Err(EdgeRefusal::ContentEncoding),
            ),
            (
                &[JSON, ("content-encoding", "identity")],
                Err(EdgeRefusal::ContentEncoding),
            ),
        ] {
            let all: Vec<_> = headers.iter().copied().chain([host]).collect();
            assert_eq!(verdict("POST", "/mcp", &all), expected, "{headers:?}");
        }
    }
}
