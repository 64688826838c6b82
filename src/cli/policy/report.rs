//! What came of all cases: for people, for continuous integration, and as an exit code.

use std::fmt::Write as _;

use anyhow::{Error, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use similar::ChangeTag;

use super::check::{CaseResult, Difference, Suite};
use crate::{
    exit::{Exit, exit_of},
    paint,
};

/// For people: every case by name, and of those that differ how.
pub fn text(suites: &[Suite]) -> String {
    let (mut text, mut passed, mut differ, mut broken) = (String::new(), 0, 0, 0);
    for suite in suites {
        let _ = writeln!(text, "{}", paint::strong(&suite.file.display().to_string()));
        let results = match &suite.results {
            Ok(results) => results.as_slice(),
            Err(error) => {
                broken += 1;
                let _ = writeln!(text, "  {}    {error:#}", paint::bad("broken"));
                &[]
            }
        };
        for (name, result) in results {
            match result {
                CaseResult::Passed => {
                    passed += 1;
                    let _ = writeln!(text, "  {}    {name}", paint::good("passed"));
                }
                CaseResult::Differs(difference) => {
                    differ += 1;
                    let _ = writeln!(text, "  {}   {name}  (- expected, + came)", paint::bad("differs"));
                    for line in lines(difference) {
                        let painted = match line.as_bytes().first() {
                            Some(b'-') => paint::bad(&line),
                            Some(b'+') => paint::good(&line),
                            _ => line,
                        };
                        let _ = writeln!(text, "            {painted}");
                    }
                }
                CaseResult::Broken(error) => {
                    broken += 1;
                    let _ = writeln!(text, "  {}    {name}: {error:#}", paint::bad("broken"));
                }
            }
        }
    }
    let mut counts = vec![format!("{passed} passed")];
    counts.extend((differ > 0).then(|| format!("{differ} differ")));
    counts.extend((broken > 0).then(|| format!("{broken} can't be run")));
    let _ = writeln!(text, "\n{}", counts.join(", "));
    text
}

/// A `JUnit` report: a suite for each file.
pub fn junit(suites: &[Suite]) -> Result<String> {
    let mut report = Report::new("kubectl bulkhead policy test");
    for suite in suites {
        let mut written = TestSuite::new(suite.file.display().to_string());
        match &suite.results {
            Ok(results) => {
                for (name, result) in results {
                    written.add_test_case(TestCase::new(name.as_str(), status(result)));
                }
            }
            Err(error) => {
                written.add_test_case(TestCase::new("the file", broken(error)));
            }
        }
        report.add_test_suite(written);
    }
    Ok(report.to_string()?)
}

fn status(result: &CaseResult) -> TestCaseStatus {
    match result {
        CaseResult::Passed => TestCaseStatus::success(),
        CaseResult::Differs(difference) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message("the decision is not the expected one (- expected, + came)");
            status.set_description(lines(difference).join("\n"));
            status
        }
        CaseResult::Broken(error) => broken(error),
    }
}

fn broken(error: &Error) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(format!("{error:#}"));
    status
}

fn lines(Difference(lines): &Difference) -> Vec<String> {
    let line = |(tag, text): &(ChangeTag, String)| format!("{tag}{text}");
    lines.iter().map(line).collect()
}

/// What can't be run comes first: nothing is known of it.
pub fn exit(suites: &[Suite]) -> Exit {
    let results = || suites.iter().flat_map(|suite| suite.results.iter().flatten());
    let of_files = suites.iter().filter_map(|suite| suite.results.as_ref().err());
    let of_cases = results().filter_map(|(_, result)| match result {
        CaseResult::Broken(error) => Some(error),
        CaseResult::Passed | CaseResult::Differs(_) => None,
    });
    if let Some(error) = of_files.chain(of_cases).next() {
        exit_of(error)
    } else if results().any(|(_, result)| matches!(result, CaseResult::Differs(_))) {
        Exit::Different
    } else {
        Exit::Success
    }
}
