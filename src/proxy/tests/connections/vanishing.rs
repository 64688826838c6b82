//! A client whose machine is gone, as its kernel would have it.

use std::os::fd::AsFd;

use bulkhead_proxy::testing::{
    Client, Stream,
    client::connect_tls,
    sidecar::{HOST, PATH},
};
use socket2::{SockFilter, SockRef};

use super::*;

/// HTTP/1.1 has no pings: the kernel waits for acknowledgements of what it sends, and asks for one when
/// it sends nothing.
#[tokio::test]
async fn a_client_that_acknowledges_nothing_is_gone_and_its_stream_with_it() {
    let streams = Streams::default();
    let answering = streams.clone();
    let upstream = RecordingUpstream::answering(move |request| answering.answer(request)).await;
    let mut setup = Setup::new(upstream.port());
    setup.limits.unacknowledged = SECOND;
    let sidecar = TestSidecar::start(setup).await;
    let (leaf, servers_ca) = (leaf(&sidecar), sidecar.servers_ca.pem());
    for sends in [true, false] {
        let connected = connect_tls(sidecar.address, HOST, &servers_ca, Some(&leaf), Some(b"http/1.1"));
        let connected = connected.await.unwrap();
        let socket = connected.get_ref().0.as_fd().try_clone_to_owned().unwrap();
        let client = Client::over(connected, HOST, PATH, Protocol::Http1)
            .await
            .unwrap();
        let client = client.with_token(&sidecar.issuer.token(&leaf.uri));
        let headers = [("mcp-protocol-version", "2025-11-25")];
        let call = CALL.replace("\"name\"", "\"_meta\":{\"progressToken\":1},\"name\"");
        let mut stream = Stream::open(client, "POST", &headers, &call).await;
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
        streams.event("", progress);
        assert_eq!(stream.message().await["params"]["progress"], 1, "the control");

        // From now on what comes for it is dropped before its TCP sees any (classic BPF: return 0).
        SockRef::from(&socket)
            .attach_filter(&[SockFilter::new(6, 0, 0, 0)])
            .unwrap();
        if sends {
            streams.event("", progress);
        }
        until("its connection ends", || {
            sidecar.shared.metrics.connections.get() == 0
        })
        .await;
        until("the server's side ends", || streams.newest_is_closed()).await;
        assert_eq!(sidecar.audit().pop().unwrap()["outcome"], "cancelled");
    }
}
