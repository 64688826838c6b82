//! Waiting for what must come true, with a generous deadline and the last thing that was seen.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest wait for anything. Scenarios assert mechanism, not speed.
const DEADLINE: Duration = Duration::from_mins(6);

/// Asks until the answer is `Ok`, and returns what it holds.
///
/// # Panics
/// When the answer is still an error at the deadline; the message says what was awaited and what was seen last.
#[allow(clippy::panic, reason = "a scenario fails by panicking")]
pub fn eventually<T, E: std::fmt::Display>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > DEADLINE => {
                panic!("{what}: not after {DEADLINE:?}; last seen: {last:#}")
            }
            Err(_) => sleep(Duration::from_millis(500)),
        }
    }
}
