//! Intents of calls whose answer is to come on another stream: the client of a legacy session went
//! away, or the server closed the stream to be asked again (SEP-1699). Who takes the stream up
//! again closes the intent with what the call came to; after a while it counts as cancelled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

use crate::record::OpenIntent;

/// How long an answer may be left.
const LEFT: Duration = Duration::from_mins(5);

/// Intents that are kept at most. One more is closed as cancelled at once.
const MOST: usize = 4096;

/// The intents, by the number of their call.
#[derive(Clone, Default)]
pub struct Detached(Arc<Mutex<HashMap<u64, OpenIntent>>>);

impl Detached {
    /// Keeps an intent for whoever takes its stream up again.
    pub fn leave(&self, intent: OpenIntent) {
        let call = intent.call();
        // Without a runtime (the process ends) nothing would ever close it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        {
            let mut intents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if intents.len() >= MOST {
                return;
            }
            intents.insert(call, intent);
        }
        let kept = self.clone();
        runtime.spawn(async move {
            sleep(LEFT).await;
            drop(kept.take(call));
        });
    }

    /// The intent of a call, if it was left.
    pub fn take(&self, call: u64) -> Option<OpenIntent> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&call)
    }
}
