//! `subscriptions/listen`: which changes a client is told of. Resources that don't exist for the
//! agent are left out, whether or not the server has them, and so is what isn't known here: the
//! acknowledgement says what is listened to.

use super::{
    Authorized,
    examine::{Subject, members_of},
};
use crate::{
    json::{self, Kind, text::quoted},
    mcp::{Inventory, envelope::span, inventory::Listing, methods::Object},
    policy::{compile::CompiledAgent, lists::object, splice::Edit},
    reason::Reason,
    refusal::Refusal,
};

/// Lists whose changes can be listened to.
pub(in crate::policy) const LISTS: [&str; 3] =
    ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];
/// The resources whose changes are listened to.
pub(in crate::policy) const RESOURCES: &str = "resourceSubscriptions";

/// Resources that one subscription may name.
const MAX_RESOURCES: usize = 256;

/// The lists whose changes a message asks for.
pub(super) fn listens(subject: &Subject<'_, '_>) -> Vec<Listing> {
    let asked = subject
        .get("notifications")
        .filter(|_| subject.entry.object == Object::Subscription);
    let members = asked.and_then(json::members).unwrap_or_default();
    let known = LISTS
        .into_iter()
        .zip([Listing::Tools, Listing::Prompts, Listing::Resources]);
    known
        .filter(|(key, _)| json::get(&members, key) == Some("true"))
        .map(|(_, listing)| listing)
        .collect()
}

pub(super) fn authorize<'p>(
    agent: &CompiledAgent,
    subject: &Subject<'_, '_>,
    inventory: &Inventory,
) -> Result<Authorized<'p>, Refusal> {
    let invalid = |what: &str| Refusal::new(Reason::InvalidParams, format!("params.notifications{what}"));
    let raw = subject
        .get("notifications")
        .ok_or_else(|| invalid(" is missing"))?;
    let known = [LISTS[0], LISTS[1], LISTS[2], RESOURCES];
    let members = members_of(raw, &known, "params.notifications")?;
    let mut changed = false;
    let mut kept: Vec<(&str, String)> = Vec::new();
    for (key, raw) in &members {
        if LISTS.contains(&key.as_ref()) {
            if Kind::of(raw) != Kind::Bool {
                return Err(invalid(&format!(".{key} is no truth value")));
            }
            kept.push((key.as_ref(), (*raw).to_owned()));
        } else if key == RESOURCES {
            let items = json::items_at_most(raw, MAX_RESOURCES).ok_or_else(|| {
                invalid(&format!(
                    ".{RESOURCES} is no list of at most {MAX_RESOURCES} URIs"
                ))
            })?;
            let mut uris = Vec::with_capacity(items.len());
            for item in &items {
                let uri = json::string(item)
                    .ok_or_else(|| invalid(&format!(".{RESOURCES} has an entry that is no string")))?;
                let readable = agent
                    .resource_shown(&uri)
                    .and_then(|grant| inventory.resource(&uri, &grant.rule.uri));
                if readable.is_ok() {
                    uris.push(quoted(&uri));
                }
            }
            changed |= uris.len() < items.len();
            kept.push((RESOURCES, format!("[{}]", uris.join(","))));
        } else {
            changed = true;
        }
    }
    let mut edits = Vec::new();
    if changed {
        edits.push(Edit {
            at: span(subject.message.body(), raw),
            text: object(kept.iter().map(|(key, text)| (*key, text.as_str()))),
        });
    }
    Ok(Authorized {
        rule: subject.entry.rule().into(),
        edits,
        overridden: Vec::new(),
        reported: Vec::new(),
        target: None,
        tool: None,
    })
}
