//! Records of what HTTP alone decides: refusals of the edge, why connections ended, what is done with a session.

use std::io;

use bulkhead_core::{
    audit::{Verdict, line},
    policy::{CompiledAgent, CompiledPolicy},
};
use http::Method;
use serde::Serialize;

use super::{OpenIntent, now, write_refusal};
use crate::{authentication, policy::LoadedPolicy, server::Connection, tokens::Token};

/// The record of what HTTP alone decides, refusals of the edge and the end of a session: the members
/// of core's decision record that are known there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", tag = "record", rename = "decision")]
struct EdgeRecord<'a> {
    time: &'a str,
    call: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_revision: Option<&'a str>,
    decision: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl<'a> EdgeRecord<'a> {
    /// A refusal for no reason yet.
    fn of(connection: &'a Connection, policy: Option<&'a LoadedPolicy>, time: &'a str) -> Self {
        let compiled = policy.map(LoadedPolicy::compiled);
        let identity = connection.identity.as_ref().ok();
        let agent = compiled
            .zip(identity)
            .and_then(|(policy, identity)| policy.agent(&identity.spiffe_id));
        Self {
            time,
            call: connection.shared.next_call(),
            tenant: compiled.map(|policy| policy.tenant().name.as_str()),
            tenant_uid: compiled.map(|policy| policy.tenant().uid.as_str()),
            server: compiled.map(CompiledPolicy::server),
            agent: agent.map(|agent| &**agent.name()),
            person: None,
            issuer: None,
            spiffe_id: identity.map(|identity| identity.spiffe_id.as_str()),
            certificate_serial: identity.map(|identity| identity.serial.as_str()),
            token: None,
            pod: None,
            session: None,
            method: None,
            rule: None,
            policy_revision: policy.map(LoadedPolicy::revision),
            decision: Verdict::Refuse,
            reason: None,
        }
    }

    /// With what a verified token proves, and of whom; no caller: it gives nothing to this agent.
    fn proven_by(self, token: &'a Token, caller: Option<&'a CompiledAgent>) -> Self {
        let person = caller.and_then(CompiledAgent::person);
        Self {
            token: Some(&token.id),
            pod: token.pod(),
            person: person.map(|person| person.subject.as_str()),
            issuer: person.map(|person| person.issuer_name.as_str()),
            ..self
        }
    }
}

/// What HTTP alone asks of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCall {
    /// Its end.
    End,
    /// A stream of its messages.
    Stream,
}

impl SessionCall {
    /// The HTTP method that asks for it.
    pub const fn method(self) -> Method {
        match self {
            Self::End => Method::DELETE,
            Self::Stream => Method::GET,
        }
    }
}

/// Records what is going to be done with a session: its end, or a stream of it. Without the record it
/// is not.
pub fn of_session(
    connection: &Connection,
    token: &Token,
    policy: &LoadedPolicy,
    caller: &CompiledAgent,
    session: &str,
    what: SessionCall,
) -> io::Result<OpenIntent> {
    let rule = match what {
        SessionCall::End => "methods[DELETE]",
        SessionCall::Stream => "methods[GET]",
    };
    let method = what.method();
    let time = now();
    let record = EdgeRecord {
        session: Some(session),
        method: Some(method.as_str()),
        rule: Some(rule),
        decision: Verdict::Permit,
        ..EdgeRecord::of(connection, Some(policy), &time).proven_by(token, Some(caller))
    };
    let shared = &connection.shared;
    shared.audit.write(&line(&record))?;
    Ok(OpenIntent::new(shared, record.call))
}

/// Records for which reason the HTTP edge refused something; with the token that was verified before, if one was.
pub fn edge(connection: &Connection, token: Option<&Token>, reason: &'static str) {
    let shared = &connection.shared;
    let policy = shared.live.policy();
    let time = now();
    let caller = token
        .zip(policy.as_deref())
        .and_then(|(token, policy)| authentication::caller(connection, token, policy));
    let mut record = EdgeRecord {
        reason: Some(reason),
        ..EdgeRecord::of(connection, policy.as_deref(), &time)
    };
    if let Some(token) = token {
        record = record.proven_by(token, caller.as_deref());
    }
    write_refusal(shared, &line(&record));
}
