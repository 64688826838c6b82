//! Audit records of calls: written before the effect, closed exactly once.

mod edge;

use std::{io, sync::Arc};

use bulkhead_core::{
    Reason, Refusal,
    audit::{Call, Completion, DefinitionRecord, IntentRecord, OutcomeRecord, line},
    mcp::{Message, ProtocolVersion, inventory::Learned},
    policy::{CompiledAgent, Decision, Instructions, Records},
};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use tracing::error;

use crate::{
    audit::Line, identity::Identity, policy::LoadedPolicy, server::Connection, shared::Shared, tokens::Token,
};

pub use edge::{SessionCall, edge, of_session};

/// An intent that is no record yet. Dropped, it becomes one, of a call that was cancelled.
#[derive(Debug)]
#[must_use = "without the record there is no call"]
pub struct QueuedIntent {
    line: Line,
    open: OpenIntent,
}

impl QueuedIntent {
    /// Writes the record, together with others that are ready.
    pub async fn recorded(self) -> io::Result<OpenIntent> {
        let Self { line, mut open } = self;
        let recorded = settle(&open.shared, &line).await;
        if recorded.is_err() {
            open.outcome = Outcome::Said;
        }
        recorded.map(|()| open)
    }
}

/// An intent that was recorded and not closed yet. Dropped without a word, it was cancelled: the
/// client went away.
#[derive(Debug)]
pub struct OpenIntent {
    shared: Arc<Shared>,
    call: u64,
    outcome: Outcome,
}

/// How far the record of an outcome is.
#[derive(Debug)]
enum Outcome {
    /// Nothing is said of it.
    Open,
    /// Queued.
    Queued(Line),
    /// Written, or never to be.
    Said,
}

impl OpenIntent {
    fn new(shared: &Arc<Shared>, call: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            call,
            outcome: Outcome::Open,
        }
    }

    /// The number of its call.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Closes the intent.
    pub fn close(self, outcome: Completion, reason: Option<&'static str>) {
        self.ended(Ended {
            reason,
            ..Ended::new(outcome)
        });
    }

    /// Closes the intent of a call that has its answer.
    pub fn ended(mut self, ended: Ended) {
        self.queue(ended);
    }

    /// The same, together with other records that are ready.
    pub async fn ended_with_others(mut self, ended: Ended) {
        self.queue(ended);
        if let Outcome::Queued(line) = &self.outcome {
            // What came of it is asked, and said, when this is dropped.
            let _ = settle(&self.shared, line).await;
        }
    }

    fn queue(&mut self, ended: Ended) {
        let time = now();
        let record = OutcomeRecord {
            time: &time,
            call: self.call,
            outcome: ended.completion,
            reason: ended.reason,
            reported: ended.reported,
            records_kept: ended.records.map(|records| records.kept),
            records_removed: ended.records.map(|records| records.removed),
        };
        self.outcome = Outcome::Queued(self.shared.audit.queue(&record.line()));
    }
}

impl Drop for OpenIntent {
    fn drop(&mut self) {
        if matches!(self.outcome, Outcome::Open) {
            self.queue(Ended::new(Completion::Cancelled));
        }
        let Outcome::Queued(line) = &self.outcome else {
            return;
        };
        if let Err(error) = self.shared.audit.settle(line) {
            // The effect has happened. The missing outcome is itself a finding: `unknown`.
            error!(%error, call = self.call, "an outcome can't be recorded");
            self.shared.metrics.audit_failures.inc();
        }
    }
}

/// Settles a line together with those of other calls, if there are any.
async fn settle(shared: &Shared, line: &Line) -> io::Result<()> {
    if shared.drain.calls() > 1 {
        shared.audit.settle_with_others(line).await
    } else {
        shared.audit.settle(line)
    }
}

/// How a call ended that has its answer.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Whether the server did what it was asked.
    pub completion: Completion,
    /// Why its answer was refused, or the right to it withdrawn, when it was.
    pub reason: Option<&'static str>,
    /// Why a rule that only reports would have refused it.
    pub reported: Option<Reason>,
    /// What the ownership filter found, where there is one.
    pub records: Option<Records>,
}

impl Ended {
    /// An end about which there is nothing more to say.
    pub fn new(completion: Completion) -> Self {
        Self {
            completion,
            reason: None,
            reported: None,
            records: None,
        }
    }
}

/// Who and where, of one call.
pub struct Caller<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// The policy that decided.
    pub policy: &'a LoadedPolicy,
    /// What the certificate says.
    pub identity: &'a Identity,
    /// The token of the request.
    pub token: &'a Token,
    /// The agent, or the agent as it acts for a person.
    pub agent: &'a CompiledAgent,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Stands for the session.
    pub session: Option<String>,
}

impl Caller<'_> {
    /// Queues the record of a permitted message.
    pub fn intent(&self, message: &Message<'_>, decision: &Decision) -> QueuedIntent {
        let time = now();
        let call = self.call(&time);
        let record =
            IntentRecord::decided(self.policy.compiled(), Some(self.agent), &call, message, decision);
        let shared = &self.connection.shared;
        QueuedIntent {
            line: shared.audit.queue(&record.line()),
            open: OpenIntent::new(shared, call.call),
        }
    }

    /// Records a refused message.
    pub fn refused(&self, message: &Message<'_>, decision: &Decision) {
        let time = now();
        let call = self.call(&time);
        let record =
            IntentRecord::decided(self.policy.compiled(), Some(self.agent), &call, message, decision);
        self.write(&record.line());
    }

    /// Records a body that can't be read.
    pub fn unreadable(&self, refusal: &Refusal) {
        let time = now();
        let call = self.call(&time);
        self.write(&IntentRecord::refused(self.policy.compiled(), Some(self.agent), &call, refusal).line());
    }

    fn write(&self, line: &[u8]) {
        write_refusal(&self.connection.shared, line);
    }

    fn call<'b>(&'b self, time: &'b str) -> Call<'b> {
        Call {
            time,
            call: self.connection.shared.next_call(),
            spiffe_id: &self.identity.spiffe_id,
            certificate_serial: &self.identity.serial,
            token: &self.token.id,
            pod: self.token.pod(),
            session: self.session.as_deref(),
            traceparent: self
                .headers
                .get("traceparent")
                .and_then(|value| value.to_str().ok()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase", tag = "record", rename = "start")]
struct StartRecord<'a> {
    time: &'a str,
    pod: &'a str,
    pod_uid: &'a str,
    version: &'static str,
}

/// Records the start of a sidecar: calls are numbered from here.
pub fn start(shared: &Shared, pod: &str, pod_uid: &str) -> io::Result<()> {
    let time = now();
    shared.audit.write(&line(&StartRecord {
        time: &time,
        pod,
        pod_uid,
        version: env!("CARGO_PKG_VERSION"),
    }))
}

/// Records what the server shows as one of its definitions, and why it isn't offered, if it isn't.
pub fn definition(
    shared: &Shared,
    policy: &LoadedPolicy,
    entry: &Learned,
    withheld: Option<Reason>,
) -> io::Result<()> {
    let time = now();
    let record = DefinitionRecord::new(policy.compiled(), &time, entry, withheld);
    shared.audit.write(&record.line())
}

/// Records what the server says in its `instructions`, and why clients don't get it, if they don't.
pub fn instructions(
    shared: &Shared,
    policy: &LoadedPolicy,
    version: ProtocolVersion,
    said: Instructions,
) -> io::Result<()> {
    let time = now();
    let record = DefinitionRecord::instructions(policy.compiled(), &time, version, said);
    shared.audit.write(&record.line())
}

fn write_refusal(shared: &Shared, line: &[u8]) {
    // Nothing happened upstream, so the refusal stands with or without its record.
    if let Err(error) = shared.audit.write(line) {
        error!(%error, "a refusal can't be recorded");
        shared.metrics.audit_failures.inc();
    }
}

fn now() -> String {
    Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;

    use super::*;
    use crate::{audit::AuditLog, limits::Limits};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Wherever a client goes away, what was queued for its call is written, and the call is closed once.
    #[test]
    fn a_call_that_is_given_up_leaves_an_intent_and_one_outcome() {
        type GivenUp = fn(QueuedIntent);
        let cases: [(GivenUp, &str); 4] = [
            (drop, "cancelled"),
            (
                |intent| assert!(intent.recorded().now_or_never().is_none()),
                "cancelled",
            ),
            (|intent| drop(intent.open), "cancelled"),
            (
                |intent| {
                    let ended = Ended::new(Completion::Completed);
                    assert!(intent.open.ended_with_others(ended).now_or_never().is_none());
                },
                "completed",
            ),
        ];
        for (give_up, outcome) in cases {
            let lines = Lines::default();
            let here = ([127, 0, 0, 1], 8444).into();
            let log = AuditLog::to(lines.clone());
            let shared = Arc::new(Shared::new(8443, here, Limits::default(), log).unwrap());
            let _both = [shared.drain.call(), shared.drain.call()];
            give_up(QueuedIntent {
                line: shared.audit.queue(b"{\"record\":\"decision\"}\n"),
                open: OpenIntent::new(&shared, 7),
            });
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            let said: Vec<serde_json::Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            assert_eq!(said.len(), 2, "{text}");
            assert_eq!(said[0]["record"], "decision");
            assert_eq!(
                (&said[1]["call"], &said[1]["outcome"]),
                (&7.into(), &outcome.into())
            );
        }
    }

    /// Yielding would cost a call that is alone, and share nothing.
    #[test]
    fn only_among_others_a_record_waits_for_theirs() {
        for (calls, waits) in [(1, false), (2, true)] {
            let here = ([127, 0, 0, 1], 8444).into();
            let log = AuditLog::to(Lines::default());
            let shared = Arc::new(Shared::new(8443, here, Limits::default(), log).unwrap());
            let _calls: Vec<_> = (0..calls).map(|_| shared.drain.call()).collect();
            let intent = QueuedIntent {
                line: shared.audit.queue(b"{\"record\":\"decision\"}\n"),
                open: OpenIntent::new(&shared, 7),
            };
            assert_eq!(intent.recorded().now_or_never().is_none(), waits, "{calls}");
        }
    }
}
