//! The mTLS endpoint: accepts, shakes hands, and drives a connection until it ends by itself or
//! has to: idle, draining, or its client certificate expires.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info, warn};

use crate::{
    admission::AgentRoom,
    endpoint,
    identity::{self, Identity, IdentityError},
    memory::Held,
    shared::Shared,
};

/// Pause after a failed accept (out of file descriptors), so that it isn't a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that came while closing may wait with its first call.
const LATE_CALL: Duration = Duration::from_secs(1);

/// Largest HTTP/2 frame and stream window: one call's body needs few round trips, and a stream
/// that nobody reads holds little.
const H2_WINDOW: u32 = 256 * 1024;

/// One client connection after its handshake.
pub struct Connection {
    /// The sidecar.
    pub shared: Arc<Shared>,
    /// Who the verified certificate names.
    pub identity: Result<Identity, IdentityError>,
    /// The verified chain, to be verified again when trust changes.
    pub chain: Vec<CertificateDer<'static>>,
    /// The generation of trust roots that last verified the chain.
    pub trusted_by: AtomicU64,
    room: OnceLock<Arc<AgentRoom>>,
    calls_begun: AtomicUsize,
    calls_open: AtomicUsize,
    first_call: Notify,
    /// Whether it was told to end, so that streams without an end do.
    ending: watch::Sender<bool>,
}

/// One call on a connection, for the idle timeout. Dropping it ends the call.
pub struct OpenCall(Arc<Connection>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.calls_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// The room of its agent. Asked for once the policy knows the agent.
    pub fn room(&self) -> Option<&Arc<AgentRoom>> {
        let identity = self.identity.as_ref().ok()?;
        Some(
            self.room
                .get_or_init(|| self.shared.admission.of_agent(&identity.spiffe_id)),
        )
    }

    /// What a message on it may hold. Nothing, while it names nobody.
    pub fn memory(&self) -> Held {
        let admission = &self.shared.admission;
        match self.room() {
            Some(room) => admission.memory(room),
            None => admission.memory(&admission.of_strangers()),
        }
    }

    /// Wakes when the connection is told to end.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Counts a call from now to the guard's drop.
    pub fn begin_call(self: &Arc<Self>) -> OpenCall {
        self.calls_open.fetch_add(1, Ordering::Relaxed);
        if self.calls_begun.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first_call.notify_one();
        }
        OpenCall(Arc::clone(self))
    }
}

/// Accepts connections for as long as the process serves.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(shared.limits.connections));
    loop {
        // When full, new connections wait in the kernel's bounded backlog.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        let connections = shared.connections.clone();
        connections.spawn(async move {
            shared.metrics.connections.inc();
            if let Some(stream) = shake_hands(stream, client, &shared).await {
                converse(stream, client, &shared).await;
            }
            shared.metrics.connections.dec();
            drop(permit);
        });
    }
}

async fn shake_hands(stream: TcpStream, client: SocketAddr, shared: &Shared) -> Option<TlsStream<TcpStream>> {
    let Some(config) = shared.live.tls() else {
        shared.metrics.handshake("no_certificate");
        return None;
    };
    // Without it small answers wait for the client's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY can't be set");
    }
    match timeout(shared.limits.handshake, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => {
            shared.metrics.handshake("ok");
            Some(stream)
        }
        Ok(Err(error)) => {
            // No certificate, another CA, expired, not TLS 1.3: rustls says which.
            shared.metrics.handshake("refused");
            info!(client.address = %client, %error, "handshake refused");
            None
        }
        Err(_) => {
            shared.metrics.handshake("timeout");
            None
        }
    }
}

async fn converse(stream: TlsStream<TcpStream>, client: SocketAddr, shared: &Arc<Shared>) {
    let session = stream.get_ref().1;
    let chain: Vec<CertificateDer<'static>> = session.peer_certificates().unwrap_or_default().to_vec();
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let Some(leaf) = chain.first() else { return };
    let identity = identity::identify(leaf);
    if let Err(error) = &identity {
        warn!(client.address = %client, %error, "a verified certificate names nobody");
    }
    let known = identity.as_ref().ok().filter(|identity| {
        shared
            .live
            .policy()
            .is_some_and(|policy| policy.agent(&identity.spiffe_id).is_some())
    });
    let room = match known {
        Some(identity) => shared.admission.of_agent(&identity.spiffe_id),
        // They are only told that they are unknown, and must not take the agents' connections.
        None => shared.admission.of_strangers(),
    };
    let Ok(_room) = room.connect() else {
        warn!(client.address = %client, known = known.is_some(), "too many connections of one agent, or of unknown ones");
        return;
    };
    let connection = Arc::new(Connection {
        shared: Arc::clone(shared),
        identity,
        chain,
        // Verified in the handshake by roots that may have changed since: looked at on the first call.
        trusted_by: AtomicU64::new(0),
        room: OnceLock::new(),
        calls_begun: AtomicUsize::new(0),
        calls_open: AtomicUsize::new(0),
        first_call: Notify::new(),
        ending: watch::Sender::new(false),
    });
    let service = service_fn({
        let connection = Arc::clone(&connection);
        move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(endpoint::answer(&connection, request).await) }
        }
    });
    let limits = &shared.limits;
    let io = TokioIo::new(stream);
    if is_h2 {
        let served = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.header_bytes)
            .initial_stream_window_size(H2_WINDOW)
            .initial_connection_window_size(H2_WINDOW * 4)
            .keep_alive_interval(limits.idle)
            .serve_connection(io, service);
        drive(served, &connection).await;
    } else {
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_headers(limits.headers)
            .max_buf_size(limits.header_bytes as usize)
            .serve_connection(io, service);
        drive(served, &connection).await;
    }
}

async fn drive<C>(served: C, connection: &Connection)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let shared = &connection.shared;
    let left = connection
        .identity
        .as_ref()
        .map_or(shared.limits.idle, |identity| {
            identity
                .not_after
                .duration_since(SystemTime::now())
                .unwrap_or_default()
        });
    let mut served = pin!(served);
    // Told to go: no further call is accepted, the ones under way end (GOAWAY, `Connection: close`).
    let mut told = false;
    let mut announce = pin!(async {
        tokio::select! {
            () = until_closing(connection) => {}
            () = until_idle(connection) => {}
            // A certificate that is about to expire when it comes is announced at once, unless it
            // would be told to go before its first call.
            () = sleep(left.saturating_sub(shared.limits.expiry_notice).max(left / 2)) => {}
        }
    });
    let mut expired = pin!(sleep(left));
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "connection ended");
                }
                return;
            }
            () = announce.as_mut(), if !told => {
                told = true;
                connection.ending.send_replace(true);
                served.as_mut().graceful_shutdown();
            }
            () = expired.as_mut() => {
                // Returning drops the connection with every stream on it.
                info!("a connection ended because its client certificate expired");
                return;
            }
        }
    }
}

async fn until_closing(connection: &Connection) {
    connection.shared.drain.closing().await;
    if connection.calls_begun.load(Ordering::Relaxed) == 0 {
        // It came while endpoints were still propagating: its first call is served.
        let _ = timeout(LATE_CALL, connection.first_call.notified()).await;
    }
}

async fn until_idle(connection: &Connection) {
    let mut begun = connection.calls_begun.load(Ordering::Relaxed);
    loop {
        sleep(connection.shared.limits.idle).await;
        let now = connection.calls_begun.load(Ordering::Relaxed);
        if now == begun && connection.calls_open.load(Ordering::Relaxed) == 0 {
            return;
        }
        begun = now;
    }
}
