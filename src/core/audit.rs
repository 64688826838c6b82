//! What the audit records. One JSON line per record; how the lines are written is the sidecar's.

pub mod record;

pub use record::{Call, Completion, DefinitionRecord, IntentRecord, OutcomeRecord, Verdict, line};
