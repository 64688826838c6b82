//! The operator's half: accepts connections, bounds what each peer can cause, and hands reports on.
//!
//! A pod shares its network with the MCP server in it, which may dial this too. Before a caller is known it has an
//! address and nothing else, so bounds are by address: connections at a time, handshakes in a while, and the time in
//! which it must have made its call, the only one of the connection. After that, they are by call.

mod calls;
mod tls;

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;
use tracing::{debug, warn};

use crate::{KEEP_ALIVE, MAX_MESSAGE, Parts, SidecarReport, generated::control_server::ControlServer};

pub use tls::{ServerTlsError, server_config};

/// Time for a handshake, and then for the call.
const PATIENCE: Duration = Duration::from_secs(5);

/// Handshakes at a time, of all.
const HANDSHAKES: usize = 64;

/// Connections of one address at a time. A sidecar has one, and a moment's second one when it dials anew.
const CONNECTIONS: u32 = 4;

/// Connections of one address in a while: a few at once, then one every other second.
const DIALS: u32 = 10;
const DIAL_EVERY: Duration = Duration::from_secs(2);

/// Time for the last answer on a connection.
const FLUSH: Duration = Duration::from_secs(1);

/// Bytes of a call's headers; most of them are the token.
const MAX_HEADERS: u32 = 32 * 1024;

/// Bytes on their way.
const WINDOW: u32 = 64 * 1024;

/// What is known of a caller before it is known who it is.
#[derive(Debug)]
pub struct Caller {
    /// Where it dials from.
    pub address: IpAddr,
    /// Its certificates, the leaf first: that it has the leaf's key is proven, and nothing else.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The bearer token, as it came.
    pub token: String,
}

/// Why a caller isn't admitted: what it is told. The rest is for the operator's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is nobody's sidecar. It is told no more than that.
    Unknown,
    /// It can't be said now, as when the API server doesn't answer.
    Later,
}

/// Why a connection or a call ended that the other side didn't end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// It has as many connections as an address may, or dialled too often.
    Crowded,
    /// No handshake in time, or none that is good.
    Handshake,
    /// No call in time, or a second one.
    Calls,
    /// No bearer token.
    NoToken,
    /// Who it is could not be said in time.
    Slow,
    /// Too many reports.
    TooMany,
    /// What no sidecar would say.
    Nonsense,
}

impl TurnedAway {
    /// A stable code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Handshake => "handshake",
            Self::Calls => "calls",
            Self::NoToken => "no_token",
            Self::Slow => "slow",
            Self::TooMany => "too_many",
            Self::Nonsense => "nonsense",
        }
    }
}

/// Who knows callers.
pub trait Authority: Send + Sync + 'static {
    /// What is kept of a caller while its call lasts. Dropping it says that the call is over.
    type Session: Session;

    /// Somebody was turned away before it was known who that is, or for what it did on its call.
    fn turned_away(&self, address: IpAddr, why: TurnedAway);

    /// Decides who calls.
    fn admit(&self, caller: Caller) -> impl Future<Output = Result<Self::Session, Refused>> + Send;
}

/// A call under way.
pub trait Session: Send + 'static {
    /// Until when the caller's proof is good.
    fn expires(&self) -> SystemTime;

    /// Takes a report. `false`: nothing that a sidecar would say.
    fn report(&mut self, report: SidecarReport) -> bool;

    /// Waits for parts that the caller has to be told. Asked again and again, and dropped in between.
    fn parts(&mut self) -> impl Future<Output = Parts> + Send;
}

/// The certificates and address of a connection, beside each of its calls.
#[derive(Clone)]
struct Peer {
    address: IpAddr,
    certificates: Arc<[CertificateDer<'static>]>,
    has_called: Arc<AtomicBool>,
    /// The call is over, and the connection with it.
    over: CancellationToken,
}

/// Serves until told to stop, then lets every call end. `tls` is asked for each handshake.
pub async fn serve<A: Authority>(
    listener: TcpListener,
    tls: impl Fn() -> Arc<ServerConfig>,
    authority: A,
    shutdown: CancellationToken,
) {
    let authority = Arc::new(authority);
    let service = ControlServer::new(calls::Calls::new(Arc::clone(&authority), shutdown.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let door = Arc::new(Door::default());
    let connections = TaskTracker::new();
    loop {
        let (stream, address) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => (stream, address.ip().to_canonical()),
                Err(error) => {
                    // Out of file descriptors, for example: accepting again at once would spin.
                    warn!(%error, "cannot accept a sidecar's connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Some(place) = Door::enter(&door, address) else {
            authority.turned_away(address, TurnedAway::Crowded);
            continue;
        };
        let (acceptor, door, authority) = (
            TlsAcceptor::from(tls()),
            Arc::clone(&door),
            Arc::clone(&authority),
        );
        let service = service.clone();
        let end = shutdown.clone();
        connections.spawn(async move {
            let _place = place;
            let connection = one(stream, acceptor, &door, address, service);
            tokio::select! {
                ended = connection => match ended {
                    Ok(()) => {}
                    Err(Failure::Turned(why)) => authority.turned_away(address, why),
                    Err(Failure::Broke(error)) => debug!(%address, %error, "a sidecar's connection ended"),
                },
                // Calls have had the time to say so.
                () = async { end.cancelled().await; sleep(FLUSH).await } => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// Why a connection ended badly.
enum Failure {
    Turned(TurnedAway),
    Broke(hyper::Error),
}

/// One connection, from its handshake to its end.
async fn one<A: Authority>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    door: &Door,
    address: IpAddr,
    service: ControlServer<calls::Calls<A>>,
) -> Result<(), Failure> {
    let stream = {
        // Never closed.
        let _permit = door.handshakes.acquire().await;
        match timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => return Err(Failure::Turned(TurnedAway::Handshake)),
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let has_called = Arc::new(AtomicBool::new(false));
    let peer = Peer {
        address,
        certificates: certificates.into(),
        has_called: Arc::clone(&has_called),
        over: CancellationToken::new(),
    };
    let over = peer.over.clone();
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let mut service = service.clone();
        async move { Ok::<_, Infallible>(service.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(1)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = served => ended.map_err(Failure::Broke),
        // Its answer has had the time to go.
        () = async { over.cancelled().await; sleep(FLUSH).await } => Ok(()),
        () = async {
            sleep(PATIENCE).await;
            if has_called.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        } => Err(Failure::Turned(TurnedAway::Calls)),
    }
}

/// Who may come in before it is known who that is.
struct Door {
    handshakes: Semaphore,
    dials: DefaultKeyedRateLimiter<IpAddr>,
    connections: Mutex<HashMap<IpAddr, u32>>,
}

impl Default for Door {
    fn default() -> Self {
        let dials = NonZeroU32::new(DIALS).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(DIAL_EVERY).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        Self {
            handshakes: Semaphore::new(HANDSHAKES),
            dials: RateLimiter::keyed(quota.allow_burst(dials)),
            connections: Mutex::default(),
        }
    }
}

impl Door {
    /// A place for a connection of this address, if there is one left.
    fn enter(door: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut connections = door.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let open = connections.get(&address).copied().unwrap_or_default();
        if open >= CONNECTIONS || door.dials.check_key(&address).is_err() {
            return None;
        }
        if open == 0 && door.dials.len() > 2 * connections.len() + 1024 {
            // Addresses that haven't dialled for a while are as new ones.
            door.dials.retain_recent();
        }
        connections.insert(address, open + 1);
        Some(Place {
            door: Arc::clone(door),
            address,
        })
    }
}

/// A connection's place, from its coming to its end.
struct Place {
    door: Arc<Door>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self
            .door
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = connections.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                connections.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_few_connections_at_a_time_and_others_are_not_held_up() {
        let door = Arc::new(Door::default());
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut places: Vec<_> = (0..CONNECTIONS)
            .map(|_| Door::enter(&door, one).expect("within the bound"))
            .collect();
        assert!(Door::enter(&door, one).is_none());
        assert!(Door::enter(&door, other).is_some());
        places.pop();
        places.push(Door::enter(&door, one).expect("one has gone"));
        drop(places);
        let mut dials = CONNECTIONS + 1;
        while Door::enter(&door, one).is_some() {
            dials += 1;
            assert!(dials <= DIALS, "as often as it likes");
        }
        assert_eq!(dials, DIALS);
        assert!(Door::enter(&door, other).is_some());
        assert!(door.connections.lock().unwrap().is_empty());
    }
}
