//! The sidecar's half: one call on one connection that the caller has made and secured.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::Stream;
use http::Uri;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};
use tonic::{Request, Status, Streaming, metadata::MetadataValue};
use tower_service::Service;

use crate::{KEEP_ALIVE, MAX_MESSAGE, Parts, SidecarReport, generated::control_client::ControlClient};

/// Why a call ended that the operator didn't end.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection.
    #[error("the connection to the operator: {0}")]
    Connection(#[from] hyper::Error),
    /// What the operator answers.
    #[error("the operator answers {code:?}: {message}", code = .0.code(), message = .0.message())]
    Status(Box<Status>),
    /// Not a token that a header can have.
    #[error("the token is none")]
    Token,
    /// Not a host name.
    #[error("{0} is no host name")]
    Host(String),
}

/// A call that the operator has let in. Dropped, it is over.
pub struct Call {
    said: Streaming<Parts>,
    _connection: Driven,
}

impl Call {
    /// Waits for the parts that the operator says next. `None`: it wants to be called anew, which is the only good end.
    pub async fn parts(&mut self) -> Result<Option<Parts>, ClientError> {
        self.said.message().await.map_err(refused)
    }
}

/// Calls, and reports for as long as the call lasts. `host` is the operator's host name.
pub async fn call<I>(
    io: I,
    host: &str,
    token: &str,
    reports: impl Stream<Item = SidecarReport> + Send + 'static,
) -> Result<Call, ClientError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut bearer: MetadataValue<_> = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| ClientError::Token)?;
    bearer.set_sensitive(true);
    let origin = Uri::builder()
        .scheme("https")
        .authority(host)
        .path_and_query("/")
        .build()
        .map_err(|_| ClientError::Host(host.to_owned()))?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .handshake(TokioIo::new(io))
        .await?;
    let connection = Driven(tokio::spawn(connection));
    let mut client =
        ControlClient::with_origin(Channel(sender), origin).max_decoding_message_size(MAX_MESSAGE);
    let mut request = Request::new(reports);
    request.metadata_mut().insert("authorization", bearer);
    let said = client.report(request).await.map_err(refused)?.into_inner();
    Ok(Call {
        said,
        _connection: connection,
    })
}

fn refused(status: Status) -> ClientError {
    ClientError::Status(Box::new(status))
}

/// The task of the connection, which ends with the call.
struct Driven(JoinHandle<hyper::Result<()>>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the generated client sends by.
struct Channel(http2::SendRequest<tonic::body::Body>);

impl Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
