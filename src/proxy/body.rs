//! Bodies of responses: whole, or a stream that is made while it is sent. A body may hold guards, so that a call counts as
//! under way, and its memory as used, until its last byte was written.
//!
//! HTTP/2 keeps what it was handed until the client makes room for it. So a body is handed over in pieces, each when there
//! is room, and its guards go with the last one.

use std::{
    any::Any,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{link::OpenCall, stalled::State};

/// Most bytes of a piece.
pub const PIECE: usize = 16 * 1024;

/// A stream ended too early. The connection says so to the client; why is in the audit and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut off")]
pub struct CutOff;

/// A stream that is made while it is sent.
pub type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = CutOff> + Send>>;

/// The body of a response.
pub struct Body {
    /// What can be handed over.
    ready: Bytes,
    /// Whether no more comes.
    ended: bool,
    guards: Guards,
}

/// What goes with the last piece.
#[derive(Default)]
struct Guards {
    /// What makes the body, and counts the memory that the rest of it takes.
    stream: Option<Stream>,
    any: Option<Box<dyn Any + Send>>,
    call: Option<OpenCall>,
}

/// The last piece.
struct Last {
    bytes: Bytes,
    _guards: Guards,
}

impl AsRef<[u8]> for Last {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body {
    /// A body that is all there.
    pub fn full(bytes: Bytes) -> Self {
        Self {
            ready: bytes,
            ended: true,
            guards: Guards::default(),
        }
    }

    /// A body that is made while it is sent.
    pub fn stream(stream: Stream) -> Self {
        Self {
            ready: Bytes::new(),
            ended: false,
            guards: Guards {
                stream: Some(stream),
                ..Guards::default()
            },
        }
    }

    /// Keeps the guard until the body is written or given up.
    pub fn hold(&mut self, guard: impl Any + Send) {
        self.guards.any = Some(match self.guards.any.take() {
            Some(earlier) => Box::new((earlier, guard)),
            None => Box::new(guard),
        });
    }

    /// Keeps its call open until the body is written or given up.
    pub fn keep_open(&mut self, call: OpenCall) {
        call.note(State::Owed);
        self.guards.call = Some(call);
    }

    fn note(&self, state: State) {
        if let Some(call) = &self.guards.call {
            call.note(state);
        }
    }

    fn piece(&mut self) -> Bytes {
        self.note(State::Owed);
        if self.ready.len() > PIECE {
            return self.ready.split_to(PIECE);
        }
        let bytes = mem::take(&mut self.ready);
        if !self.ended {
            return bytes;
        }
        Bytes::from_owner(Last {
            bytes,
            _guards: mem::take(&mut self.guards),
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            let Some(stream) = this.guards.stream.as_mut().filter(|_| !this.ended) else {
                return Poll::Ready(None);
            };
            match stream.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    this.ready = frame.into_data().unwrap_or_default();
                    this.ended = stream.is_end_stream();
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {
                    this.ended = true;
                    // Behind what was handed over before, so that the guards go last here too.
                    return Poll::Ready(Some(Ok(Frame::data(this.piece()))));
                }
                Poll::Pending => {
                    this.note(State::Waits);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        let stream = self.guards.stream.as_ref().filter(|_| !self.ended);
        self.ready.is_empty() && stream.is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.guards.stream {
            None => SizeHint::with_exact(self.ready.len() as u64),
            Some(stream) => stream.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    async fn piece(body: &mut Body) -> Option<Bytes> {
        Some(body.frame().await?.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn guards_go_with_the_last_piece_and_not_with_the_body() {
        for (length, pieces) in [(1, 1), (PIECE, 1), (PIECE + 1, 2), (3 * PIECE, 3)] {
            let guard = Arc::new(());
            let bytes = Bytes::from(vec![b'x'; length]);
            let whole = Body::full(bytes.clone());
            let stream = Body::stream(Box::pin(Body::full(bytes.clone())));
            // That it has ended shows when it is asked for more: the last piece of it is empty.
            let frames = futures::stream::iter([Ok(Frame::data(bytes))]);
            let unknowing = Body::stream(Box::pin(StreamBody::new(frames)));
            for (mut body, pieces) in [(whole, pieces), (stream, pieces), (unknowing, pieces + 1)] {
                body.hold(Arc::clone(&guard));
                let mut handed = Vec::new();
                while let Some(piece) = piece(&mut body).await {
                    handed.push(piece);
                }
                drop(body);
                assert_eq!(handed.len(), pieces, "{length}");
                assert_eq!(handed.iter().map(Bytes::len).sum::<usize>(), length);
                assert_eq!(Arc::strong_count(&guard), 2, "{length}: it is not written yet");
                drop(handed.pop());
                assert_eq!(Arc::strong_count(&guard), 1, "{length}");
            }
        }
    }
}
