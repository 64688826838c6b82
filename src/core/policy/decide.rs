//! The decision about a client's message: who asks for what, in which words, and what goes upstream.
//!
//! Everything that can be said against a message is said here or it passes, so the order matters:
//! what a message is comes before who may send it, and nothing that differs between a hidden and
//! an unknown tool comes before that tool is granted.

use std::{borrow::Cow, sync::Arc};

use crate::{
    json::{
        self, Kind, Limits,
        text::{is_case_variant, quoted},
    },
    mcp::{
        self, Era, Inventory, Message, MirroredHeaders, Params, ProtocolVersion,
        envelope::span,
        inventory::{self, Mirror, ToolFacts},
        methods::{self, Direction, Entry, Form, Method},
        version::{self, META_CAPABILITIES},
    },
    policy::{
        arguments,
        compile::{CompiledAgent, CompiledPolicy, Grant},
        permit::{Expected, Forward, Permitted},
        splice::{self, Edit},
    },
    reason::Reason,
    refusal::{Refusal, shortened},
};

/// The decision about one message, with what the audit records of it.
#[derive(Debug)]
pub struct Decision {
    /// What goes upstream, or the refusal for the client.
    pub outcome: Result<Permitted<Forward>, Refusal>,
    /// The era of the message, when it could be told.
    pub era: Option<Era>,
    /// The tool that was asked for, shortened.
    pub tool: Option<String>,
    /// The rule that permitted or refused, when one did.
    pub rule: Option<Arc<str>>,
    /// Forced arguments for which the caller gave another value.
    pub overridden: Vec<Arc<str>>,
}

/// What is known of a decision while it is made.
#[derive(Default)]
struct Trace {
    era: Option<Era>,
    tool: Option<String>,
    rule: Option<Arc<str>>,
    overridden: Vec<Arc<str>>,
}

/// A message that was found to be what it says, before anybody's rights.
struct Subject<'m, 'a> {
    message: &'m Message<'a>,
    entry: &'static Entry,
    version: ProtocolVersion,
    name: Option<Cow<'a, str>>,
}

/// What an authorized message needs changed.
struct Authorized<'p> {
    edits: Vec<Edit>,
    overridden: Vec<Arc<str>>,
    grant: Option<&'p Grant>,
}

impl CompiledPolicy {
    /// Decides a client's message.
    ///
    /// `caller` is who the certificate says, [`Self::agent`]; `None` is refused. `inventory` is
    /// what the server's lists have taught, see [`Inventory`].
    pub fn decide(
        &self,
        caller: Option<&CompiledAgent>,
        message: &Message<'_>,
        headers: &MirroredHeaders<'_>,
        inventory: &Inventory,
        limits: Limits,
    ) -> Decision {
        let mut trace = Trace::default();
        let outcome = match caller {
            Some(agent) => self.decide_for(agent, message, headers, inventory, limits, &mut trace),
            None => Err(Refusal::plain(Reason::AgentUnknown)),
        };
        let outcome = outcome.map_err(|refusal| {
            if refusal.rule.is_some() {
                trace.rule.clone_from(&refusal.rule);
            }
            let id = if matches!(message, Message::Request(_)) {
                message.id()
            } else {
                None
            };
            refusal.answering(id).in_era(trace.era)
        });
        let Trace {
            era,
            tool,
            rule,
            overridden,
        } = trace;
        Decision {
            outcome,
            era,
            tool,
            rule,
            overridden,
        }
    }

    fn decide_for(
        &self,
        agent: &CompiledAgent,
        message: &Message<'_>,
        headers: &MirroredHeaders<'_>,
        inventory: &Inventory,
        limits: Limits,
        trace: &mut Trace,
    ) -> Result<Permitted<Forward>, Refusal> {
        headers.check()?;
        let version = version::of_message(headers, message.params())?;
        trace.era = Some(version.era());
        let subject = examine(message, version)?;
        trace.tool = subject.name.as_deref().map(shortened);
        headers.agree(version.era(), subject.entry.name, subject.name.as_deref())?;

        let authorized = self.authorize(agent, &subject, inventory)?;
        let mirrors = mirrors(&subject, inventory);
        if let (Some(grant), Some(mirrors)) = (authorized.grant, mirrors) {
            let arguments = message.params().and_then(|params| params.get("arguments"));
            inventory::agree(mirrors, headers, arguments, |name| {
                // Nobody mirrors arguments in the legacy era; who does may not lie.
                version.era() == Era::Legacy || grant.forced.iter().any(|forced| &*forced.name == name)
            })?;
        }
        trace.rule = Some(match authorized.grant {
            Some(grant) => grant.tool.rule.clone(),
            None => methods::rule(subject.entry).into(),
        });
        trace.overridden = authorized.overridden;

        let rewritten = !authorized.edits.is_empty();
        let body = splice::apply(message.body(), authorized.edits);
        if !rewritten {
            return Ok(permit(&subject, authorized.grant, headers, mirrors));
        }
        // What goes upstream is decided as if it had come in: same request, same rights, nothing
        // left to change.
        let inconsistent = || Refusal::plain(Reason::RewriteInconsistent);
        let grown = Limits {
            bytes: limits.bytes.max(body.len()),
            ..limits
        };
        let again = mcp::read(&body, grown).map_err(|_| inconsistent())?;
        let second = examine(&again, version).map_err(|_| inconsistent())?;
        let authorized = self
            .authorize(agent, &second, inventory)
            .map_err(|_| inconsistent())?;
        let same = again.id() == message.id()
            && second.entry.method == subject.entry.method
            && second.name == subject.name
            && authorized.edits.is_empty();
        if !same {
            return Err(inconsistent());
        }
        Ok(permit(&second, authorized.grant, headers, mirrors))
    }

    /// The part of the policy by which a tool doesn't exist for an agent.
    fn rule_against(&self, reason: Reason, tool: &str) -> Arc<str> {
        match (self.tool(tool), reason) {
            (Some(listed), Reason::ToolNotGranted) => format!("{}.roles", listed.rule).into(),
            (Some(listed), _) => listed.rule.clone(),
            (None, _) => "tools".into(),
        }
    }

    /// Whether the agent may send the message, and what has to be changed in it.
    fn authorize<'p>(
        &'p self,
        agent: &'p CompiledAgent,
        subject: &Subject<'_, '_>,
        inventory: &Inventory,
    ) -> Result<Authorized<'p>, Refusal> {
        let mut authorized = Authorized {
            edits: Vec::new(),
            overridden: Vec::new(),
            grant: None,
        };
        let body = subject.message.body();
        let Some(params) = subject.message.params() else {
            return match subject.entry.method {
                Method::Initialize => Err(Refusal::new(Reason::InvalidParams, "params is missing")),
                _ => Ok(authorized),
            };
        };
        if let Some(name) = subject.name.as_deref() {
            let refuse = |reason| Refusal::tool(reason, name);
            let grant = agent
                .grant(self, name)
                .map_err(|reason| refuse(reason).by(self.rule_against(reason, name)))?;
            // What a list had to hide can't be called either.
            if let Some(ToolFacts::Unusable(reason)) = inventory.tool(name) {
                return Err(refuse(*reason).by(grant.tool.rule.clone()));
            }
            let rewrite = arguments::rewrite(grant, body, params).map_err(|refusal| match refusal.rule {
                Some(_) => refusal,
                None => refusal.by(grant.tool.rule.clone()),
            })?;
            authorized.edits = rewrite.edits;
            authorized.overridden = rewrite.overridden;
            authorized.grant = Some(grant);
        }
        if subject.entry.method == Method::Initialize {
            negotiate(body, params, &mut authorized.edits)?;
        }
        if subject.version.era() == Era::Modern {
            withhold_capabilities(body, params, &mut authorized.edits)?;
        }
        Ok(authorized)
    }
}

/// Holds a message against the method tables.
fn examine<'m, 'a>(message: &'m Message<'a>, version: ProtocolVersion) -> Result<Subject<'m, 'a>, Refusal> {
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
    for (key, _) in members {
        if entry.params.contains(&key.as_ref()) {
            continue;
        }
        let variant = entry.params.iter().any(|known| is_case_variant(key, known));
        let reason = if variant {
            Reason::CaseVariant
        } else {
            Reason::InvalidParams
        };
        return Err(Refusal::new(
            reason,
            format!("params.{} does not belong to {}", shortened(key), entry.name),
        ));
    }
    if let Some(cursor) = json::get(members, "cursor")
        && Kind::of(cursor) != Kind::String
    {
        return Err(Refusal::new(Reason::InvalidParams, "params.cursor is no string"));
    }
    if let Some(meta) = json::get(members, "_meta")
        && Kind::of(meta) != Kind::Object
    {
        return Err(Refusal::new(Reason::InvalidParams, "params._meta is no object"));
    }
    let name = match entry.names {
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
    Ok(Subject {
        message,
        entry,
        version,
        name,
    })
}

/// A server is asked for no version that isn't spoken here, and told of no capability of the
/// client: what a server could ask of a client doesn't pass, so it must not wait for it.
fn negotiate(body: &[u8], params: &Params<'_>, edits: &mut Vec<Edit>) -> Result<(), Refusal> {
    let invalid = |key| {
        Refusal::new(
            Reason::InvalidParams,
            format!("params.{key} is missing or of the wrong type"),
        )
    };
    let requested = params
        .get("protocolVersion")
        .ok_or_else(|| invalid("protocolVersion"))?;
    let text = json::string(requested).ok_or_else(|| invalid("protocolVersion"))?;
    let version = version::negotiated(&text);
    if version.as_str() != text {
        edits.push(Edit {
            at: span(body, requested),
            text: quoted(version.as_str()),
        });
    }
    let capabilities = params
        .get("capabilities")
        .ok_or_else(|| invalid("capabilities"))?;
    empty_object(body, capabilities, edits).ok_or_else(|| invalid("capabilities"))
}

/// The same for a modern request, which says its capabilities each time.
fn withhold_capabilities(body: &[u8], params: &Params<'_>, edits: &mut Vec<Edit>) -> Result<(), Refusal> {
    params
        .get("_meta")
        .and_then(json::members)
        .and_then(|meta| json::get(&meta, META_CAPABILITIES))
        .and_then(|capabilities| empty_object(body, capabilities, edits))
        .ok_or_else(|| {
            let lack = format!("params._meta lacks {META_CAPABILITIES}, or it is no object");
            Refusal::new(Reason::MetaMissing, lack)
        })
}

/// Makes a raw object empty; `None` when it is no object.
fn empty_object(body: &[u8], raw: &str, edits: &mut Vec<Edit>) -> Option<()> {
    if Kind::of(raw) != Kind::Object {
        return None;
    }
    if raw != "{}" {
        edits.push(Edit {
            at: span(body, raw),
            text: "{}".to_owned(),
        });
    }
    Some(())
}

fn mirrors<'i>(subject: &Subject<'_, '_>, inventory: &'i Inventory) -> Option<&'i [Mirror]> {
    match inventory.tool(subject.name.as_deref()?)? {
        ToolFacts::Usable { mirrors } => Some(mirrors),
        ToolFacts::Unusable(_) => None,
    }
}

/// The permit of a final message.
fn permit(
    subject: &Subject<'_, '_>,
    grant: Option<&Grant>,
    client: &MirroredHeaders<'_>,
    mirrors: Option<&[Mirror]>,
) -> Permitted<Forward> {
    let mut headers: Vec<(Cow<'static, str>, String)> = Vec::with_capacity(3);
    if client.version.is_some() {
        headers.push(("MCP-Protocol-Version".into(), subject.version.as_str().to_owned()));
    }
    if subject.version.era() == Era::Modern {
        headers.push(("Mcp-Method".into(), subject.entry.name.to_owned()));
        if let Some(name) = subject.name.as_deref() {
            headers.push(("Mcp-Name".into(), mcp::headers::encode(name).into_owned()));
        }
        param_headers(subject, grant, client, mirrors, &mut headers);
    }
    let expected = match subject.message {
        Message::Request(request) => Some(Expected {
            id: request.id.raw().to_owned(),
            method: subject.entry.method,
            version: subject.version,
            progress_token: progress_token(request.params.as_ref()),
        }),
        _ => None,
    };
    Permitted::new(Forward {
        body: subject.message.body().clone(),
        headers,
        version: subject.version,
        method: subject.entry.method,
        expected,
    })
}

/// The `Mcp-Param-*` headers. Those of known annotations are written from the final arguments.
/// Others pass as they came, as SEP-2243 asks of intermediaries, unless the tool has forced or
/// bounded arguments: then a header might say what the caller was denied to say. In particular,
/// while the server hasn't listed the tool yet, such a call goes without them, and a server that
/// needs them refuses it.
fn param_headers(
    subject: &Subject<'_, '_>,
    grant: Option<&Grant>,
    client: &MirroredHeaders<'_>,
    mirrors: Option<&[Mirror]>,
    headers: &mut Vec<(Cow<'static, str>, String)>,
) {
    let known = mirrors.unwrap_or_default();
    if grant.is_some_and(|grant| grant.forced.is_empty() && grant.tool.bounds.is_empty()) {
        let unknown = client.params.iter().filter(|(suffix, _)| {
            !known
                .iter()
                .any(|mirror| mirror.header.eq_ignore_ascii_case(suffix))
        });
        headers.extend(
            unknown.map(|(suffix, value)| (format!("Mcp-Param-{suffix}").into(), (*value).to_owned())),
        );
    }
    let arguments = subject
        .message
        .params()
        .and_then(|params| params.get("arguments"));
    let written = inventory::headers_of(known, arguments);
    headers.extend(written.into_iter().map(|(name, value)| (Cow::Owned(name), value)));
}

fn progress_token(params: Option<&Params<'_>>) -> Option<String> {
    let meta = json::members(params?.get("_meta")?)?;
    json::get(&meta, "progressToken").map(str::to_owned)
}
