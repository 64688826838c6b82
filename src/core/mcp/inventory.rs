//! What the server's own lists have taught: the definitions of its tools and prompts, to which it is held, and what of
//! its lists can't be offered.
//!
//! What a list had to leave out can't be reached by name either, so decisions look here. A definition that changes while
//! the sidecar runs isn't what was there when its users began to rely on it (a "rug pull"): it is out until it is as
//! it was, or until the tenant accepts it. Nothing is known of a tool before the server listed it; then its forced arguments
//! are set all the same, and no `Mcp-Param-*` header passes whose argument might be forced or bounded.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::{
    mcp::{
        fingerprint::Fingerprint,
        input_schema::InputSchema,
        mirrors::Mirror,
        pins::Pins,
        version::{Era, ProtocolVersion},
    },
    reason::Reason,
};

/// A list of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listing {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    Templates,
}

/// What a usable tool's definition says of its arguments.
#[derive(Debug, PartialEq, Eq)]
pub struct ToolFacts {
    /// Arguments that are mirrored in headers.
    pub mirrors: Vec<Mirror>,
    /// What the final arguments are checked against.
    pub schema: InputSchema,
}

/// What a list taught about one of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Which list.
    pub listing: Listing,
    /// In which version of the protocol: a server may say more of a tool in a newer one.
    pub version: ProtocolVersion,
    /// The name, URI or URI template of the entry.
    pub name: String,
    /// Of the whole entry.
    pub fingerprint: Fingerprint,
    /// What is known of a tool, nothing of other entries; or why it can't be offered.
    pub facts: Result<Option<Arc<ToolFacts>>, Reason>,
}

/// A definition in one version of the protocol.
#[derive(Clone, Debug)]
struct Definition {
    version: ProtocolVersion,
    /// What the server is held to: the first that could be offered.
    first: Option<Fingerprint>,
    /// What it showed last.
    seen: Fingerprint,
    facts: Result<Option<Arc<ToolFacts>>, Reason>,
}

/// What is known of a server's lists.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    tools: Definitions,
    prompts: Definitions,
    resources: Withheld,
    templates: Withheld,
    /// What the server is held to, whatever it showed this process first.
    pins: Arc<Pins>,
    /// The lists as the sidecar itself saw them last, one version of each era.
    shown: HashMap<(Listing, Era), Shown>,
}

/// A whole list, as far as the policy has rules about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The fingerprint of each entry.
    Each(BTreeMap<String, Fingerprint>),
    /// Too many to keep: a number that is another one when any of them changes.
    Many(u64),
}

/// Entries of a list that are kept one by one, and bytes of their names: a server may have as many as it likes.
const MAX_SHOWN: usize = 4096;
const MAX_SHOWN_BYTES: usize = 1 << 20;

/// Puts a whole list together.
#[derive(Debug, Default)]
pub struct Showing {
    each: BTreeMap<String, Fingerprint>,
    bytes: usize,
    /// When there are too many: what they come to, in whatever order.
    many: Option<u64>,
}

impl Showing {
    /// Adds an entry.
    pub fn add(&mut self, name: String, fingerprint: Fingerprint) {
        if let Some(sum) = &mut self.many {
            *sum = sum.wrapping_add(number(&name, fingerprint));
            return;
        }
        self.bytes += name.len();
        self.each.insert(name, fingerprint);
        if self.each.len() > MAX_SHOWN || self.bytes > MAX_SHOWN_BYTES {
            let entries = std::mem::take(&mut self.each);
            let numbers = entries
                .iter()
                .map(|(name, fingerprint)| number(name, *fingerprint));
            self.many = Some(numbers.fold(0, u64::wrapping_add));
        }
    }

    /// The list of the entries.
    pub fn finish(self) -> Shown {
        match self.many {
            Some(sum) => Shown::Many(sum),
            None => Shown::Each(self.each),
        }
    }
}

fn number(name: &str, fingerprint: Fingerprint) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, fingerprint).hash(&mut hasher);
    hasher.finish()
}

/// By name; a definition for each version in which it was listed.
type Definitions = HashMap<String, Vec<Definition>>;

/// Resources, or templates, that can't be offered. The server may have any number of others.
#[derive(Clone, Debug, Default)]
struct Withheld {
    reasons: HashMap<String, Reason>,
    /// There are more than are kept, so nothing is known to be usable.
    beyond: bool,
}

/// Longest URI that a resource may have, in bytes.
pub(crate) const MAX_URI: usize = 8 * 1024;

/// Resources that can't be offered and are kept, and as many templates.
const MAX_WITHHELD: usize = 256;

impl Inventory {
    /// What is known of a tool: facts, or why it can't be used. `accepted` are the definitions that the tenant accepts;
    /// none: the first that was seen.
    pub fn tool(&self, name: &str, accepted: &[Fingerprint]) -> Option<Result<&ToolFacts, Reason>> {
        let definitions = self.tools.get(name)?;
        let mut newest = None;
        for definition in definitions {
            match self.usable(Listing::Tools, name, definition, accepted) {
                Err(reason) => return Some(Err(reason)),
                Ok(facts) if newest.is_none_or(|(version, _)| version < definition.version) => {
                    newest = facts.map(|facts| (definition.version, facts));
                }
                Ok(_) => {}
            }
        }
        newest.map(|(_, facts)| Ok(facts))
    }

    /// Whether a prompt can be used, as far as is known.
    pub fn prompt(&self, name: &str, accepted: &[Fingerprint]) -> Result<(), Reason> {
        let definitions = self.prompts.get(name).map_or(&[][..], Vec::as_slice);
        definitions.iter().try_for_each(|definition| {
            self.usable(Listing::Prompts, name, definition, accepted)
                .map(drop)
        })
    }

    /// The definitions of a tool or prompt that can't be used, by version, and why.
    pub(crate) fn refused<'i>(
        &'i self,
        listing: Listing,
        name: &'i str,
        accepted: &'i [Fingerprint],
    ) -> impl Iterator<Item = (ProtocolVersion, Fingerprint, Reason)> {
        let definitions = self.definitions(listing).and_then(|known| known.get(name));
        definitions.into_iter().flatten().filter_map(move |definition| {
            let reason = self.usable(listing, name, definition, accepted).err()?;
            Some((definition.version, definition.seen, reason))
        })
    }

    /// What the server showed first of a tool or prompt and is not pinned, by version.
    pub(crate) fn unpinned<'i>(
        &'i self,
        listing: Listing,
        name: &'i str,
    ) -> impl Iterator<Item = (ProtocolVersion, Fingerprint)> {
        let definitions = self.definitions(listing).and_then(|known| known.get(name));
        definitions.into_iter().flatten().filter_map(move |definition| {
            let is_pinned = self.pins.get(listing, name, definition.version).is_some();
            Some((definition.version, definition.first.filter(|_| !is_pinned)?))
        })
    }

    /// The inventory of a server that is held to these pins, or `None` when it was held to them before.
    #[must_use]
    pub fn pinned(&self, pins: &Arc<Pins>) -> Option<Self> {
        (self.pins != *pins).then(|| Self {
            pins: Arc::clone(pins),
            ..self.clone()
        })
    }

    /// Whether a resource that a template of the policy covers, or its own rule, can be used, as far as is known.
    pub fn resource(&self, uri: &str, template: &str) -> Result<(), Reason> {
        self.resources.usable(uri)?;
        self.templates.usable(template)
    }

    /// Whether an entry can be offered as it was just listed; only its definition is looked at.
    pub(crate) fn accepts(&self, entry: &Learned, accepted: &[Fingerprint]) -> Result<(), Reason> {
        let known = self.definition(entry.listing, &entry.name, entry.version);
        let first = self.first(entry.listing, &entry.name, entry.version, known);
        verdict(first, entry.fingerprint, accepted)
    }

    /// What the server is held to, of a tool or prompt in a version.
    fn first(
        &self,
        listing: Listing,
        name: &str,
        version: ProtocolVersion,
        known: Option<&Definition>,
    ) -> Option<Fingerprint> {
        let pin = self.pins.get(listing, name, version);
        pin.or_else(|| known.and_then(|known| known.first))
    }

    fn usable<'i>(
        &self,
        listing: Listing,
        name: &str,
        definition: &'i Definition,
        accepted: &[Fingerprint],
    ) -> Result<Option<&'i ToolFacts>, Reason> {
        let facts = definition.facts.as_ref().map_err(|reason| *reason)?;
        let first = self.first(listing, name, definition.version, Some(definition));
        verdict(first, definition.seen, accepted)?;
        Ok(facts.as_deref())
    }

    /// The facts of a tool, as it was listed last in a version.
    pub(crate) fn facts(&self, name: &str, version: ProtocolVersion) -> Option<&Arc<ToolFacts>> {
        let definition = self.definition(Listing::Tools, name, version)?;
        definition.facts.as_ref().ok()?.as_ref()
    }

    /// A list as the sidecar itself saw it last in an era; in another one, if it isn't spoken there.
    pub(crate) fn shown(&self, listing: Listing, era: Era) -> Option<&Shown> {
        let other = match era {
            Era::Legacy => Era::Modern,
            Era::Modern => Era::Legacy,
        };
        let shown = |era| self.shown.get(&(listing, era));
        shown(era).or_else(|| shown(other))
    }

    /// The inventory after the sidecar itself saw a whole list, or `None` when it is what it was.
    #[must_use]
    pub fn showing(&self, listing: Listing, era: Era, shown: &Shown) -> Option<Self> {
        if self.shown.get(&(listing, era)) == Some(shown) {
            return None;
        }
        let mut after = self.clone();
        after.shown.insert((listing, era), shown.clone());
        Some(after)
    }

    /// The inventory after a list, or `None` when it taught nothing new.
    #[must_use]
    pub fn learning(&self, learned: &[Learned]) -> Option<Self> {
        let mut after: Option<Self> = None;
        for entry in learned {
            if !after.as_ref().unwrap_or(self).knows(entry) {
                after.get_or_insert_with(|| self.clone()).learn(entry);
            }
        }
        after
    }

    fn definition(&self, listing: Listing, name: &str, version: ProtocolVersion) -> Option<&Definition> {
        let mut versions = self.definitions(listing)?.get(name)?.iter();
        versions.find(|definition| definition.version == version)
    }

    fn definitions(&self, listing: Listing) -> Option<&Definitions> {
        match listing {
            Listing::Tools => Some(&self.tools),
            Listing::Prompts => Some(&self.prompts),
            Listing::Resources | Listing::Templates => None,
        }
    }

    /// Whether an entry teaches nothing.
    pub fn knows(&self, entry: &Learned) -> bool {
        match entry.listing {
            Listing::Tools | Listing::Prompts => self
                .definition(entry.listing, &entry.name, entry.version)
                .is_some_and(|known| known.seen == entry.fingerprint && known.facts == entry.facts),
            Listing::Resources => self.resources.knows(entry),
            Listing::Templates => self.templates.knows(entry),
        }
    }

    fn learn(&mut self, entry: &Learned) {
        let definitions = match entry.listing {
            Listing::Tools => &mut self.tools,
            Listing::Prompts => &mut self.prompts,
            Listing::Resources => return self.resources.learn(entry),
            Listing::Templates => return self.templates.learn(entry),
        };
        let versions = definitions.entry(entry.name.clone()).or_default();
        let known = versions
            .iter_mut()
            .find(|definition| definition.version == entry.version);
        match known {
            Some(known) => {
                known.seen = entry.fingerprint;
                known.facts.clone_from(&entry.facts);
                known.first = known.first.or(entry.offered());
            }
            None => versions.push(Definition {
                version: entry.version,
                first: entry.offered(),
                seen: entry.fingerprint,
                facts: entry.facts.clone(),
            }),
        }
    }
}

impl Learned {
    /// The definition, if it is one that the server can be held to.
    fn offered(&self) -> Option<Fingerprint> {
        self.facts.is_ok().then_some(self.fingerprint)
    }
}

/// Whether a definition is one that the server may show.
fn verdict(first: Option<Fingerprint>, seen: Fingerprint, accepted: &[Fingerprint]) -> Result<(), Reason> {
    if accepted.is_empty() {
        return if first.is_none_or(|first| first == seen) {
            Ok(())
        } else {
            Err(Reason::DefinitionChanged)
        };
    }
    if accepted.contains(&seen) {
        Ok(())
    } else {
        Err(Reason::DefinitionNotAccepted)
    }
}

impl Withheld {
    fn usable(&self, name: &str) -> Result<(), Reason> {
        match self.reasons.get(name) {
            Some(reason) => Err(*reason),
            None if self.beyond => Err(Reason::HiddenCharacters),
            None => Ok(()),
        }
    }

    fn knows(&self, entry: &Learned) -> bool {
        let is_ignored = entry.facts.is_err() && (self.beyond || entry.name.len() > MAX_URI);
        is_ignored || self.reasons.get(&entry.name) == entry.facts.as_ref().err()
    }

    fn learn(&mut self, entry: &Learned) {
        match entry.facts {
            Ok(_) => {
                self.reasons.remove(&entry.name);
            }
            // Nobody may read what has such a name.
            Err(_) if entry.name.len() > MAX_URI => {}
            Err(_) if self.reasons.len() >= MAX_WITHHELD => self.beyond = true,
            Err(reason) => {
                self.reasons.insert(entry.name.clone(), reason);
            }
        }
    }
}

#[cfg(test)]
mod tests;
