//! What a server says and asks besides its answer: notifications that a client was granted or asked
//! for, and, in the legacy era, requests for what was granted under `clientFeatures`.

use bytes::Bytes;

use crate::{
    handles::Handle,
    json::{self, Kind, text::quoted},
    mcp::{
        Era, Message, Params,
        envelope::span,
        methods::{self, Direction, Form, Method},
    },
    policy::{
        answer::Channel,
        calls,
        compile::{CompiledAgent, CompiledPolicy},
        decide::{Context, LISTS, RESOURCES, feature_granted},
        document::ElicitationMode,
        lists::object,
        permit::{Expected, META_SUBSCRIPTION},
        splice::{self, Edit},
    },
    reason::Reason,
};

/// What becomes of something that the server says besides its answer.
pub(super) enum Event {
    /// The client gets these bytes.
    Passes(Bytes),
    /// A list of the server's may have changed.
    ListChanged,
}

/// What becomes of it, or why nothing does.
pub(super) fn decide(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    channel: Channel<'_>,
    message: &Message<'_>,
    context: Context<'_>,
) -> Result<Event, Reason> {
    let denied = Reason::ServerMessageDenied;
    let (era, expected) = (channel.version().era(), channel.expected());
    let entry = message
        .method()
        .and_then(|name| methods::lookup(era, Direction::ToClient, name))
        .ok_or(denied)?;
    let form = match message {
        Message::Request(_) => Form::Request,
        _ => Form::Notification,
    };
    let members = message.params().map(Params::members).unwrap_or_default();
    if entry.form != form
        || members
            .iter()
            .any(|(key, _)| !entry.params.contains(&key.as_ref()))
    {
        return Err(denied);
    }
    let get = |key: &str| message.params().and_then(|params| params.get(key));
    let listens = expected.is_some_and(Expected::is_endless);
    let may_come = era == Era::Legacy || (listens && belongs(get("_meta"), expected));
    if matches!(
        entry.method,
        Method::ToolsChanged | Method::PromptsChanged | Method::ResourcesChanged
    ) {
        return if may_come {
            Ok(Event::ListChanged)
        } else {
            Err(denied)
        };
    }
    // What it says in its own words may be about somebody else's records.
    let mut edits = Vec::new();
    if calls::is_filtered(policy, agent, expected) {
        let text = without_words(entry.method, message, expected).ok_or(Reason::AnswerUnfiltered)?;
        let params = message.params();
        edits.extend(params.map(|params| Edit {
            at: span(message.body(), params.raw()),
            text,
        }));
    }
    if let Message::Request(request) = message {
        let params = message.params().map_or("{}", Params::raw);
        feature_granted(&policy.features, entry.method, Some(params)).ok_or(Reason::AnswerFeature)?;
        edits.push(sealed(policy, agent, request.id.raw(), message.body(), context)?);
        return Ok(Event::Passes(splice::apply(message.body(), edits)));
    }
    if era == Era::Modern && listens != belongs(get("_meta"), expected) {
        return Err(denied);
    }
    let passes = match entry.method {
        Method::Progress => is_progress(get("progressToken"), expected),
        Method::LogMessage => policy.features.logging,
        Method::ResourceUpdated => {
            let uri = get("uri").and_then(json::string);
            (era == Era::Legacy || listens) && uri.is_some_and(|uri| agent.resource_shown(&uri).is_ok())
        }
        Method::Acknowledged => listens && acknowledges(agent, get("notifications")),
        Method::ElicitationComplete => policy.features.elicitation.contains(&ElicitationMode::Url),
        Method::Cancelled => {
            let id = get("requestId").ok_or(denied)?;
            edits.push(sealed(policy, agent, id, message.body(), context)?);
            true
        }
        _ => false,
    };
    if passes {
        Ok(Event::Passes(splice::apply(message.body(), edits)))
    } else {
        Err(denied)
    }
}

/// The id of the server's request as a handle.
fn sealed(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    id: &str,
    body: &Bytes,
    context: Context<'_>,
) -> Result<Edit, Reason> {
    let handle = Handle::Request {
        granted: policy.features.written(),
        id: id.to_owned(),
    };
    let handle = context.handles(agent).seal(&handle).ok_or(Reason::AnswerHandle)?;
    Ok(Edit {
        at: span(body, id),
        text: quoted(&handle),
    })
}

/// The `params` of a message that says something without words of the server's own; `None` if it says nothing else.
/// How much there is in all is left out of progress too.
fn without_words(method: Method, message: &Message<'_>, expected: Option<&Expected>) -> Option<String> {
    let kept: &[&str] = match method {
        Method::Progress => &["progressToken", "progress"],
        Method::ResourceUpdated => &["uri"],
        Method::Acknowledged => &["notifications"],
        Method::Ping | Method::RootsList => &[],
        _ => return None,
    };
    let members = message.params().map(Params::members).unwrap_or_default();
    let is_kept =
        |key: &str, raw: &str| kept.contains(&key) && (key != "progress" || Kind::of(raw) == Kind::Number);
    let kept = members
        .iter()
        .filter(|(key, raw)| is_kept(key, raw))
        .map(|(key, raw)| (key.as_ref(), *raw));
    let subscription = expected
        .filter(|expected| expected.is_endless())
        .map(Expected::subscription);
    let meta = subscription.as_deref().map(|meta| ("_meta", meta));
    Some(object(kept.chain(meta)))
}

/// Progress of this very request, which the client asked for.
fn is_progress(given: Option<&str>, expected: Option<&Expected>) -> bool {
    let asked = expected.and_then(|expected| expected.progress_token.as_deref());
    given.zip(asked).is_some_and(|(given, asked)| same(given, asked))
}

/// Whether `_meta` says that the notification belongs to the subscription that is listened to.
fn belongs(meta: Option<&str>, expected: Option<&Expected>) -> bool {
    let meta = meta.and_then(json::members).unwrap_or_default();
    let id = json::get(&meta, META_SUBSCRIPTION);
    id.zip(expected)
        .is_some_and(|(id, expected)| same(id, &expected.id))
}

/// The acknowledgement of a subscription names nothing that can't be asked for, and no resource that the agent doesn't have.
fn acknowledges(agent: &CompiledAgent, notifications: Option<&str>) -> bool {
    let Some(members) = notifications.and_then(json::members) else {
        return false;
    };
    members.iter().all(|(key, raw)| match Kind::of(raw) {
        Kind::Bool => LISTS.contains(&key.as_ref()),
        Kind::Array if key == RESOURCES => json::items(raw).is_some_and(|uris| {
            uris.into_iter()
                .all(|uri| json::string(uri).is_some_and(|uri| agent.resource_shown(&uri).is_ok()))
        }),
        _ => false,
    })
}

/// Whether two raw values are one, however a string is escaped.
fn same(left: &str, right: &str) -> bool {
    left == right || json::string(left).is_some_and(|text| json::string(right) == Some(text))
}
