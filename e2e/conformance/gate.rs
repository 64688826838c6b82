//! What a run has to be. The number of passed checks alone says nothing (a server that refuses everything passes dozens),
//! nor does that of failed ones (a scenario that did not run fails nothing): so both, and every check by its name.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

/// What a suite says of a check.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It passed.
    Success,
    /// It did not.
    Failure,
    /// Something that should be is not.
    Warning,
    /// Told, not checked.
    Info,
    /// Not checked.
    Skipped,
}

/// The checks of a run: how many of a scenario, check and status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks(BTreeMap<(String, String, Status), u32>);

impl Checks {
    /// Adds a check.
    pub fn add(&mut self, scenario: &str, check: &str, status: Status) {
        *self
            .0
            .entry((scenario.to_owned(), check.to_owned(), status))
            .or_default() += 1;
    }

    /// How many have this status.
    pub fn count(&self, status: Status) -> u32 {
        let of = self.0.iter().filter(|((_, _, of), _)| *of == status);
        of.map(|(_, count)| count).sum()
    }

    /// Those that failed, or warn.
    pub fn bad(&self) -> impl Iterator<Item = String> {
        let bad = |status| matches!(status, Status::Failure | Status::Warning);
        self.0
            .keys()
            .filter(move |(_, _, status)| bad(*status))
            .map(|(scenario, check, status)| format!("{scenario}: {check}: {status:?}"))
    }

    /// Those that are not the same in the other run. What is told, not checked, may differ.
    fn differing(&self, other: &Self) -> Vec<String> {
        let keys = self.0.keys().chain(other.0.keys());
        let mut differing: Vec<_> = keys
            .filter(|key| key.2 != Status::Info && self.0.get(key) != other.0.get(key))
            .map(|(scenario, check, status)| format!("{scenario}: {check}: {status:?}"))
            .collect();
        differing.sort();
        differing.dedup();
        differing
    }
}

/// Why a run is not as it has to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// The suite's own verdict.
    Suite,
    /// Checks that failed or warn.
    Bad(Vec<String>),
    /// Another number of passed checks than is known.
    Total {
        /// As counted.
        passed: u32,
        /// As committed.
        expected: u32,
    },
    /// Not what it is with no sidecar.
    Differs(Vec<String>),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suite => write!(f, "the suite ended with an error"),
            Self::Bad(checks) => write!(f, "did not pass: {}", checks.join("; ")),
            Self::Total { passed, expected } => write!(f, "{passed} passed, and {expected} have to"),
            Self::Differs(checks) => write!(f, "not as with no sidecar: {}", checks.join("; ")),
        }
    }
}

/// What is wrong with a run; with `direct` also in comparison with that one.
pub fn problems(checks: &Checks, ended_well: bool, expected: u32, direct: Option<&Checks>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !ended_well {
        problems.push(Problem::Suite);
    }
    let bad: Vec<_> = checks.bad().collect();
    if !bad.is_empty() {
        problems.push(Problem::Bad(bad));
    }
    let passed = checks.count(Status::Success);
    if passed != expected {
        problems.push(Problem::Total { passed, expected });
    }
    let differing = direct.map(|direct| checks.differing(direct)).unwrap_or_default();
    if !differing.is_empty() {
        problems.push(Problem::Differs(differing));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{Checks, Problem, Status, problems};

    fn run(checks: &[(&str, &str, Status)]) -> Checks {
        let mut run = Checks::default();
        for (scenario, check, status) in checks {
            run.add(scenario, check, *status);
        }
        run
    }

    const GOOD: [(&str, &str, Status); 3] = [
        ("ping", "ping", Status::Success),
        ("ping", "wire", Status::Success),
        ("tools", "list", Status::Success),
    ];

    #[test]
    fn a_run_that_passes_all_and_is_as_the_other_has_no_problem() {
        let good = run(&GOOD);
        assert_eq!(problems(&good, true, 3, Some(&good)), []);
        let mut told = good.clone();
        told.add("ping", "an event", Status::Info);
        assert_eq!(problems(&told, true, 3, Some(&good)), []);
    }

    #[test]
    fn each_way_of_not_passing_is_a_problem() {
        let good = run(&GOOD);
        for status in [Status::Failure, Status::Warning] {
            let mut bad = good.clone();
            bad.add("tools", "call", status);
            assert!(
                matches!(&problems(&bad, true, 3, None)[..], [Problem::Bad(_)]),
                "{status:?}"
            );
        }
        assert_eq!(problems(&good, false, 3, None), [Problem::Suite]);
        // Nothing failed, and yet a scenario is missing, or is one too many.
        let (passed, expected) = (2, 3);
        assert_eq!(
            problems(&run(&GOOD[..2]), true, 3, None),
            [Problem::Total { passed, expected }]
        );
        let (passed, expected) = (3, 2);
        assert_eq!(
            problems(&good, true, 2, None),
            [Problem::Total { passed, expected }]
        );
    }

    #[test]
    fn another_check_in_the_place_of_one_is_seen() {
        let other = run(&[GOOD[0], GOOD[1], ("tools", "call", Status::Success)]);
        let found = problems(&other, true, 3, Some(&run(&GOOD)));
        assert!(
            matches!(&found[..], [Problem::Differs(checks)] if checks.len() == 2),
            "{found:?}"
        );
        let skipped = run(&[GOOD[0], GOOD[1], GOOD[2], ("tools", "call", Status::Skipped)]);
        assert!(matches!(
            &problems(&skipped, true, 3, Some(&run(&GOOD)))[..],
            [Problem::Differs(_)]
        ));
    }
}
