//! The Model Context Protocol on raw bytes: envelopes, methods, versions, mirrored headers, event
//! streams. No typed model of MCP: a model that doesn't know a field drops it, and one that can't
//! read a message calls it something else; then what
//! was decided on isn't what is forwarded.

pub mod envelope;
pub mod fingerprint;
pub mod headers;
pub mod input_schema;
pub mod inventory;
pub mod methods;
pub mod mirrors;
pub mod pins;
pub mod sse;
pub mod version;

pub use envelope::{Id, Message, Notification, Params, Request, Response, read};
pub use fingerprint::Fingerprint;
pub use headers::MirroredHeaders;
pub use inventory::Inventory;
pub use pins::Pins;
pub use version::{Era, ProtocolVersion};
