//! The decision about a client's message: who asks for what, in which words, and what goes upstream.
//!
//! Everything that can be said against a message is said here or it passes, so the order matters:
//! what a message is comes before who may send it, and nothing that differs between a hidden and
//! an unknown thing comes before that thing is granted.

mod authorize;
mod examine;
mod features;
mod forward;
mod reference;
mod subscription;

use std::sync::Arc;

use crate::{
    handles::{Handle, Handles, Kind as HandleKind, NoHandles, Replica, Seal},
    json::Limits,
    mcp::{
        self, Era, Inventory, Message, MirroredHeaders, mirrors,
        version::{self, ProtocolVersion},
    },
    policy::{
        arguments,
        compile::{CompiledAgent, CompiledPolicy, Grant},
        permit::{Forward, Permitted},
        splice::{self, Edit},
    },
    reason::Reason,
    refusal::{Refusal, shortened},
};

use examine::{Subject, examine};
pub(super) use features::granted as feature_granted;
pub(super) use subscription::{LISTS, RESOURCES};

/// What a decision looks at besides the message and the policy.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What the server's lists have taught.
    pub inventory: &'a Inventory,
    /// Bounds of a message.
    pub limits: Limits,
    /// Seals and opens handles.
    pub seal: &'a dyn Seal,
    /// The server's own id of the legacy session that the message belongs to.
    pub session: Option<&'a str>,
    /// Which replica's handles are known.
    pub reach: Reach,
}

/// Which replica's handles a decision knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of every replica: a message about another one's is permitted, and belongs there.
    EveryReplica,
    /// Those that were made here. Any other doesn't exist (or not any more): a message is handed on once.
    ThisReplica,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// A context without handles and sessions: for decisions offline.
    pub fn offline(inventory: &'a Inventory, limits: Limits) -> Self {
        Self {
            inventory,
            limits,
            seal: &NoHandles,
            session: None,
            reach: Reach::ThisReplica,
        }
    }

    /// The handles of an agent.
    pub(super) fn handles(&self, agent: &'a CompiledAgent) -> Handles<'a> {
        Handles::new(self.seal, agent.owner(), self.session)
    }
}

/// What a message is about, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A tool, by name.
    Tool(String),
    /// A prompt, by name.
    Prompt(String),
    /// A resource, by URI, or a template.
    Resource(String),
}

impl Target {
    /// Its name, as it was asked for.
    pub fn name(&self) -> &str {
        match self {
            Self::Tool(name) | Self::Prompt(name) | Self::Resource(name) => name,
        }
    }

    fn shortened(&self) -> Self {
        match self {
            Self::Tool(name) => Self::Tool(shortened(name).into()),
            Self::Prompt(name) => Self::Prompt(shortened(name).into()),
            Self::Resource(name) => Self::Resource(shortened(name).into()),
        }
    }
}

/// The decision about one message, with what the audit records of it.
#[derive(Debug)]
pub struct Decision {
    /// What goes upstream, or the refusal for the client.
    pub outcome: Result<Permitted<Forward>, Refusal>,
    /// The era of the message, when it could be told.
    pub era: Option<Era>,
    /// What was asked for, its name shortened.
    pub target: Option<Target>,
    /// The rule that permitted or refused, when one did.
    pub rule: Option<Arc<str>>,
    /// Forced arguments for which the caller gave another value.
    pub overridden: Vec<Arc<str>>,
    /// Rules that would have refused it, and only report it.
    pub reported: Vec<Arc<str>>,
    /// Members of `params` that don't belong to the method and were left out, shortened.
    pub removed: Vec<String>,
    /// The replica that the message is for, when it presents a handle that was made in another than this:
    /// it isn't for the server here.
    pub elsewhere: Option<Replica>,
}

/// What is known of a decision while it is made.
#[derive(Default)]
struct Trace {
    era: Option<Era>,
    target: Option<Target>,
    rule: Option<Arc<str>>,
    overridden: Vec<Arc<str>>,
    reported: Vec<Arc<str>>,
    removed: Vec<String>,
    elsewhere: Option<Replica>,
}

/// What an authorized message needs changed, and by which rule it passes.
struct Authorized<'p> {
    rule: Arc<str>,
    edits: Vec<Edit>,
    overridden: Vec<Arc<str>>,
    reported: Vec<Arc<str>>,
    /// What it is about: for a task, the tool that became it.
    target: Option<Target>,
    /// The grant of a tool that is called.
    tool: Option<&'p Grant>,
}

/// Opens the handles that a message presents. The rewritten message is decided a second time, and
/// then has the server's own values: those, and no others, are what was opened before.
struct Opener<'a> {
    handles: Handles<'a>,
    opened: Vec<Handle>,
    reach: Reach,
    /// The other replica that handles of this message were made in.
    elsewhere: Option<Replica>,
    again: bool,
}

impl Opener<'_> {
    fn open(&mut self, kind: HandleKind, presented: &str) -> Result<Handle, Refusal> {
        let unknown = || Refusal::plain(Reason::HandleUnknown);
        if self.again {
            let handle = self.opened.iter().find(|handle| handle.value() == presented);
            return handle.cloned().ok_or_else(unknown);
        }
        let opened = self.handles.open(kind, presented).ok_or_else(unknown)?;
        if opened.elsewhere.is_some() && self.reach == Reach::ThisReplica {
            return Err(unknown());
        }
        // Of two that were made in two places no replica knows both, and so the one that is asked refuses.
        self.elsewhere = opened.elsewhere.or_else(|| self.elsewhere.take());
        self.opened.push(opened.handle.clone());
        Ok(opened.handle)
    }
}

impl CompiledPolicy {
    /// Decides a client's message.
    ///
    /// `caller` is who the certificate says, [`Self::agent`]; `None` is refused.
    pub fn decide(
        &self,
        caller: Option<&CompiledAgent>,
        message: &Message<'_>,
        headers: &MirroredHeaders<'_>,
        context: Context<'_>,
    ) -> Decision {
        let mut trace = Trace::default();
        let outcome = match caller {
            Some(agent) => self.decide_for(agent, message, headers, context, &mut trace),
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
            target,
            rule,
            overridden,
            reported,
            removed,
            elsewhere,
        } = trace;
        Decision {
            outcome,
            era,
            target,
            rule,
            overridden,
            reported,
            removed,
            elsewhere,
        }
    }

    fn decide_for(
        &self,
        agent: &CompiledAgent,
        message: &Message<'_>,
        headers: &MirroredHeaders<'_>,
        context: Context<'_>,
        trace: &mut Trace,
    ) -> Result<Permitted<Forward>, Refusal> {
        headers.check()?;
        if matches!(message, Message::Response(_))
            && headers.version == Some(ProtocolVersion::V20260728.as_str())
        {
            trace.era = Some(Era::Modern);
            return Err(Refusal::plain(Reason::ResponseUnexpected));
        }
        let version = version::of_message(headers, message.params())?;
        trace.era = Some(version.era());
        let mut opener = Opener {
            handles: context.handles(agent),
            opened: Vec::new(),
            reach: context.reach,
            elsewhere: None,
            again: false,
        };
        let permitted = if let Message::Response(_) = message {
            self.decide_response(message, version, headers, context, &mut opener, trace)
        } else if let Some((body, removed)) = examine::without_foreign(message, version)? {
            trace.removed = removed;
            let known =
                mcp::read(&body, context.limits).map_err(|_| Refusal::plain(Reason::RewriteInconsistent))?;
            self.decide_known(agent, &known, version, headers, context, &mut opener, trace)
        } else {
            self.decide_known(agent, message, version, headers, context, &mut opener, trace)
        };
        trace.elsewhere = opener.elsewhere;
        permitted
    }

    /// Decides a request or notification with nothing but known parameters.
    #[allow(clippy::too_many_arguments)]
    fn decide_known(
        &self,
        agent: &CompiledAgent,
        message: &Message<'_>,
        version: ProtocolVersion,
        headers: &MirroredHeaders<'_>,
        context: Context<'_>,
        opener: &mut Opener<'_>,
        trace: &mut Trace,
    ) -> Result<Permitted<Forward>, Refusal> {
        let subject = examine(message, version)?;
        trace.target = subject.target().as_ref().map(Target::shortened);
        headers.agree(
            version.era(),
            subject.entry.method.name(),
            subject.name.as_deref(),
        )?;

        let authorized = self.authorize(agent, &subject, context.inventory, opener)?;
        let mirrors = forward::mirrors(authorized.tool, context.inventory);
        if let (Some(grant), Some(mirrors)) = (authorized.tool, mirrors) {
            let arguments = message.params().and_then(|params| params.get("arguments"));
            mirrors::agree(mirrors, headers, arguments, |name| {
                // Nobody mirrors arguments in the legacy era; who does may not lie.
                version.era() == Era::Legacy || grant.forced.iter().any(|forced| &*forced.name == name)
            })?;
        }
        trace.rule = Some(authorized.rule.clone());
        trace.target = authorized.target.as_ref().map(Target::shortened);
        trace.overridden = authorized.overridden;
        trace.reported = authorized.reported;

        if authorized.edits.is_empty() {
            fit(&subject, authorized.tool, context.inventory)?;
            return forward::permit(
                &subject,
                authorized.tool,
                authorized.target.as_ref(),
                headers,
                mirrors,
            );
        }
        // What goes upstream is decided as if it had come in: same request, same rights, nothing
        // left to change.
        let body = splice::apply(message.body(), authorized.edits);
        let inconsistent = || Refusal::plain(Reason::RewriteInconsistent);
        let again = mcp::read(&body, grown(context.limits, body.len())).map_err(|_| inconsistent())?;
        let second = examine(&again, version).map_err(|_| inconsistent())?;
        opener.again = true;
        let decided = self
            .authorize(agent, &second, context.inventory, opener)
            .map_err(|_| inconsistent())?;
        let same = again.id() == message.id()
            && second.entry.method == subject.entry.method
            && decided.target == authorized.target
            && decided.rule == authorized.rule
            && decided.edits.is_empty();
        if !same {
            return Err(inconsistent());
        }
        fit(&second, decided.tool, context.inventory)?;
        forward::permit(&second, decided.tool, decided.target.as_ref(), headers, mirrors)
    }

    /// A client's answer to what the server asked it, in the legacy era. Its id is a handle: only
    /// a request that passed to this agent in this session can be answered.
    fn decide_response(
        &self,
        message: &Message<'_>,
        version: ProtocolVersion,
        headers: &MirroredHeaders<'_>,
        context: Context<'_>,
        opener: &mut Opener<'_>,
        trace: &mut Trace,
    ) -> Result<Permitted<Forward>, Refusal> {
        let unexpected = || Refusal::plain(Reason::ResponseUnexpected);
        let Message::Response(response) = message else {
            return Err(unexpected());
        };
        let presented = response.id.ok_or_else(unexpected)?;
        let text = crate::json::string(presented.raw()).ok_or_else(unexpected)?;
        let handle = opener
            .open(HandleKind::Request, &text)
            .map_err(|_| unexpected())?;
        // What was granted when it was asked may not be any more.
        let Handle::Request { granted, id } = &handle else {
            return Err(unexpected());
        };
        if *granted != self.features.written() {
            return Err(unexpected());
        }
        trace.rule = Some("clientFeatures".into());
        let edit = Edit {
            at: mcp::envelope::span(message.body(), presented.raw()),
            text: id.clone(),
        };
        let body = splice::apply(message.body(), vec![edit]);
        let again = mcp::read(&body, grown(context.limits, body.len()));
        if !again.is_ok_and(|again| matches!(again, Message::Response(_)) && again.id() == Some(id)) {
            return Err(Refusal::plain(Reason::RewriteInconsistent));
        }
        Ok(forward::response(body, version, headers))
    }
}

/// Holds what goes upstream against what arguments may weigh, and against the schema of the tool that is called, once the
/// server has told it.
fn fit(subject: &Subject<'_, '_>, tool: Option<&Grant>, inventory: &Inventory) -> Result<(), Refusal> {
    let Some(grant) = tool else {
        return Ok(());
    };
    arguments::weigh(grant, subject.get("arguments"))?;
    match inventory.tool(&grant.rule.name, &grant.rule.accepted) {
        Some(Ok(facts)) => arguments::fit(grant, &facts.schema, subject.get("arguments")),
        _ => Ok(()),
    }
}

/// Limits of a message that was rewritten.
fn grown(limits: Limits, bytes: usize) -> Limits {
    Limits {
        bytes: limits.bytes.max(bytes),
        ..limits
    }
}
