//! Messages of the server: an answer to what was asked passes, filtered; anything else doesn't.

use bytes::Bytes;

use crate::{
    json::{self, Limits, text::is_case_variant},
    mcp::{
        self, Era, Message,
        envelope::{Outcome, span},
        inventory::ToolFacts,
        methods::{self, Direction, Method},
    },
    policy::{
        capabilities,
        compile::{CompiledAgent, CompiledPolicy},
        lists,
        permit::Expected,
        splice::{self, Edit},
    },
    reason::Reason,
    refusal::Refusal,
};

/// What becomes of a message of the server.
#[derive(Debug)]
pub enum Answer {
    /// The answer. It ends the exchange.
    Final(FinalAnswer),
    /// A notification that belongs to the request. It passes, and more may follow.
    Event(Bytes),
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
    /// What a list taught about tools, for [`crate::mcp::Inventory::learning`].
    pub learned: Vec<(String, ToolFacts)>,
    /// Tools that a list offered and that were taken out because something is wrong with them.
    /// Tools that the agent simply doesn't have aren't here.
    pub dropped: Vec<DroppedTool>,
}

/// A tool that was taken out of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTool {
    /// Its name, shortened; empty when it has none.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

impl CompiledPolicy {
    /// Decides a message of the server: a JSON body, or the data of one event.
    ///
    /// `caller` is looked up again, so that an answer to an agent that has lost its rights in the
    /// meantime is held back.
    pub fn answer(
        &self,
        caller: Option<&CompiledAgent>,
        expected: &Expected,
        body: &Bytes,
        limits: Limits,
    ) -> Answer {
        self.try_answer(caller, expected, body, limits)
            .unwrap_or_else(|refusal| {
                let era = expected.version.era();
                Answer::Refused(refusal.answering(Some(&expected.id)).in_era(Some(era)))
            })
    }

    fn try_answer(
        &self,
        caller: Option<&CompiledAgent>,
        expected: &Expected,
        body: &Bytes,
        limits: Limits,
    ) -> Result<Answer, Refusal> {
        let agent = caller.ok_or_else(|| Refusal::plain(Reason::AgentUnknown))?;
        let message = mcp::read(body, limits)
            .map_err(|refusal| malformed(&format!("it can't be read ({})", refusal.reason)))?;
        let response = match &message {
            Message::Response(response) => response,
            Message::Notification(_) if is_progress(&message, expected) => {
                return Ok(Answer::Event(body.clone()));
            }
            Message::Request(_) | Message::Notification(_) => {
                return Ok(Answer::Dropped(Reason::ServerMessageDenied));
            }
        };
        if !response.id.is_some_and(|id| id.is(&expected.id)) {
            return Err(Refusal::plain(Reason::AnswerMismatch));
        }
        let mut answer = FinalAnswer {
            body: body.clone(),
            failed: false,
            learned: Vec::new(),
            dropped: Vec::new(),
        };
        match response.outcome {
            Outcome::Error(_) => answer.failed = true,
            Outcome::Result(result) => {
                if let Some(text) = self.result(agent, expected, result, &mut answer)? {
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
        answer: &mut FinalAnswer,
    ) -> Result<Option<String>, Refusal> {
        let members = json::members(result).ok_or_else(|| malformed("its result is no object"))?;
        if expected.version.era() == Era::Modern {
            check_type(&members)?;
        }
        match expected.method {
            Method::ToolsList => {
                lists::filter(self, agent, expected.version.era(), &members, answer).map(Some)
            }
            Method::Initialize => capabilities::initialize(&members).map(Some),
            Method::Discover => capabilities::discover(&members).map(Some),
            Method::ToolsCall => {
                answer.failed = json::get(&members, "isError") == Some("true");
                Ok(None)
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

/// Only complete results pass: others carry handles that a client would present again
/// (`requestState`, task ids), and nothing seals those. Absent means complete.
fn check_type(members: &[(std::borrow::Cow<'_, str>, &str)]) -> Result<(), Refusal> {
    if members.iter().any(|(key, _)| is_case_variant(key, "resultType")) {
        return Err(malformed("a key differs from resultType in case only"));
    }
    match json::get(members, "resultType").map(json::string) {
        None => Ok(()),
        Some(Some(kind)) if kind == "complete" => Ok(()),
        Some(_) => Err(Refusal::plain(Reason::AnswerType)),
    }
}

/// Progress of this very request, which the client asked for.
fn is_progress(message: &Message<'_>, expected: &Expected) -> bool {
    let era = expected.version.era();
    let entry = message
        .method()
        .and_then(|name| methods::lookup(era, Direction::ToClient, name));
    let Some((entry, params)) = entry.zip(message.params()) else {
        return false;
    };
    let token = params
        .get("progressToken")
        .zip(expected.progress_token.as_deref());
    params
        .members()
        .iter()
        .all(|(key, _)| entry.params.contains(&key.as_ref()))
        && token.is_some_and(|(given, asked)| {
            given == asked || json::string(given).is_some_and(|text| json::string(asked) == Some(text))
        })
}
