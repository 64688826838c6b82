//! The sidecar's own look at the server's lists, before any agent is sent here and whenever they may be others: what the
//! server is held to mustn't depend on which agent happened to ask first.
//!
//! It asks as any client would, in the newest version of each era that the server speaks. In an older version a definition
//! is known from the first list of an agent that speaks it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bulkhead_core::{
    Reason,
    credential::Claims,
    json::Limits,
    mcp::{
        ProtocolVersion,
        inventory::{Learned, Listing, Showing, Shown},
        sse::{Event, Frame as SseFrame, SseError, SseReader},
    },
    policy::{DroppedEntry, Inquiry, Instructions, Reply},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    exchange::{
        DEPTH,
        answer::{discard, media_type},
    },
    live::Live,
    memory::{self, Budget, ReadError},
    policy::LoadedPolicy,
    record,
    shared::Shared,
    upstream::{AnswerBody, OnBehalfOf, OwnSession, UpstreamError},
};

/// Pause between two looks when nothing says that anything changed.
const AGAIN: Duration = Duration::from_mins(10);

/// Pause before another try while the server accepts no connections: it may be starting.
const STARTING: Duration = Duration::from_millis(100);

/// Pause before a look that somebody asked for, and the least time from one look to the next: a server that says again and
/// again that its lists changed gets neither a busy loop nor the audit log for it.
const SETTLED: Duration = Duration::from_millis(50);
const BETWEEN: Duration = Duration::from_secs(1);

/// Pause before another try after an answer that is none.
const FAILED: Duration = Duration::from_secs(2);

/// Time for one look.
const LOOK: Duration = Duration::from_mins(2);

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of one page.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Pages of one list.
const PAGES: usize = 64;

/// Entries of one list that are logged when they are not offered; all are counted.
const LOGGED: usize = 16;

/// Why the lists couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The server gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// It took too long.
    #[error("the MCP server did not answer {0} in time")]
    Timeout(&'static str),
    /// Its HTTP response is no answer.
    #[error("the MCP server answered {method} with HTTP status {status} and no message")]
    Http {
        /// What was asked.
        method: &'static str,
        /// The status.
        status: u16,
    },
    /// Its answer couldn't be read to its end.
    #[error("the MCP server's answer to {0} can't be read: {1}")]
    Body(&'static str, ReadError),
    /// Its stream of events is none.
    #[error("the MCP server's answer to {0} can't be read: {1}")]
    Events(&'static str, SseError),
    /// Its answer isn't what the method defines.
    #[error("the MCP server's answer to {0} is refused ({1})")]
    Answer(&'static str, Reason),
    /// It has an error in the place of an answer.
    #[error("the MCP server answered {0} with an error")]
    Refused(&'static str),
    /// All of it took too long.
    #[error("the MCP server's lists could not be read within {LOOK:?}")]
    Slow,
    /// It doesn't come to an end.
    #[error("the MCP server's {0} has more than {PAGES} pages")]
    Endless(&'static str),
}

impl InventoryError {
    /// Whether nothing accepts connections, as while the server starts.
    fn is_starting(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::Connect(_)))
    }
}

/// Looks for as long as it runs.
pub async fn keep(shared: Arc<Shared>) {
    let mut changes = shared.live.changes();
    let (mut told, mut recorded) = (String::new(), HashMap::new());
    loop {
        let Some(policy) = shared.live.policy() else {
            // Who changes lives as long as the sidecar.
            let _ = changes.changed().await;
            continue;
        };
        let looked = Instant::now();
        let taken = timeout(LOOK, take(&shared, &policy, &mut recorded)).await;
        let pause = match taken.unwrap_or(Err(InventoryError::Slow)) {
            Ok(()) => {
                shared.readiness.inventory_is_taken();
                told.clear();
                AGAIN
            }
            Err(error) => {
                let why = error.to_string();
                // What the probe says.
                if why != told && !error.is_starting() {
                    warn!(error = why, "the MCP server's lists can't be read");
                    told = why;
                }
                if error.is_starting() { STARTING } else { FAILED }
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = shared.readiness.until_inventory_is_due() => {
                sleep(SETTLED.max(BETWEEN.saturating_sub(looked.elapsed()))).await;
            }
            () = until_other(&shared.live, policy.revision(), &mut changes) => {}
        }
    }
}

/// Waits until another policy is in force.
async fn until_other(live: &Live, revision: &str, changes: &mut watch::Receiver<u64>) {
    while live.policy().is_none_or(|policy| policy.revision() == revision) {
        // Who changes lives as long as the sidecar.
        let _ = changes.changed().await;
    }
}

/// Takes what a list taught into the inventory. What is new is put on record, and what can't be offered is told.
pub fn learn(shared: &Shared, policy: &LoadedPolicy, learned: &[Learned], dropped: &[DroppedEntry]) {
    let news = shared.live.learn(learned);
    let inventory = shared.live.inventory();
    for entry in news {
        let withheld = policy.compiled().withheld(entry, &inventory);
        if let Err(error) = record::definition(shared, policy, entry, withheld) {
            error!(%error, name = entry.name, "a definition can't be recorded");
            shared.metrics.audit_failures.inc();
        }
    }
    for (index, entry) in dropped.iter().enumerate() {
        if index < LOGGED {
            warn!(entry.name = entry.name, reason = %entry.reason, entries = dropped.len(), "an entry of the server's list is not offered");
        }
        shared.metrics.dropped(entry.reason.as_str());
    }
}

/// What the server said in its `instructions`, as it was recorded last, by version of the protocol.
type Recorded = HashMap<ProtocolVersion, Instructions>;

/// Puts on record what is new of the server's `instructions`.
fn note(
    shared: &Shared,
    policy: &LoadedPolicy,
    version: ProtocolVersion,
    said: Instructions,
    recorded: &mut Recorded,
) {
    if recorded.insert(version, said) == Some(said) {
        return;
    }
    if let Some(reason) = said.withheld {
        warn!(%reason, definition = %said.fingerprint, "the server's instructions are left out");
        shared.metrics.dropped(reason.as_str());
    }
    if let Err(error) = record::instructions(shared, policy, version, said) {
        error!(%error, "the server's instructions can't be recorded");
        shared.metrics.audit_failures.inc();
    }
}

/// One look at everything.
async fn take(shared: &Shared, policy: &LoadedPolicy, recorded: &mut Recorded) -> Result<(), InventoryError> {
    let client = Client {
        shared,
        policy,
        room: Budget::new(PAGE_BYTES),
    };
    let (mut eras, mut failure) = (0, None);
    for inquiry in [Inquiry::Discover, Inquiry::Initialize] {
        match client.offer(inquiry).await {
            Ok(offer) => {
                if let Some(said) = offer.instructions {
                    note(shared, policy, offer.version, said, recorded);
                }
                let listed = client.lists(&offer).await;
                client.end(&offer).await;
                listed?;
                eras += 1;
            }
            Err(error) if error.is_starting() => return Err(error),
            // It needn't speak both.
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if eras == 0 => Err(error),
        _ => {
            info!(eras, "the MCP server's lists are known");
            Ok(())
        }
    }
}

/// Asks the server.
struct Client<'a> {
    shared: &'a Shared,
    policy: &'a LoadedPolicy,
    /// For one page.
    room: Budget,
}

/// What the server offers in one era.
struct Offer {
    version: ProtocolVersion,
    listings: Vec<Listing>,
    instructions: Option<Instructions>,
    session: Option<OwnSession>,
}

impl Client<'_> {
    async fn offer(&self, inquiry: Inquiry<'_>) -> Result<Offer, InventoryError> {
        let (reply, session) = self.ask(inquiry, None).await?;
        let Some(Reply::Offer {
            version,
            listings,
            instructions,
        }) = reply
        else {
            return Err(InventoryError::Refused(inquiry.method().name()));
        };
        let offer = Offer {
            version,
            listings,
            instructions,
            session,
        };
        if inquiry == Inquiry::Initialize {
            self.ask(Inquiry::Initialized(version), offer.session.as_ref())
                .await?;
        }
        Ok(offer)
    }

    /// Reads all lists of an offer.
    async fn lists(&self, offer: &Offer) -> Result<(), InventoryError> {
        let mut shown = Vec::new();
        for listing in &offer.listings {
            shown.push((*listing, self.list(*listing, offer).await?));
        }
        self.shared.live.show(offer.version.era(), &shown);
        Ok(())
    }

    async fn list(&self, listing: Listing, offer: &Offer) -> Result<Shown, InventoryError> {
        let mut showing = Showing::default();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES {
            let inquiry = Inquiry::Page {
                listing,
                version: offer.version,
                cursor: cursor.as_deref(),
            };
            match self.ask(inquiry, offer.session.as_ref()).await?.0 {
                Some(Reply::Page {
                    learned,
                    dropped,
                    next,
                }) => {
                    learn(self.shared, self.policy, &learned, &dropped);
                    for entry in learned {
                        showing.add(entry.name, entry.fingerprint);
                    }
                    cursor = next;
                }
                // Servers that have resources needn't have both lists of them, and are held to neither.
                _ if matches!(listing, Listing::Resources | Listing::Templates) => {
                    return Ok(showing.finish());
                }
                _ => return Err(InventoryError::Refused(inquiry.method().name())),
            }
            if cursor.is_none() {
                return Ok(showing.finish());
            }
        }
        Err(InventoryError::Endless(listing.method().name()))
    }

    /// Ends the session of an offer. A server that doesn't let clients do that keeps it.
    async fn end(&self, offer: &Offer) {
        if let Some(session) = &offer.session {
            let credential = self.credential("DELETE");
            let (upstream, target) = (&self.shared.upstream, self.policy.target());
            let ended = upstream.end_session(
                target,
                OnBehalfOf::Sidecar(Some(session)),
                Some(offer.version),
                credential,
            );
            if let Ok(Ok(response)) = timeout(PATIENCE, ended).await {
                discard(response.into_body());
            }
        }
    }

    /// The answer to one inquiry, and the session that it began.
    async fn ask(
        &self,
        inquiry: Inquiry<'_>,
        session: Option<&OwnSession>,
    ) -> Result<(Option<Reply>, Option<OwnSession>), InventoryError> {
        let method = inquiry.method().name();
        timeout(PATIENCE, self.ask_at_leisure(inquiry, session))
            .await
            .unwrap_or(Err(InventoryError::Timeout(method)))
    }

    async fn ask_at_leisure(
        &self,
        inquiry: Inquiry<'_>,
        session: Option<&OwnSession>,
    ) -> Result<(Option<Reply>, Option<OwnSession>), InventoryError> {
        let (message, method) = (inquiry.message(), inquiry.method().name());
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        let response = self
            .shared
            .upstream
            .send(
                self.policy.target(),
                &message,
                OnBehalfOf::Sidecar(session),
                self.credential(method),
                &headers,
            )
            .await?;
        let status = response.status();
        let begun = (inquiry == Inquiry::Initialize)
            .then(|| OwnSession::begun(&response))
            .flatten();
        let no_message = InventoryError::Http {
            method,
            status: status.as_u16(),
        };
        if message.expected().is_none() {
            discard(response.into_body());
            return if status.is_success() {
                Ok((None, begun))
            } else {
                Err(no_message)
            };
        }
        let reply = match media_type(response.headers()) {
            Some("application/json") => self.whole(inquiry, response).await?,
            Some("text/event-stream") if status.is_success() => self.events(inquiry, response).await?,
            _ => {
                discard(response.into_body());
                None
            }
        };
        match reply {
            Some(reply) => Ok((Some(reply), begun)),
            None => Err(no_message),
        }
    }

    async fn whole(
        &self,
        inquiry: Inquiry<'_>,
        response: Response<AnswerBody>,
    ) -> Result<Option<Reply>, InventoryError> {
        let mut held = self.shared.admission.own_memory(&self.room);
        let body = memory::read(response.into_body(), PAGE_BYTES, &mut held)
            .await
            .map_err(|error| InventoryError::Body(inquiry.method().name(), error))?;
        self.read(inquiry, &body)
    }

    /// Reads events until one is the answer.
    async fn events(
        &self,
        inquiry: Inquiry<'_>,
        response: Response<AnswerBody>,
    ) -> Result<Option<Reply>, InventoryError> {
        let method = inquiry.method().name();
        let mut held = self.shared.admission.own_memory(&self.room);
        let (mut reader, mut frames) = (SseReader::new(PAGE_BYTES), Vec::new());
        let mut body = response.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(chunk) = frame.into_data() else {
                continue;
            };
            let read = reader.push(&chunk, &mut frames);
            for frame in frames.drain(..) {
                let SseFrame::Event(Event { data: Some(data), .. }) = frame else {
                    continue;
                };
                if data.is_empty() {
                    continue;
                }
                if let Some(reply) = self.read(inquiry, &Bytes::from(data))? {
                    discard(body);
                    return Ok(Some(reply));
                }
            }
            read.map_err(|error| InventoryError::Events(method, error))?;
            held.resize(reader.held())
                .map_err(|error| InventoryError::Body(method, error.into()))?;
        }
        Ok(None)
    }

    fn read(&self, inquiry: Inquiry<'_>, body: &Bytes) -> Result<Option<Reply>, InventoryError> {
        let limits = Limits {
            bytes: PAGE_BYTES,
            depth: DEPTH,
        };
        let inventory = self.shared.live.inventory();
        self.policy
            .compiled()
            .reply(inquiry, body, &inventory, limits)
            .map_err(|refusal| InventoryError::Answer(inquiry.method().name(), refusal.reason))
    }

    fn credential(&self, method: &'static str) -> HeaderValue {
        let mut id = String::new();
        self.shared.minter.authorization(
            |moment| Claims::of_sidecar(self.policy.compiled(), method, moment),
            &mut id,
        )
    }
}
