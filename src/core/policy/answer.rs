//! Messages of the server: an answer to what was asked passes, filtered, and so does what the
//! client was granted to be told and asked; anything else doesn't.

use bytes::Bytes;

use crate::{
    json::{self, Members, text::is_case_variant},
    mcp::{
        self, Era, Message, ProtocolVersion,
        envelope::{Outcome, span},
        fingerprint::Fingerprint,
        inventory::{Learned, Listing},
        methods::Method,
    },
    policy::{
        calls, capabilities,
        compile::{CompiledAgent, CompiledPolicy},
        contents,
        decide::Context,
        events, lists,
        permit::Expected,
        records::Records,
        results,
        splice::{self, Edit},
    },
    reason::Reason,
    refusal::{Refusal, shortened},
};

/// Where a message of the server comes from.
#[derive(Clone, Copy, Debug)]
pub enum Channel<'a> {
    /// From the answer to a request, or from a stream that takes one up again.
    Answer(&'a Expected),
    /// From a session's own stream, in the legacy era. Nothing is answered there.
    Session(ProtocolVersion),
}

impl<'a> Channel<'a> {
    /// The answer that may come.
    pub fn expected(self) -> Option<&'a Expected> {
        match self {
            Self::Answer(expected) => Some(expected),
            Self::Session(_) => None,
        }
    }

    /// The protocol version that is spoken on it.
    pub fn version(self) -> ProtocolVersion {
        match self {
            Self::Answer(expected) => expected.version,
            Self::Session(version) => version,
        }
    }
}

/// What becomes of a message of the server.
#[derive(Debug)]
pub enum Answer {
    /// The answer. It ends the exchange.
    Final(FinalAnswer),
    /// A notification or request that passes, as these bytes. More may follow.
    Event(Bytes),
    /// The server says that a list of its changed: it is time to look. The client is told when its own did, by
    /// [`Views::changes`](crate::policy::Views::changes). More may follow.
    ListChanged,
    /// A message that doesn't pass. More may follow.
    Dropped(Reason),
    /// An answer that doesn't pass. The client gets the refusal instead, and the exchange ends.
    Refused(Refusal),
}

/// An answer for the client.
#[derive(Debug, PartialEq, Eq)]
pub struct FinalAnswer {
    /// The message.
    pub body: Bytes,
    /// Whether it is an error, or a tool result with `isError`.
    pub failed: bool,
    /// What a list taught, for [`crate::mcp::Inventory::learning`].
    pub learned: Vec<Learned>,
    /// What the ownership filter of a tool found, if there is one.
    pub records: Option<Records>,
    /// Why it would have been refused, or have lost records, by a rule that only reports.
    pub reported: Option<Reason>,
    /// Entries that a list offered and that were taken out because something is wrong with them.
    /// Those that the agent simply doesn't have aren't here.
    pub dropped: Vec<DroppedEntry>,
}

/// An entry that was taken out of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedEntry {
    /// Its name or URI, shortened; empty when it has none.
    pub name: String,
    /// Why.
    pub reason: Reason,
    /// Of the definition, where there is one: what the tenant may accept.
    pub fingerprint: Option<Fingerprint>,
}

impl DroppedEntry {
    pub(super) fn new(name: &str, reason: Reason) -> Self {
        Self {
            name: shortened(name).into(),
            reason,
            fingerprint: None,
        }
    }
}

impl CompiledPolicy {
    /// Decides a message of the server: a JSON body, or the data of one event.
    ///
    /// `caller` is looked up again, so that an answer to an agent that has lost its rights in the
    /// meantime is held back.
    pub fn answer(
        &self,
        caller: Option<&CompiledAgent>,
        channel: Channel<'_>,
        body: &Bytes,
        context: Context<'_>,
    ) -> Answer {
        self.try_answer(caller, channel, body, context)
            .unwrap_or_else(|refusal| match channel.expected() {
                Some(expected) => {
                    let era = expected.version.era();
                    Answer::Refused(refusal.answering(Some(&expected.id)).in_era(Some(era)))
                }
                None => Answer::Dropped(refusal.reason),
            })
    }

    fn try_answer(
        &self,
        caller: Option<&CompiledAgent>,
        channel: Channel<'_>,
        body: &Bytes,
        context: Context<'_>,
    ) -> Result<Answer, Refusal> {
        let agent = caller.ok_or_else(|| Refusal::plain(Reason::AgentUnknown))?;
        let message = mcp::read(body, context.limits)
            .map_err(|refusal| malformed(&format!("it can't be read ({})", refusal.reason)))?;
        let Message::Response(response) = &message else {
            return Ok(match events::decide(self, agent, channel, &message, context) {
                Ok(events::Event::Passes(body)) => Answer::Event(body),
                Ok(events::Event::ListChanged) => Answer::ListChanged,
                Err(reason) => Answer::Dropped(reason),
            });
        };
        let expected = channel
            .expected()
            .ok_or_else(|| Refusal::plain(Reason::AnswerMismatch))?;
        if !response.id.is_some_and(|id| id.is(&expected.id)) {
            return Err(Refusal::plain(Reason::AnswerMismatch));
        }
        let mut answer = FinalAnswer {
            body: body.clone(),
            failed: false,
            records: None,
            reported: None,
            learned: Vec::new(),
            dropped: Vec::new(),
        };
        match response.outcome {
            Outcome::Error(error) => {
                answer.failed = true;
                if calls::is_filtered(self, agent, Some(expected)) {
                    let at = span(body, error);
                    let text = calls::error(error);
                    answer.body = splice::apply(body, vec![Edit { at, text }]);
                }
            }
            Outcome::Result(result) => {
                if let Some(text) = self.result(agent, expected, result, context, &mut answer)? {
                    answer.body = splice::apply(
                        body,
                        vec![Edit {
                            at: span(body, result),
                            text,
                        }],
                    );
                }
            }
        }
        Ok(Answer::Final(answer))
    }

    /// The result that the client gets instead, if it is another one.
    fn result(
        &self,
        agent: &CompiledAgent,
        expected: &Expected,
        result: &str,
        context: Context<'_>,
        answer: &mut FinalAnswer,
    ) -> Result<Option<String>, Refusal> {
        let handles = context.handles(agent);
        let members = json::members(result).ok_or_else(|| malformed("its result is no object"))?;
        let era = expected.version.era();
        if era == Era::Modern {
            match result_type(&members)?.as_str() {
                "complete" => {}
                // A question is prose of the server.
                "input_required" if calls::is_filtered(self, agent, Some(expected)) => {
                    return Err(Refusal::plain(Reason::AnswerUnfiltered));
                }
                "input_required" => {
                    return results::input_required(self, expected, &members, handles).map(Some);
                }
                "task" => {
                    let filtered = calls::is_filtered(self, agent, Some(expected));
                    return results::task_created(expected, &members, handles, filtered).map(Some);
                }
                _ => return Err(Refusal::plain(Reason::AnswerType)),
            }
        }
        if let Some(listing) = Listing::of(expected.method) {
            let page = lists::read(
                self,
                lists::Reader::Agent(agent),
                listing,
                expected.version,
                &members,
                context.inventory,
            )?;
            let text = page.finish(listing, expected, &members, handles)?;
            (answer.learned, answer.dropped) = (page.learned, page.dropped);
            return Ok(Some(text));
        }
        match expected.method {
            Method::Initialize => capabilities::initialize(self, agent, &members).map(Some),
            Method::Discover => capabilities::discover(self, agent, &members).map(Some),
            Method::TasksGet => results::task(self, agent, expected, &members, context, answer).map(Some),
            // Acknowledged, and nothing said.
            Method::TasksUpdate | Method::TasksCancel if calls::is_filtered(self, agent, Some(expected)) => {
                Ok(Some(r#"{"resultType":"complete"}"#.to_owned()))
            }
            Method::Listen if calls::is_filtered(self, agent, Some(expected)) => {
                Ok(Some(expected.bare_end()))
            }
            Method::ToolsCall | Method::ResourcesRead => {
                let checked = if expected.method == Method::ToolsCall {
                    let rule = calls::grant_of(self, agent, expected)?.results.as_ref();
                    calls::result(rule, result, &members, era, context.limits)?
                } else {
                    contents::read(agent, expected, result, &members, context.limits)?
                };
                answer.failed = checked.failed;
                answer.records = checked.records;
                answer.reported = checked.reported;
                Ok(checked.text)
            }
            _ => Ok(None),
        }
    }
}

pub(super) fn malformed(what: &str) -> Refusal {
    Refusal::new(
        Reason::AnswerMalformed,
        format!("The server's answer was refused: {what}."),
    )
}

/// The type of a modern result. Absent means complete.
fn result_type(members: &Members<'_>) -> Result<String, Refusal> {
    if members.iter().any(|(key, _)| is_case_variant(key, "resultType")) {
        return Err(malformed("a key differs from resultType in case only"));
    }
    match json::get(members, "resultType").map(json::string) {
        None => Ok("complete".to_owned()),
        Some(Some(kind)) => Ok(kind.into_owned()),
        Some(None) => Err(Refusal::plain(Reason::AnswerType)),
    }
}
