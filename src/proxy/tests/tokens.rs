//! The token beside the certificate: which ones prove the agent, and for how long they do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_proxy::testing::{
    Client, Issuer, Protocol, RecordingUpstream, Setup, Stream, Streams, TestSidecar,
    sidecar::spiffe,
    tokens::{ISSUER, now},
    until,
};
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices"}}"#;

async fn start() -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    (upstream, sidecar)
}

/// The claims of `billing`, with some of them replaced; by `null`: without it.
fn claims(other: &Value) -> Value {
    let mut claims = Issuer::claims(&spiffe("billing"));
    for (name, value) in other.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn head(change: impl FnOnce(&mut Header)) -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.typ = None;
    change(&mut header);
    header
}

/// A token without a signature that anybody could have made.
fn unsigned(header: &Value, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", part(&header.to_string()), part(claims))
}

#[tokio::test]
async fn a_token_of_the_agent_s_account_for_this_tenant_is_good_and_recorded() {
    let (upstream, sidecar) = start().await;
    let issuer = &sidecar.issuer;
    let tokens = [
        issuer.token(&spiffe("billing")),
        issuer.sign(&claims(&json!({"aud": "bulkhead:acme"}))),
        issuer.sign(&claims(
            &json!({"aud": ["https://elsewhere.example", "bulkhead:acme"]}),
        )),
        issuer.sign(&claims(&json!({"nbf": null, "kubernetes.io": null}))),
        issuer.sign_as(
            head(|header| header.typ = Some("JWT".into())),
            &claims(&json!({})),
        ),
    ];
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = sidecar.client_with(&leaf, protocol).await;
        // Changed from request to request, and the same one twice.
        for token in tokens.iter().chain(&tokens).flat_map(|token| [token, token]) {
            client = client.with_token(token);
            assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
        }
    }
    assert_eq!(upstream.seen().len(), 40);
    let records = sidecar.audit();
    let first = &records[0];
    assert_eq!(
        (&first["token"], &first["pod"]),
        (
            &json!("jti-of-system:serviceaccount:acme-agents:billing"),
            &json!("agent-0")
        )
    );

    // Without an id of its own a token is known by its digest.
    let nameless = issuer.sign(&claims(&json!({"jti": null})));
    let mut client = sidecar.client("billing").await.with_token(&nameless);
    client.call("list_invoices", None).await;
    let records = sidecar.audit();
    let intent = records
        .iter()
        .rev()
        .find(|record| record["record"] == "decision")
        .unwrap();
    assert_eq!(intent["token"].as_str().unwrap().len(), 32);
    assert!(
        !records
            .iter()
            .any(|record| record.to_string().contains(&nameless))
    );
}

type Headers<'a> = &'a [(&'a str, &'a str)];

type Useless = (&'static str, String, &'static str);

/// Tokens with a good signature that prove nothing, and why not.
fn wrong_claims(issuer: &Issuer) -> Vec<Useless> {
    let time = now();
    let account = |name: &str| json!({"sub": format!("system:serviceaccount:{name}")});
    let audience = |audience: Value| json!({"aud": audience});
    let missing = |claim: &str| json!({claim: null});
    [
        ("another account", account("acme-agents:support"), "token_subject"),
        ("another namespace", account("acme:billing"), "token_subject"),
        ("a person", json!({"sub": "billing"}), "token_subject"),
        (
            "another tenant",
            audience(json!(["bulkhead:globex"])),
            "token_audience",
        ),
        ("the API server", audience(json!([ISSUER])), "token_audience"),
        (
            "a longer audience",
            audience(json!("bulkhead:acme/crm")),
            "token_audience",
        ),
        ("no audience", audience(json!([])), "token_audience"),
        ("audience missing", missing("aud"), "token_malformed"),
        (
            "another issuer",
            json!({"iss": "https://issuer.example"}),
            "token_issuer",
        ),
        ("issuer missing", missing("iss"), "token_malformed"),
        ("subject missing", missing("sub"), "token_malformed"),
        ("made at no time", missing("iat"), "token_malformed"),
        ("without end", missing("exp"), "token_malformed"),
        (
            "an end that is text",
            json!({"exp": "9999999999"}),
            "token_malformed",
        ),
        (
            "over",
            json!({"iat": time - 3600, "exp": time - 60}),
            "token_expired",
        ),
        ("not begun", json!({"nbf": time + 60}), "token_not_yet_valid"),
        (
            "made tomorrow",
            json!({"iat": time + 60, "nbf": null}),
            "token_not_yet_valid",
        ),
        ("for a day", json!({"exp": time + 86_400}), "token_lifetime"),
        (
            "over before it began",
            json!({"iat": time + 7200}),
            "token_malformed",
        ),
    ]
    .map(|(what, other, reason)| (what, issuer.sign(&claims(&other)), reason))
    .into()
}

/// Tokens that are none of the cluster's, and why not.
fn wrong_tokens(issuer: &Issuer) -> Vec<Useless> {
    let own = claims(&json!({}));
    let headed = |change: &dyn Fn(&mut Header)| issuer.sign_as(head(|header| change(header)), &own);
    let of_type = |kind: &str| headed(&|header| header.typ = Some(kind.into()));
    let good = issuer.sign(&own);
    let (signed, _) = good.rsplit_once('.').unwrap();
    // What a library does that takes the algorithm from the token: the public key as a secret.
    let public = EncodingKey::from_secret(issuer.jwk().to_string().as_bytes());
    let mut symmetric = head(|header| header.kid = Some(issuer.kid.clone()));
    symmetric.alg = Algorithm::HS256;
    let two = r#"{"sub":"system:serviceaccount:acme-agents:support","#;
    let doubled = own.to_string().replacen('{', two, 1);
    let unsigned = |header: Value| unsigned(&header, &own.to_string());
    [
        ("an access token", of_type("at+jwt"), "token_kind"),
        ("an ID-JAG", of_type("oauth-id-jag+jwt"), "token_kind"),
        ("a credential of ours", of_type("bulkhead-call+jwt"), "token_kind"),
        (
            "critical extensions",
            headed(&|header| header.crit = Some(vec!["b64".into()])),
            "token_kind",
        ),
        (
            "another key's id",
            headed(&|header| header.kid = Some("k9".into())),
            "token_key_unknown",
        ),
        ("another key", Issuer::new("k1").sign(&own), "token_signature"),
        (
            "symmetric",
            encode(&symmetric, &own, &public).unwrap(),
            "token_kind",
        ),
        (
            "no signature",
            unsigned(json!({"alg": "ES256", "kid": "k1"})),
            "token_signature",
        ),
        (
            "no algorithm",
            unsigned(json!({"alg": "none", "kid": "k1"})),
            "token_malformed",
        ),
        (
            "no key's id",
            unsigned(json!({"alg": "ES256"})),
            "token_key_unknown",
        ),
        ("two subjects", issuer.sign_text(&doubled), "token_malformed"),
        ("cut", signed.to_owned(), "token_malformed"),
        ("longer", format!("{good}A"), "token_signature"),
        ("no JWT", "abc".to_owned(), "token_malformed"),
        ("no token", String::new(), "token_missing"),
    ]
    .into()
}

#[tokio::test]
async fn any_other_token_is_refused_whatever_the_certificate() {
    let (upstream, sidecar) = start().await;
    let issuer = &sidecar.issuer;
    for (what, token, reason) in [wrong_claims(issuer), wrong_tokens(issuer)].concat() {
        let mut client = sidecar.client("billing").await.with_token(&token);
        let reply = client.call("list_invoices", None).await;
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::UNAUTHORIZED, reason),
            "{what}"
        );
        let challenge = reply.headers["www-authenticate"].to_str().unwrap();
        let is_error =
            challenge.starts_with(r#"Bearer realm="bulkhead", error="invalid_token", error_description="#);
        assert_eq!(is_error, reason != "token_missing", "{what}: {challenge}");
        let record = sidecar.audit().pop().unwrap();
        assert_eq!(
            (&record["decision"], &record["reason"], &record["agent"]),
            (&json!("refuse"), &json!(reason), &json!("billing")),
            "{what}"
        );
        assert!(token.len() < 8 || !record.to_string().contains(&token), "{what}");
    }
    assert_eq!(upstream.seen().len(), 0);
    let mut client = sidecar.client("billing").await;
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_comes_once_in_its_header_and_nowhere_else() {
    let (upstream, sidecar) = start().await;
    let token = sidecar.issuer.token(&spiffe("billing"));
    let bearer = format!("Bearer {token}");
    let basic = format!("Basic {token}");
    let cases: [(Headers<'_>, &str); 6] = [
        (&[], "token_missing"),
        (&[("authorization", &basic)], "token_missing"),
        (&[("authorization", &token)], "token_missing"),
        (&[("authorization", "Bearer ")], "token_missing"),
        (
            &[("authorization", &bearer), ("authorization", &bearer)],
            "token_missing",
        ),
        (
            &[("cookie", &bearer), ("x-forwarded-access-token", &token)],
            "token_missing",
        ),
    ];
    for (headers, reason) in cases {
        let mut client = sidecar.client("billing").await;
        client.authorization = String::new();
        for method in ["POST", "GET", "DELETE"] {
            let reply = client.exchange(method, headers, CALL).await.unwrap();
            assert_eq!(reply.reason(), reason, "{method} {headers:?}");
        }
    }
    let mut client = sidecar.client("billing").await;
    let mut request = client.request("POST", &[], CALL);
    *request.uri_mut() = format!("/mcp?access_token={token}").parse().unwrap();
    assert_eq!(
        client.send(request).await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    assert!(!json!(sidecar.audit()).to_string().contains(&token));
    assert_eq!(upstream.seen().len(), 0);
    for scheme in ["bearer", "BEARER"] {
        let header = format!("{scheme} {token}");
        let reply = client.exchange("POST", &[("authorization", &header)], CALL).await;
        assert_eq!(reply.unwrap().status, StatusCode::OK, "{scheme}");
    }
}

#[tokio::test]
async fn wrong_tokens_count_against_the_agent_s_rate() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.policy.agents[0].limits.requests_per_minute = std::num::NonZeroU32::new(2);
    let sidecar = TestSidecar::start(setup).await;
    let mut client = sidecar.client("billing").await.with_token("wrong");
    for reason in ["token_malformed", "token_malformed", "rate_limited"] {
        assert_eq!(client.call("list_invoices", None).await.reason(), reason);
    }
}

async fn reason(client: &mut Client) -> String {
    client.call("list_invoices", None).await.reason()
}

#[tokio::test]
async fn keys_change_without_a_failed_call_and_a_key_that_is_gone_proves_nothing_any_more() {
    let (_upstream, sidecar) = start().await;
    let (first, second) = (&sidecar.issuer, Issuer::new("k2"));
    let loaded = |times: usize, result: &str| {
        format!("bulkhead_reloads_total{{file=\"tokens\",result=\"{result}\"}} {times}")
    };
    let mut old = sidecar.client("billing").await;
    let mut new = sidecar
        .client("billing")
        .await
        .with_token(&second.token(&spiffe("billing")));
    assert_eq!(
        (reason(&mut old).await.as_str(), reason(&mut new).await.as_str()),
        ("", "token_key_unknown")
    );

    sidecar.mount("trust/tokens.json", &first.document(&[&second]));
    until("both keys are in force", || {
        sidecar.metrics().contains(&loaded(2, "loaded"))
    })
    .await;
    assert_eq!(
        (reason(&mut old).await, reason(&mut new).await),
        (String::new(), String::new())
    );

    sidecar.mount("trust/tokens.json", &second.document(&[]));
    until("the second key alone is in force", || {
        sidecar.metrics().contains(&loaded(3, "loaded"))
    })
    .await;
    assert_eq!(
        (reason(&mut old).await.as_str(), reason(&mut new).await.as_str()),
        ("token_key_unknown", "")
    );

    // What can't be read leaves the last good keys in force; so do keys that can verify nothing.
    let secret = json!({"format": 1, "serviceAccounts": {"issuer": "x", "keys": [{"kty": "oct", "kid": "k3", "k": "c2VjcmV0"}]}});
    let for_encryption = second.document(&[]).replace(r#""use":"sig""#, r#""use":"enc""#);
    let newer = second.document(&[]).replace(r#""format":1"#, r#""format":2"#);
    for (count, broken) in ["{", &secret.to_string(), &newer, &for_encryption]
        .into_iter()
        .enumerate()
    {
        sidecar.mount("trust/tokens.json", broken);
        let line = loaded(count + 1, "refused");
        until(&line, || sidecar.metrics().contains(&line)).await;
        assert_eq!(reason(&mut new).await, "");
    }
}

/// A token that is good for a moment: times are whole seconds.
fn brief(issuer: &Issuer) -> (String, u64) {
    let end = now() + 2;
    (issuer.sign(&claims(&json!({"exp": end}))), end)
}

#[tokio::test]
async fn a_token_ends_on_open_connections_and_a_renewed_one_goes_on() {
    let (_upstream, sidecar) = start().await;
    let (token, end) = brief(&sidecar.issuer);
    let mut client = sidecar.client("billing").await.with_token(&token);
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
    until("the token is over", || now() >= end).await;
    assert_eq!(client.call("list_invoices", None).await.reason(), "token_expired");
    client = client.with_token(&sidecar.issuer.token(&spiffe("billing")));
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn streams_end_with_the_token_that_they_were_asked_for_with() {
    let streams = Streams::default();
    let answering = streams.clone();
    let upstream = RecordingUpstream::answering(move |request| answering.answer(request)).await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    let mut client = sidecar.client("billing").await;
    let session = client.open_session().await;

    let (token, _) = brief(&sidecar.issuer);
    let listens = sidecar.client("billing").await.with_token(&token);
    let calls = sidecar.client("billing").await.with_token(&token);
    let mut stream = Stream::open(listens, "GET", &[("mcp-session-id", &session)], "").await;
    let mut answer = Stream::open(calls, "POST", &[], CALL).await;
    // A stream of the session ends as its server would end it: nothing was owed.
    assert_eq!(stream.next().await, None);
    // An answer that was owed won't come, and the client is told.
    assert_eq!(answer.message().await["error"]["data"]["reason"], "withdrawn");
    assert_eq!(answer.next().await, None);
    until("the server's stream is closed", || streams.newest_is_closed()).await;
    let outcome = |record: &&Value| record["reason"] == "token_expired";
    until("it is recorded", || {
        sidecar.audit().iter().filter(outcome).count() == 1
    })
    .await;
    // The session goes on with another token.
    let mut again = Stream::open(client, "GET", &[("mcp-session-id", &session)], "").await;
    streams.event("e", r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#);
    assert_eq!(again.message().await["method"], "ping");
}
