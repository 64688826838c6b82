//! Results of `initialize` and `server/discover`: a client is told of what exists for it.

use crate::{
    json::{self, Kind, Members},
    mcp::{Era, ProtocolVersion},
    policy::{
        answer::malformed,
        compile::{CompiledAgent, CompiledPolicy},
        legible,
        lists::{self, object},
    },
    reason::Reason,
    refusal::Refusal,
};

/// The extension of tasks (SEP-2663), by its name in `extensions`.
pub(super) const TASKS: &str = "io.modelcontextprotocol/tasks";

/// `initialize`: version, capabilities, who the server says it is.
pub(super) fn initialize(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    members: &Members<'_>,
) -> Result<String, Refusal> {
    let version = json::get(members, "protocolVersion").and_then(json::string);
    let version = version.ok_or_else(|| malformed("it has no protocolVersion"))?;
    if ProtocolVersion::parse(&version).is_none_or(|version| version.era() != Era::Legacy) {
        return Err(Refusal::plain(Reason::AnswerVersion));
    }
    let capabilities = capabilities(policy, agent, Era::Legacy, members)?;
    let server = server(members);
    let kept = members.iter().filter_map(|(key, raw)| match key.as_ref() {
        "protocolVersion" => Some((key.as_ref(), *raw)),
        "_meta" => Some((key.as_ref(), *raw)).filter(|(_, raw)| !legible::has_hidden(raw)),
        "serverInfo" => Some((key.as_ref(), server.as_deref()?)),
        "capabilities" => Some((key.as_ref(), capabilities.as_str())),
        "instructions" => policy.accepted_text(members).map(|raw| (key.as_ref(), raw)),
        _ => None,
    });
    Ok(object(kept))
}

/// `server/discover`: the same, for a client that asks without a handshake.
pub(super) fn discover(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    members: &Members<'_>,
) -> Result<String, Refusal> {
    let versions = json::get(members, "supportedVersions").and_then(json::items);
    let mut spoken = versions.ok_or_else(|| malformed("it has no supportedVersions"))?;
    spoken.retain(|raw| json::string(raw).is_some_and(|text| ProtocolVersion::parse(&text).is_some()));
    if spoken.is_empty() {
        return Err(Refusal::plain(Reason::AnswerVersion));
    }
    let spoken = format!("[{}]", spoken.join(","));
    let capabilities = capabilities(policy, agent, Era::Modern, members)?;
    let caching = lists::private_caching(members, true);
    let server = server(members);
    let kept = members.iter().filter_map(|(key, raw)| match key.as_ref() {
        "resultType" => Some((key.as_ref(), *raw)),
        "_meta" => Some((key.as_ref(), *raw)).filter(|(_, raw)| !legible::has_hidden(raw)),
        "serverInfo" => Some((key.as_ref(), server.as_deref()?)),
        "supportedVersions" => Some((key.as_ref(), spoken.as_str())),
        "capabilities" => Some((key.as_ref(), capabilities.as_str())),
        "instructions" => policy.accepted_text(members).map(|raw| (key.as_ref(), raw)),
        _ => None,
    });
    Ok(object(
        kept.chain(caching.iter().map(|(key, raw)| (*key, raw.as_str()))),
    ))
}

/// Who the server says it is: names and a version, as people see them. A description would be instructions that nobody accepted.
fn server(members: &Members<'_>) -> Option<String> {
    let said = json::members(json::get(members, "serverInfo")?)?;
    let kept = said.iter().filter(|(key, raw)| {
        ["name", "title", "version"].contains(&key.as_ref())
            && Kind::of(raw) == Kind::String
            && !legible::has_hidden(raw)
    });
    Some(object(kept.map(|(key, raw)| (key.as_ref(), *raw))))
}

/// Of what the server offers, what exists for the agent. Tools always do: a list of none is one.
fn capabilities(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    era: Era,
    members: &Members<'_>,
) -> Result<String, Refusal> {
    let offered = json::get(members, "capabilities").and_then(json::members);
    let offered = offered.ok_or_else(|| malformed("it has no capabilities"))?;
    let named = agent.has_prompts() || agent.has_resources();
    let kept = offered.iter().filter_map(|(key, raw)| {
        let text = match key.as_ref() {
            "tools" => flags(raw, &["listChanged"]),
            "prompts" if agent.has_prompts() => flags(raw, &["listChanged"]),
            "resources" if agent.has_resources() => flags(raw, &["subscribe", "listChanged"]),
            "completions" if named => flags(raw, &[]),
            "logging" if policy.features.logging => flags(raw, &[]),
            "extensions" if era == Era::Modern => extensions(raw),
            _ => None,
        };
        Some((key.as_ref(), text?))
    });
    let kept: Vec<(&str, String)> = kept.collect();
    Ok(object(kept.iter().map(|(key, text)| (*key, text.as_str()))))
}

/// A capability with the flags that are known.
fn flags(raw: &str, known: &[&str]) -> Option<String> {
    let members = json::members(raw)?;
    let kept = members
        .iter()
        .filter(|(key, raw)| known.contains(&key.as_ref()) && Kind::of(raw) == Kind::Bool);
    Some(object(kept.map(|(key, raw)| (key.as_ref(), *raw))))
}

fn extensions(raw: &str) -> Option<String> {
    let members = json::members(raw)?;
    let tasks = json::get(&members, TASKS).filter(|raw| Kind::of(raw) == Kind::Object)?;
    Some(object([(TASKS, tasks)].into_iter()))
}
