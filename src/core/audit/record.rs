//! Records of one call: the decision, which for a permitted request is the intent and is written
//! before the effect, and the outcome, which closes it.
//!
//! Names and ids that a client chose are bounded in length; argument values are never recorded.
//! The types borrow and hold no time of their own, so that the bytes of a line can be hashed into
//! a chain by whoever writes it.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::{
    json,
    mcp::{
        Message,
        inventory::{Learned, Listing},
    },
    policy::{CompiledAgent, CompiledPolicy, Decision, Target},
    reason::Reason,
    refusal::{Refusal, shortened},
};

/// Room for a line of which there are many; a longer one takes more.
const USUAL: usize = 1024;

/// What the sidecar knows of a call besides the message.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// When it was decided, RFC 3339 in UTC.
    pub time: &'a str,
    /// The sidecar's number of the call: an intent and its outcome have the same.
    pub call: u64,
    /// The SPIFFE ID of the client's certificate, whether or not the policy knows it.
    pub spiffe_id: &'a str,
    /// The serial of the client's certificate, hex digits.
    pub certificate_serial: &'a str,
    /// The id of the token that the request carried.
    pub token: &'a str,
    /// The pod that the token was made for.
    pub pod: Option<&'a str>,
    /// The session, opaque.
    pub session: Option<&'a str>,
    /// The client's `traceparent` header.
    pub traceparent: Option<&'a str>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The message goes upstream.
    Permit,
    /// It doesn't.
    Refuse,
}

/// The record of a decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "record", rename = "decision")]
pub struct IntentRecord<'a> {
    time: &'a str,
    call: u64,
    tenant: &'a str,
    tenant_uid: &'a str,
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    /// Whom the agent acts for: the subject of the person's token, and the issuer's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<Bounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    spiffe_id: Bounded<'a>,
    certificate_serial: Bounded<'a>,
    token: Bounded<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Bounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Bounded<'a>>,
    /// The raw id: a string has its quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Bounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Bounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    policy_revision: &'a str,
    decision: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overridden_arguments: Vec<&'a str>,
    /// Rules that would have refused it, and only report it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reported_rules: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed_params: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
}

impl<'a> IntentRecord<'a> {
    /// The record of a decision about a message.
    pub fn decided(
        policy: &'a CompiledPolicy,
        caller: Option<&'a CompiledAgent>,
        call: &Call<'a>,
        message: &'a Message<'_>,
        decision: &'a Decision,
    ) -> Self {
        let reason = decision.outcome.as_ref().err().map(|refusal| refusal.reason);
        let named = |kind: &dyn Fn(&Target) -> bool| {
            let target = decision.target.as_ref().filter(|target| kind(target));
            target.map(Target::name)
        };
        Self {
            request_id: message.id().map(Bounded),
            method: message.method().map(Bounded),
            tool: named(&|target| matches!(target, Target::Tool(_))),
            prompt: named(&|target| matches!(target, Target::Prompt(_))),
            resource: named(&|target| matches!(target, Target::Resource(_))),
            rule: decision.rule.as_deref(),
            decision: if reason.is_some() {
                Verdict::Refuse
            } else {
                Verdict::Permit
            },
            removed_params: decision.removed.iter().map(String::as_str).collect(),
            overridden_arguments: decision.overridden.iter().map(AsRef::as_ref).collect(),
            reported_rules: decision.reported.iter().map(AsRef::as_ref).collect(),
            traceparent: trace_of(message).or_else(|| trace(call.traceparent?.into())),
            ..Self::unread(policy, caller, call, reason)
        }
    }

    /// The record of something that was refused before there was a message to decide: a body that
    /// can't be read, a limit of the transport.
    pub fn refused(
        policy: &'a CompiledPolicy,
        caller: Option<&'a CompiledAgent>,
        call: &Call<'a>,
        refusal: &'a Refusal,
    ) -> Self {
        let rule = refusal.rule.as_deref();
        Self {
            rule,
            ..Self::unread(policy, caller, call, Some(refusal.reason))
        }
    }

    fn unread(
        policy: &'a CompiledPolicy,
        caller: Option<&'a CompiledAgent>,
        call: &Call<'a>,
        reason: Option<Reason>,
    ) -> Self {
        Self {
            time: call.time,
            call: call.call,
            tenant: &policy.tenant().name,
            tenant_uid: &policy.tenant().uid,
            server: policy.server(),
            agent: caller.map(|agent| agent.name().as_ref()),
            person: caller.and_then(|agent| Some(Bounded(&agent.person()?.subject))),
            issuer: caller.and_then(|agent| Some(agent.person()?.issuer_name.as_str())),
            spiffe_id: Bounded(call.spiffe_id),
            certificate_serial: Bounded(call.certificate_serial),
            token: Bounded(call.token),
            pod: call.pod.map(Bounded),
            session: call.session.map(Bounded),
            request_id: None,
            method: None,
            tool: None,
            prompt: None,
            resource: None,
            rule: None,
            policy_revision: policy.revision(),
            decision: Verdict::Refuse,
            reason,
            overridden_arguments: Vec::new(),
            reported_rules: Vec::new(),
            removed_params: Vec::new(),
            traceparent: call.traceparent.and_then(|text| trace(text.into())),
        }
    }

    /// What was decided.
    pub fn verdict(&self) -> Verdict {
        self.decision
    }

    /// The record as one line of JSON, with its line feed.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// How a permitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Completion {
    /// The server answered.
    Completed,
    /// It answered with an error, or not as it must, or not at all.
    Failed,
    /// The client went away or took it back.
    Cancelled,
}

/// The record that closes an intent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "record", rename = "outcome")]
pub struct OutcomeRecord<'a> {
    /// When the call ended, RFC 3339 in UTC.
    pub time: &'a str,
    /// The number of the call, as in its intent.
    pub call: u64,
    /// How it ended.
    pub outcome: Completion,
    /// Why the server's answer was refused, or the right to it withdrawn, when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Why a rule that only reports would have refused the answer, or taken records out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Reason>,
    /// Records that the ownership filter left, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_kept: Option<usize>,
    /// Records that it took out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_removed: Option<usize>,
}

impl OutcomeRecord<'_> {
    /// The record as one line of JSON, with its line feed.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// The record of what the server shows as the definition of something, when it shows it first or shows another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "record", rename = "definition")]
pub struct DefinitionRecord<'a> {
    time: &'a str,
    tenant: &'a str,
    tenant_uid: &'a str,
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<Bounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<Bounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Bounded<'a>>,
    protocol_version: &'static str,
    fingerprint: String,
    policy_revision: &'a str,
    /// Why it isn't offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

impl<'a> DefinitionRecord<'a> {
    /// The record of an entry of a list.
    pub fn new(
        policy: &'a CompiledPolicy,
        time: &'a str,
        entry: &'a Learned,
        withheld: Option<Reason>,
    ) -> Self {
        let named = |listings: &[Listing]| {
            let is_one = listings.contains(&entry.listing);
            is_one.then_some(Bounded(&entry.name))
        };
        Self {
            time,
            tenant: &policy.tenant().name,
            tenant_uid: &policy.tenant().uid,
            server: policy.server(),
            tool: named(&[Listing::Tools]),
            prompt: named(&[Listing::Prompts]),
            resource: named(&[Listing::Resources, Listing::Templates]),
            protocol_version: entry.version.as_str(),
            fingerprint: entry.fingerprint.to_string(),
            policy_revision: policy.revision(),
            reason: withheld,
        }
    }

    /// The record as one line of JSON, with its line feed.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// A record as one line of JSON, with its line feed.
#[allow(clippy::expect_used, clippy::missing_panics_doc)]
pub fn line(record: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut line, record).expect("a record has string keys only and must serialize");
    line.push(b'\n');
    line
}

/// A text that a client may have chosen, recorded up to a bounded length.
#[derive(Debug)]
struct Bounded<'a>(&'a str);

impl Serialize for Bounded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&shortened(self.0))
    }
}

/// `_meta.traceparent` of a message, when it is well-formed.
fn trace_of<'a>(message: &Message<'a>) -> Option<Cow<'a, str>> {
    let meta = json::members(message.params()?.get("_meta")?)?;
    trace(json::string(json::get(&meta, "traceparent")?)?)
}

/// A W3C trace context of version 00: four groups of lower-case hex digits, trace and parent not
/// zero.
fn trace(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let groups: Vec<&str> = text.split('-').collect();
    let hex = |group: &str, length| {
        group.len() == length
            && group
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |group: &str| group.bytes().any(|byte| byte != b'0');
    let valid = matches!(groups[..], ["00", trace, parent, flags]
        if hex(trace, 32) && set(trace) && hex(parent, 16) && set(parent) && hex(flags, 2));
    valid.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_trace_contexts_are_recorded() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace(good.into()).as_deref(), Some(good));
        let bad = [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1\n",
        ];
        for text in bad {
            assert_eq!(trace(text.into()), None, "{text}");
        }
    }

    #[test]
    fn an_outcome_is_one_line() {
        let record = OutcomeRecord {
            time: "2026-11-22T10:00:00Z",
            call: 7,
            outcome: Completion::Failed,
            reason: Some(Reason::AnswerMismatch.as_str()),
            reported: None,
            records_kept: None,
            records_removed: None,
        };
        assert_eq!(
            record.line(),
            b"{\"record\":\"outcome\",\"time\":\"2026-11-22T10:00:00Z\",\"call\":7,\"outcome\":\"failed\",\"reason\":\"answer_mismatch\"}\n"
        );
    }
}
