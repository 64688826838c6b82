//! An MCP server by hand: it records exactly what reached it and answers as it is told.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

/// A request as it reached the server.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its target.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Seen {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("what reaches the server must be JSON")
    }

    /// The arguments of a tool call.
    pub fn arguments(&self) -> Value {
        self.json()["params"]["arguments"].clone()
    }

    /// Whether the sidecar asked for itself, as its credential says.
    fn is_own(&self) -> bool {
        let claims = self
            .header("authorization")
            .and_then(|token| token.split('.').nth(1));
        let claims = claims.and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
        let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
        claims.is_some_and(|claims| claims["sub"] == claims["iss"])
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// How the server answers.
pub enum Answer {
    /// A status, headers and a whole body.
    Whole(u16, Vec<(&'static str, String)>, String),
    /// An event stream.
    Events(BoxStream<'static, Bytes>),
    /// Nothing, ever.
    Silence,
    /// Another one, once it is told to go on.
    Later(Arc<Notify>, Box<Self>),
}

impl Answer {
    /// A JSON body.
    pub fn json(value: &Value) -> Self {
        Self::Whole(
            200,
            vec![("content-type", "application/json".into())],
            value.to_string(),
        )
    }

    /// An event stream of these parts.
    pub fn events(parts: Vec<String>) -> Self {
        Self::Events(futures::stream::iter(parts).map(Bytes::from).boxed())
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// The server.
pub struct RecordingUpstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for RecordingUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RecordingUpstream {
    /// A server that knows its tools and echoes the arguments that it gets.
    pub async fn start() -> Self {
        Self::answering(plain).await
    }

    /// A server that answers as it is told.
    pub async fn answering(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::at(0, handler).await
    }

    /// The same at a port.
    pub async fn at(port: u16, handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        Self::on(listener, handler)
    }

    /// The same, for who connects to this listener.
    pub fn on(listener: TcpListener, handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, Arc::new(handler), Arc::clone(&seen)));
        Self { address, seen, task }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What reached it of agents so far.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen = self.seen_in_all();
        seen.retain(|request| !request.is_own());
        seen
    }

    /// What reached it so far, with what the sidecar asked for itself.
    pub fn seen_in_all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The only request that reached it.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(
            seen.len(),
            1,
            "the server must have seen exactly one request: {seen:?}"
        );
        seen.into_iter().next().unwrap()
    }
}

async fn accept(listener: TcpListener, handler: Handler, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(request, Arc::clone(&handler), Arc::clone(&seen)));
            // A peer that goes away is what some tests are about.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn serve(
    request: Request<Incoming>,
    handler: Handler,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let request = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    seen.lock().unwrap().push(request.clone());
    let mut answer = handler(&request);
    while let Answer::Later(told, then) = answer {
        told.notified().await;
        answer = *then;
    }
    Ok(match answer {
        Answer::Whole(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response
                .body(http_body_util::Full::new(Bytes::from(body)).boxed())
                .unwrap()
        }
        Answer::Events(events) => Response::builder()
            .header("content-type", "text/event-stream")
            .body(BodyExt::boxed(StreamBody::new(
                SyncStream(Mutex::new(events)).frames(),
            )))
            .unwrap(),
        Answer::Silence | Answer::Later(..) => std::future::pending().await,
    })
}

/// `BoxBody` wants `Sync`, which a `BoxStream` isn't.
struct SyncStream(Mutex<BoxStream<'static, Bytes>>);

impl SyncStream {
    fn frames(self) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync {
        futures::stream::poll_fn(move |cx| {
            self.0
                .lock()
                .unwrap()
                .poll_next_unpin(cx)
                .map(|item| item.map(|bytes| Ok(Frame::data(bytes))))
        })
    }
}

/// The tools of the plain server.
pub fn tools() -> Value {
    let schema = json!({"type": "object", "properties": {
        "tenant_id": {"type": "string"}, "location_id": {"type": "string"}, "limit": {"type": "integer"}, "text": {"type": "string"}
    }, "required": ["tenant_id"]});
    json!([
        {"name": "list_invoices", "description": "Lists", "inputSchema": schema},
        {"name": "delete_invoice", "inputSchema": schema},
        {"name": "drop_database", "inputSchema": schema},
    ])
}

/// Answers `initialize`, `tools/list` and `tools/call`; accepts notifications and DELETE.
pub fn plain(request: &Seen) -> Answer {
    if request.method == "DELETE" {
        return Answer::Whole(200, vec![], String::new());
    }
    let message = request.json();
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let result = json!({
                "protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "plain", "version": "1"}
            });
            let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            let headers = vec![
                ("content-type", "application/json".to_owned()),
                ("mcp-session-id", "upstream-session".into()),
            ];
            return Answer::Whole(200, headers, body.to_string());
        }
        "tools/list" => json!({"tools": tools()}),
        "tools/call" => {
            json!({"content": [{"type": "text", "text": message["params"]["arguments"].to_string()}]})
        }
        method if method.starts_with("notifications/") => {
            return Answer::Whole(202, vec![], String::new());
        }
        _ => json!({}),
    };
    Answer::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}
