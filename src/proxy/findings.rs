//! What rules that only report would have refused, kept for as long as their policy is in force: the operator shows it to
//! whoever must decide whether to enforce them. How often is in the metrics, each single time in the audit.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bulkhead_control::MAX_ENTRIES;
use bulkhead_core::Reason;

/// The rules and reasons of one policy.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    revision: String,
    rules: BTreeSet<(Arc<str>, Reason)>,
}

impl Findings {
    /// Adds what a rule of this policy would have refused, for this reason.
    pub fn add(&self, revision: &str, rule: Arc<str>, reason: Reason) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.revision != revision {
            *found = Found {
                revision: revision.to_owned(),
                rules: BTreeSet::new(),
            };
        }
        if found.rules.len() < MAX_ENTRIES {
            found.rules.insert((rule, reason));
        }
    }

    /// What was found under this policy, in a fixed order.
    pub fn of(&self, revision: &str) -> Vec<(Arc<str>, Reason)> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.revision == revision {
            found.rules.iter().cloned().collect()
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_of_one_policy_and_each_is_kept_once() {
        let findings = Findings::default();
        let rule: Arc<str> = "tools[list].bounds[limit]".into();
        for _ in 0..2 {
            findings.add("1", Arc::clone(&rule), Reason::ArgumentOutOfBounds);
        }
        assert_eq!(findings.of("1"), [(rule, Reason::ArgumentOutOfBounds)]);
        assert_eq!(findings.of("2"), []);
        for n in 0..=MAX_ENTRIES {
            findings.add("2", format!("tools[{n}].results").into(), Reason::RecordsForeign);
        }
        assert_eq!(findings.of("1"), []);
        assert_eq!(findings.of("2").len(), MAX_ENTRIES);
    }
}
