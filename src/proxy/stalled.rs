//! The answers of one connection that its client still has to take.
//!
//! A client can leave an answer lying: over HTTP/2 it grants no window, over HTTP/1.1 it doesn't read. Calls and memory
//! would be counted as used for as long as its certificate is good. So the connection looks now and then, and ends when an
//! answer hasn't moved for some looks. Looks are counted, not times: noting a move costs one write.

use std::sync::atomic::{AtomicU64, Ordering};

/// Answers that are watched at once; a call beyond them isn't begun. [`crate::limits::Limits::streams`] is as many by default,
/// but streams that are taken back count until that is heard of.
pub const MOST: u32 = 64;

/// Low bits of a place; above them is the look at which it was noted.
const STATE_BITS: u32 = 2;

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none yet: its time is the request's.
    Asked,
    /// The client has all that there is, and the server will say more.
    Waits,
    /// There is something for the client to take.
    Owed,
}

/// The answers.
#[derive(Debug)]
pub struct Answers {
    looks: AtomicU64,
    /// A bit for each place that is taken.
    taken: AtomicU64,
    places: [AtomicU64; MOST as usize],
}

/// The place of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Place(u8);

impl Place {
    fn index(self) -> usize {
        self.0.into()
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            looks: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            places: [const { AtomicU64::new(0) }; MOST as usize],
        }
    }
}

impl Answers {
    /// A place for an answer that was asked for. `None`: there are more than there can be.
    pub fn begin(&self) -> Option<Place> {
        let free = |taken: u64| (taken != u64::MAX).then(|| taken | (taken + 1));
        let before = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, free)
            .ok()?;
        // Fewer than there are places.
        let place = Place(u8::try_from(before.trailing_ones()).ok()?);
        self.note(place, State::Asked);
        Some(place)
    }

    /// The answer moved, and is this far.
    pub fn note(&self, place: Place, state: State) {
        let noted = self.looks.load(Ordering::Relaxed) << STATE_BITS | state as u64;
        self.places[place.index()].store(noted, Ordering::Relaxed);
    }

    /// The client has it, or never will.
    pub fn end(&self, place: Place) {
        // Before it is free: whoever has it next must not be found with what was noted for this one.
        self.note(place, State::Asked);
        self.taken.fetch_and(!(1 << place.0), Ordering::AcqRel);
    }

    /// Looks once more. Whether an answer is owed, or waits, for so many looks without a move.
    pub fn look(&self, owed: u64, waits: u64) -> bool {
        let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let taken = self.taken.load(Ordering::Acquire);
        (0..MOST).filter(|place| taken >> place & 1 == 1).any(|place| {
            let noted = self.places[place as usize].load(Ordering::Relaxed);
            let still = look - (noted >> STATE_BITS);
            let is = |state: State| noted & ((1 << STATE_BITS) - 1) == state as u64;
            is(State::Owed) && still >= owed || is(State::Waits) && still >= waits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_does_not_move_is_found_whatever_the_others_do() {
        for (state, found_at) in [
            (State::Asked, None),
            (State::Owed, Some(3)),
            (State::Waits, Some(6)),
        ] {
            let answers = Answers::default();
            let [first, second] = [(); 2].map(|()| answers.begin().unwrap());
            answers.note(first, state);
            let found = (1..20).find(|_| {
                let found = answers.look(3, 6);
                answers.note(second, State::Owed);
                found
            });
            assert_eq!(found, found_at, "{state:?}");
            answers.end(first);
            assert!(!answers.look(3, 6), "{state:?}");
        }
    }

    #[test]
    fn places_are_used_again_and_more_than_there_are_are_not_watched() {
        let answers = Answers::default();
        let places: Vec<_> = (0..MOST).map(|_| answers.begin().unwrap()).collect();
        let distinct: std::collections::HashSet<_> = places.iter().map(|place| place.0).collect();
        assert_eq!(distinct.len(), MOST as usize);
        assert!(answers.begin().is_none());
        answers.end(places[7]);
        assert_eq!(answers.begin().unwrap().0, places[7].0);
    }
}
