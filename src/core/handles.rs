//! Handles that the server makes and a client presents again: session ids, event ids, cursors,
//! request states, task ids, and ids of the server's own requests.
//!
//! A client never sees the server's own value but a sealed one, bound to the agent that it was made
//! for and to what it was made in. So another agent's handle, one of another kind, an altered and an
//! invented one are all the same: not found. What is sealed says which rule and which filters
//! answer for it.
//!
//! Sealing itself is cryptography and is done by the sidecar, see [`Seal`].

use serde::{Deserialize, Serialize};

use crate::policy::Expected;

/// Longest value of the server that is sealed as a request state, in bytes.
const MAX_STATE: usize = 64 * 1024;

/// Longest value of the server that is sealed as any other handle, in bytes.
const MAX_VALUE: usize = 1024;

/// Longest text that is sealed, in bytes: with what belongs to the value. Seals open this much.
pub const MAX_TEXT: usize = 90 * 1024;

/// Authenticated encryption of handles.
pub trait Seal: Send + Sync {
    /// Seals `text`, so that it opens with the same `context` only. Equal texts of equal contexts
    /// give equal handles. `None`: it can't be sealed.
    fn seal(&self, context: &[u8], text: &[u8]) -> Option<String>;

    /// Opens what [`Self::seal`] made with the same context, here or in another replica. `None`: not
    /// one of ours.
    fn open(&self, context: &[u8], sealed: &str) -> Option<Vec<u8>>;

    /// The replica that this is, as the others reach it.
    fn here(&self) -> &str;
}

/// Seals and opens nothing: for decisions offline, where no handle was ever made.
#[derive(Clone, Copy, Debug)]
pub struct NoHandles;

impl Seal for NoHandles {
    fn seal(&self, _: &[u8], _: &[u8]) -> Option<String> {
        None
    }

    fn open(&self, _: &[u8], _: &str) -> Option<Vec<u8>> {
        None
    }

    fn here(&self) -> &'static str {
        ""
    }
}

/// A replica of the server, as the others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica(String);

impl Replica {
    /// Where it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What was sealed.
#[derive(Serialize, Deserialize)]
struct Sealed<H> {
    #[serde(rename = "h")]
    handle: H,
    #[serde(rename = "o")]
    owner: Replica,
}

/// A handle that its seal opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub handle: Handle,
    /// The replica that it was made in, when that isn't this one.
    pub elsewhere: Option<Replica>,
}

/// A handle, as the server made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handle {
    /// `Mcp-Session-Id` of the legacy era.
    #[serde(rename = "s")]
    Session(String),
    /// An SSE event id of the legacy era.
    #[serde(rename = "e")]
    Event {
        /// The server's id.
        id: String,
        /// The answer that the stream carries, if it is the stream of a request.
        #[serde(skip_serializing_if = "Option::is_none")]
        expected: Option<Expected>,
        /// The sidecar's number of the call that is answered there, zero when none is.
        call: u64,
        /// The start of the sidecar that numbered it; zero in handles of before there was one.
        #[serde(default)]
        run: u64,
    },
    /// A cursor of a list.
    #[serde(rename = "c")]
    Cursor {
        /// The list's method.
        method: String,
        /// The server's cursor.
        value: String,
    },
    /// `requestState` of a result that asks for input.
    #[serde(rename = "r")]
    State {
        /// The request's method.
        method: String,
        /// What the request named.
        name: String,
        /// The server's state.
        value: String,
    },
    /// A task.
    #[serde(rename = "t")]
    Task {
        /// The tool that became the task.
        tool: String,
        /// The server's id.
        id: String,
    },
    /// The id of a request that the server made to the client.
    #[serde(rename = "q")]
    Request {
        /// What servers were granted to ask when it passed. An answer passes only while that is so.
        granted: String,
        /// Its raw id.
        id: String,
    },
}

/// The kinds of handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Handle::Session`]
    Session,
    /// [`Handle::Event`]
    Event,
    /// [`Handle::Cursor`]
    Cursor,
    /// [`Handle::State`]
    State,
    /// [`Handle::Task`]
    Task,
    /// [`Handle::Request`]
    Request,
}

impl Handle {
    fn kind(&self) -> Kind {
        match self {
            Self::Session(_) => Kind::Session,
            Self::Event { .. } => Kind::Event,
            Self::Cursor { .. } => Kind::Cursor,
            Self::State { .. } => Kind::State,
            Self::Task { .. } => Kind::Task,
            Self::Request { .. } => Kind::Request,
        }
    }

    /// The server's own value.
    pub fn value(&self) -> &str {
        match self {
            Self::Session(id) | Self::Event { id, .. } | Self::Task { id, .. } | Self::Request { id, .. } => {
                id
            }
            Self::Cursor { value, .. } | Self::State { value, .. } => value,
        }
    }
}

/// Seals and opens the handles of one agent, and of one of its sessions.
#[derive(Clone, Copy)]
pub struct Handles<'a> {
    seal: &'a dyn Seal,
    agent: &'a str,
    session: Option<&'a str>,
}

impl<'a> Handles<'a> {
    /// Handles of an agent, by its [`owner`](crate::policy::CompiledAgent::owner), in the session with the server's id
    /// `session`.
    pub fn new(seal: &'a dyn Seal, agent: &'a str, session: Option<&'a str>) -> Self {
        Self { seal, agent, session }
    }

    /// Seals a handle. `None`: the server's value is empty, what belongs to it is too long, or it can't be sealed.
    pub fn seal(&self, handle: &Handle) -> Option<String> {
        let most = match handle {
            Handle::State { .. } => MAX_STATE,
            _ => MAX_VALUE,
        };
        if handle.value().is_empty() || handle.value().len() > most {
            return None;
        }
        let sealed = Sealed {
            handle,
            owner: Replica(self.seal.here().to_owned()),
        };
        let text = serde_json::to_vec(&sealed).ok()?;
        if text.len() > MAX_TEXT {
            return None;
        }
        self.seal.seal(&self.context(handle.kind()), &text)
    }

    /// Opens a handle of a kind. `None`: it isn't one that was made for this agent.
    pub fn open(&self, kind: Kind, sealed: &str) -> Option<Opened> {
        let text = self.seal.open(&self.context(kind), sealed)?;
        let Sealed::<Handle> { handle, owner } = serde_json::from_slice(&text).ok()?;
        (handle.kind() == kind).then(|| Opened {
            handle,
            elsewhere: Some(owner).filter(|owner| owner.as_str() != self.seal.here()),
        })
    }

    /// What a handle is bound to. Line feeds part an agent from a person, and both from a session, and no part can hold
    /// one: it is in no SPIFFE ID, issuer and subject and, as ids are visible ASCII, in no session id.
    fn context(&self, kind: Kind) -> Vec<u8> {
        let mut context = format!("{kind:?}\n{}", self.agent);
        if matches!(kind, Kind::Event | Kind::Request) {
            context.push('\n');
            context.push_str(self.session.unwrap_or_default());
        }
        context.into_bytes()
    }
}

impl std::fmt::Debug for Handles<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Handles")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Seals by writing the context before the text: readable in tests, and bound all the same.
    #[derive(Debug)]
    pub(crate) struct Plain(pub(crate) &'static str);

    impl Seal for Plain {
        fn seal(&self, context: &[u8], text: &[u8]) -> Option<String> {
            let context = String::from_utf8_lossy(context).replace('\n', "|");
            Some(format!("sealed<{context}>{}", String::from_utf8_lossy(text)))
        }

        fn open(&self, context: &[u8], sealed: &str) -> Option<Vec<u8>> {
            let context = String::from_utf8_lossy(context).replace('\n', "|");
            let text = sealed.strip_prefix(&format!("sealed<{context}>"))?;
            Some(text.as_bytes().to_vec())
        }

        fn here(&self) -> &str {
            self.0
        }
    }

    pub(crate) const HERE: Plain = Plain("10.1.2.3:8446");

    #[test]
    fn what_would_not_be_opened_is_not_sealed() {
        let seal = Plain("here");
        let handles = Handles::new(&seal, "billing", None);
        let state = |name: usize| Handle::State {
            method: "tools/call".into(),
            name: "n".repeat(name),
            value: "v".repeat(MAX_STATE),
        };
        assert!(handles.seal(&state(1024)).is_some());
        assert!(handles.seal(&state(MAX_TEXT - MAX_STATE)).is_none());
    }

    #[test]
    fn a_handle_opens_for_its_agent_kind_and_session_only() {
        let billing = Handles::new(&HERE, "spiffe://acme/billing", Some("s-1"));
        let handles = [
            (Kind::Session, Handle::Session("s-1".into()), false),
            (
                Kind::Cursor,
                Handle::Cursor {
                    method: "tools/list".into(),
                    value: "2".into(),
                },
                false,
            ),
            (
                Kind::Request,
                Handle::Request {
                    granted: String::new(),
                    id: "7".into(),
                },
                true,
            ),
            (
                Kind::Event,
                Handle::Event {
                    id: "9".into(),
                    expected: None,
                    call: 0,
                    run: 0,
                },
                true,
            ),
        ];
        for (kind, handle, in_session) in handles {
            let sealed = billing.seal(&handle).unwrap();
            let opened = Opened {
                handle,
                elsewhere: None,
            };
            assert_eq!(billing.open(kind, &sealed), Some(opened));
            let other_kind = if kind == Kind::Task {
                Kind::State
            } else {
                Kind::Task
            };
            assert_eq!(billing.open(other_kind, &sealed), None, "{kind:?}");
            let other = Handles::new(&HERE, "spiffe://acme/root", Some("s-1"));
            assert_eq!(other.open(kind, &sealed), None, "{kind:?}");
            let other = Handles::new(&HERE, "spiffe://acme/billing", Some("s-2"));
            assert_eq!(other.open(kind, &sealed).is_none(), in_session, "{kind:?}");
        }
    }

    #[test]
    fn a_handle_says_in_which_replica_it_was_made() {
        let sealed = Handles::new(&HERE, "spiffe://acme/billing", None)
            .seal(&Handle::Session("s-1".into()))
            .unwrap();
        let other = Plain("10.1.9.9:8446");
        let opened = Handles::new(&other, "spiffe://acme/billing", None)
            .open(Kind::Session, &sealed)
            .unwrap();
        assert_eq!(opened.handle, Handle::Session("s-1".into()));
        assert_eq!(opened.elsewhere.unwrap().as_str(), "10.1.2.3:8446");
    }

    #[test]
    fn what_is_empty_or_too_long_is_no_handle() {
        let handles = Handles::new(&HERE, "a", None);
        let state = |value: &str| Handle::State {
            method: "tools/call".into(),
            name: "a".into(),
            value: value.into(),
        };
        assert!(handles.seal(&Handle::Session(String::new())).is_none());
        assert!(
            handles
                .seal(&Handle::Session("a".repeat(MAX_VALUE + 1)))
                .is_none()
        );
        assert!(handles.seal(&state(&"a".repeat(MAX_STATE))).is_some());
        assert!(handles.seal(&state(&"a".repeat(MAX_STATE + 1))).is_none());
    }
}
