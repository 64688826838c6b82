//! What a message is, before anybody's rights: held against the method tables.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{
    json::{self, Kind, text::is_case_variant},
    mcp::{
        Message, Params, ProtocolVersion,
        envelope::span,
        methods::{self, Direction, Entry, Form, Object},
    },
    policy::{
        decide::Target,
        lists::object,
        splice::{self, Edit},
    },
    reason::Reason,
    refusal::{Refusal, shortened},
};

/// A message that was found to be what it says.
pub(super) struct Subject<'m, 'a> {
    pub message: &'m Message<'a>,
    pub entry: &'static Entry,
    pub version: ProtocolVersion,
    /// What it names, and `Mcp-Name` mirrors.
    pub name: Option<Cow<'a, str>>,
}

impl<'a> Subject<'_, 'a> {
    /// What it asks for, by its own words.
    pub fn target(&self) -> Option<Target> {
        let name = self.name.as_deref()?.to_owned();
        match self.entry.object {
            Object::Tool => Some(Target::Tool(name)),
            Object::Prompt => Some(Target::Prompt(name)),
            Object::Resource => Some(Target::Resource(name)),
            _ => None,
        }
    }

    pub fn params(&self) -> Option<&Params<'a>> {
        self.message.params()
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.params().and_then(|params| params.get(key))
    }
}

/// Names of removed members that are recorded at most.
const MAX_REMOVED: usize = 8;

/// Kinds that members of `params` must have, whatever the method.
const KINDS: [(&str, Kind); 10] = [
    ("cursor", Kind::String),
    ("_meta", Kind::Object),
    ("inputResponses", Kind::Object),
    ("requestState", Kind::String),
    ("notifications", Kind::Object),
    ("ref", Kind::Object),
    ("argument", Kind::Object),
    ("context", Kind::Object),
    ("level", Kind::String),
    ("clientInfo", Kind::Object),
];

/// Holds a message against the method tables.
pub(super) fn examine<'m, 'a>(
    message: &'m Message<'a>,
    version: ProtocolVersion,
) -> Result<Subject<'m, 'a>, Refusal> {
    let (method, form) = match message {
        Message::Request(request) => (&request.method, Form::Request),
        Message::Notification(notification) => (&notification.method, Form::Notification),
        Message::Response(_) => return Err(Refusal::plain(Reason::ResponseUnexpected)),
    };
    let entry = methods::lookup(version.era(), Direction::ToServer, method).ok_or_else(|| {
        Refusal::new(
            Reason::MethodUnknown,
            format!("Method not found: {}", shortened(method)),
        )
    })?;
    if entry.form != form {
        return Err(Refusal::plain(Reason::WrongForm));
    }
    let members = message.params().map(Params::members).unwrap_or_default();
    for (key, raw) in members {
        if let Some((_, kind)) = KINDS.iter().find(|(name, _)| name == key)
            && Kind::of(raw) != *kind
        {
            return Err(Refusal::new(
                Reason::InvalidParams,
                format!("params.{key} is of the wrong type"),
            ));
        }
    }
    let name = match entry.names() {
        None => None,
        Some(key) => {
            let name = message.params().and_then(|params| params.text(key));
            Some(name.ok_or_else(|| {
                Refusal::new(
                    Reason::InvalidParams,
                    format!("params.{key} is missing, or no string"),
                )
            })?)
        }
    };
    if message.params().is_none() && needs_params(entry) {
        return Err(Refusal::new(Reason::InvalidParams, "params is missing"));
    }
    Ok(Subject {
        message,
        entry,
        version,
        name,
    })
}

fn needs_params(entry: &Entry) -> bool {
    matches!(
        entry.object,
        Object::Reference | Object::Subscription | Object::Log | Object::Task
    )
}

/// The message without the members of `params` that don't belong to its method, and their names;
/// `None` when it has none. A server may know what they mean and ignores them otherwise, as the
/// protocol asks of it: left out, they mean nothing to either.
pub(super) fn without_foreign(
    message: &Message<'_>,
    version: ProtocolVersion,
) -> Result<Option<(Bytes, Vec<String>)>, Refusal> {
    let entry = message
        .method()
        .and_then(|name| methods::lookup(version.era(), Direction::ToServer, name));
    let Some((entry, params)) = entry.zip(message.params()) else {
        return Ok(None);
    };
    let is_known = |key: &str| entry.params.contains(&key);
    let mut removed = Vec::new();
    for (key, _) in params.members() {
        if entry.params.iter().any(|known| is_case_variant(key, known)) {
            return Err(Refusal::new(
                Reason::CaseVariant,
                format!("params.{} differs from a known one in case only", shortened(key)),
            ));
        }
        if !is_known(key) && removed.len() < MAX_REMOVED {
            removed.push(shortened(key).into());
        }
    }
    if removed.is_empty() {
        return Ok(None);
    }
    let known = params
        .members()
        .iter()
        .filter(|(key, _)| is_known(key))
        .map(|(key, raw)| (key.as_ref(), *raw));
    let edit = Edit {
        at: span(message.body(), params.raw()),
        text: object(known),
    };
    Ok(Some((splice::apply(message.body(), vec![edit]), removed)))
}

/// The members of an object in `params`, none of them a case variant of what has a meaning there.
pub(super) fn members_of<'a>(raw: &'a str, known: &[&str], path: &str) -> Result<json::Members<'a>, Refusal> {
    let members = json::members(raw)
        .ok_or_else(|| Refusal::new(Reason::InvalidParams, format!("{path} is no object")))?;
    for (key, _) in &members {
        if known.iter().any(|name| is_case_variant(key, name)) {
            return Err(Refusal::new(
                Reason::CaseVariant,
                format!(
                    "{path}.{} differs from a known member in case only",
                    shortened(key)
                ),
            ));
        }
    }
    Ok(members)
}
