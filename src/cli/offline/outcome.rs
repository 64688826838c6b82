//! What a sidecar would do with a request, and with the server's reply: the core's decision, written down for people and
//! for comparison. Nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::{
    Reason, Refusal,
    handles::{NoHandles, Seal},
    json::Limits,
    mcp::{self, Era, Inventory, Message, Params},
    policy::{Answer, Channel, CompiledAgent, Context, Decision, Forward, Target},
};
use bulkhead_proxy::keyring::Keyring;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Policy, headers::Headers};

/// Whether a request goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It does.
    Permit,
    /// It doesn't.
    Refuse,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The tenant.
    pub tenant: String,
    /// The server.
    pub server: String,
    /// The agent that asks.
    pub agent: String,
    /// The person that it acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The revision of the policy, as it is without a cluster.
    pub policy_revision: String,
    /// The method, if the message can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The tool that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The prompt that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The URI of the resource that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Members of `params` that don't belong to the method and don't go upstream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// `legacy` or `modern`, if it could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub era: Option<&'static str>,
    /// Whether it goes upstream.
    pub decision: Verdict,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same in words, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<&'static str>,
    /// The part of the policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Roles of the agent for which what it asks for exists.
    pub roles: BTreeSet<String>,
    /// Roles for which it exists at all; none when it isn't listed.
    pub tool_roles: BTreeSet<String>,
    /// Arguments that the policy sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<Forced>,
    /// Rules that would have refused it, and only report it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reported: Vec<String>,
    /// Arguments of a call as they go upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// What goes upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// What the client gets instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Told>,
    /// What becomes of the server's reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answered>,
}

/// An argument that the policy sets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forced {
    /// Its name.
    pub argument: String,
    /// What the caller gave, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<Value>,
    /// What goes upstream.
    pub forced: Value,
    /// Whether the caller gave another value.
    pub overridden: bool,
}

/// What goes upstream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Upstream {
    /// Where.
    pub url: String,
    /// The protocol's headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The bytes.
    pub body: String,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The HTTP status.
    pub status: u16,
    /// The bytes.
    pub body: String,
    /// Whether it is a result with `isError`, which a model can read and correct.
    pub tool_error: bool,
}

/// What becomes of a message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is the answer, and the client gets it.
    Answered,
    /// It is a notification of the request, and the client gets it.
    Event,
    /// The client doesn't get it, and goes on waiting.
    Dropped,
    /// The client gets an error in its place.
    Refused,
}

/// The server's reply after the sidecar.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// What becomes of it.
    pub outcome: Fate,
    /// Why it doesn't pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Why a rule that only reports would have refused it, or taken records out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<&'static str>,
    /// The bytes for the client, if it gets any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Of a list: the tools that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Of a list: the tools that are gone because they don't exist for the agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// Of a list: the tools that are gone because something is wrong with them, and what.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, &'static str>,
    /// Of a result with an ownership filter: how many records are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_kept: Option<usize>,
    /// And how many are gone, because they aren't the agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_removed: Option<usize>,
}

/// The secret that handles are sealed with where there is no sidecar: equal requests have equal outcomes.
const OFFLINE: [u8; 32] = [0; 32];

/// Decides a request of an agent, and the reply to it.
pub fn of(
    policy: &Policy,
    caller: &CompiledAgent,
    request: &Bytes,
    headers: &Headers,
    reply: Option<&Bytes>,
) -> Outcome {
    let sidecar = bulkhead_proxy::limits::Limits::default();
    let at_most = |bytes| Limits {
        bytes,
        ..Limits::default()
    };
    let limits = at_most(sidecar.body_bytes);
    let message = match mcp::read(request, limits) {
        Ok(message) => message,
        Err(refusal) => {
            return Outcome {
                rule: refusal.rule.as_deref().map(str::to_owned),
                ..refused(Outcome::new(policy, caller), &refusal)
            };
        }
    };
    let inventory = Inventory::default();
    let keyring = Keyring::of("offline", &OFFLINE);
    let context = Context {
        seal: keyring
            .as_ref()
            .map_or(&NoHandles as &dyn Seal, |keyring| keyring),
        ..Context::offline(&inventory, limits)
    };
    let decision = policy
        .compiled
        .decide(Some(caller), &message, &headers.read(), context);
    let outcome = Outcome::new(policy, caller).decided(policy, caller, &message, &decision);
    match &decision.outcome {
        Err(refusal) => refused(outcome, refusal),
        Ok(forward) => Outcome {
            answer: forward.expected().zip(reply).map(|(expected, reply)| {
                answered(
                    policy.compiled.answer(
                        Some(caller),
                        Channel::Answer(expected),
                        reply,
                        Context {
                            limits: at_most(sidecar.response_bytes),
                            ..context
                        },
                    ),
                    reply,
                )
            }),
            ..permitted(outcome, policy, &message, &decision, forward)
        },
    }
}

/// The tools that exist for a caller.
pub fn tools(caller: &CompiledAgent) -> String {
    let tools: Vec<_> = caller.tools().into_iter().collect();
    if tools.is_empty() {
        "none".into()
    } else {
        tools.join(", ")
    }
}

impl Outcome {
    /// Nothing is known yet, so nothing is permitted.
    fn new(policy: &Policy, caller: &CompiledAgent) -> Self {
        Self {
            tenant: policy.document.tenant.name.clone(),
            server: policy.document.server.clone(),
            agent: caller.name().to_string(),
            person: caller.person().map(|person| person.subject.clone()),
            policy_revision: policy.compiled.revision().to_string(),
            method: None,
            tool: None,
            prompt: None,
            resource: None,
            removed: Vec::new(),
            era: None,
            decision: Verdict::Refuse,
            reason: None,
            explanation: None,
            rule: None,
            roles: BTreeSet::new(),
            tool_roles: BTreeSet::new(),
            forced: Vec::new(),
            reported: Vec::new(),
            arguments: None,
            upstream: None,
            refusal: None,
            answer: None,
        }
    }

    fn decided(
        self,
        policy: &Policy,
        caller: &CompiledAgent,
        message: &Message<'_>,
        decision: &Decision,
    ) -> Self {
        let tool_roles = decision
            .target
            .as_ref()
            .and_then(|target| policy.roles(target))
            .cloned()
            .unwrap_or_default();
        let named = |kind: fn(&Target) -> bool| {
            let target = decision.target.as_ref().filter(|target| kind(target));
            target.map(|target| target.name().to_owned())
        };
        Self {
            method: message.method().map(str::to_owned),
            tool: named(|target| matches!(target, Target::Tool(_))),
            prompt: named(|target| matches!(target, Target::Prompt(_))),
            resource: named(|target| matches!(target, Target::Resource(_))),
            removed: decision.removed.clone(),
            era: decision.era.map(|era| match era {
                Era::Legacy => "legacy",
                Era::Modern => "modern",
            }),
            rule: decision.rule.as_deref().map(str::to_owned),
            roles: tool_roles.intersection(caller.roles()).cloned().collect(),
            tool_roles,
            ..self
        }
    }
}

fn refused(outcome: Outcome, refusal: &Refusal) -> Outcome {
    Outcome {
        decision: Verdict::Refuse,
        reason: Some(refusal.reason.as_str()),
        explanation: Some(refusal.reason.explanation()),
        refusal: Some(Told {
            status: refusal.status(),
            body: text(&refusal.body()),
            tool_error: refusal.is_tool_error(),
        }),
        ..outcome
    }
}

fn permitted(
    outcome: Outcome,
    policy: &Policy,
    message: &Message<'_>,
    decision: &Decision,
    forward: &Forward,
) -> Outcome {
    let given = arguments(message.params());
    // What goes upstream is read back, not put together a second time.
    let sent = mcp::read(
        forward.body(),
        Limits {
            bytes: usize::MAX,
            ..Limits::default()
        },
    )
    .ok();
    let sent = sent.as_ref().and_then(|message| arguments(message.params()));
    let listed = decision.target.as_ref().map(|target| policy.forced(target));
    let forced = listed.unwrap_or_default().into_iter().map(|name| Forced {
        given: given.as_ref().and_then(|given| given.get(&name)).cloned(),
        forced: sent
            .as_ref()
            .and_then(|sent| sent.get(&name))
            .cloned()
            .unwrap_or_default(),
        overridden: decision.overridden.iter().any(|known| **known == *name),
        argument: name,
    });
    let upstream = policy.compiled.upstream();
    Outcome {
        decision: Verdict::Permit,
        forced: forced.collect(),
        reported: decision.reported.iter().map(ToString::to_string).collect(),
        arguments: sent,
        upstream: Some(Upstream {
            url: format!("http://127.0.0.1:{}{}", upstream.port, upstream.path),
            headers: forward
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
            body: text(forward.body()),
        }),
        ..outcome
    }
}

fn answered(answer: Answer, reply: &Bytes) -> Answered {
    let nothing = Answered {
        outcome: Fate::Dropped,
        reason: None,
        reported: None,
        body: None,
        tools: None,
        hidden: Vec::new(),
        dropped: BTreeMap::new(),
        records_kept: None,
        records_removed: None,
    };
    match answer {
        Answer::Final(answer) => {
            let dropped: BTreeMap<_, _> = answer
                .dropped
                .iter()
                .map(|tool| (tool.name.clone(), tool.reason.as_str()))
                .collect();
            let tools = listed(&answer.body);
            let hidden = listed(reply).unwrap_or_default().into_iter().filter(|name| {
                let left = tools.as_ref().is_none_or(|tools| tools.contains(name));
                !left && !dropped.contains_key(name)
            });
            Answered {
                outcome: Fate::Answered,
                reported: answer.reported.map(Reason::as_str),
                body: Some(text(&answer.body)),
                hidden: hidden.collect(),
                dropped,
                tools,
                records_kept: answer.records.map(|records| records.kept),
                records_removed: answer.records.map(|records| records.removed),
                ..nothing
            }
        }
        Answer::Event(body) => Answered {
            outcome: Fate::Event,
            body: Some(text(&body)),
            ..nothing
        },
        // The client is told by the sidecar, when its own list did.
        Answer::ListChanged => nothing,
        Answer::Dropped(reason) => Answered {
            reason: Some(Reason::as_str(reason)),
            ..nothing
        },
        Answer::Refused(refusal) => Answered {
            outcome: Fate::Refused,
            reason: Some(refusal.reason.as_str()),
            body: Some(text(&refusal.body())),
            ..nothing
        },
    }
}

/// The arguments of a call, for showing.
fn arguments(params: Option<&Params<'_>>) -> Option<Value> {
    serde_json::from_str(params?.get("arguments")?).ok()
}

/// Names in the list of tools that a reply holds, if it does.
fn listed(reply: &Bytes) -> Option<Vec<String>> {
    let reply: Value = serde_json::from_slice(reply).ok()?;
    let tools = reply.pointer("/result/tools")?.as_array()?;
    let name = |tool: &Value| Some(tool.get("name")?.as_str()?.to_owned());
    Some(tools.iter().filter_map(name).collect())
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
