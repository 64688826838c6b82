//! A stream of events: read, judged message by message, and written anew. Nothing of the server's
//! stream passes but what was judged, and comments, which keep the connection alive.
//!
//! A stream is the answer to a request; or, in the legacy era, a session's own, or one that is taken
//! up again after an event. A client may take a legacy stream up again, so such a stream may end
//! before its answer has come.

mod flow;

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};

use bulkhead_core::mcp::sse::{self, Event, Frame as SseFrame, SseReader};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Frame, SizeHint};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};

use super::answer::{self, Failure, Judged};
use crate::{
    body::{Body, CutOff},
    limits::Limits,
    memory::Held,
    tokens::TokenError,
    upstream::AnswerBody,
};

pub(crate) use flow::Flow;

/// What is written for every comment of the server: a comment keeps a connection alive and is no
/// way to talk.
const COMMENT: &str = "keep-alive";

/// Why a stream looks up from reading.
enum Wake {
    /// Policy or trust changed: may the client still have it?
    Changed,
    /// The connection is told to end.
    Ending,
    /// The token that it was asked for with has expired.
    Expired,
    /// Nothing was written for a while.
    Quiet,
}

/// The stream. Dropped before its end (the client went away), it drops the server's with it.
struct EventStream {
    flow: Flow,
    server: Option<AnswerBody>,
    reader: SseReader,
    frames: Vec<SseFrame>,
    received: usize,
    /// Whether a message has passed.
    begun: bool,
    /// Counts what of an event has come, and what of events the client hasn't taken.
    held: Held,
    /// Bytes that were handed over and are counted.
    handed: usize,
    silence: Pin<Box<Sleep>>,
    quiet: Pin<Box<Sleep>>,
    changes: watch::Receiver<u64>,
    ending: watch::Receiver<bool>,
    wake: Pin<Box<dyn Future<Output = Wake> + Send>>,
}

/// The response that streams it.
pub(crate) fn stream(flow: Flow, body: AnswerBody) -> Response<Body> {
    let limits = flow.limits();
    let (changes, ending) = (flow.connection.shared.live.changes(), flow.connection.ending());
    let stream = EventStream {
        reader: SseReader::new(limits.response_bytes),
        frames: Vec::new(),
        received: 0,
        begun: false,
        held: flow.connection.memory(),
        handed: 0,
        silence: Box::pin(sleep(limits.upstream_silence)),
        quiet: Box::pin(sleep(limits.keep_alive)),
        server: Some(body),
        wake: Box::pin(woken(changes.clone(), ending.clone(), flow.expires())),
        changes,
        ending,
        flow,
    };
    let mut response = Response::new(Body::stream(Box::pin(stream)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // 2026-07-28: intermediaries must not hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

async fn woken(
    mut changes: watch::Receiver<u64>,
    mut ending: watch::Receiver<bool>,
    expires: SystemTime,
) -> Wake {
    tokio::select! {
        () = until(expires) => Wake::Expired,
        // Who changes and who ends live as long as the stream.
        _ = changes.changed() => Wake::Changed,
        _ = ending.wait_for(|ending| *ending) => Wake::Ending,
    }
}

async fn until(time: SystemTime) {
    sleep(time.duration_since(SystemTime::now()).unwrap_or_default()).await;
}

impl EventStream {
    fn limits(&self) -> &Limits {
        self.flow.limits()
    }

    /// Takes bytes of the server; gives what the client gets for them.
    fn take(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.received = self.received.saturating_add(chunk.len());
        let most = self.limits().stream_bytes;
        let mut frames = std::mem::take(&mut self.frames);
        let read = self.reader.push(chunk, &mut frames);
        for frame in frames.drain(..) {
            if self.server.is_some() {
                self.judge(frame, &mut out);
            }
        }
        self.frames = frames;
        match read {
            // It has ended, and what is handed over now is held until it is written. Without room: what came of it before.
            _ if self.server.is_none() => drop(self.held.resize(out.len())),
            Err(sse::SseError::TooLarge) => self.fail(Failure::TooLarge, &mut out),
            Err(sse::SseError::InvalidUtf8) => self.fail(Failure::NotMcp, &mut out),
            Ok(()) if self.received > most => self.fail(Failure::TooLarge, &mut out),
            Ok(()) if self.held.resize(self.reader.held() + out.len()).is_err() => {
                self.fail(Failure::Exhausted, &mut out);
            }
            Ok(()) => self.handed = out.len(),
        }
        out
    }

    /// What was handed over before is asked for more, so the client has taken it.
    fn taken(&mut self) {
        if mem::take(&mut self.handed) > 0 {
            // Less than before: there is room.
            let _ = self.held.resize(self.reader.held());
        }
    }

    fn judge(&mut self, frame: SseFrame, out: &mut Vec<u8>) {
        let event = match frame {
            SseFrame::Comment(_) => return sse::write_comment(COMMENT, out),
            // An event of another name (the `endpoint` of 2024-11-05) is none of this transport.
            SseFrame::Event(event) if event.event.as_deref().is_none_or(|event| event == "message") => event,
            SseFrame::Event(_) => return,
        };
        let id = event.id.as_deref().and_then(|id| self.flow.seal(id));
        // Resumption is the legacy era's: in the newer one there is nothing to come back for.
        let retry = event.retry.filter(|_| self.flow.is_resumable());
        let Some(data) = event.data.filter(|data| !data.is_empty()) else {
            // The server says where to take the stream up again before it says anything else.
            if id.is_some() || retry.is_some() {
                let data = id.is_some().then(String::new);
                let event = Event {
                    id,
                    retry,
                    data,
                    event: None,
                };
                event.write(out);
            }
            return;
        };
        let message = |body: &Bytes| Event {
            event: Some("message".into()),
            data: Some(String::from_utf8_lossy(body).into_owned()),
            id,
            retry,
        };
        match self.flow.judge(&Bytes::from(data)) {
            Judged::Passes(body) => {
                message(&body).write(out);
                if !std::mem::replace(&mut self.begun, true) {
                    self.tell_changes(out);
                }
            }
            Judged::Dropped => {}
            Judged::Last(body, ended, _) => {
                message(&body).write(out);
                self.flow.answered(ended);
                if let Some(body) = self.server.take() {
                    answer::discard(body);
                }
            }
        }
    }

    /// Ends the stream with an error of our own where an answer is owed.
    fn fail(&mut self, why: Failure, out: &mut Vec<u8>) {
        self.server = None;
        if let Some(body) = self.flow.fail(why) {
            plain(&body).write(out);
        }
    }

    /// The server's end of the stream.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.flow.may_end_early() {
            self.server = None;
            self.flow.ended();
        } else {
            self.fail(Failure::Broken, out);
        }
    }

    fn look_up(&mut self, wake: &Wake, out: &mut Vec<u8>) {
        match wake {
            Wake::Quiet => sse::write_comment(COMMENT, out),
            Wake::Changed => match self.flow.allowed() {
                Ok(()) => self.tell_changes(out),
                Err(refusal) => self.withdraw(refusal.code(), out),
            },
            Wake::Ending | Wake::Expired if self.flow.is_endless() => {
                self.server = None;
                if let Some(body) = self.flow.end_gracefully() {
                    plain(&body).write(out);
                }
            }
            Wake::Ending => {}
            Wake::Expired => self.withdraw(TokenError::Expired.code(), out),
        }
    }

    /// Tells of lists that changed. Nothing comes before the acknowledgement of a subscription (2026-07-28): what changes
    /// until then is told after it.
    fn tell_changes(&mut self, out: &mut Vec<u8>) {
        if self.begun || self.flow.is_resumable() {
            for message in self.flow.list_changes() {
                plain(&message).write(out);
            }
        }
    }

    /// Ends the stream: the client may not have it any more.
    fn withdraw(&mut self, why: &'static str, out: &mut Vec<u8>) {
        self.server = None;
        if let Some(body) = self.flow.withdraw(why) {
            plain(&body).write(out);
        }
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(wake) = self.wake.as_mut().poll(cx) {
            // Told to end once is enough: a stream that owes an answer goes on until it has it.
            self.changes.mark_unchanged();
            let (mut changes, ending) = (self.changes.clone(), self.ending.clone());
            let expires = self.flow.expires();
            self.wake = if matches!(wake, Wake::Ending) {
                // Told to end once is enough: a stream that owes an answer goes on until it has it.
                Box::pin(async move {
                    tokio::select! {
                        () = until(expires) => Wake::Expired,
                        _ = changes.changed() => Wake::Changed,
                    }
                })
            } else {
                Box::pin(woken(changes, ending, expires))
            };
            return Poll::Ready(wake);
        }
        if self.flow.is_endless() && self.quiet.as_mut().poll(cx).is_ready() {
            let pause = self.limits().keep_alive;
            self.quiet.as_mut().reset(Instant::now() + pause);
            return Poll::Ready(Wake::Quiet);
        }
        Poll::Pending
    }
}

fn plain(message: &Bytes) -> Event {
    Event {
        event: Some("message".into()),
        data: Some(String::from_utf8_lossy(message).into_owned()),
        ..Event::default()
    }
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        this.taken();
        loop {
            let Some(server) = &mut this.server else {
                return Poll::Ready(None);
            };
            let mut out = Vec::new();
            match Pin::new(server).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) => {
                        let silence = this.limits().upstream_silence;
                        this.silence.as_mut().reset(Instant::now() + silence);
                        out = this.take(&chunk);
                    }
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(_)) | None) => this.finish(&mut out),
                Poll::Pending => match this.poll_wake(cx) {
                    Poll::Ready(wake) => this.look_up(&wake, &mut out),
                    Poll::Pending if this.flow.is_endless() => return Poll::Pending,
                    Poll::Pending => {
                        if this.silence.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        this.fail(Failure::Timeout, &mut out);
                    }
                },
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.server.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
