//! Contents of resources: of what may be read, filtered by owner and bounded where the rule of a resource says so.

use std::borrow::Cow;

use crate::{
    json::{self, Limits, Members, text::quoted},
    mcp::Era,
    policy::{
        answer::malformed,
        calls::Checked,
        compile::CompiledAgent,
        lists::{object, private_caching},
        permit::Expected,
        records::{OwnedRule, Records},
    },
    reason::Reason,
    refusal::Refusal,
};

/// The result of `resources/read`: contents of what was asked for, or of what may be read as well. Each is filtered as the
/// rule of its own URI says, or else that of the URI that was asked for: what a content is called is the server's word. The
/// latter bounds them together.
pub(super) fn read(
    agent: &CompiledAgent,
    expected: &Expected,
    result: &str,
    members: &Members<'_>,
    limits: Limits,
) -> Result<Checked, Refusal> {
    let asked = agent
        .resource(expected.name.as_deref().unwrap_or_default())
        .map_err(Refusal::plain)?;
    let raw = json::get(members, "contents").ok_or_else(|| malformed("it has no contents"))?;
    let items = json::items(raw).ok_or_else(|| malformed("its contents are no list"))?;
    let mut left = Vec::with_capacity(items.len());
    let mut checked = Checked::default();
    // Whatever else the answer says could be about records of others.
    let mut is_filtered = asked.rule.is_owned();
    for item in items {
        let content = json::members(item).unwrap_or_default();
        let uri = json::get(&content, "uri")
            .and_then(json::string)
            .ok_or_else(|| malformed("a content has no uri"))?;
        let grant = agent
            .resource(&uri)
            .map_err(|_| Refusal::plain(Reason::AnswerResource))?;
        let Some((rule, owned)) = grant.owned().or_else(|| asked.owned()) else {
            left.push(Cow::Borrowed(item));
            continue;
        };
        let is_enforced = rule.enforcement.is_enforced();
        is_filtered |= is_enforced;
        match filtered(owned, &uri, &content, limits) {
            Ok((text, found)) => {
                let records = checked.records.get_or_insert_default();
                records.kept += found.kept;
                records.removed += found.removed;
                if !is_enforced && found.removed > 0 {
                    checked.reported = Some(Reason::RecordsForeign);
                }
                left.push(if is_enforced {
                    Cow::Owned(text)
                } else {
                    Cow::Borrowed(item)
                });
            }
            Err(reason) if is_enforced => return Err(Refusal::plain(reason)),
            Err(reason) => {
                checked.reported = Some(reason);
                left.push(Cow::Borrowed(item));
            }
        }
    }
    let contents = format!("[{}]", left.join(","));
    let caching = match expected.version.era() {
        Era::Modern => private_caching(members, true),
        Era::Legacy => Vec::new(),
    };
    if is_filtered || !caching.is_empty() {
        let kept = members.iter().filter_map(|(key, raw)| match key.as_ref() {
            "contents" => Some(("contents", contents.as_str())),
            "ttlMs" | "cacheScope" if !caching.is_empty() => None,
            "resultType" => Some(("resultType", *raw)),
            _ if is_filtered => None,
            key => Some((key, *raw)),
        });
        let caching = caching.iter().map(|(key, raw)| (*key, raw.as_str()));
        checked.text = Some(object(kept.chain(caching)));
    }
    if let Some(rule) = &asked.results {
        let length = checked.text.as_deref().unwrap_or(result).len();
        match rule.bound(checked.records, length) {
            Err(refusal) if rule.enforcement.is_enforced() => return Err(refusal.as_protocol_error()),
            Err(refusal) => checked.reported = Some(refusal.reason),
            Ok(()) => {}
        }
    }
    Ok(checked)
}

/// A content with the agent's own records alone. Only a text that is a structure can be one.
fn filtered(
    owned: &OwnedRule,
    uri: &str,
    content: &Members<'_>,
    limits: Limits,
) -> Result<(String, Records), Reason> {
    let text = json::get(content, "text")
        .and_then(json::string)
        .ok_or(Reason::AnswerUnfiltered)?;
    json::check(text.as_bytes(), limits).map_err(|_| Reason::AnswerUnfiltered)?;
    let (text, records) = owned.filter(text.trim())?;
    let (uri, text) = (quoted(uri), quoted(&text));
    let kept = [
        ("uri", uri.as_str()),
        ("mimeType", r#""application/json""#),
        ("text", text.as_str()),
    ];
    Ok((object(kept.into_iter()), records))
}
