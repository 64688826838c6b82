//! What a client sees of the server's lists, and that it has changed.
//!
//! A server tells of its own lists, and whom it tells of what nobody knows: that something changed for another agent is
//! none of a client's business, and a change of policy is none of the server's. So what the server says is a reason for
//! another look, and a client is told by Bulkhead, when what it would get is something else.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::{
    mcp::{
        Inventory, ProtocolVersion,
        inventory::{Listing, Shown},
        methods::Method,
    },
    policy::{
        answer::Channel,
        compile::{CompiledAgent, CompiledPolicy},
        permit::Expected,
    },
};

/// The lists that a client may be told changes of. That of templates is told of as that of resources.
const TOLD: [Listing; 3] = [Listing::Tools, Listing::Prompts, Listing::Resources];

/// What one client sees of the lists that it is told changes of, each as a number that is another one when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views(Vec<(Listing, u64)>);

impl Listing {
    /// The notification of its changes.
    fn changed(self) -> Method {
        match self {
            Self::Tools => Method::ToolsChanged,
            Self::Prompts => Method::PromptsChanged,
            Self::Resources | Self::Templates => Method::ResourcesChanged,
        }
    }
}

impl CompiledPolicy {
    /// What an agent sees at this moment of the lists whose changes a channel carries.
    pub fn views(&self, agent: &CompiledAgent, channel: Channel<'_>, inventory: &Inventory) -> Views {
        let told = TOLD.into_iter().filter(|listing| match channel {
            Channel::Session(_) => true,
            Channel::Answer(expected) => expected.listens.contains(listing),
        });
        let version = channel.version();
        Views(
            told.map(|listing| (listing, self.view(agent, listing, version, inventory)))
                .collect(),
        )
    }

    fn view(
        &self,
        agent: &CompiledAgent,
        listing: Listing,
        version: ProtocolVersion,
        inventory: &Inventory,
    ) -> u64 {
        let mut hasher = DefaultHasher::new();
        let listings = match listing {
            Listing::Resources => &[Listing::Resources, Listing::Templates][..],
            _ => &[listing],
        };
        for listing in listings {
            match inventory.shown(*listing, version.era()) {
                Some(Shown::Each(entries)) => {
                    for (name, fingerprint) in entries {
                        if self.is_seen(agent, *listing, name, inventory, &mut hasher) {
                            (name, fingerprint).hash(&mut hasher);
                        }
                    }
                }
                Some(Shown::Many(all)) => all.hash(&mut hasher),
                None => {}
            }
        }
        hasher.finish()
    }

    /// Whether an agent sees an entry; what the policy changes of it is added to the number.
    fn is_seen(
        &self,
        agent: &CompiledAgent,
        listing: Listing,
        name: &str,
        inventory: &Inventory,
        hasher: &mut DefaultHasher,
    ) -> bool {
        match listing {
            Listing::Tools | Listing::Prompts => {
                let grant = match listing {
                    Listing::Tools => agent.tool(self, name),
                    _ => agent.prompt(self, name),
                };
                let Ok(rule) = grant.map(|grant| &grant.rule) else {
                    return false;
                };
                let usable = match listing {
                    Listing::Tools => inventory
                        .tool(name, &rule.accepted)
                        .is_none_or(|facts| facts.is_ok()),
                    _ => inventory.prompt(name, &rule.accepted).is_ok(),
                };
                (&rule.forced, &rule.forbidden, rule.is_owned()).hash(hasher);
                usable
            }
            Listing::Resources => agent
                .resource_shown(name)
                .is_ok_and(|grant| inventory.resource(name, &grant.rule.uri).is_ok()),
            Listing::Templates => agent.template(name).is_some_and(|grant| {
                grant.uri.hash(hasher);
                inventory.resource(name, name).is_ok()
            }),
        }
    }
}

impl Views {
    /// The notifications that tell a client on a channel that it sees something else now.
    pub fn changes(&self, now: &Self, channel: Channel<'_>) -> Vec<Bytes> {
        let meta = channel.expected().map(Expected::subscription);
        let params = meta.map_or_else(String::new, |meta| format!(r#","params":{{"_meta":{meta}}}"#));
        let changed = now.0.iter().filter(|view| !self.0.contains(view));
        changed
            .map(|(listing, _)| {
                let method = listing.changed().name();
                Bytes::from(format!(r#"{{"jsonrpc":"2.0","method":"{method}"{params}}}"#))
            })
            .collect()
    }
}
