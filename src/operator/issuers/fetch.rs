//! Asks an issuer for its keys (OpenID Connect Discovery 1.0 §4, RFC 7517): over `https`, at addresses that the guard lets
//! through, without redirects, in bounded time and size.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{net::lookup_host, time::timeout};
use tower_service::Service;

use super::{Guard, IssuerRef};

/// Where an issuer tells about itself, after its URL.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Bytes of an answer.
const MOST: usize = 256 * 1024;

/// Time for both answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys of one issuer.
const MOST_KEYS: usize = 32;

/// What of a key is needed to verify with it. Certificates and whatever else there is stay out, also what should never have
/// been published.
const OF_KEYS: [&str; 9] = ["kty", "kid", "use", "alg", "crv", "n", "e", "x", "y"];

/// Why an address isn't asked, and what to do about it.
const NOT_ALLOWED: &str = "its addresses are not public, and not in the ranges that the platform allows issuers in (chart: issuers.cidrs)";

/// Why there are no keys. Told in the tenant's status: no word is the answering server's.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No URL that can be asked.
    #[error("{0} is no https URL that can be asked")]
    Url(String),
    /// Its host is an address that isn't to be asked.
    #[error("{0} can't be asked: {NOT_ALLOWED}")]
    Address(Uri),
    /// The certificates can't be used.
    #[error("certificateAuthority can't be used")]
    Authority(#[source] rustls::Error),
    /// There are no authorities to trust.
    #[error("the operator's image has no public authorities; name the issuer's in certificateAuthority")]
    NoAuthorities(#[source] io::Error),
    /// The request can't be made.
    #[error("{0} can't be asked")]
    Connect(Uri, #[source] Box<hyper_util::client::legacy::Error>),
    /// It wasn't answered in time.
    #[error("there was no answer within {max} s", max = PATIENCE.as_secs())]
    Time,
    /// It is answered with something else.
    #[error("{0} answers {1}, and redirects aren't followed")]
    Status(Uri, StatusCode),
    /// The answer breaks off, or is too long.
    #[error("the answer of {0} breaks off, or is longer than {max} KiB", max = MOST / 1024)]
    Body(Uri),
    /// The answer isn't what it must be. Where not, and never what is there instead.
    #[error("the answer of {0} isn't what it must be, at line {line}, column {column}", line = .1.line(), column = .1.column())]
    Json(Uri, serde_json::Error),
    /// It speaks for another.
    #[error("{0} tells of another issuer")]
    Issuer(Uri),
    /// It publishes none.
    #[error("{0} has no public keys with an id")]
    None(Uri),
}

impl FetchError {
    /// The error and what is behind it, in words of our own: the tenant's author chose who answers, and must not read
    /// by us what is there.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let words = match tls(error) {
                // The names that are in it are another's.
                Some(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => return format!("{text}: its certificate is for another name"),
                _ => error.to_string(),
            };
            // Some repeat what they come of.
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            source = error.source();
        }
        text
    }
}

/// What TLS says, if it is that; connectors wrap it, and wrap it again.
fn tls<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    error.downcast_ref().or_else(|| {
        let wrapped = error.downcast_ref::<io::Error>()?.get_ref()?;
        tls(wrapped)
    })
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Map<String, Value>>,
}

type Https = Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>;

/// The keys of an issuer, in a fixed order.
pub(super) async fn keys(guard: &Guard, issuer: &IssuerRef) -> Result<Vec<Value>, FetchError> {
    let guard = Arc::new(guard.clone());
    let client = client(Arc::clone(&guard), issuer)?;
    timeout(PATIENCE, ask(&client, &guard, issuer))
        .await
        .map_err(|_| FetchError::Time)?
}

async fn ask(client: &Https, guard: &Guard, issuer: &IssuerRef) -> Result<Vec<Value>, FetchError> {
    let discovery = uri(&format!("{}{DISCOVERY}", issuer.url.trim_end_matches('/')), guard)?;
    let told: Discovery = get(client, &discovery).await?;
    if told.issuer != issuer.url {
        return Err(FetchError::Issuer(discovery));
    }
    let place = uri(&told.jwks_uri, guard)?;
    let Jwks { keys } = get(client, &place).await?;
    let mut keys: Vec<Value> = keys.into_iter().filter_map(public).take(MOST_KEYS).collect();
    if keys.is_empty() {
        return Err(FetchError::None(place));
    }
    // Several servers may have them in several orders.
    keys.sort_by_cached_key(Value::to_string);
    Ok(keys)
}

/// What of a key is to be passed on; `None` for one that verifies no signatures.
fn public(key: Map<String, Value>) -> Option<Value> {
    let is = |name: &str, values: &[&str]| {
        key.get(name)
            .and_then(Value::as_str)
            .is_some_and(|value| values.contains(&value))
    };
    if !is("kty", &["RSA", "EC", "OKP"]) || is("use", &["enc"]) || !key.contains_key("kid") {
        return None;
    }
    let needed = key
        .into_iter()
        .filter(|(name, _)| OF_KEYS.contains(&name.as_str()));
    Some(Value::Object(needed.collect()))
}

async fn get<T: DeserializeOwned>(client: &Https, uri: &Uri) -> Result<T, FetchError> {
    let mut request = Request::new(Empty::new());
    request.uri_mut().clone_from(uri);
    let json = http::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    let answer = client
        .request(request)
        .await
        .map_err(|error| FetchError::Connect(uri.clone(), Box::new(error)))?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(uri.clone(), answer.status()));
    }
    let body = Limited::new(answer.into_body(), MOST).collect().await;
    let body = body.map_err(|_| FetchError::Body(uri.clone()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| FetchError::Json(uri.clone(), error))
}

/// An `https` URL. A host that is an address is never resolved, and so is looked at here.
fn uri(text: &str, guard: &Guard) -> Result<Uri, FetchError> {
    let wrong = || FetchError::Url(text.chars().filter(char::is_ascii_graphic).take(512).collect());
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    if uri.scheme_str() != Some("https") {
        return Err(wrong());
    }
    if address.is_ok_and(|address| !guard.allows(address)) {
        return Err(FetchError::Address(uri));
    }
    Ok(uri)
}

fn client(guard: Arc<Guard>, issuer: &IssuerRef) -> Result<Https, FetchError> {
    let config = ClientConfig::builder();
    let config = match &issuer.certificate_authority {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
                roots.add(certificate).map_err(FetchError::Authority)?;
            }
            config.with_root_certificates(roots)
        }
        None => config.with_native_roots().map_err(FetchError::NoAuthorities)?,
    };
    let mut http = HttpConnector::new_with_resolver(Resolver(guard));
    http.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config.with_no_client_auth())
        .https_only()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new()).build(https))
}

/// Resolves names to the addresses that may be asked: those, and no others, are connected to.
#[derive(Clone, Debug)]
struct Resolver(Arc<Guard>);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let all = lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<_> = all.filter(|address| guard.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, NOT_ALLOWED));
            }
            Ok(allowed.into_iter())
        })
    }
}
