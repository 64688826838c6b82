//! Who gets in: certificates, roots, SPIFFE IDs, and what happens to a connection when they change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bulkhead_proxy::testing::{
    Authority, Client, Leaf, PATIENCE, Protocol, RecordingUpstream, Setup, TestSidecar,
    client::connect_tls,
    sidecar::{HOST, SPIFFE_ID, spiffe},
    until,
};
use http::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

async fn start() -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    (upstream, sidecar)
}

/// With TLS 1.3 a client learns of its refusal with its first read.
async fn is_refused_by_tls(sidecar: &TestSidecar, leaf: Option<&Leaf>) -> bool {
    match sidecar.try_client(leaf, Protocol::Http1).await {
        Err(_) => true,
        Ok(mut client) => client.exchange("POST", &[], "{}").await.is_err(),
    }
}

#[tokio::test]
async fn an_agent_is_served_over_both_protocols() {
    let (upstream, sidecar) = start().await;
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = sidecar.client_with(&leaf, protocol).await;
        assert_eq!(
            client.call("list_invoices", Some(json!({}))).await.status,
            StatusCode::OK,
            "{protocol:?}"
        );
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn tls_refuses_who_has_no_certificate_of_the_agents_ca() {
    let (upstream, sidecar) = start().await;
    let stranger = Authority::new("agents").client(&[&spiffe("billing")]);
    let server = sidecar.servers_ca.client(&[&spiffe("billing")]);
    let expired = sidecar.agents_ca.expired_client(&[&spiffe("billing")]);
    for (leaf, why) in [
        (None, "no certificate"),
        (Some(&stranger), "another CA of the same name"),
        (Some(&server), "the servers' CA"),
        (Some(&expired), "expired"),
    ] {
        assert!(is_refused_by_tls(&sidecar, leaf).await, "{why}");
    }
    assert!(!is_refused_by_tls(&sidecar, Some(&sidecar.agents_ca.client(&[&spiffe("billing")]))).await);
    assert_eq!(upstream.seen().len(), 0);
    assert!(
        sidecar
            .metrics()
            .contains("bulkhead_handshakes_total{result=\"refused\"} 4")
    );
}

#[tokio::test]
async fn a_verified_certificate_must_name_an_agent_of_the_policy() {
    let (upstream, sidecar) = start().await;
    let of_globex = "spiffe://globex.cluster.local/ns/globex-agents/sa/billing";
    for (uris, reason) in [
        (vec![of_globex.to_owned()], "agent_unknown"),
        (vec![spiffe("unknown")], "agent_unknown"),
        (vec![spiffe("billing"), spiffe("support")], "identity_invalid"),
        (vec![], "identity_invalid"),
        (
            vec!["https://acme.example/billing".to_owned()],
            "identity_invalid",
        ),
    ] {
        let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
        let mut client = sidecar
            .client_with(&sidecar.agents_ca.client(&uris), Protocol::Http1)
            .await;
        let reply = client.call("list_invoices", None).await;
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::FORBIDDEN, reason),
            "{uris:?}"
        );
        let audit = sidecar.audit();
        assert_eq!(audit.last().unwrap()["reason"], reason);
        assert_eq!(audit.last().unwrap()["decision"], "refuse");
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn strangers_together_have_no_more_connections_than_one_agent() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.connections_per_agent = 1;
    let sidecar = TestSidecar::start(setup).await;
    let stranger = |name: &str| sidecar.agents_ca.client(&[&spiffe(name)]);
    let mut first = sidecar.client_with(&stranger("unknown"), Protocol::Http1).await;
    assert_eq!(
        first.call("list_invoices", None).await.status,
        StatusCode::FORBIDDEN
    );
    for leaf in [stranger("other"), sidecar.agents_ca.client(&[])] {
        assert!(is_refused_by_tls(&sidecar, Some(&leaf)).await);
    }
    assert!(!is_refused_by_tls(&sidecar, Some(&stranger("billing"))).await);
}

#[tokio::test]
async fn an_agent_that_leaves_the_policy_is_refused_on_its_open_connection() {
    let (upstream, sidecar) = start().await;
    let mut client = sidecar.client("billing").await;
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
    let mut policy = Setup::new(upstream.port()).policy;
    policy.agents.retain(|agent| agent.name != "billing");
    sidecar.mount_policy(&policy).await;
    let reply = client.call("list_invoices", None).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::FORBIDDEN, "agent_unknown")
    );
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(
        sidecar
            .client("support")
            .await
            .call("delete_invoice", None)
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_root_that_is_removed_ends_the_trust_in_open_connections() {
    let (upstream, sidecar) = start().await;
    let mut client = sidecar.client("billing").await;
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
    let next = Authority::new("next");
    let trust = &sidecar.shared.live;
    let before = trust.trust().unwrap().generation;

    sidecar.mount(
        "trust/ca.pem",
        &format!("{}{}", sidecar.agents_ca.pem(), next.pem()),
    );
    until("both roots are in force", || {
        trust.trust().unwrap().generation > before
    })
    .await;
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
    let renewed = next.client(&[&spiffe("billing")]);
    let mut second = sidecar.client_with(&renewed, Protocol::Http1).await;
    assert_eq!(second.call("list_invoices", None).await.status, StatusCode::OK);

    sidecar.mount("trust/ca.pem", &next.pem());
    until("the new root is in force", || {
        trust.trust().unwrap().generation > before + 1
    })
    .await;
    assert_eq!(client.call("list_invoices", None).await.reason(), "trust_removed");
    assert_eq!(second.call("list_invoices", None).await.status, StatusCode::OK);
    assert_eq!(upstream.seen().len(), 4);
}

#[tokio::test]
async fn a_connection_ends_when_its_certificate_expires() {
    let (_upstream, sidecar) = start().await;
    let leaf = sidecar
        .agents_ca
        .client_for(&[&spiffe("billing")], Duration::from_secs(2));
    let Client { connection, .. } = sidecar.client_with(&leaf, Protocol::Http2).await;
    tokio::time::timeout(PATIENCE, connection)
        .await
        .expect("the connection must end")
        .unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_handshakes_and_fails_no_call() {
    let (upstream, sidecar) = start().await;
    let mut client = sidecar.client("billing").await;
    let old = client.server_certificate.clone();
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);

    sidecar.mount_leaf(&sidecar.servers_ca.server(&["crm.acme.svc"], SPIFFE_ID));
    let mut new = sidecar.client("billing").await;
    while new.server_certificate == old {
        // Each handshake is a look; calls on the old connection go on meanwhile.
        assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
        new = sidecar.client("billing").await;
    }
    assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
    assert_eq!(new.call("list_invoices", None).await.status, StatusCode::OK);
    assert!(upstream.seen().len() >= 3);
}

#[tokio::test]
async fn broken_files_leave_the_last_good_ones_in_force() {
    let (_upstream, sidecar) = start().await;
    for file in ["policy/policy.json", "tls/tls.crt", "trust/ca.pem"] {
        sidecar.mount(file, "broken");
    }
    for file in ["policy", "certificate", "trust"] {
        let line = format!("bulkhead_reloads_total{{file=\"{file}\",result=\"refused\"}} 1");
        until(&line, || sidecar.metrics().contains(&line)).await;
    }
    assert_eq!(
        sidecar
            .client("billing")
            .await
            .call("list_invoices", None)
            .await
            .status,
        StatusCode::OK
    );
}

/// What strangers are refused has one pace for all of them, and their connections one number: an agent's are its own.
#[tokio::test]
async fn who_becomes_an_agent_gets_a_connection_of_its_own() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let upstream = RecordingUpstream::start().await;
        let mut setup = Setup::new(upstream.port());
        setup.limits.untaken = Duration::from_secs(1);
        let billing = setup.policy.agents.remove(0);
        let mut policy = setup.policy.clone();
        let sidecar = TestSidecar::start(setup).await;
        let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
        let mut client = sidecar.client_with(&leaf, protocol).await;
        let mut support = sidecar.client("support").await;
        let reply = client.call("list_invoices", None).await;
        assert_eq!(reply.reason(), "agent_unknown");
        // A change that doesn't make it an agent ends nothing.
        policy.tools[0].forced.clear();
        sidecar.mount_policy(&policy).await;
        let reply = client.call("list_invoices", None).await;
        assert_eq!(reply.reason(), "agent_unknown");
        assert_eq!(upstream.seen().len(), 0);
        // Over HTTP/2 a client is told to go, and this one never says that it has heard.
        let ca = sidecar.servers_ca.pem();
        let mut deaf = connect_tls(sidecar.address, HOST, &ca, Some(&leaf), Some(b"h2"))
            .await
            .unwrap();
        let preface_and_settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        deaf.write_all(preface_and_settings).await.unwrap();

        policy.agents.push(billing);
        sidecar.mount_policy(&policy).await;
        timeout(PATIENCE, async {
            while client.exchange("POST", &[], "{}").await.is_ok() {}
        })
        .await
        .expect("its connection from before must end");
        // However it ends: what counts is that it does.
        let _ = timeout(PATIENCE, deaf.read_to_end(&mut Vec::new()))
            .await
            .expect("that of the deaf one too");
        let mut client = sidecar.client_with(&leaf, protocol).await;
        for (client, tool) in [(&mut client, "list_invoices"), (&mut support, "delete_invoice")] {
            let reply = client.call(tool, None).await;
            assert!(reply.json()["result"].is_object(), "{tool}");
        }
    }
}
