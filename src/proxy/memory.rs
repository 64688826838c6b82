//! A budget for the messages that are held in memory: bodies of requests, answers and events until they are written.
//!
//! Bounds on one message and on calls under way alone would multiply to far more than a sidecar has, and one agent could
//! have the kernel end it. What finds no room is refused at once; nothing waits for room while it holds some.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What each message may hold without being counted: most need no more, and the bound on calls under way bounds it.
const FREE: usize = 16 * 1024;

/// Unit of the budget, in bytes.
const UNIT: usize = 1024;

/// A budget, of all or of one agent.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }
}

/// What one message holds, of its agent's budget and of all. Dropping it gives everything back.
#[derive(Debug)]
pub struct Held {
    agent: Budget,
    all: Budget,
    of_agent: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory for messages is used up")]
pub struct Exhausted;

/// Why a body wasn't read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is larger than it may be.
    #[error("larger than the limit")]
    TooLarge,
    /// There is no room for it.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// It ended before its end.
    #[error("incomplete")]
    Broken,
}

impl Held {
    /// Holds nothing yet.
    pub fn new(agent: &Budget, all: &Budget) -> Self {
        Self {
            agent: agent.clone(),
            all: all.clone(),
            of_agent: None,
            of_all: None,
        }
    }

    /// Holds room for so many bytes from now on, more or less than before.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let units = if bytes <= FREE { 0 } else { bytes.div_ceil(UNIT) };
        resize(&self.agent, &mut self.of_agent, units)?;
        resize(&self.all, &mut self.of_all, units)
    }
}

fn resize(budget: &Budget, held: &mut Option<OwnedSemaphorePermit>, units: usize) -> Result<(), Exhausted> {
    let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    if units > has {
        let more = u32::try_from(units - has).map_err(|_| Exhausted)?;
        let more = Arc::clone(&budget.0)
            .try_acquire_many_owned(more)
            .map_err(|_| Exhausted)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
    } else if let Some(held) = held {
        drop(held.split(has - units));
    }
    Ok(())
}

/// Reads a body of at most `most` bytes, holding room for what has come. One that comes in one piece isn't copied.
pub async fn read(
    mut body: impl Body<Data = Bytes> + Unpin,
    most: usize,
    held: &mut Held,
) -> Result<Bytes, ReadError> {
    let mut only = Bytes::new();
    let mut pieces = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers say nothing here.
        let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() else {
            continue;
        };
        let length = only.len() + pieces.len() + data.len();
        if length > most {
            return Err(ReadError::TooLarge);
        }
        held.resize(length)?;
        if only.is_empty() && pieces.is_empty() {
            only = data;
        } else {
            pieces.extend_from_slice(&std::mem::take(&mut only));
            pieces.extend_from_slice(&data);
        }
    }
    Ok(if pieces.is_empty() { only } else { pieces.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_and_given_back() {
        let all = Budget::new(100 * UNIT);
        let (billing, support) = (Budget::new(60 * UNIT), Budget::new(60 * UNIT));
        let mut first = Held::new(&billing, &all);
        first.resize(FREE).unwrap();
        assert_eq!(all.0.available_permits(), 100);
        first.resize(50 * UNIT + 1).unwrap();
        assert_eq!(all.0.available_permits(), 49);
        first.resize(40 * UNIT).unwrap();
        assert_eq!(
            (billing.0.available_permits(), all.0.available_permits()),
            (20, 60)
        );
        assert_eq!(
            first.resize(61 * UNIT),
            Err(Exhausted),
            "the agent's share is smaller"
        );
        let mut second = Held::new(&support, &all);
        second.resize(60 * UNIT).unwrap();
        assert_eq!(
            first.resize(41 * UNIT),
            Err(Exhausted),
            "and so is what is left of all"
        );
        drop((first, second));
        assert_eq!(
            (billing.0.available_permits(), all.0.available_permits()),
            (60, 100)
        );
    }
}
