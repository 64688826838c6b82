//! An answer as an event stream: read, judged message by message, and written anew. Nothing of the
//! server's stream passes but what was judged, and comments, which keep the connection alive.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bulkhead_core::mcp::sse::{self, Event, Frame as SseFrame, SseReader};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    Exchange, Loan,
    answer::{self, Failure, Judged},
};
use crate::{
    body::{Body, CutOff},
    upstream::Lease,
};

/// What is written for every comment of the server: a comment keeps a connection alive and is no
/// way to talk.
const COMMENT: &str = "keep-alive";

/// The stream of one answer. Dropped before its end (the client went away), it drops the server's
/// answer with it and leaves the intent cancelled.
struct EventStream {
    /// Taken at the end.
    exchange: Option<Exchange>,
    server: Loan,
    reader: SseReader,
    frames: Vec<SseFrame>,
    received: usize,
    silence: Pin<Box<Sleep>>,
}

/// The response that streams the answer.
pub(crate) fn stream(exchange: Exchange, body: Incoming, lease: Lease) -> Response<Body> {
    let limits = &exchange.connection.shared.limits;
    let stream = EventStream {
        reader: SseReader::new(limits.response_bytes),
        frames: Vec::new(),
        received: 0,
        silence: Box::pin(sleep(limits.upstream_silence)),
        server: Some((body, lease)),
        exchange: Some(exchange),
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

impl EventStream {
    /// Takes bytes of the server; gives what the client gets for them.
    fn take(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.received = self.received.saturating_add(chunk.len());
        let most = self
            .exchange
            .as_ref()
            .map_or(0, |exchange| exchange.connection.shared.limits.stream_bytes);
        let mut frames = std::mem::take(&mut self.frames);
        let read = self.reader.push(chunk, &mut frames);
        for frame in frames.drain(..) {
            self.judge(frame, &mut out);
        }
        self.frames = frames;
        match read {
            Err(sse::SseError::TooLarge) => self.fail(Failure::TooLarge, &mut out),
            Err(sse::SseError::InvalidUtf8) => self.fail(Failure::NotMcp, &mut out),
            Ok(()) if self.received > most => self.fail(Failure::TooLarge, &mut out),
            Ok(()) => {}
        }
        out
    }

    fn judge(&mut self, frame: SseFrame, out: &mut Vec<u8>) {
        let Some(exchange) = &self.exchange else { return };
        let data = match frame {
            SseFrame::Comment(_) => return sse::write_comment(COMMENT, out),
            // Ids and retries belong to resumption, which isn't offered; an event of another name
            // (the `endpoint` of 2024-11-05) is none of this transport.
            SseFrame::Event(Event {
                data: Some(data),
                event,
                ..
            }) if !data.is_empty() && event.as_deref().is_none_or(|event| event == "message") => data,
            SseFrame::Event(_) => return,
        };
        match answer::judge(exchange, &Bytes::from(data)) {
            Judged::Passes(body) => write(&body, out),
            Judged::Dropped => {}
            Judged::Last(body, completion, reason, _) => {
                write(&body, out);
                if let Some(exchange) = self.exchange.take() {
                    exchange.intent.close(completion, reason);
                }
                if let Some((body, lease)) = self.server.take() {
                    answer::discard(body, lease);
                }
            }
        }
    }

    fn fail(&mut self, why: Failure, out: &mut Vec<u8>) {
        self.server = None;
        if let Some(exchange) = self.exchange.take() {
            write(&exchange.fail(why), out);
        }
    }
}

fn write(message: &Bytes, out: &mut Vec<u8>) {
    let data = String::from_utf8_lossy(message).into_owned();
    Event {
        event: Some("message".into()),
        data: Some(data),
        ..Event::default()
    }
    .write(out);
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        loop {
            let Some((server, _)) = &mut this.server else {
                return Poll::Ready(None);
            };
            let out = match Pin::new(server).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) => {
                        if let Some(exchange) = &this.exchange {
                            let silence = exchange.connection.shared.limits.upstream_silence;
                            this.silence.as_mut().reset(Instant::now() + silence);
                        }
                        this.take(&chunk)
                    }
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(_)) | None) => {
                    let mut out = Vec::new();
                    this.fail(Failure::Broken, &mut out);
                    out
                }
                Poll::Pending => {
                    ready!(this.silence.as_mut().poll(cx));
                    let mut out = Vec::new();
                    this.fail(Failure::Timeout, &mut out);
                    out
                }
            };
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
