//! `bulkhead-proxy probe`: asks a running sidecar over its admin socket what the kubelet asks it, and says why not.

use std::{path::Path, time::Duration};

use bulkhead_core::pod::STARTUP_PATIENCE;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

/// Time for one question; below the kubelet's own.
const DEADLINE: Duration = Duration::from_secs(3);

/// Pause between two questions of a probe that waits.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// What to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Probe {
    /// May the MCP server start? Waits a few seconds for it.
    Startup,
    /// May agents be sent here?
    Ready,
}

/// Why a probe fails.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The sidecar says what is missing.
    #[error("{}", .0.trim_end())]
    NotYet(String),
    /// No sidecar there.
    #[error("the sidecar's admin socket {path} can't be opened: {source}")]
    Socket {
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The conversation broke.
    #[error("the sidecar's admin socket answered badly: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is too long to be one.
    #[error("the sidecar's admin socket answered badly")]
    Answer,
    /// No answer in time.
    #[error("the sidecar did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// Asks until nothing is missing, or [`STARTUP_PATIENCE`] is over; then the error is the last answer.
///
/// A start takes some seconds, in which nearly all that a node does for a pod would be the starting of probes.
pub async fn await_start(socket: &Path) -> Result<(), ProbeError> {
    let end = Instant::now() + STARTUP_PATIENCE;
    loop {
        match ask(socket, Probe::Startup).await {
            Err(_) if Instant::now() < end => sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// Asks; `Ok` when nothing is missing.
pub async fn ask(socket: &Path, probe: Probe) -> Result<(), ProbeError> {
    let path = match probe {
        Probe::Startup => "/startupz",
        Probe::Ready => "/readyz",
    };
    let (status, body) = timeout(DEADLINE, get(socket, path))
        .await
        .map_err(|_| ProbeError::Timeout)??;
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(ProbeError::NotYet(body))
    }
}

/// One GET over a unix socket.
pub async fn get(socket: &Path, path: &'static str) -> Result<(StatusCode, String), ProbeError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ProbeError::Socket {
            path: socket.display().to_string(),
            source,
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(path);
    request
        .headers_mut()
        .insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|_| ProbeError::Answer)?
            .to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection is driven by the exchange's task and ends with it.
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
