//! HTTP/2 by hand, for a client that does what no library would: nothing, or what it was told not to do.

use bulkhead_proxy::testing::{
    Leaf, PATIENCE, TestSidecar,
    client::connect_tls,
    sidecar::{HOST, PATH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection of an agent.
pub struct H2 {
    stream: TlsStream<TcpStream>,
    token: String,
    /// The data that came, of all streams.
    pub data: String,
}

/// A frame (RFC 9113 §4.1).
pub struct Frame {
    pub kind: u8,
    flags: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn is_ping(&self) -> bool {
        self.kind == PING && self.flags & ACK == 0
    }

    pub fn is_pong(&self) -> bool {
        self.kind == PING && self.flags & ACK == ACK
    }
}

impl H2 {
    /// Opens one, with what a client says first.
    pub async fn open(sidecar: &TestSidecar, leaf: &Leaf) -> Self {
        let servers_ca = sidecar.servers_ca.pem();
        let stream = connect_tls(sidecar.address, HOST, &servers_ca, Some(leaf), Some(b"h2"));
        let mut this = Self {
            stream: stream.await.unwrap(),
            token: format!("Bearer {}", sidecar.issuer.token(&leaf.uri)),
            data: String::new(),
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        this.stream.write_all(preface).await.unwrap();
        this.write(SETTINGS, 0, 0, &[]).await;
        // The sidecar speaks HTTP by now.
        this.until(|frame, _| frame.kind == SETTINGS).await;
        this
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Sends what belongs to no connection's own stream (RFC 9113 §6.1).
    pub async fn break_the_rules(&mut self) {
        self.write(DATA, 0, 0, b"x").await;
    }

    /// Sends headers in more pieces than any need.
    pub async fn exceed(&mut self) {
        // The method, as in `post`, and then nothing.
        self.write(HEADERS, 0, 1, &[0x83]).await;
        for _ in 0..100 {
            self.write(CONTINUATION, 0, 1, &[]).await;
        }
    }

    /// Posts a message on a stream of its own.
    pub async fn post(&mut self, stream: u32, message: &str) {
        // POST and https have entries of their own in the static table of RFC 7541, names of the others too.
        let mut block = vec![0x83, 0x87];
        for (name, value) in [(1, HOST), (4, PATH)] {
            block.push(name);
            text(value, &mut block);
        }
        let token = self.token.clone();
        for (name, value) in [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-06-18"),
        ] {
            block.push(0);
            text(name, &mut block);
            text(value, &mut block);
        }
        self.write(HEADERS, END_HEADERS, stream, &block).await;
        self.write(DATA, END_STREAM, stream, message.as_bytes()).await;
    }

    /// Asks whether the other side is there.
    pub async fn ping(&mut self) {
        self.write(PING, 0, 0, b"a client").await;
    }

    /// The next frame, if there is one, with the acknowledgement that is due for it.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut head)).await;
        read.expect("a frame or the end must come").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            DATA => self.data.push_str(std::str::from_utf8(&payload).unwrap()),
            PING if flags & ACK == 0 => self.write(PING, ACK, 0, &payload).await,
            SETTINGS if flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await,
            _ => {}
        }
        Some(Frame { kind, flags, payload })
    }

    /// Reads until such a frame has come.
    pub async fn until(&mut self, mut is_it: impl FnMut(&Frame, &str) -> bool) {
        while let Some(frame) = self.next().await {
            if is_it(&frame, &self.data) {
                return;
            }
        }
        panic!("the connection ended before");
    }
}

/// A string of a header block, not compressed (RFC 7541 §5.2).
fn text(text: &str, block: &mut Vec<u8>) {
    let mut rest = text.len();
    if rest < 127 {
        block.push(u8::try_from(rest).unwrap());
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }
    block.extend(text.as_bytes());
}
