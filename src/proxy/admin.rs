//! The admin endpoint: probes and metrics on a unix socket that only the sidecar's volume holds,
//! so that the server container, which shares the pod's network, can't open it. Metrics may be
//! served over TCP too, for Prometheus, and nothing else there; and on loopback the server container finds the keys that
//! verify its requests' credentials, and nothing else.

use std::{convert::Infallible, fmt::Write as _, io, sync::Arc, time::Duration};

use bulkhead_core::pod;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::sleep,
};
use tracing::warn;

use crate::shared::Shared;

/// Connections served at once, on each listener.
const CONNECTIONS: usize = 16;

/// Time for one request's headers.
const HEADERS: Duration = Duration::from_secs(5);

/// Pause after a failed accept (out of file descriptors), so that it isn't a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
enum Surface {
    Everything,
    Metrics,
    Keys,
}

/// Serves probes and metrics on the admin socket.
pub async fn serve_unix(listener: UnixListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        spawn(accepted, Surface::Everything, &room, &shared).await;
    }
}

/// Serves metrics on the pod's address.
pub async fn serve_metrics(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        spawn(accepted, Surface::Metrics, &room, &shared).await;
    }
}

/// Serves the keys of credentials on loopback.
pub async fn serve_keys(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        spawn(accepted, Surface::Keys, &room, &shared).await;
    }
}

async fn spawn<S>(accepted: io::Result<S>, surface: Surface, room: &Arc<Semaphore>, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            warn!(%error, ?surface, "accept failed");
            sleep(ACCEPT_PAUSE).await;
            return;
        }
    };
    let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(answer(&request, surface, &shared).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // A probe that hangs up early is the kubelet's business.
        let _ = connection.await;
        drop(permit);
    });
}

async fn answer(request: &Request<Incoming>, surface: Surface, shared: &Shared) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match (request.uri().path(), surface) {
        (pod::KEYS_PATH, Surface::Keys) => keys(shared),
        ("/metrics", Surface::Everything | Surface::Metrics) => metrics(shared),
        ("/startupz", Surface::Everything) => {
            probe(&shared.readiness.missing_to_start(&shared.live, &shared.keyring))
        }
        (pod::READY_PATH, Surface::Everything) => ready(shared).await,
        _ => text(StatusCode::NOT_FOUND, "not found\n".into()),
    }
}

/// Whether agents may be sent here, and if not, why.
pub(crate) async fn ready(shared: &Shared) -> Response<Full<Bytes>> {
    let missing = shared
        .readiness
        .missing_to_serve(&shared.live, &shared.keyring, &shared.drain)
        .await;
    shared.readiness.tell(&missing);
    probe(&missing)
}

fn probe(missing: &[crate::readiness::Missing]) -> Response<Full<Bytes>> {
    if missing.is_empty() {
        return text(StatusCode::OK, "ok\n".into());
    }
    let mut why = String::new();
    for reason in missing {
        // Writing to a String can't fail.
        let _ = writeln!(why, "{reason}");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, why)
}

fn keys(shared: &Shared) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(shared.minter.jwks()));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    shared
        .metrics
        .calls
        .set(i64::try_from(shared.drain.calls()).unwrap_or(i64::MAX));
    match shared.metrics.text() {
        Ok(body) => {
            let mut response = text(StatusCode::OK, body);
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
            );
            response
        }
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics can't be encoded\n".into(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
