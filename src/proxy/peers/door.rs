//! Where other replicas hand requests on.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::{Peers, chain};
use crate::{
    endpoint, exchange,
    identity::{self, IdentityError},
    link::{HeaderBounds, Link},
    refusal::EdgeRefusal,
    server::{self, Connection},
    shared::Shared,
    workers::Workers,
};

/// Bytes of an agent's certificates, as text, beside the headers that it may have sent.
const CHAIN_BYTES: u32 = 64 * 1024;

/// Headers that a replica adds: the certificates, and the length of the body.
const CHAIN_HEADERS: usize = 10;

/// Accepts the connections of other replicas for as long as the process serves.
pub async fn serve(listener: TcpListener, workers: &Workers, shared: Arc<Shared>) {
    let most = shared.limits.peer_connections;
    server::accept(listener, workers, shared, most, receive).await;
}

async fn receive(stream: TcpStream, client: SocketAddr, shared: Arc<Shared>) {
    let peers = shared.live.peers();
    let config = peers.as_ref().map(|peers| Arc::clone(&peers.server));
    let Some(stream) = server::shake_hands(stream, client, config, &shared).await else {
        return;
    };
    let presented = stream
        .get_ref()
        .1
        .peer_certificates()
        .unwrap_or_default()
        .to_vec();
    // Between replicas it is the best that there is. How the agent came, the other one saw.
    let group = server::group(stream.get_ref().1);
    let (Some(peers), Some(leaf)) = (peers, presented.first()) else {
        return;
    };
    let link = Link::new(Arc::clone(&shared), None);
    let peer = match identity::identify(leaf) {
        Ok(peer) if peer.spiffe_id == peers.spiffe_id => peer,
        // Another server of the tenant has a certificate of the same CA, and nothing to do here.
        stranger => {
            warn!(client.address = %client, "on the replicas' port is no replica of this server");
            let refusal = stranger
                .as_ref()
                .map_or(EdgeRefusal::IdentityInvalid, |_| EdgeRefusal::AgentUnknown);
            let stranger = Connection::new(shared, stranger, group, presented, false, link);
            exchange::refused(&stranger, None, refusal);
            return;
        }
    };
    let service = service_fn({
        let (shared, link) = (Arc::clone(&shared), Arc::clone(&link));
        move |mut request| {
            let (shared, link) = (Arc::clone(&shared), Arc::clone(&link));
            async move {
                let chain = chain::take(http::Request::headers_mut(&mut request)).unwrap_or_default();
                // Without a chain it is nobody's request, and is refused as such.
                let identity = chain
                    .first()
                    .ok_or(IdentityError::Malformed)
                    .and_then(identity::identify);
                let connection = Connection::new(shared, identity, group, chain, true, link);
                Ok::<_, Infallible>(endpoint::answer(&connection, request).await)
            }
        }
    });
    let headers = HeaderBounds {
        bytes: shared.limits.header_bytes + CHAIN_BYTES,
        number: shared.limits.headers + CHAIN_HEADERS,
    };
    let not_after = Some(peer.not_after);
    let superseded = superseded(&shared, &peers);
    let fault = link.serve(stream, headers, not_after, superseded, service).await;
    if let Some(fault) = fault {
        let replica = Connection::new(Arc::clone(&shared), Ok(peer), group, presented, false, link);
        exchange::ended(&replica, fault);
    }
}

/// Ends when certificate or roots are others than those of the handshake.
async fn superseded(shared: &Shared, peers: &Arc<Peers>) {
    let mut changes = shared.live.changes();
    while shared
        .live
        .peers()
        .is_some_and(|current| Arc::ptr_eq(&current, peers))
    {
        // Who changes lives as long as the process.
        let _ = changes.changed().await;
    }
}
