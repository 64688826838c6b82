//! How the keys of a connection may be agreed on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bulkhead_core::policy::document::KeyExchange;
use bulkhead_proxy::{
    testing::{
        Client, Protocol, RecordingUpstream, Setup, TestSidecar,
        client::connect_tls_by,
        sidecar::{HOST, PATH, spiffe},
        until,
    },
    tls,
};
use http::StatusCode;
use rustls::crypto::{
    CryptoProvider, SupportedKxGroup,
    aws_lc_rs::kx_group::{SECP256R1, SECP256R1MLKEM768, SECP384R1, X25519, X25519MLKEM768},
};

/// A client of `billing` that can do these and no other.
async fn client(sidecar: &TestSidecar, groups: &[&'static dyn SupportedKxGroup]) -> anyhow::Result<Client> {
    let provider = CryptoProvider {
        kx_groups: groups.to_vec(),
        ..tls::provider()
    };
    let leaf = sidecar.agents_ca.client(&[&spiffe("billing")]);
    let ca = sidecar.servers_ca.pem();
    let stream = connect_tls_by(provider, sidecar.address, HOST, &ca, Some(&leaf), None).await?;
    let client = Client::over(stream, HOST, PATH, Protocol::Http1).await?;
    Ok(client.with_token(&sidecar.issuer.token(&leaf.uri)))
}

async fn is_served(sidecar: &TestSidecar, groups: &[&'static dyn SupportedKxGroup]) -> bool {
    match client(sidecar, groups).await {
        Ok(mut client) => client.call("list_invoices", None).await.status == StatusCode::OK,
        Err(_) => false,
    }
}

#[tokio::test]
async fn classical_clients_are_served_unless_the_tenant_requires_more() {
    let upstream = RecordingUpstream::start().await;
    let mut setup = Setup::new(upstream.port());
    let mut policy = setup.policy.clone();
    setup.policy.key_exchange = KeyExchange::PostQuantumRequired;
    let sidecar = TestSidecar::start(setup).await;
    let classical: [&[&'static dyn SupportedKxGroup]; 2] = [&[X25519], &[SECP256R1, SECP384R1]];
    let hybrid: [&[&'static dyn SupportedKxGroup]; 3] =
        [&[X25519MLKEM768], &[SECP256R1MLKEM768], &[X25519, X25519MLKEM768]];
    for groups in classical {
        assert!(!is_served(&sidecar, groups).await, "{groups:?}");
    }
    assert_eq!(upstream.seen().len(), 0);
    assert!(
        sidecar
            .metrics()
            .contains("bulkhead_handshakes_total{result=\"refused\"} 2")
    );
    for groups in hybrid {
        assert!(is_served(&sidecar, groups).await, "{groups:?}");
    }

    policy.key_exchange = KeyExchange::PostQuantumPreferred;
    sidecar.mount_policy(&policy).await;
    for groups in [classical[0], classical[1], hybrid[0], hybrid[2]] {
        // Policy and handshakes change one after the other.
        let mut served = is_served(&sidecar, groups).await;
        while !served {
            served = is_served(&sidecar, groups).await;
        }
    }
}

#[tokio::test]
async fn an_open_connection_does_not_outlive_what_the_tenant_requires_by_now() {
    let upstream = RecordingUpstream::start().await;
    let setup = Setup::new(upstream.port());
    let mut policy = setup.policy.clone();
    let sidecar = TestSidecar::start(setup).await;
    let mut classical = client(&sidecar, &[X25519]).await.unwrap();
    let mut hybrid = client(&sidecar, &[X25519MLKEM768]).await.unwrap();
    for client in [&mut classical, &mut hybrid] {
        assert_eq!(client.call("list_invoices", None).await.status, StatusCode::OK);
    }
    policy.key_exchange = KeyExchange::PostQuantumRequired;
    sidecar.mount_policy(&policy).await;
    let reply = classical.call("list_invoices", None).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::FORBIDDEN, "key_exchange")
    );
    assert_eq!(sidecar.audit().pop().unwrap()["reason"], "key_exchange");
    assert_eq!(hybrid.call("list_invoices", None).await.status, StatusCode::OK);
    assert_eq!(upstream.seen().len(), 3);
    let rebuilt = "bulkhead_reloads_total{file=\"certificate\",result=\"loaded\"} 2";
    until("new handshakes are held to it", || {
        sidecar.metrics().contains(rebuilt)
    })
    .await;
    assert!(client(&sidecar, &[X25519]).await.is_err());
}
