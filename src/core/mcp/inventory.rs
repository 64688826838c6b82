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
            match definition.usable(accepted) {
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
        definitions
            .iter()
            .try_for_each(|definition| definition.usable(accepted).map(drop))
    }

    /// Whether a resource that a template of the policy covers, or its own rule, can be used, as far as is known.
    pub fn resource(&self, uri: &str, template: &str) -> Result<(), Reason> {
        self.resources.usable(uri)?;
        self.templates.usable(template)
    }

    /// Whether an entry can be offered as it was just listed; only its definition is looked at.
    pub(crate) fn accepts(&self, entry: &Learned, accepted: &[Fingerprint]) -> Result<(), Reason> {
        let known = self.definition(entry.listing, &entry.name, entry.version);
        verdict(known.and_then(|known| known.first), entry.fingerprint, accepted)
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
        let definitions = match listing {
            Listing::Tools => &self.tools,
            Listing::Prompts => &self.prompts,
            Listing::Resources | Listing::Templates => return None,
        };
        let mut versions = definitions.get(name)?.iter();
        versions.find(|definition| definition.version == version)
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

impl Definition {
    fn usable(&self, accepted: &[Fingerprint]) -> Result<Option<&ToolFacts>, Reason> {
        let facts = self.facts.as_ref().map_err(|reason| *reason)?;
        verdict(self.first, self.seen, accepted)?;
        Ok(facts.as_deref())
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
mod tests {
    use super::*;

    const VERSION: ProtocolVersion = ProtocolVersion::V20251125;

    fn entry(listing: Listing, name: &str, definition: &str) -> Learned {
        Learned {
            listing,
            version: VERSION,
            name: name.to_owned(),
            fingerprint: Fingerprint::of(definition),
            facts: Ok(None),
        }
    }

    fn tool(name: &str, schema: &str) -> Learned {
        let facts = ToolFacts {
            mirrors: Vec::new(),
            schema: InputSchema::compile(schema).unwrap(),
        };
        Learned {
            facts: Ok(Some(Arc::new(facts))),
            ..entry(Listing::Tools, name, schema)
        }
    }

    fn after(entries: &[Learned]) -> Inventory {
        entries.iter().fold(Inventory::default(), |known, entry| {
            known.learning(std::slice::from_ref(entry)).unwrap_or(known)
        })
    }

    #[test]
    fn an_inventory_changes_only_when_it_learns_something() {
        let first = [tool("a", "{}")];
        let known = Inventory::default().learning(&first).unwrap();
        assert!(known.learning(&first).is_none());
        assert!(known.tool("a", &[]).unwrap().is_ok());
        assert!(known.tool("b", &[]).is_none());
        let gone = Learned {
            facts: Err(Reason::InvalidMirror),
            ..tool("a", "{}")
        };
        let known = known.learning(&[gone]).unwrap();
        assert_eq!(known.tool("a", &[]), Some(Err(Reason::InvalidMirror)));
    }

    #[test]
    fn a_server_is_held_to_the_first_definition_until_the_tenant_accepts_others() {
        let (one, other) = (tool("a", "{}"), tool("a", r#"{"type":"object"}"#));
        let (first, second) = (one.fingerprint, other.fingerprint);
        let changed = Err(Reason::DefinitionChanged);
        let foreign = Err(Reason::DefinitionNotAccepted);
        for (shown, accepted, expected) in [
            (vec![&one], &[][..], Ok(())),
            (vec![&one, &other], &[], changed),
            (vec![&one, &other, &one], &[], Ok(())),
            (vec![&one], &[first], Ok(())),
            (vec![&one], &[second], foreign),
            (vec![&one, &other], &[first], foreign),
            (vec![&one, &other], &[second], Ok(())),
            (vec![&one, &other], &[second, first], Ok(())),
        ] {
            let shown: Vec<_> = shown.into_iter().cloned().collect();
            let known = after(&shown);
            let usable = known.tool("a", accepted).unwrap();
            assert_eq!(usable.map(drop), expected, "{shown:?} {accepted:?}");
            assert_eq!(known.accepts(shown.last().unwrap(), accepted), expected);
            // What was never offered is nothing that the server could be held to.
            let broken = Learned {
                facts: Err(Reason::HiddenCharacters),
                ..tool("a", "false")
            };
            let mut late = shown.clone();
            late.insert(0, broken);
            assert_eq!(after(&late).tool("a", accepted).unwrap().map(drop), expected);
            let prompts: Vec<_> = shown
                .iter()
                .map(|entry| Learned {
                    listing: Listing::Prompts,
                    facts: Ok(None),
                    ..entry.clone()
                })
                .collect();
            assert_eq!(after(&prompts).prompt("a", accepted), expected);
        }
    }

    #[test]
    fn each_version_has_a_definition_of_its_own_and_one_that_changed_takes_the_tool_out_of_all() {
        let old = tool("a", "{}");
        let new = Learned {
            version: ProtocolVersion::V20260728,
            ..tool("a", r#"{"type":"object"}"#)
        };
        let known = after(&[old.clone(), new.clone()]);
        assert_eq!(
            known.tool("a", &[]).unwrap().unwrap().schema.text(),
            r#"{"type":"object"}"#
        );
        let changed = Learned {
            version: old.version,
            ..new.clone()
        };
        let known = after(&[old, new, changed]);
        assert_eq!(known.tool("a", &[]), Some(Err(Reason::DefinitionChanged)));
    }

    #[test]
    fn resources_that_cannot_be_offered_are_kept_up_to_a_limit_and_beyond_it_none_can_be_read() {
        let hidden = |name: &str| Learned {
            facts: Err(Reason::HiddenCharacters),
            ..entry(Listing::Resources, name, "{}")
        };
        let known = after(&[hidden("a:1"), entry(Listing::Resources, "a:2", "{}")]);
        assert_eq!(known.resource("a:1", "a:1"), Err(Reason::HiddenCharacters));
        assert_eq!(known.resource("a:2", "a:2"), Ok(()));
        let healed = after(&[hidden("a:1"), entry(Listing::Resources, "a:1", "{}")]);
        assert_eq!(healed.resource("a:1", "a:1"), Ok(()));
        let template = Learned {
            listing: Listing::Templates,
            ..hidden("a:{n}")
        };
        assert_eq!(
            after(&[template]).resource("a:2", "a:{n}"),
            Err(Reason::HiddenCharacters)
        );
        let many: Vec<_> = (0..=MAX_WITHHELD).map(|n| hidden(&format!("a:{n}"))).collect();
        let known = after(&many[1..]);
        assert_eq!(known.resource("b:1", "b:1"), Ok(()));
        let known = known.learning(&many[..1]).unwrap();
        assert_eq!(known.resource("b:1", "b:1"), Err(Reason::HiddenCharacters));
    }
}
