//! A proxy that does nothing but end mTLS and pass on: what hyper and rustls cost by themselves.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use http::{Request, Response, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tokio_rustls::TlsAcceptor;

use crate::pki;

/// Connections to the server that wait for a request.
type Idle = Arc<Mutex<Vec<SendRequest<Incoming>>>>;

/// Serves until it is ended.
pub(crate) fn serve(listen: SocketAddr, upstream: SocketAddr, folder: &Path) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(pki::server_config(folder)?));
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let idle = Idle::default();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(connection(stream, acceptor.clone(), upstream, Arc::clone(&idle)));
        }
    })
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    upstream: SocketAddr,
    idle: Idle,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(|request| pass(request, upstream, Arc::clone(&idle)));
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn pass(
    mut request: Request<Incoming>,
    upstream: SocketAddr,
    idle: Idle,
) -> Result<Response<Incoming>> {
    let kept = idle.lock().ok().and_then(|mut idle| idle.pop());
    let mut sender = match kept {
        Some(sender) if !sender.is_closed() => sender,
        _ => connect(upstream).await?,
    };
    request.headers_mut().remove(header::CONNECTION);
    let response = sender.send_request(request).await?;
    tokio::spawn(async move {
        // Free again once the answer was read.
        if sender.ready().await.is_ok()
            && let Ok(mut idle) = idle.lock()
        {
            idle.push(sender);
        }
    });
    Ok(response)
}

async fn connect(upstream: SocketAddr) -> Result<SendRequest<Incoming>> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
