//! Peers whose machine lost its power, or its way here: nothing closes their connections.

use std::time::Duration;

use socket2::SockRef;
#[cfg(target_os = "linux")]
use socket2::TcpKeepalive;
use tokio::net::TcpStream;
use tracing::debug;

/// Has the kernel break a connection whose peer leaves what was sent to it unacknowledged for so long, or takes none of it
/// (RFC 5482, Linux's `TCP_USER_TIMEOUT`), and has it ask a peer to whom nothing is sent (RFC 9293 §3.8.4). Without, such a
/// connection stays for a quarter of an hour, or for ever.
#[cfg(target_os = "linux")]
pub(crate) fn watch(stream: &TcpStream, longest: Duration) {
    // In whole seconds, and often enough that some are unanswered by then.
    let pause = (longest / 4).max(Duration::from_secs(1));
    let socket = SockRef::from(stream);
    let set = socket
        .set_tcp_user_timeout(Some(longest))
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(pause).with_interval(pause)));
    if let Err(error) = set {
        debug!(%error, "the kernel can't watch a connection");
    }
}

/// Sidecars run on Linux; elsewhere this is part of a program that tries policies on loopback.
#[cfg(not(target_os = "linux"))]
pub(crate) fn watch(stream: &TcpStream, _: Duration) {
    if let Err(error) = SockRef::from(stream).set_keepalive(true) {
        debug!(%error, "the kernel can't watch a connection");
    }
}
