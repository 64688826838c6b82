//! The permit: proof that policy let a message through.
//!
//! [`Permitted`] can be made in `policy` alone, and the sidecar's upstream client takes nothing
//! else, so that forgetting to decide doesn't compile.

use std::{borrow::Cow, ops::Deref};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::mcp::{ProtocolVersion, inventory::Listing, methods::Method};

/// `_meta` key of the subscription that a modern message belongs to: the id of its request.
pub(super) const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

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
    pub(super) method: Option<Method>,
    pub(super) expected: Option<Expected>,
    pub(super) arguments_digest: Option<String>,
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

    /// Its method, or `None` for a client's answer to the server.
    pub fn method(&self) -> Option<Method> {
        self.method
    }

    /// The digest of a called tool's final arguments, for the credential.
    pub fn arguments_digest(&self) -> Option<&str> {
        self.arguments_digest.as_deref()
    }

    /// What the server may answer, or `None` for a notification.
    pub fn expected(&self) -> Option<&Expected> {
        self.expected.as_ref()
    }
}

/// What the server may answer to a request. It is part of an event id's handle, so that a stream
/// that is taken up again is filtered as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The raw id.
    #[serde(rename = "i")]
    pub(super) id: String,
    #[serde(rename = "m", with = "as_name")]
    pub(super) method: Method,
    #[serde(rename = "v", with = "as_date")]
    pub(super) version: ProtocolVersion,
    /// The raw token that progress is reported with, if the client asked for progress.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub(super) progress_token: Option<String>,
    /// What the request named: a tool, a prompt, the URI of a resource.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The lists whose changes a subscription asks for. One isn't taken up again.
    #[serde(skip)]
    pub(super) listens: Vec<Listing>,
}

impl Expected {
    /// The method that is answered.
    pub fn method(&self) -> Method {
        self.method
    }

    /// What the request named: a tool, a prompt, the URI of a resource.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The raw id of the request.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The result by which a server ends a subscription (2026-07-28, "Subscriptions").
    pub fn end_of_subscription(&self) -> Bytes {
        let (id, result) = (&self.id, self.bare_end());
        Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
    }

    /// The result that ends a subscription, without anything else in it.
    pub(super) fn bare_end(&self) -> String {
        format!(r#"{{"resultType":"complete","_meta":{}}}"#, self.subscription())
    }

    /// The `_meta` by which a message belongs to the subscription.
    pub(super) fn subscription(&self) -> String {
        format!(r#"{{"{META_SUBSCRIPTION}":{}}}"#, self.id)
    }

    /// Whether it answers the call of a tool, or what became of one.
    pub(super) fn is_about_a_tool(&self) -> bool {
        matches!(
            self.method,
            Method::ToolsCall | Method::TasksGet | Method::TasksUpdate | Method::TasksCancel
        )
    }

    /// Whether the answer is a stream without an end: a subscription.
    pub fn is_endless(&self) -> bool {
        self.method == Method::Listen
    }
}

mod as_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::mcp::methods::Method;

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(method.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
        let name = String::deserialize(deserializer)?;
        Method::parse(&name).ok_or_else(|| D::Error::custom("unknown method"))
    }
}

mod as_date {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::mcp::ProtocolVersion;

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(
        version: &ProtocolVersion,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(version.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ProtocolVersion, D::Error> {
        let name = String::deserialize(deserializer)?;
        ProtocolVersion::parse(&name).ok_or_else(|| D::Error::custom("unknown version"))
    }
}
