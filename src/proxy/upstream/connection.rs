//! Connections to the MCP server, each moved on by the task of the call that has it: handing a call to a task of the
//! connection and back would cost two wake-ups, which is much of what a sidecar adds.
//!
//! So a connection that nobody has stands still. Whether the server has closed it meanwhile shows when it is taken.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    runtime::{self, Handle},
};

/// Headers of an answer that are read at most, in bytes and number.
const MAX_HEADER_BYTES: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;

/// Connections that nobody has.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    most: usize,
}

impl Pool {
    /// Keeps so many at most.
    pub(super) fn new(most: usize) -> Self {
        Self {
            idle: Mutex::default(),
            most,
        }
    }

    /// The one that was used last, to this port, of those that this runtime opened. Those to other ports are closed.
    pub(super) fn take(&self, port: u16) -> Option<Connection> {
        let here = Handle::current().id();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.port == port);
        let last = idle.iter().rposition(|connection| connection.opened_by == here)?;
        Some(idle.remove(last))
    }

    /// Keeps one, if there is room.
    pub(super) fn put(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most {
            idle.push(connection);
        }
    }
}

/// Reads and writes.
type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

/// The head of an answer, or why there is none. The request comes back when nothing of it was sent.
type Answered = Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>>;

/// One connection. Dropped, it is closed, whatever is under way on it.
pub(super) struct Connection {
    port: u16,
    /// The runtime that hears when there is something to read. A call of another one would be woken by way of it: two
    /// wake-ups more of each call.
    opened_by: runtime::Id,
    sender: SendRequest<Full<Bytes>>,
    /// `None`: it has ended.
    driver: Option<Driver>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on a stream.
    pub(super) async fn open(port: u16, stream: TcpStream) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self {
            port,
            opened_by: Handle::current().id(),
            sender,
            driver: Some(Box::pin(driver)),
        })
    }

    /// Whether it can take a request, as far as it has been moved on.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until it can take a request. An error: it can't any more.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        let Self { sender, driver, .. } = self;
        poll_fn(|cx| {
            advance(driver, cx);
            sender.poll_ready(cx)
        })
        .await
    }

    /// Takes a request, whose answer comes while the connection is moved on: [`Self::until`].
    pub(super) fn send(&mut self, request: Request<Full<Bytes>>) -> impl Future<Output = Answered> + use<> {
        self.sender.try_send_request(request)
    }

    /// Moves on until a future of its own has come to its end.
    pub(super) async fn until<F: Future>(&mut self, mut end: Pin<&mut F>) -> F::Output {
        poll_fn(|cx| {
            advance(&mut self.driver, cx);
            end.as_mut().poll(cx)
        })
        .await
    }
}

/// Reads and writes what can be read and written now.
fn advance(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(driving) = driver
        && let Poll::Ready(ended) = driving.as_mut().poll(cx)
    {
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the MCP server ended");
        }
        *driver = None;
    }
}

/// The body of an answer, with the connection that it comes on. Read to its end, it gives the connection back; dropped
/// before, it closes it.
pub struct AnswerBody {
    body: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl AnswerBody {
    pub(super) fn new(body: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        Self {
            body,
            connection: Some(connection),
            pool,
        }
    }

    fn give_back(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.driver.is_some()
        {
            self.pool.put(connection);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(connection) = &mut this.connection
        {
            // The body has said that it wants more.
            advance(&mut connection.driver, cx);
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        match &polled {
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Err(_))) => this.connection = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // An answer without a body, or one whose length was known, may never be asked for its end.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}
