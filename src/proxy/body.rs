//! Bodies of responses: whole, or a stream that is made while it is sent. A body may hold guards,
//! so that a call counts as under way until its last byte was handed over.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// A stream ended too early. The connection says so to the client; why is in the audit and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut off")]
pub struct CutOff;

/// A stream that is made while it is sent.
pub type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = CutOff> + Send>>;

/// The body of a response.
pub struct Body {
    content: Content,
    guard: Option<Box<dyn Any + Send>>,
}

enum Content {
    Full(Bytes),
    Stream(Stream),
}

impl Body {
    /// A body that is all there.
    pub fn full(bytes: Bytes) -> Self {
        Self {
            content: Content::Full(bytes),
            guard: None,
        }
    }

    /// A body that is made while it is sent.
    pub fn stream(stream: Stream) -> Self {
        Self {
            content: Content::Stream(stream),
            guard: None,
        }
    }

    /// Keeps the guard until the body is gone.
    #[must_use]
    pub fn holding(mut self, guard: impl Any + Send) -> Self {
        self.guard = Some(match self.guard.take() {
            Some(earlier) => Box::new((earlier, guard)),
            None => Box::new(guard),
        });
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match &mut self.get_mut().content {
            Content::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Full(bytes) => bytes.is_empty(),
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(stream) => stream.size_hint(),
        }
    }
}
