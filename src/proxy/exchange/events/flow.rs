//! What a stream is about: who gets it, which answer is owed on it, and the intents that it closes.

use std::{sync::Arc, time::SystemTime};

use bulkhead_core::{
    audit::Completion,
    handles::Handle,
    mcp::{Era, ProtocolVersion},
    policy::{Channel, Expected, Views},
};
use bytes::Bytes;

use super::super::{
    Exchange,
    answer::{self, Failure, Judged},
    handles,
};
use crate::{
    authentication::{self, authenticate},
    limits::Limits,
    record::{Ended, OpenIntent},
    refusal::EdgeRefusal,
    sealer::{OpenEvent, OpenSession},
    server::Connection,
    tokens::Token,
};

/// One stream's state.
pub(crate) struct Flow {
    pub(super) connection: Arc<Connection>,
    /// The token that it was asked for with: it goes on no longer than that is good.
    token: Arc<Token>,
    session: Option<OpenSession>,
    version: ProtocolVersion,
    /// The answer that the stream carries, if it does.
    expected: Option<Expected>,
    /// Whether that answer is owed here: not on a stream that is taken up again, whose server may
    /// have given it before.
    owed: bool,
    /// The number of the call that is answered.
    call: u64,
    /// The intent of the call that is answered.
    intent: Option<OpenIntent>,
    /// The intent of the stream itself, when a GET opened it.
    own: Option<OpenIntent>,
    /// Whether the client was told an event id to come back with.
    marked: bool,
    /// What the client sees of the lists that it is told changes of.
    views: Views,
}

impl Flow {
    /// The stream that answers a message.
    pub(crate) fn of_answer(exchange: Box<Exchange>) -> Self {
        let Exchange {
            connection,
            token,
            permitted,
            session,
            intent,
            ..
        } = *exchange;
        let mut flow = Self {
            connection,
            token,
            session,
            version: permitted.version(),
            expected: permitted.expected().cloned(),
            owed: true,
            call: intent.call(),
            intent: Some(intent),
            own: None,
            marked: false,
            views: Views::default(),
        };
        flow.views = flow.seen().unwrap_or_default();
        flow
    }

    /// A stream of a session, or one that is taken up again after an event.
    pub(crate) fn of_session(
        connection: Arc<Connection>,
        token: Arc<Token>,
        session: OpenSession,
        version: ProtocolVersion,
        event: Option<OpenEvent>,
        own: OpenIntent,
    ) -> Self {
        let shared = &connection.shared;
        // A call that was numbered before the sidecar's last start is none of those that were left since.
        let left = event
            .as_ref()
            .filter(|event| event.expected.is_some() && event.run == shared.run)
            .and_then(|event| shared.detached.take(event.call));
        let (expected, call) = event.map_or((None, 0), |event| (event.expected, event.call));
        let mut flow = Self {
            connection,
            token,
            session: Some(session),
            version,
            expected,
            owed: false,
            call,
            intent: left,
            own: Some(own),
            marked: true,
            views: Views::default(),
        };
        flow.views = flow.seen().unwrap_or_default();
        flow
    }

    /// What the client sees of the lists that it is told changes of: on a stream without an end.
    fn seen(&self) -> Option<Views> {
        if !self.is_endless() {
            return None;
        }
        let shared = &self.connection.shared;
        let policy = shared.live.policy()?;
        let agent = authentication::caller(&self.connection, &self.token, &policy)?;
        let inventory = shared.live.inventory();
        Some(policy.compiled().views(&agent, self.channel(), &inventory))
    }

    /// Tells the client of the lists that are others to it than they were.
    pub(super) fn list_changes(&mut self) -> Vec<Bytes> {
        let Some(now) = self.seen() else {
            return Vec::new();
        };
        let told = self.views.changes(&now, self.channel());
        self.views = now;
        told
    }

    fn channel(&self) -> Channel<'_> {
        match &self.expected {
            Some(expected) => Channel::Answer(expected),
            None => Channel::Session(self.version),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.connection.shared.limits
    }

    /// Whether it may be taken up again.
    pub(super) fn is_resumable(&self) -> bool {
        self.session.is_some() && self.version.era() == Era::Legacy
    }

    /// Whether it goes on until somebody ends it.
    pub(super) fn is_endless(&self) -> bool {
        self.expected.as_ref().is_none_or(Expected::is_endless)
    }

    /// Whether the server may end it without an answer.
    pub(super) fn may_end_early(&self) -> bool {
        !self.owed || (self.is_resumable() && self.marked)
    }

    /// An event id as the client gets it. What can't be sealed is left out.
    pub(super) fn seal(&mut self, id: &str) -> Option<String> {
        if !self.is_resumable() {
            return None;
        }
        let handle = Handle::Event {
            id: id.to_owned(),
            expected: self.expected.clone(),
            call: self.call,
            run: self.connection.shared.run,
        };
        let session = self.session.as_ref().map(OpenSession::upstream_id);
        let policy = self.connection.shared.live.policy()?;
        let agent = authentication::caller(&self.connection, &self.token, &policy)?;
        let sealed = handles(&self.connection, &agent, session).seal(&handle)?;
        self.marked = true;
        Some(sealed)
    }

    pub(super) fn judge(&self, message: &Bytes) -> Judged {
        let session = self.session.as_ref().map(OpenSession::upstream_id);
        answer::judge(&self.connection, &self.token, self.channel(), session, message)
    }

    /// When the client's right to it ends.
    pub(super) fn expires(&self) -> SystemTime {
        self.token.expires
    }

    /// Whether the client may still have it, by the policy, trust and keys that are in force now; why not, if not.
    pub(super) fn allowed(&self) -> Result<(), EdgeRefusal> {
        let policy = self
            .connection
            .shared
            .live
            .policy()
            .ok_or(EdgeRefusal::NoPolicy)?;
        authenticate(&self.connection, &self.token, &policy).map(drop)
    }

    /// The answer was given.
    pub(super) fn answered(&mut self, ended: Ended) {
        if let Some(intent) = self.intent.take() {
            intent.ended(ended);
        }
        self.ended();
    }

    /// The stream ended as it may. A call that still has no answer is left for whoever takes the
    /// stream up again.
    pub(super) fn ended(&mut self) {
        if let Some(intent) = self.intent.take() {
            self.connection.shared.detached.leave(intent);
        }
        if let Some(own) = self.own.take() {
            own.close(Completion::Completed, None);
        }
    }

    /// There will be no answer of the server; the error that the client gets instead.
    pub(super) fn fail(&mut self, why: Failure) -> Option<Bytes> {
        self.connection.shared.metrics.upstream_failed(why.code());
        self.close(Completion::Failed, None);
        let expected = self.expected.as_ref().filter(|_| self.owed)?;
        Some(answer::error(Some(expected.id()), why))
    }

    /// The client may not have it any more.
    pub(super) fn withdraw(&mut self, why: &'static str) -> Option<Bytes> {
        self.connection.shared.metrics.dropped(why);
        self.close(Completion::Failed, Some(why));
        let expected = self.expected.as_ref()?;
        Some(answer::error(Some(expected.id()), Failure::Withdrawn))
    }

    /// Ends a stream without an end, as its server would: a subscription with a result.
    pub(super) fn end_gracefully(&mut self) -> Option<Bytes> {
        self.close(Completion::Completed, None);
        self.expected.as_ref().map(Expected::end_of_subscription)
    }

    fn close(&mut self, completion: Completion, reason: Option<&'static str>) {
        for intent in [self.intent.take(), self.own.take()].into_iter().flatten() {
            intent.close(completion, reason);
        }
    }
}

impl Drop for Flow {
    /// The client went away. In the legacy era that takes nothing back (2025-11-25, "Cancellation"):
    /// it may come back for the answer. In the newer one it does, and the intents say so.
    fn drop(&mut self) {
        if self.is_resumable() && self.marked {
            self.ended();
        }
    }
}
