//! Policy of one MCP server: the document that the operator writes, and what the sidecar makes of
//! it: a decision about every message, the bytes that go upstream, and the answers that come back.

mod answer;
mod arguments;
mod bounds;
mod calls;
mod capabilities;
pub mod compile;
mod decide;
pub mod document;
mod events;
mod legible;
mod lists;
mod permit;
mod records;
mod resources;
mod results;
mod schema;
mod splice;

pub use answer::{Answer, Channel, DroppedEntry, FinalAnswer};
pub use compile::{CompileError, CompiledAgent, CompiledPolicy};
pub use decide::{Context, Decision, Reach, Target};
pub use document::PolicyDocument;
pub use permit::{Expected, Forward, Permitted};
pub use records::Records;

#[cfg(test)]
mod tests;
