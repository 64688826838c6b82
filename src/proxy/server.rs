//! The mTLS endpoint: accepts, shakes hands, and serves a connection of an agent.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use hyper::service::service_fn;
use rustls::{NamedGroup, ServerConfig, ServerConnection, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info, warn};

use crate::{
    admission::AgentRoom,
    endpoint, exchange,
    identity::{self, Identity, IdentityError},
    link::{HeaderBounds, Link, OpenCall},
    memory::Held,
    refusal::Fault,
    shared::Shared,
    tokens::Presented,
    vanishing,
    workers::Workers,
};

/// Pause after a failed accept (out of file descriptors), so that it isn't a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whom the requests on a connection come from, as it is proven.
pub struct Connection {
    /// The sidecar.
    pub shared: Arc<Shared>,
    /// Who the agent's certificate names.
    pub identity: Result<Identity, IdentityError>,
    /// What its keys were agreed on with.
    pub group: Option<NamedGroup>,
    /// The agent's chain, to be verified again when trust changes.
    pub chain: Vec<CertificateDer<'static>>,
    /// The generation of trust roots that last verified the chain.
    pub trusted_by: AtomicU64,
    /// The token that was presented last.
    pub presented: Presented,
    /// Whether another replica's sidecar hands the agent's request on.
    pub relayed: bool,
    room: OnceLock<Arc<AgentRoom>>,
    link: Arc<Link>,
}

impl Connection {
    /// Of an agent that came here itself, or by way of another replica. The chain isn't verified yet.
    pub fn new(
        shared: Arc<Shared>,
        identity: Result<Identity, IdentityError>,
        group: Option<NamedGroup>,
        chain: Vec<CertificateDer<'static>>,
        relayed: bool,
        link: Arc<Link>,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            identity,
            group,
            chain,
            // Roots may have changed since the handshake: they are looked at on the first call.
            trusted_by: AtomicU64::new(0),
            presented: Presented::default(),
            relayed,
            room: OnceLock::new(),
            link,
        })
    }

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
        self.link.ending()
    }

    /// Counts a call from now to the guard's drop.
    pub fn begin_call(&self) -> OpenCall {
        self.link.begin_call()
    }

    /// Counts a refusal that counts against no limit of the agent.
    pub fn count_refusal(&self) {
        self.link.count_refusal();
    }
}

/// Accepts agents' connections for as long as the process serves.
pub async fn serve(listener: TcpListener, workers: &Workers, shared: Arc<Shared>) {
    let most = shared.limits.connections;
    accept(listener, workers, shared, most, receive).await;
}

async fn receive(stream: TcpStream, client: SocketAddr, shared: Arc<Shared>) {
    shared.metrics.connections.inc();
    let config = shared.live.tls();
    if let Some(stream) = shake_hands(stream, client, config, &shared).await {
        converse(stream, client, &shared).await;
    }
    shared.metrics.connections.dec();
}

/// Accepts connections, at most so many at once, and has each served by the worker that has the fewest.
pub(crate) async fn accept<F, R>(
    listener: TcpListener,
    workers: &Workers,
    shared: Arc<Shared>,
    most: usize,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr, Arc<Shared>) -> R + Copy + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(most));
    loop {
        // When full, new connections wait in the kernel's bounded backlog.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        // Its worker's runtime has to hear of what arrives on it, not this one.
        let accepted = listener.accept().await;
        let (stream, client) = match accepted.and_then(|(stream, client)| Ok((stream.into_std()?, client))) {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        let connections = shared.connections.clone();
        let place = workers.place();
        let runtime = place.runtime().clone();
        let served = async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, client, shared).await,
                Err(error) => warn!(%error, "an accepted connection can't be served"),
            }
            drop((permit, place));
        };
        connections.spawn_on(served, &runtime);
    }
}

pub(crate) async fn shake_hands(
    stream: TcpStream,
    client: SocketAddr,
    config: Option<Arc<ServerConfig>>,
    shared: &Shared,
) -> Option<TlsStream<TcpStream>> {
    let Some(config) = config else {
        shared.metrics.handshake("no_certificate");
        return None;
    };
    // Without it small answers wait for the client's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY can't be set");
    }
    vanishing::watch(&stream, shared.limits.unacknowledged);
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

/// What the keys of a connection were agreed on with.
pub(crate) fn group(session: &ServerConnection) -> Option<NamedGroup> {
    session
        .negotiated_key_exchange_group()
        .map(rustls::crypto::SupportedKxGroup::name)
}

async fn converse(stream: TlsStream<TcpStream>, client: SocketAddr, shared: &Arc<Shared>) {
    let session = stream.get_ref().1;
    let group = group(session);
    let chain: Vec<CertificateDer<'static>> = session.peer_certificates().unwrap_or_default().to_vec();
    let Some(leaf) = chain.first() else { return };
    let identity = identity::identify(leaf);
    if let Err(error) = &identity {
        warn!(client.address = %client, %error, "a verified certificate names nobody");
    }
    let changes = shared.live.changes();
    let known = identity
        .as_ref()
        .ok()
        .filter(|identity| is_known(shared, identity));
    let room = match known {
        Some(identity) => shared.admission.of_agent(&identity.spiffe_id),
        // They are only told that they are unknown, and must not take the agents' connections.
        None => shared.admission.of_strangers(),
    };
    let was_known = known.is_some();
    let connected = room.connect();
    let not_after = identity.as_ref().ok().map(|identity| identity.not_after);
    let link = Link::new(Arc::clone(shared), Some(room.refusals()));
    let connection = Connection::new(
        Arc::clone(shared),
        identity,
        group,
        chain,
        false,
        Arc::clone(&link),
    );
    let Ok(_room) = connected else {
        connection.count_refusal();
        exchange::ended(&connection, Fault::ConnectionsFull);
        return;
    };
    let service = service_fn({
        let connection = Arc::clone(&connection);
        move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(endpoint::answer(&connection, request).await) }
        }
    });
    let headers = HeaderBounds {
        bytes: shared.limits.header_bytes,
        number: shared.limits.headers,
    };
    let superseded = async {
        match &connection.identity {
            // It is a stranger's connection, with a stranger's bounds: an agent gets one of its own.
            Ok(identity) if !was_known => until_known(shared, identity, changes).await,
            _ => pending().await,
        }
    };
    let fault = link.serve(stream, headers, not_after, superseded, service).await;
    if let Some(fault) = fault {
        connection.count_refusal();
        exchange::ended(&connection, fault);
    }
}

async fn until_known(shared: &Shared, identity: &Identity, mut changes: watch::Receiver<u64>) {
    while !is_known(shared, identity) {
        // Who changes lives as long as the process.
        let _ = changes.changed().await;
    }
}

/// Whether the policy has such an agent.
fn is_known(shared: &Shared, identity: &Identity) -> bool {
    shared
        .live
        .policy()
        .is_some_and(|policy| policy.agent(&identity.spiffe_id).is_some())
}
