//! What of the server's offers the operator is told: what the policy names, the server shows and nobody is offered, and
//! what the server showed first.

use super::{CompiledPolicy, compile::Callables};
use crate::{
    mcp::{Fingerprint, Inventory, ProtocolVersion, inventory::Listing},
    reason::Reason,
};

/// A definition of a tool or prompt that is not offered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unoffered<'p> {
    /// Name of the tool or prompt.
    pub name: &'p str,
    /// The version of the protocol in which the server shows it so.
    pub version: ProtocolVersion,
    /// What it shows.
    pub definition: Fingerprint,
    /// Why that isn't offered.
    pub reason: Reason,
}

impl CompiledPolicy {
    /// The tools, or prompts, of the policy that can't be offered as the server shows them, by name and version; nothing of
    /// other lists. One that the server doesn't show isn't among them.
    pub fn unoffered(&self, inventory: &Inventory, listing: Listing) -> Vec<Unoffered<'_>> {
        let mut unoffered: Vec<_> = self
            .callables(listing)
            .into_iter()
            .flat_map(Callables::rules)
            .flat_map(|rule| {
                inventory
                    .refused(listing, &rule.name, &rule.accepted)
                    .map(|(version, definition, reason)| Unoffered {
                        name: &rule.name,
                        version,
                        definition,
                        reason,
                    })
            })
            .collect();
        unoffered.sort();
        unoffered
    }

    /// What the server showed first and isn't pinned, of the tools, or prompts, whose definitions the tenant doesn't name
    /// itself: by name and version.
    pub fn unpinned(
        &self,
        inventory: &Inventory,
        listing: Listing,
    ) -> Vec<(&str, ProtocolVersion, Fingerprint)> {
        let mut unpinned: Vec<_> = self
            .callables(listing)
            .into_iter()
            .flat_map(Callables::rules)
            .filter(|rule| rule.accepted.is_empty())
            .flat_map(|rule| {
                let first = inventory.unpinned(listing, &rule.name);
                first.map(|(version, definition)| (&*rule.name, version, definition))
            })
            .collect();
        unpinned.sort();
        unpinned
    }

    fn callables(&self, listing: Listing) -> Option<&Callables> {
        match listing {
            Listing::Tools => Some(&self.tools),
            Listing::Prompts => Some(&self.prompts),
            Listing::Resources | Listing::Templates => None,
        }
    }
}
