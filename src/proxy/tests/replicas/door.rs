//! Who comes in between replicas, and what a replica that goes to another one finds there.

use base64::{Engine, engine::general_purpose::STANDARD};
use bulkhead_core::{
    handles::{Handle, Handles},
    policy::document::KeyExchange,
};
use bulkhead_proxy::tls::{self, Credentials, Trust};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Another server of the tenant.
const FILES: &str = "spiffe://acme.cluster.local/ns/acme/sa/files";

/// Whether nothing is answered there.
async fn is_refused(connected: anyhow::Result<Client>, body: &str) -> bool {
    match connected {
        Err(_) => true,
        Ok(mut client) => client.exchange("POST", &[], body.to_owned()).await.is_err(),
    }
}

/// A connection to a replica's port of replicas, if the handshake succeeds.
async fn at_the_door(replica: &TestSidecar, leaf: &Leaf) -> anyhow::Result<Client> {
    let ca = replica.servers_ca.pem();
    Client::connect(
        replica.peers_address,
        HOST,
        PATH,
        &ca,
        Some(leaf),
        Protocol::Http1,
    )
    .await
}

fn client_cert(leaf: &Leaf) -> String {
    let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
    format!(":{}:", STANDARD.encode(certificate))
}

#[tokio::test]
async fn the_door_of_replicas_is_for_this_server_s_alone_and_believes_nobody() {
    let [first, second] = replicas(plain).await;
    let session = session(&first, "billing").await;
    let before = (first.seen(), first.decisions().len());
    let billing = first.sidecar.agents_ca.client(&[&spiffe("billing")]);
    let strangers = bulkhead_proxy::testing::Authority::new("agents");
    let body = call("list_invoices");

    // Agents don't come in at all.
    assert!(is_refused(at_the_door(&first.sidecar, &billing).await, &body).await);
    // And no server at the agents' port.
    let own = first.sidecar.servers_ca.server(&[HOST], SPIFFE_ID);
    let as_agent = first.sidecar.try_client(Some(&own), Protocol::Http1).await;
    assert!(is_refused(as_agent, &body).await);
    assert_eq!((first.seen(), first.decisions().len()), before);
    // Other servers of the tenant have a good certificate: they get nothing, and it is recorded who came.
    let files = first.sidecar.servers_ca.server(&[HOST], FILES);
    assert!(is_refused(at_the_door(&first.sidecar, &files).await, &body).await);
    until("the stranger is recorded", || first.decisions().len() > before.1).await;
    let stranger = first.decisions().pop().unwrap();
    assert_eq!(
        (&stranger["reason"], &stranger["spiffeId"]),
        (&json!("agent_unknown"), &json!(FILES))
    );
    assert_eq!(first.seen(), before.0);

    // Whom a replica speaks for must have proven it by a certificate of the agents' CA.
    let mut client = at_the_door(&first.sidecar, &own).await.unwrap();
    let forged = strangers.client(&[&spiffe("billing")]);
    let unknown = first.sidecar.agents_ca.client(&[&spiffe("nobody")]);
    let expired = first.sidecar.agents_ca.expired_client(&[&spiffe("billing")]);
    for (certificate, reason) in [
        (None, "identity_invalid"),
        (Some("garbage".to_owned()), "identity_invalid"),
        (Some(client_cert(&own)), "trust_removed"),
        (Some(client_cert(&forged)), "trust_removed"),
        (Some(client_cert(&unknown)), "agent_unknown"),
        (Some(client_cert(&expired)), "certificate_expired"),
    ] {
        let headers: Vec<_> = certificate
            .as_deref()
            .map(|text| ("client-cert", text))
            .into_iter()
            .collect();
        let reply = client.exchange("POST", &headers, body.clone()).await.unwrap();
        assert_eq!(
            (reply.reason().as_str(), first.last_reason().as_str()),
            (reason, reason)
        );
    }
    assert_eq!(first.seen(), before.0);

    // An agent says nothing by these headers: it is who its own certificate says.
    let reply = second
        .sidecar
        .client("support")
        .await
        .exchange("POST", &[("client-cert", &client_cert(&billing))], body.clone())
        .await
        .unwrap();
    assert_eq!(second.last_reason(), "tool_not_granted", "{reply:?}");

    // Nor does a replica's word replace the agent's token.
    let mut client = at_the_door(&first.sidecar, &own).await.unwrap();
    let certificate = client_cert(&billing);
    let of_support = format!("Bearer {}", first.sidecar.issuer.token(&spiffe("support")));
    for (authorization, reason) in [("", "token_missing"), (of_support.as_str(), "token_subject")] {
        let headers = [
            ("client-cert", certificate.as_str()),
            ("authorization", authorization),
        ];
        let reply = client.exchange("POST", &headers, body.clone()).await.unwrap();
        assert_eq!(
            (reply.reason().as_str(), first.last_reason().as_str()),
            (reason, reason)
        );
    }
    assert_eq!(first.seen(), before.0);

    // What was handed on once isn't again.
    let headers = [
        ("client-cert", certificate.as_str()),
        ("mcp-session-id", session.as_str()),
    ];
    let token = second.sidecar.issuer.token(&billing.uri);
    let client = at_the_door(&second.sidecar, &own).await.unwrap();
    let mut client = client.with_token(&token);
    for (method, body) in [("POST", body.as_str()), ("GET", ""), ("DELETE", "")] {
        let reply = client.exchange(method, &headers, body.to_owned()).await.unwrap();
        assert_eq!(
            (reply.status, reply.reason()),
            (StatusCode::NOT_FOUND, "session_unknown".into())
        );
    }
    assert_eq!((first.seen(), second.seen()), (before.0, 0));
}

#[tokio::test]
async fn an_address_that_is_another_server_s_by_now_gets_nothing() {
    let [first, second] = replicas(plain).await;
    let session = session(&first, "billing").await;
    // The same address, and a certificate of the same CA, of another server.
    let files = first.sidecar.servers_ca.server(&[HOST], FILES);
    first.sidecar.mount_leaf(&files);
    until("the certificate is another", || {
        let peers = first.sidecar.shared.live.peers();
        peers.is_some_and(|peers| peers.spiffe_id().ends_with("files"))
    })
    .await;
    let before = first.seen();
    let mut client = second.sidecar.client("billing").await;
    let headers = [("mcp-session-id", session.as_str())];
    let reply = client
        .exchange("POST", &headers, call("list_invoices"))
        .await
        .unwrap();
    assert_eq!(reply.reason(), "session_unknown");
    assert_eq!((first.seen(), second.seen()), (before, 0));
}

#[tokio::test]
async fn a_replica_that_does_not_answer_is_no_reason_to_ask_twice() {
    let [replica] = replicas(plain).await;
    // Something with the server's own certificate that takes a request and goes away.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let servers_ca = &replica.sidecar.servers_ca;
    let leaf = servers_ca.server(&[HOST], SPIFFE_ID);
    let credentials = Credentials::from_pem(leaf.certificate.as_bytes(), leaf.key.as_bytes()).unwrap();
    let trust = Trust::from_pem("servers.pem", servers_ca.pem().as_bytes()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(
        tls::server_config(&credentials, &trust, KeyExchange::default()).unwrap(),
    ));
    let asked = tokio::spawn(async move {
        let mut asked = 0;
        while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_secs(2), listener.accept()).await
        {
            let mut stream = acceptor.accept(stream).await.unwrap();
            assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
            asked += 1;
        }
        asked
    });

    let keyring = replica.sidecar.keyring_at(&here);
    let billing = spiffe("billing");
    let session = Handles::new(&keyring, &billing, None)
        .seal(&Handle::Session("s".into()))
        .unwrap();
    let with = [("mcp-session-id", session.as_str())];
    let mut client = replica.sidecar.client("billing").await;
    let reply = client
        .exchange("POST", &with, call("list_invoices"))
        .await
        .unwrap();
    assert_eq!(
        (&reply.json()["id"], &reply.json()["error"]["data"]["reason"]),
        (&json!("c1"), &json!("upstream_broken"))
    );
    assert_eq!(replica.last_reason(), "upstream_failed");
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c1"}}"#;
    for (method, body) in [("POST", cancel), ("DELETE", "")] {
        let reply = client.exchange(method, &with, body).await.unwrap();
        assert_eq!(
            (reply.status, reply.reason()),
            (StatusCode::BAD_GATEWAY, "upstream_failed".into())
        );
    }
    assert_eq!(asked.await.unwrap(), 3, "each once");
    assert_eq!((replica.seen(), replica.decisions().len()), (0, 3));
    assert!(
        replica
            .sidecar
            .metrics()
            .contains("bulkhead_relayed_total{result=\"broken\"} 3")
    );
}
