//! Records of one call: the decision, which for a permitted request is the intent and is written
//! before the effect, and the outcome, which closes it.
//!
//! Names and ids that a client chose are bounded in length; argument values are never recorded.
//! The types borrow and hold no time of their own, so that the bytes of a line can be hashed into
//! a chain by whoever writes it.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::{
    json::{self, object::Object},
    mcp::{
        Fingerprint, Message, ProtocolVersion,
        inventory::{Learned, Listing},
    },
    policy::{CompiledAgent, CompiledPolicy, Decision, Instructions, Target},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message goes upstream.
    Permit,
    /// It doesn't.
    Refuse,
}

impl Verdict {
    /// As records have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Refuse => "refuse",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The record of a decision. What a client may have chosen is shortened.
#[derive(Debug)]
pub struct IntentRecord<'a> {
    time: &'a str,
    call: u64,
    tenant: &'a str,
    tenant_uid: &'a str,
    server: &'a str,
    agent: Option<&'a str>,
    /// Whom the agent acts for: the subject of the person's token, and the issuer's name.
    person: Option<Cow<'a, str>>,
    issuer: Option<&'a str>,
    spiffe_id: Cow<'a, str>,
    certificate_serial: Cow<'a, str>,
    token: Cow<'a, str>,
    pod: Option<Cow<'a, str>>,
    session: Option<Cow<'a, str>>,
    /// The raw id: a string has its quotes.
    request_id: Option<Cow<'a, str>>,
    method: Option<Cow<'a, str>>,
    tool: Option<&'a str>,
    prompt: Option<&'a str>,
    resource: Option<&'a str>,
    rule: Option<&'a str>,
    policy_revision: &'a str,
    decision: Verdict,
    reason: Option<Reason>,
    overridden_arguments: Vec<&'a str>,
    /// Rules that would have refused it, and only report it.
    reported_rules: Vec<&'a str>,
    removed_params: Vec<&'a str>,
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
            request_id: message.id().map(shortened),
            method: message.method().map(shortened),
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
            person: caller.and_then(|agent| Some(shortened(&agent.person()?.subject))),
            issuer: caller.and_then(|agent| Some(agent.person()?.issuer_name.as_str())),
            spiffe_id: shortened(call.spiffe_id),
            certificate_serial: shortened(call.certificate_serial),
            token: shortened(call.token),
            pod: call.pod.map(shortened),
            session: call.session.map(shortened),
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
        let mut record = Object::begin(USUAL);
        record
            .text("record", "decision")
            .text("time", self.time)
            .number("call", self.call)
            .text("tenant", self.tenant)
            .text("tenantUid", self.tenant_uid)
            .text("server", self.server)
            .text_if("agent", self.agent)
            .text_if("person", self.person.as_deref())
            .text_if("issuer", self.issuer)
            .text("spiffeId", &self.spiffe_id)
            .text("certificateSerial", &self.certificate_serial)
            .text("token", &self.token)
            .text_if("pod", self.pod.as_deref())
            .text_if("session", self.session.as_deref())
            .text_if("requestId", self.request_id.as_deref())
            .text_if("method", self.method.as_deref())
            .text_if("tool", self.tool)
            .text_if("prompt", self.prompt)
            .text_if("resource", self.resource)
            .text_if("rule", self.rule)
            .text("policyRevision", self.policy_revision)
            .text("decision", self.decision.as_str())
            .text_if("reason", self.reason.map(Reason::as_str))
            .texts("overriddenArguments", &self.overridden_arguments)
            .texts("reportedRules", &self.reported_rules)
            .texts("removedParams", &self.removed_params)
            .text_if("traceparent", self.traceparent.as_deref());
        ended(record)
    }
}

/// How a permitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The server answered.
    Completed,
    /// It answered with an error, or not as it must, or not at all.
    Failed,
    /// The client went away or took it back.
    Cancelled,
}

impl Completion {
    /// As records have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The record that closes an intent.
#[derive(Debug)]
pub struct OutcomeRecord<'a> {
    /// When the call ended, RFC 3339 in UTC.
    pub time: &'a str,
    /// The number of the call, as in its intent.
    pub call: u64,
    /// How it ended.
    pub outcome: Completion,
    /// Why the server's answer was refused, or the right to it withdrawn, when it was.
    pub reason: Option<&'static str>,
    /// Why a rule that only reports would have refused the answer, or taken records out of it.
    pub reported: Option<Reason>,
    /// Records that the ownership filter left, where there is one.
    pub records_kept: Option<usize>,
    /// Records that it took out.
    pub records_removed: Option<usize>,
}

impl OutcomeRecord<'_> {
    /// The record as one line of JSON, with its line feed.
    pub fn line(&self) -> Vec<u8> {
        let count = |records: Option<usize>| records.and_then(|records| u64::try_from(records).ok());
        let mut record = Object::begin(USUAL);
        record
            .text("record", "outcome")
            .text("time", self.time)
            .number("call", self.call)
            .text("outcome", self.outcome.as_str())
            .text_if("reason", self.reason)
            .text_if("reported", self.reported.map(Reason::as_str))
            .number_if("recordsKept", count(self.records_kept))
            .number_if("recordsRemoved", count(self.records_removed));
        ended(record)
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
    tool: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Cow<'a, str>>,
    /// It is the server's `instructions`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    instructions: bool,
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
            is_one.then(|| shortened(&entry.name))
        };
        Self {
            tool: named(&[Listing::Tools]),
            prompt: named(&[Listing::Prompts]),
            resource: named(&[Listing::Resources, Listing::Templates]),
            ..Self::unnamed(policy, time, entry.version, entry.fingerprint, withheld)
        }
    }

    /// The record of a server's `instructions`.
    pub fn instructions(
        policy: &'a CompiledPolicy,
        time: &'a str,
        version: ProtocolVersion,
        said: Instructions,
    ) -> Self {
        Self {
            instructions: true,
            ..Self::unnamed(policy, time, version, said.fingerprint, said.withheld)
        }
    }

    fn unnamed(
        policy: &'a CompiledPolicy,
        time: &'a str,
        version: ProtocolVersion,
        fingerprint: Fingerprint,
        reason: Option<Reason>,
    ) -> Self {
        Self {
            time,
            tenant: &policy.tenant().name,
            tenant_uid: &policy.tenant().uid,
            server: policy.server(),
            tool: None,
            prompt: None,
            resource: None,
            instructions: false,
            protocol_version: version.as_str(),
            fingerprint: fingerprint.to_string(),
            policy_revision: policy.revision(),
            reason,
        }
    }

    /// The record as one line of JSON, with its line feed.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// A record that was written member by member as one line, with its line feed.
fn ended(record: Object) -> Vec<u8> {
    let mut line = record.end();
    line.push('\n');
    line.into_bytes()
}

/// A record as one line of JSON, with its line feed. For those that not every call has.
#[allow(clippy::expect_used, clippy::missing_panics_doc)]
pub fn line(record: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut line, record).expect("a record has string keys only and must serialize");
    line.push(b'\n');
    line
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
    fn a_decision_is_one_line_with_all_that_is_known() {
        let record = IntentRecord {
            time: "2026-11-22T10:00:00Z",
            call: 7,
            tenant: "acme",
            tenant_uid: "u-1",
            server: "crm",
            agent: Some("billing"),
            person: Some("ada".into()),
            issuer: Some("corp"),
            spiffe_id: "spiffe://acme/billing".into(),
            certificate_serial: "0a".into(),
            token: "t-1".into(),
            pod: Some("agent-0".into()),
            session: Some("s-1".into()),
            request_id: Some("\"1\"".into()),
            method: Some("tools/call".into()),
            tool: Some("list"),
            prompt: Some("greet"),
            resource: Some("file:///a"),
            rule: Some("tools[list]"),
            policy_revision: "r-1",
            decision: Verdict::Refuse,
            reason: Some(Reason::ToolNotGranted),
            overridden_arguments: vec!["tenant"],
            reported_rules: vec!["tools[list].bounds[limit]"],
            removed_params: vec!["_a", "_b"],
            traceparent: Some("00-1".into()),
        };
        let line = concat!(
            r#"{"record":"decision","time":"2026-11-22T10:00:00Z","call":7,"tenant":"acme","tenantUid":"u-1","server":"crm","#,
            r#""agent":"billing","person":"ada","issuer":"corp","spiffeId":"spiffe://acme/billing","#,
            r#""certificateSerial":"0a","token":"t-1","pod":"agent-0","session":"s-1","requestId":"\"1\"","#,
            r#""method":"tools/call","tool":"list","prompt":"greet","resource":"file:///a","rule":"tools[list]","#,
            r#""policyRevision":"r-1","decision":"refuse","reason":"tool_not_granted","#,
            r#""overriddenArguments":["tenant"],"reportedRules":["tools[list].bounds[limit]"],"#,
            r#""removedParams":["_a","_b"],"traceparent":"00-1"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(record.line()).unwrap(), line);
    }

    #[test]
    fn an_outcome_is_one_line() {
        let record = OutcomeRecord {
            time: "2026-11-22T10:00:00Z",
            call: 7,
            outcome: Completion::Failed,
            reason: Some(Reason::AnswerMismatch.as_str()),
            reported: Some(Reason::AnswerUnfiltered),
            records_kept: Some(2),
            records_removed: Some(0),
        };
        let line = concat!(
            r#"{"record":"outcome","time":"2026-11-22T10:00:00Z","call":7,"outcome":"failed","#,
            r#""reason":"answer_mismatch","reported":"answer_unfiltered","recordsKept":2,"recordsRemoved":0}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(record.line()).unwrap(), line);
    }
}
