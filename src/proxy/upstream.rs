//! The client of the MCP server: HTTP/1.1 to one port on loopback, connections reused, nothing
//! followed, nothing retried once a byte may have been seen.
//!
//! A message is sent as a [`Permitted`] one, which policy alone can make, an agent's session is used as an
//! [`OpenSession`], which its seal alone can make, and what is sent for an agent is sent with the [`Standing`] of its
//! decision: forgetting to check doesn't compile. Nothing is sent without a
//! credential that was made for it; the client's own goes no further.

mod connection;

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bulkhead_core::{
    mcp::ProtocolVersion,
    policy::{Forward, Permitted},
};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;
use tokio::{net::TcpStream, time::timeout};

pub use connection::AnswerBody;
use connection::{Connection, Pool};

use crate::{
    gate::PROTOCOL_VERSION,
    limits::Limits,
    live::Standing,
    sealer::{OpenEvent, OpenSession},
};

/// Why the MCP server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nothing accepts connections.
    #[error("the MCP server does not accept connections: {0}")]
    Connect(std::io::Error),
    /// Connecting took too long.
    #[error("the MCP server did not accept a connection in time")]
    ConnectTimeout,
    /// A connection that has been used can't take another request yet.
    #[error("the connection to the MCP server is busy")]
    Busy,
    /// The exchange broke.
    #[error("the exchange with the MCP server broke: {0}")]
    Http(#[from] hyper::Error),
    /// Silence.
    #[error("the MCP server did not answer in time")]
    Timeout,
    /// What decides has changed since the request was decided. Nothing of it was sent.
    #[error("what decides has changed since the request was decided")]
    Superseded,
    /// A permitted header or session that HTTP can't carry.
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
}

/// Headers of a client that pass: what HTTP's content negotiation and tracing need. Everything
/// else stops here, so that nothing a client says about itself (`Authorization`, `Cookie`,
/// `X-Forwarded-*`, `X-Auth-*`, …) is taken for identity by the server. What the protocol mirrors
/// is written anew from the permitted body.
const PASSED: [HeaderName; 3] = [
    header::ACCEPT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Longest value of a header that passes.
const MAX_PASSED: usize = 512;

/// Carries the opened event id.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// Carries the opened session id.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// The MCP server of this pod.
#[derive(Debug)]
pub struct Upstream {
    pool: Arc<Pool>,
    connect: Duration,
    silence: Duration,
}

/// What came of a request on one connection.
enum Sent {
    Answered(Response<AnswerBody>),
    /// Nothing of it was sent, says hyper, and why: it may be tried on another connection. In no other case: a call must never
    /// be made twice.
    Not(Request<Full<Bytes>>, UpstreamError),
}

/// For whom a request is sent, with the session of the server's that it belongs to.
#[derive(Clone, Copy, Debug)]
pub enum OnBehalfOf<'a> {
    /// An agent, while what was decided stands.
    Agent {
        /// Its seal opened it.
        session: Option<&'a OpenSession>,
        /// What was decided by.
        standing: &'a Standing<'a>,
    },
    /// The sidecar itself.
    Sidecar(Option<&'a OwnSession>),
}

impl OnBehalfOf<'_> {
    fn session(self) -> Result<Option<HeaderValue>, http::Error> {
        match self {
            Self::Agent { session, .. } => session
                .map(|session| Ok(HeaderValue::from_str(session.upstream_id())?))
                .transpose(),
            Self::Sidecar(session) => Ok(session.map(|session| session.0.clone())),
        }
    }

    fn may_send(self) -> Result<(), UpstreamError> {
        match self {
            Self::Agent { standing, .. } if !standing.holds() => Err(UpstreamError::Superseded),
            _ => Ok(()),
        }
    }
}

/// A session that the server began with the sidecar itself.
#[derive(Debug)]
pub struct OwnSession(HeaderValue);

impl OwnSession {
    /// The session that an answer to the sidecar's own handshake begins, if it does.
    pub fn begun(answer: &Response<AnswerBody>) -> Option<Self> {
        answer.headers().get(SESSION).cloned().map(Self)
    }
}

/// Where on loopback, as the policy says.
#[derive(Clone, Debug)]
pub struct Target {
    port: u16,
    path: Uri,
    host: HeaderValue,
}

/// The path or port can't be used in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upstream.path is not a path")]
pub struct BadTarget;

impl Target {
    /// The endpoint at a port and path.
    pub fn new(port: u16, path: &str) -> Result<Self, BadTarget> {
        let path: Uri = path.parse().map_err(|_| BadTarget)?;
        let host = HeaderValue::try_from(format!("127.0.0.1:{port}")).map_err(|_| BadTarget)?;
        if path.authority().is_some() || path.query().is_some() {
            return Err(BadTarget);
        }
        Ok(Self { port, path, host })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path.
    pub fn path(&self) -> &str {
        self.path.path()
    }
}

impl Upstream {
    /// A client with no connection yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            pool: Arc::new(Pool::new(limits.upstream_idle)),
            connect: limits.upstream_connect,
            silence: limits.upstream_silence,
        }
    }

    /// Sends a permitted message and waits for the answer's headers.
    pub async fn send(
        &self,
        target: &Target,
        permitted: &Permitted<Forward>,
        of: OnBehalfOf<'_>,
        credential: HeaderValue,
        client: &HeaderMap,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let mut request = Request::new(Full::new(permitted.body().clone()));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in permitted.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(http::Error::from)?;
            headers.append(name, HeaderValue::from_str(value).map_err(http::Error::from)?);
        }
        pass(client, headers);
        self.exchange(target, request, of, credential).await
    }

    /// Ends a session.
    pub async fn end_session(
        &self,
        target: &Target,
        of: OnBehalfOf<'_>,
        version: Option<ProtocolVersion>,
        credential: HeaderValue,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let request = of_session(Method::DELETE, version);
        self.exchange(target, request, of, credential).await
    }

    /// Opens a stream of a session, or takes one up again after an event.
    pub async fn stream(
        &self,
        target: &Target,
        of: OnBehalfOf<'_>,
        version: Option<ProtocolVersion>,
        after: Option<&OpenEvent>,
        credential: HeaderValue,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let mut request = of_session(Method::GET, version);
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(event) = after {
            let value = HeaderValue::from_str(event.upstream_id()).map_err(http::Error::from)?;
            headers.insert(LAST_EVENT, value);
        }
        self.exchange(target, request, of, credential).await
    }

    async fn exchange(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
        of: OnBehalfOf<'_>,
        mut credential: HeaderValue,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        // Not into logs.
        credential.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, credential);
        *request.uri_mut() = target.path.clone();
        request.headers_mut().insert(header::HOST, target.host.clone());
        if let Some(session) = of.session()? {
            request.headers_mut().insert(SESSION, session);
        }
        of.may_send()?;
        // An idle connection may have been closed by the server in this moment. Not the first turn of a loop, for the
        // reason that `exchange::message` has.
        let request = match self.pool.take(target.port) {
            Some(connection) => match self.over(connection, request).await? {
                Sent::Answered(response) => return Ok(response),
                Sent::Not(request, _) => request,
            },
            None => request,
        };
        Box::pin(self.over_another(target.port, request, of)).await
    }

    /// Sends a request over another idle connection, or at last over a new one. That takes time, so it is asked again whether
    /// what was decided stands.
    async fn over_another(
        &self,
        port: u16,
        mut request: Request<Full<Bytes>>,
        of: OnBehalfOf<'_>,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        while let Some(connection) = self.pool.take(port) {
            match self.over(connection, request).await? {
                Sent::Answered(response) => return Ok(response),
                Sent::Not(unsent, _) => request = unsent,
            }
        }
        let connection = self.dial(port).await?;
        if let Err(superseded) = of.may_send() {
            self.pool.put(connection);
            return Err(superseded);
        }
        match self.over(connection, request).await? {
            Sent::Answered(response) => Ok(response),
            Sent::Not(_, why) => Err(why),
        }
    }

    /// Sends a request over this connection.
    async fn over(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Sent, UpstreamError> {
        // Most are, since the end of their last answer. Others are moved on once and not waited for: what was decided is
        // decided for now, and one whose server answered without reading its request never gets ready.
        if !connection.is_ready() {
            match connection.ready().now_or_never() {
                Some(Ok(())) => {}
                Some(Err(ended)) => return Ok(Sent::Not(request, ended.into())),
                None => return Ok(Sent::Not(request, UpstreamError::Busy)),
            }
        }
        // Pinned where it is made: to wait for it, it is not moved, which would be copying it.
        let answer = pin!(connection.send(request));
        match timeout(self.silence, connection.until(answer)).await {
            Ok(Ok(response)) => {
                let pool = Arc::clone(&self.pool);
                Ok(Sent::Answered(
                    response.map(|body| AnswerBody::new(body, connection, pool)),
                ))
            }
            Ok(Err(mut failure)) => match failure.take_message() {
                Some(unsent) => Ok(Sent::Not(unsent, failure.into_error().into())),
                None => Err(failure.into_error().into()),
            },
            Err(_) => Err(UpstreamError::Timeout),
        }
    }

    async fn dial(&self, port: u16) -> Result<Connection, UpstreamError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dialled = async {
            let stream = TcpStream::connect(address)
                .await
                .map_err(UpstreamError::Connect)?;
            stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
            let mut connection = Connection::open(port, stream).await?;
            connection.ready().await?;
            Ok(connection)
        };
        timeout(self.connect, dialled)
            .await
            .map_err(|_| UpstreamError::ConnectTimeout)?
    }
}

fn of_session(method: Method, version: Option<ProtocolVersion>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    if let Some(version) = version {
        let version = HeaderValue::from_static(version.as_str());
        request.headers_mut().insert(PROTOCOL_VERSION, version);
    }
    request
}

fn pass(client: &HeaderMap, upstream: &mut HeaderMap) {
    for name in PASSED {
        let mut values = client.get_all(&name).iter();
        // A repeated or odd one has no meaning that everybody agrees on.
        if let (Some(value), None) = (values.next(), values.next())
            && value.len() <= MAX_PASSED
            && value.to_str().is_ok()
        {
            upstream.insert(name, value.clone());
        }
    }
}
