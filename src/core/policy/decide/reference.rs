//! `completion/complete`: values for an argument of a prompt, or for a variable of a template. What
//! is completed must exist for the agent, and what is forced is forced in the context as well, so
//! that a server that completes by it completes for this tenant.

use std::sync::Arc;

use super::{
    Authorized, Target,
    examine::{Subject, members_of},
};
use crate::{
    json::{
        self, Kind, Members,
        text::{is_case_variant, quoted, same_ignoring_case},
    },
    mcp::{Inventory, envelope::span},
    policy::{
        compile::{CompiledAgent, CompiledPolicy},
        lists::object,
        splice::Edit,
    },
    reason::Reason,
    refusal::{Refusal, named},
};

fn invalid(what: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InvalidParams, what)
}

pub(super) fn authorize<'p>(
    policy: &'p CompiledPolicy,
    agent: &'p CompiledAgent,
    subject: &Subject<'_, '_>,
    inventory: &Inventory,
    again: bool,
) -> Result<Authorized<'p>, Refusal> {
    let raw = subject
        .get("ref")
        .ok_or_else(|| invalid("params.ref is missing"))?;
    let reference = members_of(raw, &["type", "name", "uri"], "params.ref")?;
    let text = |key: &str| json::get(&reference, key).and_then(json::string);
    let body = subject.message.body();
    let mut edits = Vec::new();
    let (rule, target, forced, forbidden) = match text("type").as_deref() {
        Some("ref/prompt") => {
            let name = text("name").ok_or_else(|| invalid("params.ref.name is missing, or no string"))?;
            let grant = agent
                .prompt(policy, &name)
                .map_err(|reason| Refusal::prompt(reason, &name).by("prompts".into()))?;
            inventory
                .prompt(&name, &grant.rule.accepted)
                .map_err(|reason| Refusal::prompt(reason, &name).by(grant.rule.path.clone()))?;
            let forced = grant
                .forced
                .iter()
                .map(|argument| (argument.name.to_string(), argument.value.clone()))
                .collect();
            let forbidden = grant.rule.forbidden.as_slice();
            (
                grant.rule.path.clone(),
                Target::Prompt(name.into_owned()),
                forced,
                forbidden,
            )
        }
        Some("ref/resource") => {
            let uri = text("uri").ok_or_else(|| invalid("params.ref.uri is missing, or no string"))?;
            // An agent knows the template with its own values in place, the server without.
            let grant = agent
                .resources()
                .filter(|grant| agent.completes(grant))
                .find(|grant| {
                    if again {
                        grant.rule.uri == *uri
                    } else {
                        grant.uri == *uri
                    }
                })
                .ok_or_else(|| Refusal::resource(Reason::ResourceNotGranted, &uri).by("resources".into()))?;
            inventory
                .resource(&grant.rule.uri, &grant.rule.uri)
                .map_err(|reason| Refusal::resource(reason, &uri).by(grant.rule.path.clone()))?;
            if let Some(raw) = json::get(&reference, "uri").filter(|_| grant.rule.uri != *uri) {
                edits.push(Edit {
                    at: span(body, raw),
                    text: quoted(&grant.rule.uri),
                });
            }
            let forced: Vec<_> = grant
                .forced
                .iter()
                .map(|(name, value)| (name.clone(), quoted(value)))
                .collect();
            (
                grant.rule.path.clone(),
                Target::Resource(grant.uri.clone()),
                forced,
                &[][..],
            )
        }
        _ => return Err(invalid("params.ref.type is neither ref/prompt nor ref/resource")),
    };
    check_argument(subject, &forced, forbidden)?;
    edits.extend(force(subject, &forced, forbidden)?);
    Ok(Authorized {
        rule,
        edits,
        overridden: Vec::new(),
        reported: Vec::new(),
        target: Some(target),
        tool: None,
    })
}

/// What is forced or forbidden isn't there for a client, so it can't be completed.
fn check_argument(
    subject: &Subject<'_, '_>,
    forced: &[(String, String)],
    forbidden: &[Arc<str>],
) -> Result<(), Refusal> {
    let raw = subject
        .get("argument")
        .ok_or_else(|| invalid("params.argument is missing"))?;
    let argument = members_of(raw, &["name", "value"], "params.argument")?;
    let name = json::get(&argument, "name")
        .and_then(json::string)
        .ok_or_else(|| invalid("params.argument.name is missing, or no string"))?;
    let forced = forced.iter().map(|(name, _)| name.as_str());
    let mut hidden = forced.chain(forbidden.iter().map(AsRef::as_ref));
    if hidden.any(|hidden| same_ignoring_case(hidden, &name)) {
        return Err(invalid(format!("there is no argument {}", named(&name))));
    }
    Ok(())
}

/// Sets what is forced in `params.context.arguments`, where nothing that is forbidden may be.
fn force(
    subject: &Subject<'_, '_>,
    forced: &[(String, String)],
    forbidden: &[Arc<str>],
) -> Result<Option<Edit>, Refusal> {
    let context = subject.get("context");
    let members = match context {
        Some(raw) => members_of(raw, &["arguments"], "params.context")?,
        None => Members::new(),
    };
    let given = match json::get(&members, "arguments") {
        None => Members::new(),
        Some(raw) if Kind::of(raw) == Kind::Object => json::members(raw).unwrap_or_default(),
        Some(_) => return Err(Refusal::plain(Reason::ArgumentsNotObject)),
    };
    for (key, _) in &given {
        if forced.iter().any(|(name, _)| is_case_variant(key, name))
            || forbidden.iter().any(|name| is_case_variant(key, name))
        {
            return Err(Refusal::plain(Reason::CaseVariant));
        }
        if forbidden.iter().any(|name| **name == **key) {
            let message = format!("Argument {} must not be given.", named(key));
            return Err(Refusal::new(Reason::ArgumentForbidden, message).as_protocol_error());
        }
    }
    if forced.is_empty() {
        return Ok(None);
    }
    let kept = given
        .iter()
        .filter(|(key, _)| forced.iter().all(|(name, _)| name != key))
        .map(|(key, raw)| (key.as_ref(), *raw));
    let set = forced.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let arguments = object(kept.chain(set));
    let others = members
        .iter()
        .filter(|(key, _)| key != "arguments")
        .map(|(key, raw)| (key.as_ref(), *raw));
    let text = object(others.chain([("arguments", arguments.as_str())]));
    let body = subject.message.body();
    Ok(match (context, subject.params()) {
        (Some(raw), _) if raw == text => None,
        (Some(raw), _) => Some(Edit {
            at: span(body, raw),
            text,
        }),
        (None, Some(params)) => {
            let start = span(body, params.raw()).start + 1;
            Some(Edit {
                at: start..start,
                // `ref` is there, so something follows.
                text: format!("\"context\":{text},"),
            })
        }
        (None, None) => None,
    })
}
