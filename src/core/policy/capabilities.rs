//! Results of `initialize` and `server/discover`: a client is told of what it can reach, which is
//! tools. `instructions` are text for the model by a server that nobody vouched for; they don't
//! pass.

use crate::{
    json::{self, Kind, Members},
    mcp::{Era, ProtocolVersion},
    policy::{answer::malformed, lists},
    reason::Reason,
    refusal::Refusal,
};

/// `initialize`: version, capabilities, who the server says it is.
pub(super) fn initialize(members: &Members<'_>) -> Result<String, Refusal> {
    let version = json::get(members, "protocolVersion").and_then(json::string);
    let version = version.ok_or_else(|| malformed("it has no protocolVersion"))?;
    if ProtocolVersion::parse(&version).is_none_or(|version| version.era() != Era::Legacy) {
        return Err(Refusal::plain(Reason::AnswerVersion));
    }
    let capabilities = capabilities(members)?;
    let kept = members.iter().filter_map(|(key, raw)| match key.as_ref() {
        "protocolVersion" | "serverInfo" | "_meta" => Some((key.as_ref(), *raw)),
        "capabilities" => Some((key.as_ref(), capabilities)),
        _ => None,
    });
    Ok(lists::object(kept))
}

/// `server/discover`: the same, for a client that asks without a handshake.
pub(super) fn discover(members: &Members<'_>) -> Result<String, Refusal> {
    let versions = json::get(members, "supportedVersions").and_then(json::items);
    let mut spoken = versions.ok_or_else(|| malformed("it has no supportedVersions"))?;
    spoken.retain(|raw| json::string(raw).is_some_and(|text| ProtocolVersion::parse(&text).is_some()));
    if spoken.is_empty() {
        return Err(Refusal::plain(Reason::AnswerVersion));
    }
    let spoken = format!("[{}]", spoken.join(","));
    let capabilities = capabilities(members)?;
    let caching = lists::private_caching(members, true);
    let kept = members.iter().filter_map(|(key, raw)| match key.as_ref() {
        "resultType" | "serverInfo" | "_meta" => Some((key.as_ref(), *raw)),
        "supportedVersions" => Some((key.as_ref(), spoken.as_str())),
        "capabilities" => Some((key.as_ref(), capabilities)),
        _ => None,
    });
    Ok(lists::object(
        kept.chain(caching.iter().map(|(key, raw)| (*key, raw.as_str()))),
    ))
}

/// Tools, when the server has any. Not `listChanged`: that notification doesn't pass.
fn capabilities(members: &Members<'_>) -> Result<&'static str, Refusal> {
    let offered = json::get(members, "capabilities").and_then(json::members);
    let offered = offered.ok_or_else(|| malformed("it has no capabilities"))?;
    let tools = json::get(&offered, "tools").is_some_and(|raw| Kind::of(raw) == Kind::Object);
    Ok(if tools { r#"{"tools":{}}"# } else { "{}" })
}
