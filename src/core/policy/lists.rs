//! The result of `tools/list`: what the agent may call, and nothing that it may not.

use std::{borrow::Cow, collections::HashSet};

use crate::{
    json::{
        self, Kind, Members,
        text::{is_case_variant, quote},
    },
    mcp::{
        Era,
        inventory::{self, ToolFacts},
    },
    policy::{
        answer::{DroppedTool, FinalAnswer, malformed},
        compile::{CompiledAgent, CompiledPolicy, ToolRule},
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

/// Filters a list. Members of the result that the specification doesn't know are left out: they
/// could name what the list must not.
pub(super) fn filter(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    era: Era,
    members: &Members<'_>,
    answer: &mut FinalAnswer,
) -> Result<String, Refusal> {
    let entries = json::get(members, "tools").and_then(|raw| json::items_at_most(raw, MAX_ENTRIES));
    let entries =
        entries.ok_or_else(|| malformed(&format!("it has no list of at most {MAX_ENTRIES} tools")))?;
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(entries.len());
    for raw in entries {
        let drop = |name: &str, reason| DroppedTool {
            name: shortened(name),
            reason,
        };
        let Some((tool, name)) = read_tool(raw) else {
            answer.dropped.push(drop("", Reason::ToolMalformed));
            continue;
        };
        // Not in the policy: it exists for nobody, and there is nothing to report.
        let Some(rule) = policy.tool(&name) else { continue };
        if !seen.insert(name.clone()) {
            answer.dropped.push(drop(&name, Reason::ToolDuplicate));
            continue;
        }
        match offer(rule, raw, &tool) {
            Ok((text, mirrors)) => {
                answer
                    .learned
                    .push((name.to_string(), ToolFacts::Usable { mirrors }));
                if agent.grant(policy, &name).is_ok() {
                    kept.push(text);
                }
            }
            Err(reason) => {
                answer
                    .learned
                    .push((name.to_string(), ToolFacts::Unusable(reason)));
                answer.dropped.push(drop(&name, reason));
            }
        }
    }
    let kept = format!("[{}]", kept.join(","));
    let caching = private_caching(members, era == Era::Modern);
    let result = members.iter().filter_map(|(key, raw)| match key.as_ref() {
        "tools" => Some((key.as_ref(), kept.as_str())),
        "nextCursor" | "_meta" | "resultType" => Some((key.as_ref(), *raw)),
        _ => None,
    });
    Ok(object(
        result.chain(caching.iter().map(|(key, raw)| (*key, raw.as_str()))),
    ))
}

/// An entry that is a tool: an object with one name, and no key that could be taken for another.
fn read_tool(raw: &str) -> Option<(Members<'_>, Cow<'_, str>)> {
    let tool = json::members(raw)?;
    let variant = |key: &str| {
        ["name", "inputSchema"]
            .iter()
            .any(|known| is_case_variant(key, known))
    };
    if tool.iter().any(|(key, _)| variant(key)) {
        return None;
    }
    let name = json::get(&tool, "name").and_then(json::string)?;
    let schema = json::get(&tool, "inputSchema")?;
    (Kind::of(schema) == Kind::Object).then_some((tool, name))
}

/// The tool as agents see it, without what is forced, and its mirrored arguments.
fn offer<'a>(
    rule: &ToolRule,
    raw: &'a str,
    tool: &Members<'_>,
) -> Result<(Cow<'a, str>, Vec<inventory::Mirror>), Reason> {
    let schema = json::get(tool, "inputSchema").ok_or(Reason::ToolMalformed)?;
    let mirrors = inventory::mirrors_of(schema).map_err(|refusal| refusal.reason)?;
    if rule.forced.is_empty() {
        return Ok((Cow::Borrowed(raw), mirrors));
    }
    let schema = schema::without(schema, &rule.forced)?;
    let members = tool.iter().map(|(key, raw)| {
        (
            key.as_ref(),
            if key == "inputSchema" {
                schema.as_str()
            } else {
                *raw
            },
        )
    });
    Ok((Cow::Owned(object(members)), mirrors))
}

/// `cacheScope` and `ttlMs` (SEP-2549) of a list that was made for one agent: no shared cache may
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
