//! Agents that act for persons: whose tokens are taken, from whom, and what the two may do together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "persons/scene.rs"]
mod scene;

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_proxy::testing::{
    Issuer, PATIENCE, Protocol, RecordingUpstream, Stream, Streams,
    sidecar::{HOST, policy, spiffe},
    tokens::{ISSUER, now},
    until,
};
use http::StatusCode;
use serde_json::{Value, json};

use scene::{CLIENT, CORP, Scene, ada, bound_to, of_type, with_persons};

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

#[tokio::test]
async fn an_agent_may_present_what_is_bound_to_its_certificate_or_made_for_its_client() {
    let scene = Scene::start().await;
    let (corp, bound) = (&scene.corp, bound_to(&scene.leaf));
    let tokens = [
        corp.sign(&ada(&json!({}))),
        corp.sign(&ada(&json!({"client_id": null, "azp": CLIENT}))),
        corp.sign(&ada(&json!({"azp": CLIENT}))),
        corp.sign(&ada(&json!({"client_id": null, "cnf": bound}))),
        corp.sign(&ada(&json!({"client_id": "another", "cnf": bound}))),
        corp.sign(&ada(&json!({"aud": ["https://elsewhere.example", "api://acme"]}))),
        corp.sign(&ada(&json!({"typ": "Bearer", "nonce": "n"}))),
        corp.sign_as(of_type(Some("at+jwt")), &ada(&json!({}))),
        corp.sign_as(of_type(Some("application/at+jwt")), &ada(&json!({}))),
        corp.sign_as(of_type(Some("JWT")), &ada(&json!({}))),
    ];
    for token in &tokens {
        let mut client = scene.presenting(token).await;
        let reply = client
            .call("list_invoices", Some(json!({"user": "eve", "cost_centre": 1})))
            .await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        let seen = scene.upstream.seen().pop().unwrap();
        // As the person is, whatever the caller says.
        assert_eq!(
            (&seen.arguments()["user"], &seen.arguments()["cost_centre"]),
            (&json!("ada"), &json!(17))
        );
        assert!(!seen.header("authorization").unwrap().contains(token));
        let payload = seen
            .header("authorization")
            .unwrap()
            .split('.')
            .nth(1)
            .unwrap()
            .to_owned();
        let credential: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!(credential["person"], json!({"iss": CORP, "sub": "ada"}));
        assert_eq!(credential["sub"], json!(spiffe("billing")));
    }
    assert_eq!(scene.upstream.seen().len(), tokens.len());
    let audit = scene.sidecar.audit();
    let first = audit
        .iter()
        .find(|record| record["record"] == "decision")
        .unwrap();
    assert_eq!(
        (
            &first["agent"],
            &first["person"],
            &first["issuer"],
            &first["token"]
        ),
        (&json!("billing"), &json!("ada"), &json!("corp"), &json!("t-1"))
    );
    assert!(first.get("pod").is_none());
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // One table.
async fn no_other_token_of_the_issuer_proves_anything() {
    let scene = Scene::start().await;
    let (corp, time) = (&scene.corp, now());
    let support = scene.sidecar.agents_ca.client(&[&spiffe("support")]);
    let signed = |other: Value| corp.sign(&ada(&other));
    let typed = |kind: &str| corp.sign_as(of_type(Some(kind)), &ada(&json!({})));
    let cases = [
        ("bare", signed(json!({"client_id": null})), "token_binding"),
        (
            "of another client",
            signed(json!({"client_id": "eve"})),
            "token_binding",
        ),
        (
            "of another party",
            signed(json!({"client_id": null, "azp": "eve"})),
            "token_binding",
        ),
        ("of two", signed(json!({"azp": "eve"})), "token_binding"),
        (
            "bound to another's certificate",
            signed(json!({"cnf": bound_to(&support)})),
            "token_binding",
        ),
        (
            "bound to a key as well",
            signed(json!({"cnf": {"jkt": "k", "x5t#S256": bound_to(&scene.leaf)["x5t#S256"]}})),
            "token_binding",
        ),
        (
            "bound to a key",
            signed(json!({"cnf": {"jkt": "k"}})),
            "token_binding",
        ),
        ("bound to nothing", signed(json!({"cnf": {}})), "token_binding"),
        (
            "another audience",
            signed(json!({"aud": "api://globex"})),
            "token_audience",
        ),
        (
            "the pods' audience",
            signed(json!({"aud": "bulkhead:acme"})),
            "token_audience",
        ),
        ("no audience", signed(json!({"aud": []})), "token_audience"),
        (
            "audience missing",
            signed(json!({"aud": null})),
            "token_malformed",
        ),
        ("an ID token", signed(json!({"nonce": "n"})), "token_kind"),
        (
            "an ID token that says so",
            signed(json!({"typ": "ID"})),
            "token_kind",
        ),
        ("a refresh token", signed(json!({"typ": "Refresh"})), "token_kind"),
        ("a logout token", signed(json!({"events": {}})), "token_kind"),
        ("an ID-JAG", typed("oauth-id-jag+jwt"), "token_kind"),
        ("our own credential", typed("bulkhead-call+jwt"), "token_kind"),
        ("nobody's", signed(json!({"sub": ""})), "token_malformed"),
        (
            "of two lines",
            signed(json!({"sub": "ada\nspiffe"})),
            "token_malformed",
        ),
        ("too long", signed(json!({"exp": time + 7200})), "token_lifetime"),
        (
            "over",
            signed(json!({"iat": time - 600, "exp": time - 60})),
            "token_expired",
        ),
        (
            "not begun",
            signed(json!({"nbf": time + 60})),
            "token_not_yet_valid",
        ),
        (
            "another issuer",
            signed(json!({"iss": "https://login.example.com/realms/globex"})),
            "token_issuer",
        ),
        (
            "a longer issuer",
            signed(json!({"iss": format!("{CORP}/")})),
            "token_issuer",
        ),
        ("the cluster", signed(json!({"iss": ISSUER})), "token_key_unknown"),
        (
            "another's key",
            Issuer::new("c1").sign(&ada(&json!({}))),
            "token_signature",
        ),
        // The cluster's key says nothing about persons.
        (
            "the cluster's key",
            scene.sidecar.issuer.sign(&ada(&json!({}))),
            "token_key_unknown",
        ),
    ];
    for (what, token, reason) in cases {
        let reply = scene.presenting(&token).await.call("list_invoices", None).await;
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::UNAUTHORIZED, reason),
            "{what}"
        );
        let record = scene.sidecar.audit().pop().unwrap();
        assert_eq!(
            (&record["reason"], &record["agent"]),
            (&json!(reason), &json!("billing")),
            "{what}"
        );
        assert!(!record.to_string().contains(&token), "{what}");
    }
    // A good token in another agent's hands.
    let client = scene.sidecar.client_with(&support, Protocol::Http1).await;
    let token = corp.sign(&ada(&json!({})));
    let reply = client.with_token(&token).call("delete_invoice", None).await;
    assert_eq!(reply.reason(), "token_binding");
    let record = scene.sidecar.audit().pop().unwrap();
    assert_eq!(
        (&record["agent"], &record["person"], &record["token"]),
        (&json!("support"), &json!("ada"), &json!("t-1")),
        "whose token it is, is known"
    );
    assert_eq!(scene.upstream.seen().len(), 0);
    assert_eq!(
        scene
            .presenting(&token)
            .await
            .call("list_invoices", None)
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn the_two_may_do_what_both_may() {
    let scene = Scene::start().await;
    // The server's list doesn't declare what is taken of persons, so with it the tool would be hidden for that.
    let mut policy = with_persons(scene.upstream.port());
    policy.tools[0].forced.retain(|name, _| name == "tenant_id");
    scene.sidecar.mount_policy(&policy).await;
    // Groups of the person, what is listed, and what a call of either tool comes to.
    for (groups, tools, listing, deleting) in [
        (
            json!(["finance"]),
            &["list_invoices"][..],
            None,
            Some("Unknown tool: delete_invoice"),
        ),
        (
            json!(["bosses"]),
            &["delete_invoice"],
            Some("Unknown tool: list_invoices"),
            None,
        ),
        (
            json!(["finance", "bosses"]),
            &["delete_invoice", "list_invoices"],
            None,
            None,
        ),
        // A role that the agent hasn't.
        (
            json!(["owners"]),
            &[],
            Some("Unknown tool: list_invoices"),
            Some("Unknown tool: delete_invoice"),
        ),
        (
            json!([]),
            &[],
            Some("Unknown tool: list_invoices"),
            Some("Unknown tool: delete_invoice"),
        ),
    ] {
        let mut client = scene.with(&ada(&json!({"groups": groups}))).await;
        let listed = client.exchange("POST", &[], LIST).await.unwrap().json();
        let listed = listed["result"]["tools"].as_array().unwrap();
        let names: BTreeSet<_> = listed.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, tools.iter().copied().collect(), "{groups}");
        for (tool, refused) in [("list_invoices", listing), ("delete_invoice", deleting)] {
            let before = scene.upstream.seen().len();
            let reply = client.call(tool, None).await.json();
            assert_eq!(reply["error"]["message"].as_str(), refused, "{groups} {tool}");
            assert_eq!(
                scene.upstream.seen().len(),
                before + usize::from(refused.is_none()),
                "{groups} {tool}"
            );
        }
    }
}

#[tokio::test]
async fn an_agent_for_persons_only_may_do_nothing_for_itself() {
    let scene = Scene::start().await;
    let mut alone = scene.sidecar.client("billing").await;
    assert_eq!(alone.call("delete_invoice", None).await.status, StatusCode::OK);
    let mut policy = with_persons(scene.upstream.port());
    policy.agents[0].requires_person = true;
    scene.sidecar.mount_policy(&policy).await;
    let reply = alone.call("delete_invoice", None).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::UNAUTHORIZED, "token_person_missing")
    );
    assert_eq!(scene.upstream.seen().len(), 1);
    let mut client = scene.with(&ada(&json!({"groups": ["bosses"]}))).await;
    assert_eq!(client.call("delete_invoice", None).await.status, StatusCode::OK);
    // Others do as before.
    let mut support = scene.sidecar.client("support").await;
    assert_eq!(support.call("delete_invoice", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn another_policy_counts_for_a_token_that_was_known() {
    let scene = Scene::start().await;
    let mut client = scene.with(&ada(&json!({"groups": ["bosses"]}))).await;
    assert_eq!(client.call("delete_invoice", None).await.status, StatusCode::OK);
    let mut policy = with_persons(scene.upstream.port());
    policy.issuers[0].roles.remove(1);
    scene.sidecar.mount_policy(&policy).await;
    let reply = client.call("delete_invoice", None).await.json();
    assert_eq!(reply["error"]["message"], "Unknown tool: delete_invoice");
    assert_eq!(scene.upstream.seen().len(), 1);
}

#[tokio::test]
async fn without_the_claim_that_a_tool_takes_it_is_not_there() {
    let scene = Scene::start().await;
    for centre in [
        Value::Null,
        json!({}),
        json!({"centre": null}),
        json!({"centre": ""}),
        json!({"centre": [17]}),
        json!({"centre": 1.5}),
    ] {
        let mut client = scene.with(&ada(&json!({"org": centre}))).await;
        let reply = client
            .call("list_invoices", Some(json!({"cost_centre": 17})))
            .await
            .json();
        assert_eq!(
            reply["error"]["message"], "Unknown tool: list_invoices",
            "{centre}"
        );
        assert_eq!(
            scene.sidecar.audit().pop().unwrap()["reason"],
            "claim_missing",
            "{centre}"
        );
    }
    // Acting for nobody, the agent has no such tool either, and keeps what takes nothing of a person.
    let mut client = scene.sidecar.client("billing").await;
    let reply = client.call("list_invoices", None).await.json();
    assert_eq!(reply["error"]["message"], "Unknown tool: list_invoices");
    assert_eq!(scene.upstream.seen().len(), 0);
    assert_eq!(client.call("delete_invoice", None).await.status, StatusCode::OK);
    assert_eq!(scene.upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_session_is_one_person_s_alone() {
    let scene = Scene::start().await;
    let session = scene.with(&ada(&json!({}))).await.open_session().await;
    let with = [
        ("mcp-session-id", session.as_str()),
        ("accept", "text/event-stream"),
    ];
    let own = scene.sidecar.client("billing").await;
    for mut stranger in [scene.with(&ada(&json!({"sub": "eve"}))).await, own] {
        for (method, body) in [("POST", LIST), ("GET", ""), ("DELETE", "")] {
            let reply = stranger.exchange(method, &with, body).await.unwrap();
            assert_eq!(
                (reply.status, reply.reason().as_str()),
                (StatusCode::NOT_FOUND, "session_unknown"),
                "{method}"
            );
        }
    }
    assert_eq!(scene.upstream.seen().len(), 1);
    // With a new token Ada is still Ada.
    let mut again = scene.with(&ada(&json!({"jti": "t-2", "groups": []}))).await;
    assert_eq!(
        again.exchange("POST", &with, LIST).await.unwrap().status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_changes_about_a_person_counts_at_once_also_on_open_streams() {
    let streams = Streams::default();
    let answering = streams.clone();
    let scene =
        Scene::before(RecordingUpstream::answering(move |request| answering.answer(request)).await).await;
    let claims = ada(&json!({"groups": ["finance", "bosses"]}));
    let mut client = scene.with(&claims).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_invoice"}}"#;
    let mut stream = Stream::open(scene.with(&claims).await, "POST", &[], call).await;

    let mut policy = with_persons(scene.upstream.port());
    policy.issuers[0].roles.remove(1);
    scene.sidecar.mount_policy(&policy).await;
    // Let through, it would wait for the server's stream.
    let reply = tokio::time::timeout(PATIENCE, client.call("delete_invoice", None)).await;
    let reply = reply.expect("the tool must be gone").json();
    assert_eq!(reply["error"]["message"], "Unknown tool: delete_invoice");

    policy.issuers[0].audiences = BTreeSet::from(["api://other".into()]);
    scene.sidecar.mount_policy(&policy).await;
    let message = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("the stream must end");
    assert_eq!(message["error"]["data"]["reason"], "withdrawn");
    let record = scene.sidecar.audit().pop().unwrap();
    assert_eq!(
        (&record["record"], &record["reason"]),
        (&json!("outcome"), &json!("token_audience"))
    );
    assert_eq!(
        client.call("list_invoices", None).await.reason(),
        "token_audience"
    );

    policy.issuers.clear();
    policy.agents[0].clients.clear();
    scene.sidecar.mount_policy(&policy).await;
    assert_eq!(client.call("list_invoices", None).await.reason(), "token_issuer");

    scene
        .sidecar
        .mount_policy(&with_persons(scene.upstream.port()))
        .await;
    scene.mount_keys(&[]).await;
    assert_eq!(
        client.call("list_invoices", None).await.reason(),
        "token_key_unknown"
    );
    until("the stream's end is recorded", || {
        scene
            .sidecar
            .audit()
            .iter()
            .any(|record| record["record"] == "outcome" && record["outcome"] == "failed")
    })
    .await;
}

#[tokio::test]
async fn a_client_is_told_where_it_gets_a_token() {
    const METADATA: &str = "/.well-known/oauth-protected-resource/mcp";
    let scene = Scene::start().await;
    let mut client = scene.presenting("").await;
    client.authorization = String::new();
    for host in [
        HOST.to_owned(),
        format!("{HOST}:{}", scene.sidecar.address.port()),
    ] {
        let reply = client.exchange("POST", &[("host", &host)], LIST).await.unwrap();
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::UNAUTHORIZED, "token_missing")
        );
        let challenge = format!(r#"Bearer realm="bulkhead", resource_metadata="https://{host}{METADATA}""#);
        assert_eq!(reply.headers["www-authenticate"], challenge);

        let mut request = client.request("GET", &[("host", &host)], "");
        *request.uri_mut() = METADATA.parse().unwrap();
        let reply = client.read(request).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        let metadata = json!({
            "resource": format!("https://{host}/mcp"), "authorization_servers": [CORP],
            "bearer_methods_supported": ["header"], "tls_client_certificate_bound_access_tokens": true,
        });
        assert_eq!(reply.json(), metadata);
    }
    // Where no persons' tokens are taken, there is nothing to tell.
    scene.sidecar.mount_policy(&policy(scene.upstream.port())).await;
    let reply = client.exchange("POST", &[], LIST).await.unwrap();
    assert_eq!(reply.headers["www-authenticate"], r#"Bearer realm="bulkhead""#);
    let mut request = client.request("GET", &[], "");
    *request.uri_mut() = METADATA.parse().unwrap();
    assert_eq!(client.read(request).await.unwrap().reason(), "path_unknown");
    assert_eq!(scene.upstream.seen().len(), 0);
}
