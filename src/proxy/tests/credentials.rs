//! The credential of each upstream request: verified as a server would, with the keys that the sidecar serves, by a library
//! that isn't the sidecar's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_proxy::testing::{
    RecordingUpstream, Seen, Setup, TestSidecar,
    sidecar::{TENANT_ID, spiffe},
    until,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn get(sidecar: &TestSidecar, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(sidecar.keys_address).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The claims of a request that reached the server, verified.
async fn claims(sidecar: &TestSidecar, seen: &Seen) -> Value {
    let token = seen
        .header("authorization")
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let (_, keys) = get(sidecar, "GET /jwks.json").await;
    let keys: JwkSet = serde_json::from_str(&keys).unwrap();
    let head = decode_header(token).unwrap();
    assert_eq!(head.typ.as_deref(), Some("bulkhead-call+jwt"));
    let key = DecodingKey::from_jwk(keys.find(&head.kid.unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&["bulkhead:acme/crm"]);
    validation.set_audience(&["bulkhead:acme/crm"]);
    let claims: Value = decode(token, &key, &validation).unwrap().claims;
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        30
    );
    claims
}

#[tokio::test]
async fn what_the_sidecar_asks_for_itself_says_so() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.inventory = true;
    let sidecar = TestSidecar::start(setup).await;
    until("the lists were looked at", || {
        upstream
            .seen_in_all()
            .last()
            .is_some_and(|seen| seen.method == "DELETE")
    })
    .await;
    for request in &upstream.seen_in_all() {
        let claims = claims(&sidecar, request).await;
        assert_eq!(
            (&claims["sub"], &claims["tenant"], claims.get("agent")),
            (&json!("bulkhead:acme/crm"), &json!("acme"), None),
            "{request:?}"
        );
        let method = match request.method.as_str() {
            "POST" => request.json()["method"].clone(),
            method => json!(method),
        };
        assert_eq!(claims["method"], method);
    }
}

#[tokio::test]
async fn each_request_has_a_credential_of_its_own_that_says_who_calls_what() {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let mut client = sidecar.client("billing").await;
    let forged = [("cookie", "a=b")];
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "list_invoices", "arguments": {"tenant_id": "globex", "limit": 5.0}}});
    for _ in 0..2 {
        client.exchange("POST", &forged, call.to_string()).await.unwrap();
    }
    let modern = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/list"),
    ];
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}});
    client.exchange("POST", &modern, list.to_string()).await.unwrap();

    let seen = upstream.seen();
    let mut ids = BTreeSet::new();
    for request in &seen {
        assert!(request.header("cookie").is_none());
        let claims = claims(&sidecar, request).await;
        assert_eq!(
            (
                &claims["sub"],
                &claims["agent"],
                &claims["tenant"],
                &claims["server"]
            ),
            (
                &json!(spiffe("billing")),
                &json!("billing"),
                &json!("acme"),
                &json!("crm")
            )
        );
        assert_eq!(claims["method"], request.json()["method"]);
        assert!(
            ids.insert(claims["jti"].as_str().unwrap().to_owned()),
            "each has its own id"
        );
        if claims["method"] == "tools/call" {
            assert_eq!(claims["tool"], "list_invoices");
            // Of what the server got: the forced value, and the number in its canonical form.
            let canonical = format!(r#"{{"limit":5,"tenant_id":"{TENANT_ID}"}}"#);
            let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
            assert_eq!(claims["arguments_digest"], digest);
        } else {
            assert!(claims.get("tool").is_none() && claims.get("arguments_digest").is_none());
        }
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn sessions_streams_and_ends_have_one_too_and_a_rotated_key_still_verifies() {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let mut client = sidecar.client("billing").await;
    let session = client.open_session().await;
    let with = [("mcp-session-id", session.as_str())];
    let before = upstream.only();
    sidecar.shared.minter.rotate().unwrap();
    client.exchange("DELETE", &with, "").await.unwrap();
    let seen = upstream.seen();
    let after = claims(&sidecar, &seen[1]).await;
    assert_eq!(after["method"], "DELETE");
    assert_eq!(claims(&sidecar, &before).await["method"], "initialize");
    let kid = |seen: &Seen| {
        decode_header(&seen.header("authorization").unwrap()[7..])
            .unwrap()
            .kid
    };
    assert_ne!(kid(&before), kid(&seen[1]));
}

#[tokio::test]
async fn the_port_of_the_keys_serves_nothing_else() {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    for (request, status) in [
        ("GET /jwks.json", "200"),
        ("POST /jwks.json", "405"),
        ("GET /metrics", "404"),
        ("GET /readyz", "404"),
        ("GET /drain", "404"),
        ("GET /", "404"),
    ] {
        let (head, _) = get(&sidecar, request).await;
        assert!(head.contains(status), "{request}: {head}");
    }
}
