//! A client that sends what no SDK would.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::pki::Leaf;
use crate::tls;

/// What to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// A connection to a sidecar.
pub struct Client {
    sender: Sender,
    /// `Authorization` of each request that names no other; none when empty.
    pub authorization: String,
    host: String,
    path: String,
    /// Serial of the server's certificate.
    pub server_certificate: Vec<u8>,
    /// The driver of the connection: finished when the connection is closed.
    pub connection: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A response that was read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; of an event stream, its last message.
    pub fn json(&self) -> Value {
        let text = std::str::from_utf8(&self.body).unwrap();
        let last = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(last.unwrap_or(text)).unwrap_or_else(|_| panic!("no JSON: {text:?}"))
    }

    /// The first text of a tool's result.
    pub fn text(&self) -> String {
        let json = self.json();
        let text = json["result"]["content"][0]["text"].as_str();
        text.unwrap_or_default().to_owned()
    }

    /// The reason that an edge refusal gives.
    pub fn reason(&self) -> String {
        self.json()["error"]["data"]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// A TLS connection; an error when the handshake fails.
pub async fn connect_tls(
    address: SocketAddr,
    name: &str,
    servers_ca: &str,
    leaf: Option<&Leaf>,
    alpn: Option<&[u8]>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_tls_by(tls::provider(), address, name, servers_ca, leaf, alpn).await
}

/// The same by this cryptography.
pub async fn connect_tls_by(
    provider: CryptoProvider,
    address: SocketAddr,
    name: &str,
    servers_ca: &str,
    leaf: Option<&Leaf>,
    alpn: Option<&[u8]>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(servers_ca.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match leaf {
        Some(leaf) => builder
            .with_client_auth_cert(
                CertificateDer::pem_slice_iter(leaf.certificate.as_bytes())
                    .map(Result::unwrap)
                    .collect(),
                PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

impl Client {
    /// Connects as the leaf's owner, or as nobody.
    pub async fn connect(
        address: SocketAddr,
        name: &str,
        path: &str,
        servers_ca: &str,
        leaf: Option<&Leaf>,
        protocol: Protocol,
    ) -> anyhow::Result<Self> {
        let alpn: &[u8] = match protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::Http2 => b"h2",
        };
        let stream = connect_tls(address, name, servers_ca, leaf, Some(alpn)).await?;
        Self::over(stream, name, path, protocol).await
    }

    /// Speaks over a TLS connection.
    pub async fn over(
        stream: TlsStream<TcpStream>,
        name: &str,
        path: &str,
        protocol: Protocol,
    ) -> anyhow::Result<Self> {
        let server_certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|chain| chain[0].to_vec())
            .unwrap_or_default();
        let io = TokioIo::new(stream);
        let (sender, connection) = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                (
                    Sender::Http1(sender),
                    tokio::spawn(async move { drop(connection.await) }),
                )
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                (
                    Sender::Http2(sender),
                    tokio::spawn(async move { drop(connection.await) }),
                )
            }
        };
        Ok(Self {
            sender,
            authorization: String::new(),
            host: name.to_owned(),
            path: path.to_owned(),
            server_certificate,
            connection,
        })
    }

    /// The same, with this token on each request.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.authorization = format!("Bearer {token}");
        self
    }

    /// Sends any request; the answer's body isn't read yet.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// A request with what any well-behaved client sends; a given header replaces the default one.
    pub fn request(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let uri = match &self.sender {
            Sender::Http1(_) => self.path.clone(),
            Sender::Http2(_) => format!("https://{}{}", self.host, self.path),
        };
        let mut request = Request::builder().method(method).uri(uri);
        let defaults = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-06-18"),
        ];
        let host = matches!(self.sender, Sender::Http1(_)).then_some(("host", self.host.as_str()));
        let token = ("authorization", self.authorization.as_str());
        let token = (!self.authorization.is_empty()).then_some(token);
        for (name, value) in host.into_iter().chain(token).chain(defaults) {
            if !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.into())).unwrap()
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(
        &mut self,
        method: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        let request = self.request(method, headers, body);
        self.read(request).await
    }

    /// Sends any request and reads its answer.
    pub async fn read(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let (parts, body) = self.send(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// Posts a message.
    pub async fn post(&mut self, message: &Value) -> Reply {
        self.exchange("POST", &[], message.to_string()).await.unwrap()
    }

    /// Opens a session of the legacy era, and gives back its handle. `notifications/initialized`, which nobody waits for,
    /// is left to who wants it.
    pub async fn open_session(&mut self) -> String {
        let reply = self
            .post(&serde_json::json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}))
            .await;
        reply.headers["mcp-session-id"].to_str().unwrap().to_owned()
    }

    /// Calls a tool; `None`: without `arguments`.
    pub async fn call(&mut self, tool: &str, arguments: Option<Value>) -> Reply {
        let mut params = serde_json::json!({"name": tool});
        if let Some(arguments) = arguments {
            params["arguments"] = arguments;
        }
        self.post(&serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
            .await
    }
}
