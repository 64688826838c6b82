//! What the API server has deleted, for as long as an answer to an earlier write may still be on its way.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::{Duration, Instant},
};

use super::Key;

/// Longer than a write takes: the client waits for an answer 295 s at most.
const REMEMBERED: Duration = Duration::from_mins(5);

/// Deletions, by namespace, kind and name.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// The version of the deletion, and when it was noted last.
    since: HashMap<(String, Key), (u64, Instant)>,
    oldest: VecDeque<(Instant, (String, Key))>,
}

impl Gone {
    /// Notes that an object was deleted at this resource version. To be told in the order of time.
    pub(super) fn note(&mut self, namespace: &str, key: &Key, resource_version: u64, now: Instant) {
        while let Some((noted, place)) = self
            .oldest
            .pop_front_if(|(noted, _)| now.saturating_duration_since(*noted) > REMEMBERED)
        {
            // One that was deleted again since is in the queue once more.
            if let Entry::Occupied(since) = self.since.entry(place)
                && since.get().1 == noted
            {
                since.remove();
            }
        }
        let place = (namespace.to_owned(), key.clone());
        let since = self.since.entry(place.clone()).or_insert((0, now));
        *since = (resource_version.max(since.0), now);
        self.oldest.push_back((now, place));
    }

    /// Whether what is of this version was deleted after it. At the very version it is there: a deletion makes a version of its
    /// own, and what only lost the label by which it is watched has the version at which it lost it.
    pub(super) fn is_gone(&self, namespace: &str, key: &Key, resource_version: u64) -> bool {
        self.since
            .get(&(namespace.to_owned(), key.clone()))
            .is_some_and(|(since, _)| *since > resource_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;

    #[test]
    fn a_deletion_is_remembered_for_as_long_as_an_answer_can_be_late() {
        let mut gone = Gone::default();
        let key = |name: &str| (Kind::Service, name.to_owned());
        let begin = Instant::now();
        gone.note("umbra", &key("notes"), 10, begin);
        gone.note("umbra", &key("files"), 10, begin);
        for (name, version, expected) in [
            ("notes", 10, false),
            ("notes", 9, true),
            ("notes", 11, false),
            ("x", 1, false),
        ] {
            assert_eq!(
                gone.is_gone("umbra", &key(name), version),
                expected,
                "{name} {version}"
            );
        }
        // Again, with an older event after it.
        gone.note("umbra", &key("notes"), 20, begin + REMEMBERED);
        gone.note("umbra", &key("notes"), 15, begin + REMEMBERED);
        gone.note(
            "umbra",
            &key("other"),
            1,
            begin + REMEMBERED + Duration::from_secs(1),
        );
        assert!(gone.is_gone("umbra", &key("notes"), 19));
        assert!(!gone.is_gone("umbra", &key("files"), 1));
        gone.note("umbra", &key("other"), 1, begin + 3 * REMEMBERED);
        assert_eq!((gone.since.len(), gone.oldest.len()), (1, 1));
    }
}
