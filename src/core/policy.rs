//! Policy of one MCP server: the document that the operator writes, and what the sidecar makes of
//! it: a decision about every message, the bytes that go upstream, and the answers that come back.

mod answer;
mod arguments;
mod bounds;
mod calls;
mod capabilities;
pub mod compile;
mod contents;
mod decide;
pub mod document;
mod events;
mod inquiry;
mod instructions;
mod legible;
mod lists;
mod permit;
mod persons;
mod records;
mod resources;
mod results;
mod schema;
mod spelling;
mod splice;
mod unoffered;
mod views;

pub use answer::{Answer, Channel, DroppedEntry, FinalAnswer};
pub use compile::{ActsFor, CompileError, CompiledAgent, CompiledPolicy};
pub use decide::{Context, Decision, Reach, Target};
pub use document::PolicyDocument;
pub use inquiry::{Inquiry, Reply};
pub use instructions::Instructions;
pub use permit::{Expected, Forward, Permitted};
pub use persons::Person;
pub use records::Records;
pub use unoffered::Unoffered;
pub use views::Views;

#[cfg(test)]
mod tests;
