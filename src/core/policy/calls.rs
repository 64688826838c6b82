//! Results of tools: bounded, and filtered by owner where the tool's rule says so.

use std::borrow::Cow;

use crate::{
    json::{self, Kind, Limits, Members, text::quoted},
    mcp::{Era, methods::Method},
    policy::{
        answer::malformed,
        compile::{CompiledAgent, CompiledPolicy, Grant},
        lists::object,
        permit::Expected,
        records::{OwnedRule, Records, ResultRule},
    },
    reason::Reason,
    refusal::{Refusal, tool_error},
};

/// What a client is told instead of an error in the server's words.
const FAILED: &str =
    "It failed. What the server said is withheld, because the results are filtered by owner.";

/// A result on its way to the client.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The result that the client gets instead, if it is another one.
    pub text: Option<String>,
    /// Whether it is a tool error.
    pub failed: bool,
    /// What the filter found.
    pub records: Option<Records>,
    /// Why it would have been refused, or have lost records, by a rule that only reports.
    pub reported: Option<Reason>,
}

/// How the agent may call the tool that was called. It may have lost it since: then nothing passes.
pub(super) fn grant_of<'p>(
    policy: &'p CompiledPolicy,
    agent: &'p CompiledAgent,
    expected: &Expected,
) -> Result<&'p Grant, Refusal> {
    let tool = expected.name.as_deref().unwrap_or_default();
    agent.tool(policy, tool).map_err(Refusal::plain)
}

/// The result of `tools/call`.
pub(super) fn result(
    rule: Option<&ResultRule>,
    result: &str,
    members: &Members<'_>,
    era: Era,
    limits: Limits,
) -> Result<Checked, Refusal> {
    let untouched = Checked {
        failed: json::get(members, "isError") == Some("true"),
        ..Checked::default()
    };
    let Some(rule) = rule else {
        return Ok(untouched);
    };
    let checked = check(rule, result, members, era, limits);
    if rule.enforcement.is_enforced() {
        return checked;
    }
    Ok(match checked {
        Ok(Checked { records, .. }) => Checked {
            records,
            reported: records
                .filter(|records| records.removed > 0)
                .map(|_| Reason::RecordsForeign),
            ..untouched
        },
        Err(refusal) => Checked {
            reported: Some(refusal.reason),
            ..untouched
        },
    })
}

/// The result by a rule.
fn check(
    rule: &ResultRule,
    result: &str,
    members: &Members<'_>,
    era: Era,
    limits: Limits,
) -> Result<Checked, Refusal> {
    let mut checked = Checked {
        failed: json::get(members, "isError") == Some("true"),
        ..Checked::default()
    };
    if let Some(owned) = &rule.owned {
        if checked.failed {
            checked.text = Some(tool_error(FAILED, era));
            return Ok(checked);
        }
        let (text, records) = filtered(owned, members, era, limits)?;
        checked.text = Some(text);
        checked.records = Some(records);
    }
    let length = checked.text.as_deref().unwrap_or(result).len();
    rule.bound(checked.records, length)?;
    Ok(checked)
}

/// The result with the agent's own records alone: as a structure, if it was one, and as the one text that is made of it.
/// Other text, images, links and `_meta` are words of the server, and are left out.
fn filtered(
    owned: &OwnedRule,
    members: &Members<'_>,
    era: Era,
    limits: Limits,
) -> Result<(String, Records), Refusal> {
    let structure = json::get(members, "structuredContent").filter(|raw| *raw != "null");
    let (text, records) = match structure {
        Some(raw) => owned.filter(raw).map_err(Refusal::plain)?,
        None => owned
            .filter(text_structure(members, limits)?.trim())
            .map_err(Refusal::plain)?,
    };
    let content = format!(r#"[{{"type":"text","text":{}}}]"#, quoted(&text));
    let kept = [
        ("resultType", (era == Era::Modern).then_some(r#""complete""#)),
        ("content", Some(content.as_str())),
        ("structuredContent", structure.map(|_| text.as_str())),
    ];
    let kept = kept.into_iter().filter_map(|(key, raw)| Some((key, raw?)));
    Ok((object(kept), records))
}

/// The first text of a result that is a structure, for servers that know no structured content.
fn text_structure<'a>(members: &Members<'a>, limits: Limits) -> Result<Cow<'a, str>, Refusal> {
    let blocks = json::get(members, "content")
        .and_then(json::items)
        .unwrap_or_default();
    for block in blocks {
        let block = json::members(block).ok_or_else(|| malformed("a content is no object"))?;
        let Some(text) = json::get(&block, "text").and_then(json::string) else {
            continue;
        };
        let is_structure = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
        if is_structure && json::check(text.as_bytes(), limits).is_ok() {
            return Ok(text);
        }
    }
    Err(Refusal::plain(Reason::AnswerUnfiltered))
}

/// An error in other words than the server's: its message and data could hold anything.
pub(super) fn error(raw: &str) -> String {
    let members = json::members(raw).unwrap_or_default();
    let code = json::get(&members, "code").filter(|raw| Kind::of(raw) == Kind::Number);
    let message = quoted(FAILED);
    object([("code", code.unwrap_or("-32603")), ("message", message.as_str())].into_iter())
}

/// Whether what the server says besides the answer may be words about somebody else's records: of a call that is filtered,
/// and on a stream (a session's own, a subscription) where it can't be told what a message is about.
pub(super) fn is_filtered(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    expected: Option<&Expected>,
) -> bool {
    match expected {
        None => policy.has_owned(),
        Some(expected) if expected.is_endless() => policy.has_owned(),
        Some(expected) if expected.is_about_a_tool() => {
            grant_of(policy, agent, expected).map_or(true, |grant| grant.rule.is_owned())
        }
        Some(expected) if expected.method == Method::ResourcesRead => {
            let uri = expected.name.as_deref().unwrap_or_default();
            agent.resource(uri).map_or(true, |grant| grant.rule.is_owned())
        }
        Some(_) => false,
    }
}
