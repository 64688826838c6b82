//! `instructions` of a server: text for the model of every client, by somebody for whom the tenant alone can vouch. What it
//! accepts passes, and nothing else.

use super::{compile::CompiledPolicy, legible};
use crate::{
    json::{self, Kind, Members},
    mcp::Fingerprint,
    reason::Reason,
};

/// What a server said in its `instructions`, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// Of the text.
    pub fingerprint: Fingerprint,
    /// Why clients don't get it.
    pub withheld: Option<Reason>,
}

impl CompiledPolicy {
    /// The instructions in a result of `initialize` or `server/discover`, raw. `None`: there is no such text.
    pub(super) fn instructions<'m>(&self, members: &Members<'m>) -> Option<(&'m str, Instructions)> {
        let raw = json::get(members, "instructions").filter(|raw| Kind::of(raw) == Kind::String)?;
        let fingerprint = Fingerprint::of(raw);
        let withheld = if legible::has_hidden(raw) {
            Some(Reason::HiddenCharacters)
        } else if self.accepted_instructions.contains(&fingerprint) {
            None
        } else {
            Some(Reason::DefinitionNotAccepted)
        };
        Some((
            raw,
            Instructions {
                fingerprint,
                withheld,
            },
        ))
    }

    /// The same, if clients get it.
    pub(super) fn accepted_text<'m>(&self, members: &Members<'m>) -> Option<&'m str> {
        if self.accepted_instructions.is_empty() {
            return None;
        }
        let (raw, said) = self.instructions(members)?;
        said.withheld.is_none().then_some(raw)
    }
}
