//! Results of the list methods: what exists for the agent, and nothing else.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use crate::{
    handles::{Handle, Handles},
    json::{
        self, Kind, Members,
        text::{is_case_variant, quote, quoted},
    },
    mcp::{
        Era, ProtocolVersion,
        fingerprint::Fingerprint,
        input_schema::InputSchema,
        inventory::{Inventory, Learned, Listing, ToolFacts},
        methods::Method,
        mirrors,
    },
    policy::{
        answer::{DroppedEntry, malformed},
        compile::{CompiledAgent, CompiledPolicy, Rule},
        legible,
        permit::Expected,
        schema,
    },
    reason::Reason,
    refusal::Refusal,
};

/// For how long a client may keep a list, so that a change of policy is seen. A call of a tool
/// that is no longer there is refused meanwhile.
const MAX_TTL_MS: u64 = 30_000;

/// Entries that one page of a list may have. Each costs memory, and a record when it is dropped.
const MAX_ENTRIES: usize = 4096;

/// Whom a list is for.
#[derive(Clone, Copy)]
pub(super) enum Reader<'a> {
    /// An agent: gets what exists for it.
    Agent(&'a CompiledAgent),
    /// The sidecar itself, which wants to know what is there.
    Sidecar,
}

/// One page of a list, read.
pub(super) struct Page<'a> {
    /// What the reader gets.
    kept: Vec<Cow<'a, str>>,
    /// What it taught, whoever reads it.
    pub learned: Vec<Learned>,
    /// Entries that are in the policy and can't be offered.
    pub dropped: Vec<DroppedEntry>,
}

impl Listing {
    /// The list that a method asks for.
    pub(super) fn of(method: Method) -> Option<Self> {
        match method {
            Method::ToolsList => Some(Self::Tools),
            Method::PromptsList => Some(Self::Prompts),
            Method::ResourcesList => Some(Self::Resources),
            Method::TemplatesList => Some(Self::Templates),
            _ => None,
        }
    }

    /// The method that asks for it.
    pub fn method(self) -> Method {
        match self {
            Self::Tools => Method::ToolsList,
            Self::Prompts => Method::PromptsList,
            Self::Resources => Method::ResourcesList,
            Self::Templates => Method::TemplatesList,
        }
    }

    /// The member of the result that has the entries.
    fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    fn malformed(self) -> Reason {
        match self {
            Self::Tools => Reason::ToolMalformed,
            Self::Prompts | Self::Resources | Self::Templates => Reason::EntryMalformed,
        }
    }

    fn duplicate(self) -> Reason {
        match self {
            Self::Tools => Reason::ToolDuplicate,
            Self::Prompts | Self::Resources | Self::Templates => Reason::EntryDuplicate,
        }
    }

    /// An entry's members and its name.
    fn read(self, raw: &str) -> Option<(Members<'_>, Cow<'_, str>)> {
        match self {
            Self::Tools => read_tool(raw),
            Self::Prompts => read_named(raw, &["name", "arguments"], "name"),
            Self::Resources => read_named(raw, &["uri"], "uri"),
            Self::Templates => read_named(raw, &["uriTemplate"], "uriTemplate"),
        }
    }
}

/// Reads a page.
pub(super) fn read<'a>(
    policy: &CompiledPolicy,
    reader: Reader<'_>,
    listing: Listing,
    version: ProtocolVersion,
    members: &Members<'a>,
    inventory: &Inventory,
) -> Result<Page<'a>, Refusal> {
    let key = listing.key();
    let entries = json::get(members, key).and_then(|raw| json::items_at_most(raw, MAX_ENTRIES));
    let entries =
        entries.ok_or_else(|| malformed(&format!("it has no list of at most {MAX_ENTRIES} {key}")))?;
    let mut page = Page {
        kept: Vec::with_capacity(entries.len()),
        learned: Vec::new(),
        dropped: Vec::new(),
    };
    let mut seen = HashSet::new();
    for raw in entries {
        let Some((members, name)) = listing.read(raw) else {
            page.dropped.push(DroppedEntry::new("", listing.malformed()));
            continue;
        };
        // Not in the policy: it exists for nobody, and there is nothing to report.
        let Some((rule, has)) = offered(policy, reader, listing, &name) else {
            continue;
        };
        if !seen.insert(name.to_string()) {
            page.dropped.push(DroppedEntry::new(&name, listing.duplicate()));
            continue;
        }
        let shown = show(
            rule,
            reader,
            listing,
            raw,
            &members,
            inventory.facts(&name, version),
        );
        let entry = Learned {
            listing,
            version,
            fingerprint: Fingerprint::of(raw),
            facts: shown
                .as_ref()
                .map(|(_, facts)| facts.clone())
                .map_err(|reason| *reason),
            name: name.into_owned(),
        };
        let accepted = rule.map_or(&[][..], |rule| &rule.accepted);
        let shown = shown.and_then(|shown| inventory.accepts(&entry, accepted).map(|()| shown));
        match shown {
            Ok((text, _)) if has => page.kept.push(text),
            Ok(_) => {}
            Err(reason) => page.dropped.push(DroppedEntry {
                fingerprint: Some(entry.fingerprint),
                ..DroppedEntry::new(&entry.name, reason)
            }),
        }
        page.learned.push(entry);
    }
    Ok(page)
}

impl Page<'_> {
    /// The result for an agent. Members that the specification doesn't know are left out: they could name what the list
    /// must not.
    pub(super) fn finish(
        &self,
        listing: Listing,
        expected: &Expected,
        members: &Members<'_>,
        handles: Handles<'_>,
    ) -> Result<String, Refusal> {
        let kept = format!("[{}]", self.kept.join(","));
        let cursor = match json::get(members, "nextCursor") {
            None => None,
            Some(raw) => Some(sealed(raw, expected, handles)?),
        };
        let caching = private_caching(members, expected.version.era() == Era::Modern);
        let result = members.iter().filter_map(|(key, raw)| match key.as_ref() {
            key if key == listing.key() => Some((key, kept.as_str())),
            "nextCursor" => cursor.as_deref().map(|cursor| (key.as_ref(), cursor)),
            "_meta" | "resultType" => Some((key.as_ref(), *raw)),
            _ => None,
        });
        Ok(object(
            result.chain(caching.iter().map(|(key, raw)| (*key, raw.as_str()))),
        ))
    }
}

fn sealed(raw: &str, expected: &Expected, handles: Handles<'_>) -> Result<String, Refusal> {
    let value = json::string(raw).ok_or_else(|| malformed("its nextCursor is no string"))?;
    let handle = Handle::Cursor {
        method: expected.method.name().to_owned(),
        value: value.into_owned(),
    };
    let handle = handles
        .seal(&handle)
        .ok_or_else(|| Refusal::plain(Reason::AnswerHandle))?;
    Ok(quoted(&handle))
}

/// The rule of an entry, if it has one of its own, and whether the reader has it; `None` when it isn't in the policy. Of
/// resources the rules differ from agent to agent, so the sidecar looks at all of them.
fn offered<'p>(
    policy: &'p CompiledPolicy,
    reader: Reader<'_>,
    listing: Listing,
    name: &str,
) -> Option<(Option<&'p Rule>, bool)> {
    let Reader::Agent(agent) = reader else {
        return match listing {
            Listing::Tools => Some((Some(policy.tools.get(name)?), false)),
            Listing::Prompts => Some((Some(policy.prompts.get(name)?), false)),
            Listing::Resources | Listing::Templates => Some((None, false)),
        };
    };
    match listing {
        Listing::Tools => Some((Some(policy.tools.get(name)?), agent.tool(policy, name).is_ok())),
        Listing::Prompts => Some((
            Some(policy.prompts.get(name)?),
            agent.prompt(policy, name).is_ok(),
        )),
        Listing::Resources => agent.resource_shown(name).is_ok().then_some((None, true)),
        Listing::Templates => agent.template(name).is_some().then_some((None, true)),
    }
}

type Shown<'a> = (Cow<'a, str>, Option<Arc<ToolFacts>>);

/// The entry as the reader sees it, and what is to be known of it.
fn show<'a>(
    rule: Option<&Rule>,
    reader: Reader<'_>,
    listing: Listing,
    raw: &'a str,
    members: &Members<'_>,
    known: Option<&Arc<ToolFacts>>,
) -> Result<Shown<'a>, Reason> {
    if legible::has_hidden(raw) {
        return Err(Reason::HiddenCharacters);
    }
    match (listing, rule) {
        (Listing::Tools, Some(rule)) => show_tool(rule, raw, members, known),
        (Listing::Prompts, Some(rule)) => Ok((show_prompt(rule, raw, members)?, None)),
        (Listing::Templates, _) => Ok((show_template(reader, raw, members), None)),
        _ => Ok((Cow::Borrowed(raw), None)),
    }
}

/// An entry that is an object with one name, and no key that could be taken for a known one.
fn read_named<'a>(raw: &'a str, known: &[&str], name: &str) -> Option<(Members<'a>, Cow<'a, str>)> {
    let entry = json::members(raw)?;
    let variant = |key: &str| known.iter().any(|known| is_case_variant(key, known));
    if entry.iter().any(|(key, _)| variant(key)) {
        return None;
    }
    let name = json::get(&entry, name).and_then(json::string)?;
    Some((entry, name))
}

fn read_tool(raw: &str) -> Option<(Members<'_>, Cow<'_, str>)> {
    let (tool, name) = read_named(raw, &["name", "inputSchema"], "name")?;
    let schema = json::get(&tool, "inputSchema")?;
    (Kind::of(schema) == Kind::Object).then_some((tool, name))
}

/// A tool without what is forced or forbidden.
fn show_tool<'a>(
    rule: &Rule,
    raw: &'a str,
    tool: &Members<'_>,
    known: Option<&Arc<ToolFacts>>,
) -> Result<Shown<'a>, Reason> {
    let schema = json::get(tool, "inputSchema").ok_or(Reason::ToolMalformed)?;
    let facts = match known {
        Some(known) if known.schema.text() == schema => Arc::clone(known),
        _ => Arc::new(ToolFacts {
            mirrors: mirrors::mirrors_of(schema).map_err(|refusal| refusal.reason)?,
            schema: InputSchema::compile(schema)?,
        }),
    };
    let hides = !(rule.forced.is_empty() && rule.forbidden.is_empty());
    if !hides && !rule.is_owned() {
        return Ok((Cow::Borrowed(raw), Some(facts)));
    }
    let schema = if hides {
        Cow::Owned(schema::without(schema, &rule.forced, &rule.forbidden)?)
    } else {
        Cow::Borrowed(schema)
    };
    let seen = tool.iter().filter_map(|(key, raw)| match key.as_ref() {
        "inputSchema" => Some((key.as_ref(), &*schema)),
        // Filtered results don't have all that it promises, and clients check them against it.
        "outputSchema" if rule.is_owned() => None,
        key => Some((key, *raw)),
    });
    Ok((Cow::Owned(object(seen)), Some(facts)))
}

/// A prompt without what is forced or forbidden.
fn show_prompt<'a>(rule: &Rule, raw: &'a str, prompt: &Members<'_>) -> Result<Cow<'a, str>, Reason> {
    let Some(arguments) = json::get(prompt, "arguments").filter(|raw| *raw != "null") else {
        return Ok(Cow::Borrowed(raw));
    };
    if rule.forced.is_empty() && rule.forbidden.is_empty() {
        return Ok(Cow::Borrowed(raw));
    }
    let mut kept = Vec::new();
    for argument in json::items(arguments).ok_or(Reason::EntryMalformed)? {
        let (_, name) = read_named(argument, &["name"], "name").ok_or(Reason::EntryMalformed)?;
        if !rule.hides(&name) {
            kept.push(argument);
        }
    }
    let kept = format!("[{}]", kept.join(","));
    Ok(Cow::Owned(replaced(prompt, "arguments", &kept)))
}

/// A template with the values of forced variables in place.
fn show_template<'a>(reader: Reader<'_>, raw: &'a str, template: &Members<'_>) -> Cow<'a, str> {
    let uri = json::get(template, "uriTemplate").and_then(json::string);
    let grant = match (reader, &uri) {
        (Reader::Agent(agent), Some(uri)) => agent.template(uri),
        _ => None,
    };
    match grant {
        Some(grant) if grant.uri != grant.rule.uri => {
            Cow::Owned(replaced(template, "uriTemplate", &quoted(&grant.uri)))
        }
        _ => Cow::Borrowed(raw),
    }
}

/// `cacheScope` and `ttlMs` (SEP-2549) of a result that was made for one agent: no shared cache may
/// keep it, and none for long. In an era that doesn't know them they are left out.
pub(super) fn private_caching(members: &Members<'_>, wanted: bool) -> Vec<(&'static str, String)> {
    if !wanted {
        return Vec::new();
    }
    let ttl = json::get(members, "ttlMs")
        .and_then(|raw| raw.parse::<u64>().ok())
        .unwrap_or(0);
    vec![
        ("ttlMs", ttl.min(MAX_TTL_MS).to_string()),
        ("cacheScope", "\"private\"".to_owned()),
    ]
}

/// An object with another value for one key.
fn replaced(members: &Members<'_>, key: &str, value: &str) -> String {
    object(
        members
            .iter()
            .map(|(name, raw)| (name.as_ref(), if name == key { value } else { *raw })),
    )
}

/// An object of raw values.
pub(super) fn object<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (key, raw) in members {
        if out.len() > 1 {
            out.push(',');
        }
        quote(&mut out, key);
        out.push(':');
        out.push_str(raw);
    }
    out.push('}');
    out
}
