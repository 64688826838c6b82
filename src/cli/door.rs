//! The way in for clients that can't present a certificate: plain HTTP on loopback, carried on over mTLS as the agent, with
//! the agent's token, or with that of the person for whom the request says that it acts.
//!
//! It decides nothing: it says the sidecar's name where a request says its own, in `Host` and in `Origin`, and passes on
//! what names something else. A certificate is what keeps web pages out of a sidecar, and here there is none: a page in a
//! browser of this machine can send requests to any loopback port. What it can't do is to name this endpoint as their
//! origin, nor, after DNS rebinding, as their host; and the sidecar serves no other names than its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{self, InvalidHeaderValue},
};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::ClientConfig;
use tokio::{net::TcpListener, sync::watch, time::sleep};

use crate::agent_call::{
    connect::{PATIENCE, Patient},
    http::Resolver,
};

/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(250);

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
    client: Client<HttpsConnector<Patient<HttpConnector<Resolver>>>, Incoming>,
    authorization: Box<dyn Fn() -> anyhow::Result<HeaderValue> + Send + Sync>,
    /// The sidecar's name and port.
    authority: String,
    /// They as the value of `Host`.
    name: HeaderValue,
    /// They as an origin.
    origin: HeaderValue,
    /// How clients may name this endpoint.
    hosts: [String; 2],
}

impl Door {
    /// A door at this port to the sidecar of this name and port, found by this resolver. A request that has no
    /// `Authorization` is given this one.
    pub fn new(
        tls: ClientConfig,
        authorization: impl Fn() -> anyhow::Result<HeaderValue> + Send + Sync + 'static,
        authority: &str,
        resolver: Resolver,
        port: u16,
    ) -> Result<Self, InvalidHeaderValue> {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(Patient::new(tcp, PATIENCE));
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .retry_canceled_requests(false)
                .build(connector),
            authorization: Box::new(authorization),
            name: HeaderValue::from_str(authority)?,
            origin: HeaderValue::from_str(&format!("https://{authority}"))?,
            authority: authority.to_owned(),
            hosts: ["127.0.0.1", "localhost"].map(|host| format!("{host}:{port}")),
        })
    }

    async fn pass(&self, request: Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        // A target in absolute form names the host instead of `Host` (RFC 9112, 3.2.2).
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            parts.headers.insert(header::HOST, host);
        }
        if !parts.headers.contains_key(header::HOST) {
            // The connection to the sidecar would be given its name.
            return told(StatusCode::BAD_REQUEST, "a request needs a Host");
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = Uri::try_from(format!("https://{}{path}", self.authority)) else {
            return told(StatusCode::BAD_REQUEST, "the path can't be used");
        };
        parts.uri = uri;
        parts.version = Version::HTTP_11;
        self.rename(&mut parts.headers);
        // A token of its own is a person's, for whom the agent is to act.
        if let header::Entry::Vacant(authorization) = parts.headers.entry(header::AUTHORIZATION) {
            match (self.authorization)() {
                Ok(value) => drop(authorization.insert(value)),
                Err(error) => {
                    return told(StatusCode::BAD_GATEWAY, &format!("the agent's token: {error:#}"));
                }
            }
        }
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
            Err(error) => {
                let error = anyhow::Error::new(error);
                told(StatusCode::BAD_GATEWAY, &format!("the sidecar: {error:#}"))
            }
        }
    }

    /// Says the sidecar's name where this endpoint's is said.
    fn rename(&self, headers: &mut HeaderMap) {
        let own = |name: &[u8]| {
            self.hosts
                .iter()
                .any(|own| own.as_bytes().eq_ignore_ascii_case(name))
        };
        if let header::Entry::Occupied(mut hosts) = headers.entry(header::HOST) {
            for host in hosts.iter_mut().filter(|host| own(host.as_bytes())) {
                host.clone_from(&self.name);
            }
        }
        if let header::Entry::Occupied(mut origins) = headers.entry(header::ORIGIN) {
            let same = |origin: &HeaderValue| origin.as_bytes().strip_prefix(b"http://").is_some_and(own);
            for origin in origins.iter_mut().filter(|origin| same(origin)) {
                origin.clone_from(&self.origin);
            }
        }
    }
}

/// Serves for as long as it is polled, each request by the door of that moment; its connections end with the process.
pub async fn serve(listener: TcpListener, doors: watch::Receiver<Arc<Door>>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of file descriptors, say: not a busy loop.
                sleep(PAUSE).await;
                continue;
            }
        };
        // Without it small answers wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let doors = doors.clone();
        let service = service_fn(move |request| {
            let door = Arc::clone(&doors.borrow());
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
