//! Results of the list methods: what exists for the agent, and nothing else.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use crate::{
    handles::{Handle, Handles},
    json::{
        self, Kind, Members,
        text::{is_case_variant, quote, quoted},
    },
    mcp::{
        Era,
        input_schema::InputSchema,
        inventory::{self, Inventory, ToolFacts},
    },
    policy::{
        answer::{DroppedEntry, FinalAnswer, malformed},
        compile::{CompiledAgent, CompiledPolicy, Grant, Rule},
        legible,
        permit::Expected,
        schema,
    },
    reason::Reason,
    refusal::{Refusal, shortened},
};

/// For how long a client may keep a list, so that a change of policy is seen. A call of a tool
/// that is no longer there is refused meanwhile.
const MAX_TTL_MS: u64 = 30_000;

/// Entries that one page of a list may have. Each costs memory, and a record when it is dropped.
const MAX_ENTRIES: usize = 4096;

/// One page of a list, on its way to the client.
struct Page<'a> {
    key: &'static str,
    members: &'a Members<'a>,
    entries: Vec<&'a str>,
    seen: HashSet<String>,
    kept: Vec<Cow<'a, str>>,
}

impl<'a> Page<'a> {
    fn read(key: &'static str, members: &'a Members<'a>) -> Result<Self, Refusal> {
        let entries = json::get(members, key).and_then(|raw| json::items_at_most(raw, MAX_ENTRIES));
        let entries =
            entries.ok_or_else(|| malformed(&format!("it has no list of at most {MAX_ENTRIES} {key}")))?;
        Ok(Self {
            key,
            members,
            kept: Vec::with_capacity(entries.len()),
            entries,
            seen: HashSet::new(),
        })
    }

    /// The result. Members that the specification doesn't know are left out: they could name what
    /// the list must not.
    fn finish(self, expected: &Expected, handles: Handles<'_>) -> Result<String, Refusal> {
        let kept = format!("[{}]", self.kept.join(","));
        let cursor = match json::get(self.members, "nextCursor") {
            None => None,
            Some(raw) => Some(sealed(raw, expected, handles)?),
        };
        let caching = private_caching(self.members, expected.version.era() == Era::Modern);
        let result = self.members.iter().filter_map(|(key, raw)| match key.as_ref() {
            key if key == self.key => Some((key, kept.as_str())),
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

fn dropped(name: &str, reason: Reason) -> DroppedEntry {
    DroppedEntry {
        name: shortened(name),
        reason,
    }
}

/// `tools/list`.
pub(super) fn tools(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    expected: &Expected,
    members: &Members<'_>,
    inventory: &Inventory,
    handles: Handles<'_>,
    answer: &mut FinalAnswer,
) -> Result<String, Refusal> {
    let mut page = Page::read("tools", members)?;
    for raw in std::mem::take(&mut page.entries) {
        let Some((tool, name)) = read_tool(raw) else {
            answer.dropped.push(dropped("", Reason::ToolMalformed));
            continue;
        };
        // Not in the policy: it exists for nobody, and there is nothing to report.
        let Some(rule) = policy.tools.get(&name) else {
            continue;
        };
        if !page.seen.insert(name.to_string()) {
            answer.dropped.push(dropped(&name, Reason::ToolDuplicate));
            continue;
        }
        match offer(rule, raw, &tool, inventory.tool(&name)) {
            Ok((text, facts)) => {
                answer.learned.push((name.to_string(), facts));
                if agent.tool(policy, &name).is_ok() {
                    page.kept.push(text);
                }
            }
            Err(reason) => {
                answer
                    .learned
                    .push((name.to_string(), ToolFacts::Unusable(reason)));
                answer.dropped.push(dropped(&name, reason));
            }
        }
    }
    page.finish(expected, handles)
}

/// `prompts/list`.
pub(super) fn prompts(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    expected: &Expected,
    members: &Members<'_>,
    handles: Handles<'_>,
    answer: &mut FinalAnswer,
) -> Result<String, Refusal> {
    let mut page = Page::read("prompts", members)?;
    for raw in std::mem::take(&mut page.entries) {
        let Some((prompt, name)) = read_named(raw, &["name", "arguments"], "name") else {
            answer.dropped.push(dropped("", Reason::EntryMalformed));
            continue;
        };
        let Ok(grant) = agent.prompt(policy, &name) else {
            continue;
        };
        if !page.seen.insert(name.to_string()) {
            answer.dropped.push(dropped(&name, Reason::EntryDuplicate));
            continue;
        }
        if legible::has_hidden(raw) {
            answer.dropped.push(dropped(&name, Reason::HiddenCharacters));
            continue;
        }
        match without_hidden(grant, raw, &prompt) {
            Some(text) => page.kept.push(text),
            None => answer.dropped.push(dropped(&name, Reason::EntryMalformed)),
        }
    }
    page.finish(expected, handles)
}

/// `resources/list`.
pub(super) fn resources(
    agent: &CompiledAgent,
    expected: &Expected,
    members: &Members<'_>,
    handles: Handles<'_>,
    answer: &mut FinalAnswer,
) -> Result<String, Refusal> {
    let mut page = Page::read("resources", members)?;
    for raw in std::mem::take(&mut page.entries) {
        let Some((_, uri)) = read_named(raw, &["uri"], "uri") else {
            answer.dropped.push(dropped("", Reason::EntryMalformed));
            continue;
        };
        if agent.resource(&uri).is_err() {
            continue;
        }
        if !page.seen.insert(uri.to_string()) {
            answer.dropped.push(dropped(&uri, Reason::EntryDuplicate));
        } else if legible::has_hidden(raw) {
            answer.dropped.push(dropped(&uri, Reason::HiddenCharacters));
        } else {
            page.kept.push(Cow::Borrowed(raw));
        }
    }
    page.finish(expected, handles)
}

/// `resources/templates/list`. Forced variables have their values in place.
pub(super) fn templates(
    agent: &CompiledAgent,
    expected: &Expected,
    members: &Members<'_>,
    handles: Handles<'_>,
    answer: &mut FinalAnswer,
) -> Result<String, Refusal> {
    let mut page = Page::read("resourceTemplates", members)?;
    for raw in std::mem::take(&mut page.entries) {
        let Some((template, uri)) = read_named(raw, &["uriTemplate"], "uriTemplate") else {
            answer.dropped.push(dropped("", Reason::EntryMalformed));
            continue;
        };
        let Some(grant) = agent.resources().find(|grant| grant.is_template(&uri)) else {
            continue;
        };
        if !page.seen.insert(uri.to_string()) {
            answer.dropped.push(dropped(&uri, Reason::EntryDuplicate));
        } else if legible::has_hidden(raw) {
            answer.dropped.push(dropped(&uri, Reason::HiddenCharacters));
        } else if grant.uri == *uri {
            page.kept.push(Cow::Borrowed(raw));
        } else {
            let seen = quoted(&grant.uri);
            page.kept
                .push(Cow::Owned(replaced(&template, "uriTemplate", &seen)));
        }
    }
    page.finish(expected, handles)
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

/// The tool as agents see it, without what is forced or forbidden, and what is to be known of it.
fn offer<'a>(
    rule: &Rule,
    raw: &'a str,
    tool: &Members<'_>,
    known: Option<&ToolFacts>,
) -> Result<(Cow<'a, str>, ToolFacts), Reason> {
    if legible::has_hidden(raw) {
        return Err(Reason::HiddenCharacters);
    }
    let schema = json::get(tool, "inputSchema").ok_or(Reason::ToolMalformed)?;
    let facts = ToolFacts::Usable {
        mirrors: inventory::mirrors_of(schema).map_err(|refusal| refusal.reason)?,
        schema: match known {
            Some(ToolFacts::Usable { schema: known, .. }) if known.text() == schema => Arc::clone(known),
            _ => Arc::new(InputSchema::compile(schema)?),
        },
    };
    let hides = !(rule.forced.is_empty() && rule.forbidden.is_empty());
    if !hides && !rule.is_owned() {
        return Ok((Cow::Borrowed(raw), facts));
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
    Ok((Cow::Owned(object(seen)), facts))
}

/// The prompt as an agent sees it, without what is forced or forbidden; `None` when its arguments are malformed.
fn without_hidden<'a>(grant: &Grant, raw: &'a str, prompt: &Members<'_>) -> Option<Cow<'a, str>> {
    let Some(arguments) = json::get(prompt, "arguments").filter(|raw| *raw != "null") else {
        return Some(Cow::Borrowed(raw));
    };
    if grant.forced.is_empty() && grant.rule.forbidden.is_empty() {
        return Some(Cow::Borrowed(raw));
    }
    let mut kept = Vec::new();
    for argument in json::items(arguments)? {
        let (_, name) = read_named(argument, &["name"], "name")?;
        if !grant.rule.hides(&name) {
            kept.push(argument);
        }
    }
    let kept = format!("[{}]", kept.join(","));
    Some(Cow::Owned(replaced(prompt, "arguments", &kept)))
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
