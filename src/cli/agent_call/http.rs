//! MCP's Streamable HTTP over our own mTLS connection.
//!
//! rmcp brings clients for reqwest and unix sockets; neither takes a TLS configuration that trusts one CA, offers one
//! protocol version and shows a client certificate. How an exchange failed is kept beside it, because rmcp hands on
//! its text alone.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
    vec,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioExecutor,
};
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, ErrorData, RequestId, ServerJsonRpcMessage},
    transport::{
        common::http_header::{
            EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE,
        },
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
        },
    },
};
use rustls::ClientConfig;
use sse_stream::{Sse, SseStream};
use tower::{BoxError, ServiceExt as _, util::BoxCloneSyncService};

use super::connect::{PATIENCE, Patient};

/// Greatest answer that is read, be it JSON or a stream.
pub const MAX_ANSWER: usize = 4 << 20;

/// Greatest refusal that is read.
const MAX_REFUSAL: usize = 64 << 10;

/// Finds the addresses of `SERVER.TENANT.svc`.
pub type Resolver = BoxCloneSyncService<Name, vec::IntoIter<SocketAddr>, BoxError>;

/// The resolver of the pod.
pub fn system_resolver() -> Resolver {
    BoxCloneSyncService::new(
        GaiResolver::new()
            .map_response(|addresses| addresses.collect::<Vec<_>>().into_iter())
            .map_err(BoxError::from),
    )
}

/// How an exchange failed below MCP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or one that ended before an answer: name resolution, network policy, TLS.
    #[error("{0}")]
    Connect(String),
    /// An HTTP status instead of an MCP answer.
    #[error("HTTP {status}: {body}")]
    Status {
        /// The status.
        status: u16,
        /// The body, as text.
        body: String,
    },
    /// An answer that is no MCP.
    #[error("{0}")]
    Unreadable(String),
}

type Result<T> = std::result::Result<T, StreamableHttpError<Failure>>;

/// The HTTP client of one agent.
#[derive(Clone)]
pub struct MtlsClient {
    client: Client<HttpsConnector<Patient<HttpConnector<Resolver>>>, Full<Bytes>>,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl MtlsClient {
    /// A client with this TLS configuration that finds servers with this resolver. The host in the URL is the name that
    /// the server's certificate must carry.
    pub fn new(tls: ClientConfig, resolver: Resolver) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(2)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(Patient::new(tcp, PATIENCE));
        let client = Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .build(connector);
        Self {
            client,
            failure: Arc::default(),
        }
    }

    /// How the latest request failed below MCP, if it did.
    pub fn last_failure(&self) -> Option<Failure> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    async fn exchange(
        &self,
        request: request::Builder,
        body: Bytes,
    ) -> std::result::Result<Response<Incoming>, Failure> {
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::Unreadable(error.to_string()))?;
        self.client
            .request(request)
            .await
            .map_err(|error| Failure::Connect(innermost(&error)))
    }

    async fn post(
        &self,
        request: request::Builder,
        message: &ClientJsonRpcMessage,
        in_session: bool,
    ) -> std::result::Result<StreamableHttpPostResponse, Failure> {
        let body = serde_json::to_vec(message).map_err(|error| Failure::Unreadable(error.to_string()))?;
        let response = self.exchange(request, body.into()).await?;
        let status = response.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if !status.is_success() {
            let refusal = refusal(response).await;
            // The failure is noted even when the refusal speaks MCP: the report names the status too.
            let answer = as_answer(message, in_session, status, &refusal);
            let failure = Failure::Status {
                status: status.as_u16(),
                body: refusal,
            };
            return match answer {
                Some(answer) => {
                    self.note(Some(failure));
                    Ok(answer)
                }
                None => Err(failure),
            };
        }
        let session = response
            .headers()
            .get(HEADER_SESSION_ID)
            .and_then(|id| id.to_str().ok())
            .map(ToOwned::to_owned);
        if is(&response, EVENT_STREAM_MIME_TYPE) {
            return Ok(StreamableHttpPostResponse::Sse(events(response), session));
        }
        let expects_answer = matches!(message, ClientJsonRpcMessage::Request(_));
        if !is(&response, JSON_MIME_TYPE) {
            let kind = response.headers().get(header::CONTENT_TYPE).cloned();
            return if expects_answer {
                Err(Failure::Unreadable(format!(
                    "an answer of type {kind:?}, neither JSON nor an event stream"
                )))
            } else {
                Ok(StreamableHttpPostResponse::Accepted)
            };
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| Failure::Unreadable(format!("the answer ended early or is too large: {error}")))?
            .to_bytes();
        match serde_json::from_slice(&body) {
            Ok(message) => Ok(StreamableHttpPostResponse::Json(message, session)),
            Err(_) if !expects_answer => Ok(StreamableHttpPostResponse::Accepted),
            Err(error) => Err(Failure::Unreadable(format!(
                "the answer is no JSON-RPC message: {error}"
            ))),
        }
    }
}

impl StreamableHttpClient for MtlsClient {
    type Error = Failure;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse> {
        if matches!(message, ClientJsonRpcMessage::Request(_)) {
            self.note(None);
        }
        let request = request(
            Method::POST,
            &uri,
            session_id.as_deref(),
            auth_header.as_deref(),
            custom_headers,
        )
        .header(header::CONTENT_TYPE, JSON_MIME_TYPE)
        .header(
            header::ACCEPT,
            format!("{JSON_MIME_TYPE}, {EVENT_STREAM_MIME_TYPE}"),
        );
        self.post(request, &message, session_id.is_some())
            .await
            .map_err(|failure| {
                self.note(Some(failure.clone()));
                StreamableHttpError::Client(failure)
            })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<()> {
        let request = request(
            Method::DELETE,
            &uri,
            Some(&session_id),
            auth_header.as_deref(),
            custom_headers,
        );
        let response = self
            .exchange(request, Bytes::new())
            .await
            .map_err(StreamableHttpError::Client)?;
        match response.status() {
            // A server may keep its sessions.
            StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            status if status.is_success() => Ok(()),
            status => {
                let failure = Failure::Status {
                    status: status.as_u16(),
                    body: refusal(response).await,
                };
                Err(StreamableHttpError::Client(failure))
            }
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, std::result::Result<Sse, SseError>>> {
        let mut request = request(
            Method::GET,
            &uri,
            session_id.as_deref(),
            auth_header.as_deref(),
            custom_headers,
        )
        .header(header::ACCEPT, EVENT_STREAM_MIME_TYPE);
        if let Some(id) = last_event_id {
            request = request.header(HEADER_LAST_EVENT_ID, id);
        }
        let response = self
            .exchange(request, Bytes::new())
            .await
            .map_err(StreamableHttpError::Client)?;
        if !response.status().is_success() || !is(&response, EVENT_STREAM_MIME_TYPE) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        Ok(events(response))
    }
}

fn request(
    method: Method,
    uri: &str,
    session: Option<&str>,
    bearer: Option<&str>,
    headers: HashMap<HeaderName, HeaderValue>,
) -> request::Builder {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(session) = session {
        request = request.header(HEADER_SESSION_ID, session);
    }
    if let Some(token) = bearer {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request
}

fn is(response: &Response<Incoming>, mime: &str) -> bool {
    let kind = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(mime)
}

/// The whole stream counts against the limit: it belongs to one call, and its end is the end of the program.
fn events(response: Response<Incoming>) -> BoxStream<'static, std::result::Result<Sse, SseError>> {
    SseStream::new(Limited::new(response.into_body(), MAX_ANSWER).map_err(std::io::Error::other)).boxed()
}

async fn refusal(response: Response<Incoming>) -> String {
    let challenge = response
        .headers()
        .get(header::WWW_AUTHENTICATE)
        .and_then(|challenge| challenge.to_str().ok())
        .map(|challenge| format!(" ({challenge})"))
        .unwrap_or_default();
    let body = match Limited::new(response.into_body(), MAX_REFUSAL).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => format!("<body unreadable: {error}>"),
    };
    format!("{body}{challenge}")
}

/// A refusal that rmcp can take as the answer to `message`: its JSON-RPC error, or, for the probe of the protocol
/// version, any refusal, which tells rmcp to try the older handshake.
fn as_answer(
    message: &ClientJsonRpcMessage,
    in_session: bool,
    status: StatusCode,
    body: &str,
) -> Option<StreamableHttpPostResponse> {
    let ClientJsonRpcMessage::Request(request) = message else {
        return None;
    };
    let error = match serde_json::from_str(body) {
        Ok(ServerJsonRpcMessage::Error(error)) => error.error,
        _ if status.is_client_error()
            && !in_session
            && matches!(request.request, ClientRequest::DiscoverRequest(_)) =>
        {
            ErrorData::invalid_request(format!("HTTP {status}: {body}"), None)
        }
        _ => return None,
    };
    Some(answer(error, &request.id))
}

/// A refusal from before the message was read carries no id: it belongs to this request all the same, which has the
/// exchange for itself.
fn answer(error: ErrorData, id: &RequestId) -> StreamableHttpPostResponse {
    StreamableHttpPostResponse::Json(ServerJsonRpcMessage::error(error, Some(id.clone())), None)
}

/// The last cause of an error, which says what went wrong; those above say "client error (Connect)".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
