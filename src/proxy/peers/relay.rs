//! Hands an agent's request on to the replica that it belongs to, and that one's answer back.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bulkhead_core::handles::Replica;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, Uri, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::{body::Incoming, rt::ReadBufCursor};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection as Connectable},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::ClientConfig;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;
use tracing::warn;

use super::chain;
use crate::{
    body::{Body, CutOff},
    identity,
    limits::Limits,
    server::Connection,
    tls::OwnName,
    vanishing,
};

/// What the other replica needs beyond the time that it gives the MCP server, to say that this is over.
const RESERVE: Duration = Duration::from_secs(5);

/// Idle connections to one replica that are kept.
const IDLE: usize = 32;

/// What is said between two neighbours and goes no further (RFC 9110, section 7.6.1); and the length, which the
/// body itself says.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Speaks HTTP/1.1 with other replicas, and keeps idle connections.
pub(crate) type Client = legacy::Client<Connector, Full<Bytes>>;

/// Why another replica gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayError {
    /// It isn't there: what it kept is gone with it.
    Gone,
    /// It may have the request, and didn't answer it.
    Broken,
}

impl RelayError {
    const fn code(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Broken => "broken",
        }
    }
}

/// Speaks with replicas of the server whose own name this is.
pub(crate) fn client(config: ClientConfig, name: OwnName, limits: &Limits) -> Client {
    let connector = Connector {
        tls: TlsConnector::from(Arc::new(config)),
        name: Arc::new(name),
        connect: limits.upstream_connect,
        handshake: limits.handshake,
        unacknowledged: limits.unacknowledged,
    };
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE)
        .pool_idle_timeout(limits.idle / 2)
        .build(connector)
}

/// Hands a request on. Nothing is sent twice: the client of the library tries another connection only while nothing of
/// the request was written.
pub(crate) async fn relay(
    connection: &Connection,
    replica: &Replica,
    path: &str,
    method: Method,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, RelayError> {
    let answered = send(connection, replica, path, method, headers, body).await;
    let result = answered.as_ref().map_or_else(|error| error.code(), |_| "ok");
    connection.shared.metrics.relayed(result);
    answered
}

async fn send(
    connection: &Connection,
    replica: &Replica,
    path: &str,
    method: Method,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, RelayError> {
    let shared = &connection.shared;
    let peers = shared.live.peers().ok_or(RelayError::Gone)?;
    let uri = Uri::builder()
        .scheme("https")
        .authority(replica.as_str())
        .path_and_query(path)
        .build()
        .map_err(|_| RelayError::Gone)?;
    // A stream of a session goes on until somebody ends it.
    let endless = method == Method::GET;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    let passed = request.headers_mut();
    passed.clone_from(headers);
    for name in &HOP {
        passed.remove(name);
    }
    // Which of the server's names the agent used was looked at here; in HTTP/2 it is no header.
    passed.insert(header::HOST, peers.host.clone());
    chain::remove(passed);
    chain::write(&connection.chain, passed).ok_or(RelayError::Gone)?;

    let patience = shared.limits.upstream_silence + RESERVE;
    let response = match timeout(patience, peers.client.request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() => {
            warn!(replica = replica.as_str(), error = %chained(&error), "a replica of this server can't be reached");
            return Err(RelayError::Gone);
        }
        Ok(Err(error)) => {
            warn!(replica = replica.as_str(), error = %chained(&error), "a replica of this server gave no answer");
            return Err(RelayError::Broken);
        }
        Err(_) => {
            warn!(
                replica = replica.as_str(),
                "a replica of this server did not answer in time"
            );
            return Err(RelayError::Broken);
        }
    };
    let (mut parts, body) = response.into_parts();
    for name in &HOP {
        parts.headers.remove(name);
    }
    parts.version = Version::default();
    let mut ending = connection.ending();
    let ending = async move {
        if endless {
            // Who ends it lives as long as the stream.
            let _ = ending.wait_for(|ending| *ending).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let answer = Answer {
        body: Some(body),
        ending: Box::pin(ending),
    };
    Ok(Response::from_parts(parts, Body::stream(Box::pin(answer))))
}

fn chained(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// The answer of another replica, as it comes. Dropped before its end (the client went away), it drops the connection
/// there with it.
struct Answer {
    body: Option<Incoming>,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(|_| CutOff))),
            Poll::Pending => {
                if this.ending.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.body = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

/// Dials a replica by its address, and holds it to the server's own name: an address that is another pod's by now
/// doesn't have the certificate.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    name: Arc<OwnName>,
    connect: Duration,
    handshake: Duration,
    unacknowledged: Duration,
}

impl Connector {
    async fn dial(self, uri: Uri) -> io::Result<Dialled> {
        let address: SocketAddr = uri
            .authority()
            .and_then(|authority| authority.as_str().parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an address"))?;
        let stream = timeout(self.connect, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        // Of a stream that is only read from nothing else would tell that the replica's node is gone.
        vanishing::watch(&stream, self.unacknowledged);
        let stream = timeout(self.handshake, self.tls.connect(self.name.dns.clone(), stream)).await??;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = leaf.and_then(|leaf| identity::identify(leaf).ok());
        if peer.is_none_or(|peer| peer.spiffe_id != self.name.spiffe_id) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is no replica of this server",
            ));
        }
        Ok(Dialled(TokioIo::new(stream)))
    }
}

impl Service<Uri> for Connector {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// A connection to a replica.
pub(crate) struct Dialled(TokioIo<TlsStream<TcpStream>>);

impl Connectable for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
