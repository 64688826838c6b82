//! Whether an agent may send a message, by which rule, and what has to be changed in it.

use std::sync::Arc;

use super::{Authorized, Opener, Target, examine::Subject, features, reference, subscription};
use crate::{
    handles::{Handle, Kind as HandleKind},
    json::{self, text::quoted},
    mcp::{
        Era, Inventory,
        envelope::span,
        methods::{Method, Object},
    },
    policy::{
        arguments,
        capabilities::TASKS,
        compile::{CompiledAgent, CompiledPolicy, Grant},
        splice::Edit,
    },
    reason::Reason,
    refusal::Refusal,
};

impl Authorized<'_> {
    fn by(rule: impl Into<Arc<str>>) -> Self {
        Self {
            rule: rule.into(),
            edits: Vec::new(),
            overridden: Vec::new(),
            reported: Vec::new(),
            target: None,
            tool: None,
        }
    }
}

impl CompiledPolicy {
    /// Decides by the object of the method.
    pub(super) fn authorize<'p>(
        &'p self,
        agent: &'p CompiledAgent,
        subject: &Subject<'_, '_>,
        inventory: &Inventory,
        opener: &mut Opener<'_>,
    ) -> Result<Authorized<'p>, Refusal> {
        let mut authorized = match subject.entry.object {
            Object::Protocol | Object::List => Authorized::by(subject.entry.rule()),
            Object::Tool => self.tool_call(agent, subject, inventory)?,
            Object::Prompt => self.prompt(agent, subject, inventory)?,
            Object::Resource => resource(agent, subject, inventory)?,
            Object::Reference => reference::authorize(self, agent, subject, inventory, opener.again)?,
            Object::Subscription => subscription::authorize(agent, subject, inventory)?,
            Object::Task => self.task(agent, subject, opener)?,
            Object::Log => feature(subject, self.features.logging, "clientFeatures.logging")?,
            Object::Roots => feature(subject, self.features.roots, "clientFeatures.roots")?,
        };
        let (body, edits) = (subject.message.body(), &mut authorized.edits);
        if subject.entry.object == Object::List {
            open_cursor(subject, opener, edits)?;
        }
        open_state(subject, authorized.target.as_ref(), opener, edits)?;
        if subject.entry.method == Method::Initialize {
            features::negotiate(&self.features, body, subject.params(), edits)?;
        }
        if subject.version.era() == Era::Modern {
            features::declare(&self.features, body, subject.params(), edits)?;
        }
        Ok(authorized)
    }

    fn tool_call<'p>(
        &'p self,
        agent: &'p CompiledAgent,
        subject: &Subject<'_, '_>,
        inventory: &Inventory,
    ) -> Result<Authorized<'p>, Refusal> {
        let name = subject.name.as_deref().unwrap_or_default();
        let grant = self.granted_tool(agent, name, inventory)?;
        let rewrite = match subject.params() {
            Some(params) => arguments::rewrite(grant, subject.message.body(), params)?,
            None => arguments::Rewrite::default(),
        };
        Ok(Authorized {
            edits: rewrite.edits,
            overridden: rewrite.overridden,
            reported: rewrite.reported,
            target: subject.target(),
            tool: Some(grant),
            ..Authorized::by(grant.rule.path.clone())
        })
    }

    /// The grant of a tool that exists for the agent: what a list had to hide can't be called either.
    fn granted_tool<'p>(
        &'p self,
        agent: &'p CompiledAgent,
        name: &str,
        inventory: &Inventory,
    ) -> Result<&'p Grant, Refusal> {
        let refuse = |reason| Refusal::tool(reason, name);
        let grant = agent.tool(self, name).map_err(|reason| {
            let rule = match (self.tools.get(name), reason) {
                (Some(listed), Reason::ToolNotGranted) => format!("{}.roles", listed.path).into(),
                (Some(listed), _) => listed.path.clone(),
                (None, _) => "tools".into(),
            };
            refuse(reason).by(rule)
        })?;
        if let Some(Err(reason)) = inventory.tool(name, &grant.rule.accepted) {
            return Err(refuse(reason).by(grant.rule.path.clone()));
        }
        Ok(grant)
    }

    fn prompt<'p>(
        &'p self,
        agent: &'p CompiledAgent,
        subject: &Subject<'_, '_>,
        inventory: &Inventory,
    ) -> Result<Authorized<'p>, Refusal> {
        let name = subject.name.as_deref().unwrap_or_default();
        let grant = agent.prompt(self, name).map_err(|reason| {
            let rule = match (self.prompts.get(name), reason) {
                (Some(listed), Reason::PromptNotGranted) => format!("{}.roles", listed.path).into(),
                (Some(listed), _) => listed.path.clone(),
                (None, _) => "prompts".into(),
            };
            Refusal::prompt(reason, name).by(rule)
        })?;
        inventory
            .prompt(name, &grant.rule.accepted)
            .map_err(|reason| Refusal::prompt(reason, name).by(grant.rule.path.clone()))?;
        let rewrite = match subject.params() {
            Some(params) => arguments::rewrite(grant, subject.message.body(), params)
                .map_err(Refusal::as_protocol_error)?,
            None => arguments::Rewrite::default(),
        };
        Ok(Authorized {
            edits: rewrite.edits,
            overridden: rewrite.overridden,
            reported: rewrite.reported,
            target: subject.target(),
            ..Authorized::by(grant.rule.path.clone())
        })
    }

    /// A task is what a call of a tool became: it is there for as long as the tool is.
    fn task<'p>(
        &'p self,
        agent: &'p CompiledAgent,
        subject: &Subject<'_, '_>,
        opener: &mut Opener<'_>,
    ) -> Result<Authorized<'p>, Refusal> {
        let presented = subject.name.as_deref().unwrap_or_default();
        if !features::declares_tasks(subject.params()) {
            return Err(Refusal::extension(TASKS));
        }
        let handle = opener.open(HandleKind::Task, presented)?;
        let Handle::Task { tool, id } = &handle else {
            return Err(Refusal::plain(Reason::HandleUnknown));
        };
        let grant = agent.tool(self, tool).map_err(|reason| {
            // In the words of a task that isn't there, for what it once was.
            Refusal::new(reason, Reason::HandleUnknown.explanation())
        })?;
        let mut authorized = Authorized::by(grant.rule.path.clone());
        authorized.target = Some(Target::Tool(tool.clone()));
        replace(subject, "taskId", presented, id, &mut authorized.edits);
        Ok(authorized)
    }
}

fn feature<'p>(
    subject: &Subject<'_, '_>,
    granted: bool,
    rule: &'static str,
) -> Result<Authorized<'p>, Refusal> {
    if granted {
        return Ok(Authorized::by(rule));
    }
    // The server's capability isn't told of either, so to the client it is a method that isn't there.
    let message = format!("Method not found: {}", subject.entry.method);
    Err(Refusal::new(Reason::FeatureNotGranted, message).by(rule.into()))
}

fn resource<'p>(
    agent: &'p CompiledAgent,
    subject: &Subject<'_, '_>,
    inventory: &Inventory,
) -> Result<Authorized<'p>, Refusal> {
    let uri = subject.name.as_deref().unwrap_or_default();
    let grant = match subject.entry.method {
        Method::ResourcesRead => agent.resource(uri),
        _ => agent.resource_shown(uri),
    };
    let grant = grant.map_err(|reason| Refusal::resource(reason, uri).by("resources".into()))?;
    inventory
        .resource(uri, &grant.rule.uri)
        .map_err(|reason| Refusal::resource(reason, uri).by(grant.rule.path.clone()))?;
    Ok(Authorized {
        target: subject.target(),
        ..Authorized::by(grant.rule.path.clone())
    })
}

fn open_cursor(
    subject: &Subject<'_, '_>,
    opener: &mut Opener<'_>,
    edits: &mut Vec<Edit>,
) -> Result<(), Refusal> {
    let Some(presented) = subject.get("cursor").and_then(json::string) else {
        return Ok(());
    };
    match opener.open(HandleKind::Cursor, &presented)? {
        Handle::Cursor { method, value } if method == subject.entry.method.name() => {
            replace(subject, "cursor", &presented, &value, edits);
            Ok(())
        }
        _ => Err(Refusal::plain(Reason::HandleUnknown)),
    }
}

fn open_state(
    subject: &Subject<'_, '_>,
    target: Option<&Target>,
    opener: &mut Opener<'_>,
    edits: &mut Vec<Edit>,
) -> Result<(), Refusal> {
    let Some(presented) = subject.get("requestState").and_then(json::string) else {
        return Ok(());
    };
    match opener.open(HandleKind::State, &presented)? {
        Handle::State { method, name, value }
            if method == subject.entry.method.name()
                && target.is_some_and(|target| target.name() == name) =>
        {
            replace(subject, "requestState", &presented, &value, edits);
            Ok(())
        }
        _ => Err(Refusal::plain(Reason::HandleUnknown)),
    }
}

/// Puts the server's own value in a handle's place.
fn replace(subject: &Subject<'_, '_>, key: &str, presented: &str, value: &str, edits: &mut Vec<Edit>) {
    if presented != value
        && let Some(raw) = subject.get(key)
    {
        edits.push(Edit {
            at: span(subject.message.body(), raw),
            text: quoted(value),
        });
    }
}
