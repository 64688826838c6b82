//! The permit: proof that policy let a message through.
//!
//! [`Permitted`] can be made in `policy` alone, and the sidecar's upstream client takes nothing
//! else, so that forgetting to decide doesn't compile.

use std::{borrow::Cow, ops::Deref};

use bytes::Bytes;

use crate::mcp::{ProtocolVersion, methods::Method};

/// Something that policy let through.
#[derive(Debug)]
pub struct Permitted<T>(T);

impl<T> Permitted<T> {
    pub(super) fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Permitted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What goes upstream.
#[derive(Debug)]
pub struct Forward {
    pub(super) body: Bytes,
    pub(super) headers: Vec<(Cow<'static, str>, String)>,
    pub(super) version: ProtocolVersion,
    pub(super) method: Method,
    pub(super) expected: Option<Expected>,
}

impl Forward {
    /// The message: the bytes that were decided on.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// All headers of the protocol that go with it. They take the place of every
    /// `MCP-Protocol-Version` and `Mcp-*` of the client, except `Mcp-Session-Id`, which the body
    /// doesn't have.
    pub fn headers(&self) -> &[(Cow<'static, str>, String)] {
        &self.headers
    }

    /// The protocol version of the message.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Its method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// What the server may answer, or `None` for a notification.
    pub fn expected(&self) -> Option<&Expected> {
        self.expected.as_ref()
    }
}

/// What the server may answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The raw id.
    pub(super) id: String,
    pub(super) method: Method,
    pub(super) version: ProtocolVersion,
    /// The raw token that progress is reported with, if the client asked for progress.
    pub(super) progress_token: Option<String>,
}
