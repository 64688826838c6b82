//! What one sidecar accepts at most: sizes, numbers and times.
//!
//! They are constants of the product, not configuration: a tenant's own limits come with its
//! policy. Tests and benches shorten the times.

use std::time::Duration;

use crate::stalled;

/// Bounds of one sidecar process.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once, handshakes included.
    pub connections: usize,
    /// Connections open at once, of one agent; and of all together that are no agent of the policy.
    pub connections_per_agent: usize,
    /// Connections of other replicas open at once, handshakes included.
    pub peer_connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time that a connection may sit without a call, and time for one request's headers.
    pub idle: Duration,
    /// How long before its client certificate expires a connection is announced to end.
    pub expiry_notice: Duration,
    /// Bytes of one request's headers.
    pub header_bytes: u32,
    /// Number of one request's headers.
    pub headers: usize,
    /// Bytes of one request's body.
    pub body_bytes: usize,
    /// Time for one request's body.
    pub body: Duration,
    /// HTTP/2 streams open at once on one connection.
    pub streams: u32,
    /// Calls under way at once, of all agents.
    pub calls: usize,
    /// Calls under way at once, of one agent.
    pub calls_per_agent: usize,
    /// How fast one agent, or all together that are none, is refused what counts against no limit.
    pub refusals: RefusalPace,
    /// Bytes of messages held at once, of all agents. What a sidecar needs beyond is two to three times that, since what is
    /// changed on its way is there twice; it must fit in the sidecar's memory, 128 MiB unless the chart says otherwise.
    pub memory: usize,
    /// Bytes of messages held at once, of one agent. One answer of the largest size must fit.
    pub memory_per_agent: usize,
    /// Streams without an end open at once, of one agent: subscriptions, and streams of sessions.
    pub streams_per_agent: usize,
    /// Pause between two comments that keep a stream without an end alive.
    pub keep_alive: Duration,
    /// Time that an agent may leave an answer, or a part of one, without taking any of it. Then its connection ends, at the
    /// next look: after this time or up to half of it more.
    pub untaken: Duration,
    /// Time that the machine of a client, or of another replica, may leave what was sent to it unacknowledged, or take none of
    /// it, before its connection is broken.
    pub unacknowledged: Duration,
    /// Time to connect to the MCP server.
    pub upstream_connect: Duration,
    /// Time that the MCP server may stay silent: until the answer's headers, and between its parts.
    pub upstream_silence: Duration,
    /// Idle connections to the MCP server that are kept for reuse.
    pub upstream_idle: usize,
    /// Bytes of one answer; of one event, when the answer is a stream.
    pub response_bytes: usize,
    /// Bytes of one whole stream.
    pub stream_bytes: usize,
    /// Time between the announcement of a drain and the closing of connections: what the
    /// cluster needs to take the pod out of its Service.
    pub drain_grace: Duration,
    /// Time after which a drain no longer waits for calls. Together with what follows it must
    /// fit in the pod's termination grace period, which the operator sets to 60 s.
    pub drain_deadline: Duration,
    /// Time without the operator after which the replicas' parts of an agent's limits are equal again: the others were told by
    /// then, or are alone as well. More than it takes until both sides have noticed that a call is over.
    pub alone: Duration,
    /// Pause between two looks at the mounted files.
    pub reload: Duration,
    /// Pause between two dials of the canary while the network isn't proven closed.
    pub canary: Duration,
}

/// How fast one agent is refused what isn't admitted: requests that are wrong by their head, or find no room.
#[derive(Clone, Copy, Debug)]
pub struct RefusalPace {
    /// What one costs: whoever is refused more often isn't read from meanwhile.
    pub each: Duration,
    /// How many cost nothing yet.
    pub at_once: u32,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for RefusalPace {
    /// A hundred at once and a hundred a second; pauses of 5 s at most.
    fn default() -> Self {
        Self {
            each: Duration::from_millis(10),
            at_once: 100,
            longest: Duration::from_secs(5),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_agent: 256,
            peer_connections: 512,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(75),
            expiry_notice: Duration::from_secs(30),
            header_bytes: 32 * 1024,
            headers: 64,
            body_bytes: 4 * 1024 * 1024,
            body: Duration::from_secs(10),
            streams: stalled::MOST,
            calls: 256,
            calls_per_agent: 64,
            refusals: RefusalPace::default(),
            memory: 32 * 1024 * 1024,
            memory_per_agent: 20 * 1024 * 1024,
            streams_per_agent: 16,
            keep_alive: Duration::from_secs(15),
            untaken: Duration::from_secs(30),
            unacknowledged: Duration::from_mins(1),
            upstream_connect: Duration::from_secs(1),
            upstream_silence: Duration::from_mins(5),
            upstream_idle: 64,
            response_bytes: 16 * 1024 * 1024,
            stream_bytes: 64 * 1024 * 1024,
            drain_grace: Duration::from_secs(3),
            drain_deadline: Duration::from_secs(20),
            alone: Duration::from_mins(1),
            reload: Duration::from_secs(2),
            canary: Duration::from_millis(500),
        }
    }
}
