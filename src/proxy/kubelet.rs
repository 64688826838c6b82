//! What the kubelet asks: `GET /readyz`, and `GET /drain`, which is the server container's `preStop` hook.
//!
//! It is plain HTTP on the pod's address, because the kubelet sends `httpGet` there; the network lets no pod open it. A
//! drain can't be undone and is called once. Readiness is no command in the container, as starting is: a program every two
//! seconds for the life of a pod costs a node more than the pod's calls do.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bulkhead_core::pod;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tracing::{info, warn};

use crate::{admin, drain::Drained, shared::Shared};

/// Connections served at once: the hook is one, probes are one at a time.
const CONNECTIONS: usize = 4;

/// Time for the request's headers.
const HEADERS: Duration = Duration::from_secs(5);

/// Pause after a failed accept, so that it isn't a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves both.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "accept failed on the kubelet's port");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&request, &shared).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .keep_alive(false)
                // The hook's client may close its half: the drain goes on.
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
            drop(permit);
        });
    }
}

async fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, pod::READY_PATH) => return admin::ready(shared).await,
        (&Method::GET, pod::DRAIN_PATH) => {
            // A task of its own: once begun, a drain goes on even if the hook's caller goes away.
            let drain = Arc::clone(&shared.drain);
            let (grace, deadline) = (shared.limits.drain_grace, shared.limits.drain_deadline);
            match tokio::spawn(async move { drain.run(grace, deadline).await }).await {
                Ok(Drained::Idle) => {
                    info!("drained: no call is under way");
                    (StatusCode::OK, "drained\n")
                }
                Ok(Drained::Deadline(calls)) => {
                    warn!(calls, "the drain's deadline passed with calls under way");
                    (StatusCode::OK, "deadline passed with calls under way\n")
                }
                Err(error) => {
                    warn!(%error, "the drain failed");
                    (StatusCode::INTERNAL_SERVER_ERROR, "the drain failed\n")
                }
            }
        }
        (_, pod::DRAIN_PATH | pod::READY_PATH) => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        _ => (StatusCode::NOT_FOUND, "not found\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
