//! The way in for clients that can't present a certificate: plain HTTP on loopback, carried on over mTLS as the agent.
//!
//! It decides nothing about messages. But a certificate is what keeps web pages out of a sidecar, and here there is none:
//! a page in a browser of this machine can send requests to any loopback port. So requests that a page can make, those
//! with an `Origin` or, after DNS rebinding, with the page's own `Host`, go no further.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, vec};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::ClientConfig;
use tokio::{net::TcpListener, time::sleep};
use tower::{BoxError, util::BoxCloneSyncService};

use crate::agent_call::http::Resolver;

/// Of one connection and not of the message (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

type Body = Either<Incoming, Full<Bytes>>;

/// Where requests are taken, and as whom.
pub struct Door {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Incoming>,
    /// The sidecar's name and port.
    authority: String,
    /// How clients may name this endpoint.
    hosts: [String; 2],
}

impl Door {
    /// A door at this port to the sidecar of this name at this address.
    pub fn new(tls: ClientConfig, hostname: &str, sidecar: SocketAddr, port: u16) -> Self {
        let resolver: Resolver = BoxCloneSyncService::new(tower::service_fn(move |_: Name| async move {
            Ok::<vec::IntoIter<SocketAddr>, BoxError>(vec![sidecar].into_iter())
        }));
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Self {
            client: Client::builder(TokioExecutor::new())
                .retry_canceled_requests(false)
                .build(connector),
            authority: format!("{hostname}:{}", sidecar.port()),
            hosts: ["127.0.0.1", "localhost"].map(|host| format!("{host}:{port}")),
        }
    }

    async fn pass(&self, request: Request<Incoming>) -> Response<Body> {
        if !self.is_local(request.headers()) {
            return told(
                StatusCode::FORBIDDEN,
                "requests of web pages are not served: Host must be this endpoint's, and there must be no Origin",
            );
        }
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = Uri::try_from(format!("https://{}{path}", self.authority)) else {
            return told(StatusCode::BAD_REQUEST, "the path can't be used");
        };
        parts.uri = uri;
        parts.version = Version::HTTP_11;
        parts.headers.remove(header::HOST);
        for name in &HOP_BY_HOP {
            parts.headers.remove(name);
        }
        match self.client.request(Request::from_parts(parts, body)).await {
            Ok(response) => {
                let mut response = response.map(Either::Left);
                for name in &HOP_BY_HOP {
                    response.headers_mut().remove(name);
                }
                response
            }
            Err(error) => told(StatusCode::BAD_GATEWAY, &format!("the sidecar: {error}")),
        }
    }

    fn is_local(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let own = hosts.next().is_some_and(|host| {
            self.hosts
                .iter()
                .any(|own| own.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
        });
        own && hosts.next().is_none() && !headers.contains_key(header::ORIGIN)
    }
}

/// Serves for as long as it is polled; its connections end with the process.
pub async fn serve(listener: TcpListener, door: Arc<Door>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of file descriptors, say: not a busy loop.
                sleep(super::LOOK).await;
                continue;
            }
        };
        // Without it small answers wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let door = Arc::clone(&door);
        let service = service_fn(move |request| {
            let door = Arc::clone(&door);
            async move { Ok::<_, Infallible>(door.pass(request).await) }
        });
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // How a connection ends, its client sees.
            drop(served.await);
        });
    }
}

fn told(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(format!("{text}\n")))));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
