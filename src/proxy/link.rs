//! One TCP connection after its handshake: HTTP is served on it until it ends by itself or has to: idle, draining, an answer
//! that isn't taken, or the certificate of the other side expires.

use std::{
    convert::Infallible,
    error::Error,
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

use crate::{
    body::{Body, PIECE},
    drain::{CallGuard, LATE_CALL},
    refusal::Fault,
    shared::Shared,
    stalled::{Answers, Place, State},
    throttle::{Refusals, Throttled},
};

/// Largest HTTP/2 frame and stream window: one call's body needs few round trips, and a stream
/// that nobody reads holds little.
const H2_WINDOW: u32 = 256 * 1024;

/// Bounds of the headers of one request.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBounds {
    /// Bytes of all together.
    pub bytes: u32,
    /// How many there are.
    pub number: usize,
}

/// Why a connection has to end.
enum End {
    /// It should, with the calls that are under way.
    Announced,
    /// Now.
    Expired,
    /// Now: an answer isn't taken.
    Untaken,
}

/// What the other side did, if that is why the library gave the connection up.
fn fault(error: &hyper::Error) -> Option<Fault> {
    if error.is_parse_too_large() {
        return Some(Fault::HeadersTooLarge);
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    match cause.filter(|cause| cause.is_library()) {
        Some(cause) if cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Fault::Http2Excess),
        Some(_) => Some(Fault::NotHttp),
        None => error.is_parse().then_some(Fault::NotHttp),
    }
}

/// One TCP connection.
pub struct Link {
    shared: Arc<Shared>,
    calls_begun: AtomicUsize,
    calls_open: AtomicUsize,
    next_call: Notify,
    answers: Answers,
    /// What its agent was refused, where that has a pace.
    refusals: Option<Arc<Refusals>>,
    /// Whether it was told to end, so that streams without an end do.
    ending: watch::Sender<bool>,
}

/// One call on a connection, until its answer is written or given up. Dropping it ends the call.
pub struct OpenCall {
    link: Arc<Link>,
    place: Option<Place>,
    _under_way: CallGuard,
}

impl OpenCall {
    /// Whether its answer should be watched, and can't be.
    pub fn is_unwatched(&self) -> bool {
        self.place.is_none() && self.link.is_watched()
    }

    /// The answer moved, and is this far.
    pub fn note(&self, state: State) {
        if let Some(place) = self.place {
            self.link.answers.note(place, state);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.link.answers.end(place);
        }
        self.link.calls_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// A connection without a call yet: of an agent, with what it was refused, at whose pace it is read from; or of another
    /// replica.
    pub fn new(shared: Arc<Shared>, refusals: Option<Arc<Refusals>>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            answers: Answers::default(),
            refusals,
            calls_begun: AtomicUsize::new(0),
            calls_open: AtomicUsize::new(0),
            next_call: Notify::new(),
            ending: watch::Sender::new(false),
        })
    }

    /// Whether what isn't taken is watched for. Not of another replica: it watches its own agents, and ends what they don't
    /// take.
    fn is_watched(&self) -> bool {
        self.refusals.is_some()
    }

    /// Wakes when the connection is told to end.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Counts a call from now to the guard's drop.
    pub fn begin_call(self: &Arc<Self>) -> OpenCall {
        self.calls_open.fetch_add(1, Ordering::SeqCst);
        self.calls_begun.fetch_add(1, Ordering::Relaxed);
        if self.shared.drain.is_closing() {
            self.next_call.notify_waiters();
        }
        OpenCall {
            place: self.is_watched().then(|| self.answers.begin()).flatten(),
            link: Arc::clone(self),
            _under_way: self.shared.drain.call(),
        }
    }

    /// Counts a refusal that counts against no limit.
    pub fn count_refusal(&self) {
        if let Some(refusals) = &self.refusals {
            refusals.count();
        }
    }

    /// Serves until the end. `not_after` is when the other side's certificate expires, if it is known; `superseded`
    /// ends when the connection should, for a reason of the caller's. Gives what the other side did wrong, if that ended it.
    pub async fn serve<S>(
        &self,
        stream: TlsStream<TcpStream>,
        headers: HeaderBounds,
        not_after: Option<SystemTime>,
        superseded: impl Future<Output = ()>,
        service: S,
    ) -> Option<Fault>
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
    {
        let limits = &self.shared.limits;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(Throttled::new(stream, self.refusals.clone()));
        if is_h2 {
            let served = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams)
                .max_header_list_size(headers.bytes)
                .initial_stream_window_size(H2_WINDOW)
                .max_send_buf_size(2 * PIECE)
                .initial_connection_window_size(H2_WINDOW * 4)
                .keep_alive_interval(limits.idle)
                .serve_connection(io, service);
            self.drive(served, not_after, superseded).await
        } else {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.idle)
                .max_headers(headers.number)
                .max_buf_size(headers.bytes as usize)
                .serve_connection(io, service);
            self.drive(served, not_after, superseded).await
        }
    }

    async fn drive<C>(
        &self,
        served: C,
        not_after: Option<SystemTime>,
        superseded: impl Future<Output = ()>,
    ) -> Option<Fault>
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let shared = &self.shared;
        let left = not_after.map_or(shared.limits.idle, |not_after| {
            not_after.duration_since(SystemTime::now()).unwrap_or_default()
        });
        let mut served = pin!(served);
        let announced = async {
            tokio::select! {
                () = self.until_closing() => {}
                () = self.until_idle() => {}
                () = superseded => {}
                // A certificate that is about to expire when it comes is announced at once, unless it
                // would be told to go before its first call.
                () = sleep(left.saturating_sub(shared.limits.expiry_notice).max(left / 2)) => {}
            }
            End::Announced
        };
        let expired = sleep(left).map(|()| End::Expired);
        // A call wakes its connection several times: these are looked at only when one of them wakes it.
        let mut ends: FuturesUnordered<_> = [
            announced.left_future(),
            expired.left_future().right_future(),
            self.until_untaken().right_future().right_future(),
        ]
        .into_iter()
        .collect();
        let mut announced = false;
        loop {
            tokio::select! {
                // First: of a connection that is never done they would find the task's budget used up, each time.
                biased;
                Some(end) = ends.next() => match end {
                    // Told to go: no further call is accepted, the ones under way end (GOAWAY, `Connection: close`).
                    End::Announced => {
                        announced = true;
                        self.ending.send_replace(true);
                        served.as_mut().graceful_shutdown();
                    }
                    // Returning drops the connection with every stream on it.
                    End::Expired => {
                        info!("a connection ended because the other side's certificate expired");
                        return None;
                    }
                    End::Untaken => {
                        return Some(Fault::AnswerUntaken);
                    }
                },
                // Over HTTP/2 it is the client that says when it has heard of it, and one that never does could go on.
                () = self.until_quiet(), if announced => return None,
                ended = served.as_mut() => {
                    let error = ended.err()?;
                    debug!(%error, "connection ended");
                    return fault(&error);
                }
            }
        }
    }

    async fn until_closing(&self) {
        self.shared.drain.closing().await;
        // Between two calls nobody over HTTP/1.1 can be told, and the next one may be on its way (RFC 9112 §9.6): its answer
        // says so. Likewise the first, of who came while endpoints were still propagating.
        let mut next = pin!(self.next_call.notified());
        next.as_mut().enable();
        if self.calls_open.load(Ordering::SeqCst) == 0 {
            let _ = timeout(LATE_CALL, next).await;
        }
    }

    async fn until_untaken(&self) -> End {
        if !self.is_watched() {
            return pending().await;
        }
        let limits = &self.shared.limits;
        // Of a time that began between two looks, this many are certain to span all of it.
        let pause = limits.untaken / 2;
        let looks = |time: Duration| {
            let whole = time.as_nanos().div_ceil(pause.as_nanos().max(1));
            u64::try_from(whole).unwrap_or(u64::MAX).saturating_add(1)
        };
        let owed = looks(limits.untaken);
        // A server that says nothing for longer is given up, and a stream without an end gets a comment sooner: either is
        // something to take.
        let waits = looks(limits.upstream_silence.max(limits.keep_alive)).saturating_add(owed);
        loop {
            sleep(pause).await;
            if self.answers.look(owed, waits) {
                return End::Untaken;
            }
        }
    }

    /// Ends when no call was under way for as long as an answer may be left untaken. What TLS and the kernel still had of the
    /// last one is taken by then, or never will be.
    async fn until_quiet(&self) {
        let calls = || {
            let begun = self.calls_begun.load(Ordering::Relaxed);
            (self.calls_open.load(Ordering::Relaxed) == 0).then_some(begun)
        };
        let mut before = None;
        loop {
            let now = calls();
            if now.is_some() && now == before {
                return;
            }
            before = now;
            sleep(self.shared.limits.untaken).await;
        }
    }

    async fn until_idle(&self) {
        let mut begun = self.calls_begun.load(Ordering::Relaxed);
        loop {
            sleep(self.shared.limits.idle).await;
            let now = self.calls_begun.load(Ordering::Relaxed);
            if now == begun && self.calls_open.load(Ordering::Relaxed) == 0 {
                return;
            }
            begun = now;
        }
    }
}
