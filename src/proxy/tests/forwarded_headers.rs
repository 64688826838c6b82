//! Which headers reach the server: an allow-list, the same for every verb, era and protocol of HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bulkhead_proxy::testing::{
    Answer, Client, Protocol, RecordingUpstream, Seen, Setup, TestSidecar, sidecar::spiffe, upstream,
};

/// What says who asks, or from where, to some server, framework or gateway.
const IDENTITY: [(&str, &str); 19] = [
    ("proxy-authorization", "Basic eDp5"),
    ("cookie", "session=client"),
    ("dpop", "e30.e30.AA"),
    ("x-api-key", "client"),
    ("forwarded", "for=1.2.3.4"),
    ("x-forwarded-for", "1.2.3.4"),
    ("x-forwarded-user", "root"),
    ("x-forwarded-client-cert", "URI=spiffe://globex/sa/root"),
    ("client-cert", ":AAAA:"),
    ("x-ssl-client-dn", "CN=root"),
    ("x-real-ip", "1.2.3.4"),
    ("x-remote-user", "root"),
    ("remote_user", "root"),
    ("x-auth-request-user", "root"),
    ("x-tenant-id", "globex"),
    ("bulkhead-agent", "support"),
    ("bulkhead-tenant", "globex"),
    ("baggage", "user=root"),
    ("impersonate-user", "root"),
];

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices","arguments":{},
    "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},
    "io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"}}}}"#;

const LEGACY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices"}}"#;

fn answers(request: &Seen) -> Answer {
    match request.method.as_str() {
        "GET" => Answer::events(vec![": open\n\n".into()]),
        _ => upstream::plain(request),
    }
}

/// The names of the headers that reached the server, sorted, but for the credential, which is the sidecar's own.
fn names(seen: &Seen) -> Vec<&str> {
    let mut names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.retain(|name| *name != "authorization");
    names.sort_unstable();
    names
}

/// Sends a request with everything that looks like identity, and gives back what the server saw of it.
async fn seen(
    upstream: &RecordingUpstream,
    client: &mut Client,
    verb: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Seen {
    let before = upstream.seen().len();
    let all: Vec<_> = IDENTITY
        .iter()
        .chain(headers)
        .copied()
        .chain([("traceparent", TRACE)])
        .collect();
    let reply = client.exchange(verb, &all, body).await.unwrap();
    assert!(
        reply.status.is_success(),
        "{verb} {headers:?}: {} {}",
        reply.status,
        reply.reason()
    );
    let seen = upstream.seen();
    assert_eq!(seen.len(), before + 1, "{verb} must reach the server once");
    let seen = seen.into_iter().last().unwrap();
    let token = client.authorization.strip_prefix("Bearer ").unwrap();
    let values = seen.headers.values().map(|value| value.to_str().unwrap());
    assert!(values.into_iter().all(|value| !value.contains(token)), "{verb}");
    seen
}

#[tokio::test]
async fn no_identity_of_a_client_reaches_the_server_by_any_verb_or_era() {
    let upstream = RecordingUpstream::answering(answers).await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = sidecar.client_with(&leaf, protocol).await;
        let session = client.open_session().await;
        let session = ("mcp-session-id", session.as_str());

        let legacy = seen(&upstream, &mut client, "POST", &[session], LEGACY).await;
        let of_message = ["accept", "content-length", "content-type", "host"];
        let mut expected = of_message.to_vec();
        expected.extend(["mcp-protocol-version", "mcp-session-id", "traceparent"]);
        assert_eq!(names(&legacy), expected, "{protocol:?}, legacy POST");
        assert_eq!(legacy.header("traceparent"), Some(TRACE));

        let headers = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "list_invoices"),
        ];
        let modern = seen(&upstream, &mut client, "POST", &headers, MODERN).await;
        let mut expected = of_message.to_vec();
        expected.extend(["mcp-method", "mcp-name", "mcp-protocol-version", "traceparent"]);
        assert_eq!(names(&modern), expected, "{protocol:?}, modern POST");

        let stream = seen(&upstream, &mut client, "GET", &[session], "").await;
        let of_session = ["accept", "host", "mcp-protocol-version", "mcp-session-id"];
        assert_eq!(names(&stream), of_session, "{protocol:?}, GET");

        let end = seen(&upstream, &mut client, "DELETE", &[session], "").await;
        let of_end = ["host", "mcp-protocol-version", "mcp-session-id"];
        assert_eq!(names(&end), of_end, "{protocol:?}, DELETE");
    }
}
