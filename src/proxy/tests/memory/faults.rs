//! What clients and servers do wrong, once each.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bulkhead_proxy::{
    limits::Limits,
    testing::{Client, PATIENCE, Protocol, sidecar::HOST},
    tls,
};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, version::TLS13};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{program::Program, server::Server};

/// Who takes part.
pub struct Scene {
    pub server: Server,
    pub sidecar: Program,
}

/// A fault that happens.
type Once = for<'a> fn(&'a Scene) -> BoxFuture<'a, ()>;

/// What happens, and how often before the first look.
pub const FAULTS: [(&str, usize, Once); 22] = [
    ("clients connect and say nothing", 4, |scene| {
        silent(scene).boxed()
    }),
    ("clients stop in the middle of the handshake", 4, |scene| {
        half_shaken(scene).boxed()
    }),
    ("clients stop in the middle of a head", 3, |scene| {
        half_said(scene, 0).boxed()
    }),
    ("clients stop in the middle of a body", 2, |scene| {
        half_said(scene, 300 << 10).boxed()
    }),
    ("a client announces a body beyond the limit", 20, |scene| {
        announced(scene).boxed()
    }),
    ("a client sends a body beyond the limit", 2, |scene| {
        too_large(scene).boxed()
    }),
    ("clients send bodies of the largest size at once", 1, |scene| {
        largest(scene).boxed()
    }),
    ("clients leave whole answers untaken", 1, |scene| {
        untaken(scene, "large").boxed()
    }),
    ("clients leave streams untaken", 1, |scene| {
        untaken(scene, "endless events").boxed()
    }),
    ("clients go away while the server is silent", 3, |scene| {
        given_up(scene, "silence").boxed()
    }),
    ("clients go away while the server is slow", 3, |scene| {
        given_up(scene, "slow").boxed()
    }),
    ("a client takes its requests back", 4, |scene| {
        taken_back(scene).boxed()
    }),
    ("the server never ends an event", 1, |scene| {
        asked(scene, "endless event", "upstream_too_large").boxed()
    }),
    ("the server never ends a stream", 1, |scene| {
        asked(scene, "endless comments", "upstream_too_large").boxed()
    }),
    ("the server is dead, and comes back", 10, |scene| {
        restarted(scene).boxed()
    }),
    ("the server closes without an answer", 15, |scene| {
        asked(scene, "close", "upstream_broken").boxed()
    }),
    ("the server says less than it announced", 15, |scene| {
        asked(scene, "too short", "upstream_broken").boxed()
    }),
    ("the server says more than it announced", 15, |scene| {
        asked(scene, "too long", "malformed_json").boxed()
    }),
    ("the server answers in advance", 15, |scene| {
        asked(scene, "in advance", "first").boxed()
    }),
    ("the server answers another request", 15, |scene| {
        asked(scene, "other id", "another request").boxed()
    }),
    ("the server compresses", 10, |scene| {
        asked(scene, "compressed", "upstream_not_mcp").boxed()
    }),
    ("the server asks in the modern era", 10, |scene| {
        modern(scene).boxed()
    }),
];

impl Scene {
    pub async fn start() -> Self {
        let server = Server::start().await;
        let sidecar = Program::start(server.port()).await;
        Self { server, sidecar }
    }

    /// A call that nothing is wrong with.
    pub async fn good_call(&self, agent: &str, tool: &str) {
        let mut client = self.sidecar.client(agent, Protocol::Http1).await;
        let reply = client.call(tool, Some(json!({"text": "good"}))).await;
        assert!(reply.text().contains("good"), "{}", reply.json());
    }
}

fn call(tool: &str, text: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": tool, "arguments": {"text": text}, "_meta": {"progressToken": "p"}}})
    .to_string()
}

async fn silent(scene: &Scene) {
    let connect = |_| TcpStream::connect(scene.sidecar.address).map(Result::unwrap);
    let connections = join_all((0..50).map(connect)).await;
    // They are accepted in turn: when this one is served, those are.
    scene.good_call("billing", "list_invoices").await;
    drop(connections);
}

async fn half_shaken(scene: &Scene) {
    let config = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut session = ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let stop = async || {
        let mut stream = TcpStream::connect(scene.sidecar.address).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut flight = [0; 512];
        assert_eq!(stream.read_exact(&mut flight).await.unwrap(), 512);
        stream
    };
    drop(join_all((0..20).map(|_| stop())).await);
}

async fn half_said(scene: &Scene, bytes: usize) {
    let stop = async || {
        let mut stream = scene.sidecar.connection("billing").await;
        let mut said = scene.sidecar.head("billing");
        if bytes > 0 {
            let body = "x".repeat(bytes);
            let _ = write!(said, "content-length: {}\r\n\r\n{body}", bytes * 2);
        } else {
            said += "x-slow: a";
        }
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let connections = join_all((0..20).map(|_| stop())).await;
    scene.good_call("support", "delete_invoice").await;
    drop(connections);
}

async fn announced(scene: &Scene) {
    let head = format!("content-length: {}\r\n\r\n", Limits::default().body_bytes + 1);
    assert!(refused(scene, &head).await.contains("body_too_large"));
}

async fn too_large(scene: &Scene) {
    let body = "x".repeat(Limits::default().body_bytes + 1);
    let chunk = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}", body.len());
    assert!(refused(scene, &chunk).await.contains("body_too_large"));
}

/// How a request is answered that goes on like this. Not all of it may be read.
async fn refused(scene: &Scene, rest: &str) -> String {
    let mut stream = scene.sidecar.connection("billing").await;
    let request = scene.sidecar.head("billing") + rest;
    let (mut reads, mut writes) = tokio::io::split(&mut stream);
    let answer = async {
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") && reads.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
        String::from_utf8(answer).unwrap()
    };
    let written = async {
        let _ = writes.write_all(request.as_bytes()).await;
        let _ = writes.flush().await;
    };
    let (answer, ()) = timeout(PATIENCE, async { tokio::join!(answer, written) })
        .await
        .unwrap();
    answer
}

/// More than one agent may hold, and more than all may. A test's sidecar needs half a second for a text of that length, so most
/// are mostly spaces.
async fn largest(scene: &Scene) {
    let most = Limits::default().body_bytes;
    let [billing, support] =
        [("billing", "list_invoices"), ("support", "delete_invoice")].map(|(agent, tool)| {
            let spaces = call(tool, "spaces");
            let spaces = spaces.clone() + &" ".repeat(most - spaces.len());
            let rest = call(tool, "").len();
            let text = call(tool, "-").replace('-', &"x".repeat(most - rest));
            [(agent, Bytes::from(text)), (agent, Bytes::from(spaces))]
        });
    let send = async |(agent, body): &(&str, Bytes)| {
        let mut client = scene.sidecar.client(agent, Protocol::Http1).await;
        let sent = client.exchange("POST", &[], body.clone()).await;
        // Whoever is refused may hear of it while it still sends, and have no answer.
        sent.is_ok_and(|reply| {
            let reason = reply.reason();
            assert!(["", "memory_exhausted"].contains(&reason.as_str()), "{reason}");
            reason.is_empty()
        })
    };
    let of_each = [0, 1, 1, 1, 1];
    let bodies = of_each.iter().flat_map(|kind| [&billing[*kind], &support[*kind]]);
    let passed = join_all(bodies.map(send)).await;
    assert!(passed.contains(&true), "for some there is room");
}

/// Goes away with what was said on it; of HTTP/2 too, whatever its streams hold.
fn leave(client: &Client) {
    client.connection.abort();
}

async fn untaken(scene: &Scene, text: &str) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let ask = async || {
            let mut client = scene.sidecar.client("billing", protocol).await;
            let request = client.request("POST", &[], call("list_invoices", text));
            (client.send(request).await.unwrap(), client)
        };
        let left = join_all((0..4).map(|_| ask())).await;
        scene.good_call("support", "delete_invoice").await;
        for (_answer, client) in left {
            leave(&client);
        }
    }
}

async fn given_up(scene: &Scene, text: &str) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let ask = async || {
            let mut client = scene.sidecar.client("billing", protocol).await;
            let request = client.request("POST", &[], call("list_invoices", text));
            let answer = client.send(request).await;
            panic!("nothing was to be answered: {answer:?}");
        };
        tokio::select! {
            _ = join_all((0..10).map(|_| ask())) => {}
            () = scene.sidecar.until_it_says(&["bulkhead_calls_in_flight 10"]) => {}
        }
    }
}

async fn taken_back(scene: &Scene) {
    let mut client = scene.sidecar.client("billing", Protocol::Http2).await;
    for _ in 0..20 {
        let request = client.request("POST", &[], call("list_invoices", "silence"));
        let answer = timeout(Duration::from_millis(3), client.send(request)).await;
        assert!(answer.is_err(), "nothing was to be answered");
    }
    leave(&client);
}

async fn asked(scene: &Scene, text: &str, said: &str) {
    let mut client = scene.sidecar.client("billing", Protocol::Http1).await;
    let asking = client.exchange("POST", &[], call("list_invoices", text));
    let reply = timeout(PATIENCE, asking).await.unwrap().unwrap();
    assert!(
        reply.json().to_string().contains(said),
        "{text}: {}",
        reply.json()
    );
}

async fn restarted(scene: &Scene) {
    let mut client = scene.sidecar.client("billing", Protocol::Http1).await;
    let mut ask = async || client.call("list_invoices", None).await;
    assert_eq!(ask().await.reason(), "");
    scene.server.end().await;
    // Whether that its connection was closed had been heard of is a matter of moments.
    let reason = ask().await.reason();
    assert!(
        ["upstream_unavailable", "upstream_broken"].contains(&reason.as_str()),
        "{reason}"
    );
    scene.server.begin().await;
    assert_eq!(ask().await.reason(), "");
}

async fn modern(scene: &Scene) {
    let mut client = scene.sidecar.client("billing", Protocol::Http1).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "list_invoices", "arguments": {"text": "asks"}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"sampling": {}}}}});
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "list_invoices"),
    ];
    let reply = client.exchange("POST", &headers, body.to_string()).await.unwrap();
    assert_eq!(reply.text(), "asked", "{}", reply.json());
    assert!(!std::str::from_utf8(&reply.body).unwrap().contains("sampling"));
}
