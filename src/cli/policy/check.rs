//! Runs cases: each request is decided as the sidecar would, and compared with what was expected.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use similar::{ChangeTag, TextDiff};

use super::cases::{Case, CaseFile, Expected, ExpectedAnswer, complete};
use crate::offline::{
    Tenant,
    headers::Headers,
    outcome::{self, Answered, Outcome},
};

/// The results of one file.
#[derive(Debug)]
pub struct Suite {
    /// The file.
    pub file: PathBuf,
    /// Its cases, or why there are none to run.
    pub results: Result<Vec<(String, CaseResult)>>,
}

/// How a case ended.
#[derive(Debug)]
pub enum CaseResult {
    /// As expected.
    Passed,
    /// Otherwise.
    Differs(Difference),
    /// It can't be run.
    Broken(Error),
}

/// The lines of what was expected and of what came, in YAML.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference(pub Vec<(ChangeTag, String)>);

/// Runs the cases of a file.
pub fn suite(file: &Path) -> Suite {
    Suite {
        file: file.to_owned(),
        results: CaseFile::load(file).and_then(|cases| {
            let folder = file.parent().unwrap_or(Path::new(""));
            Ok(results(&cases, &Tenant::load(&folder.join(&cases.tenant))?))
        }),
    }
}

fn results(cases: &CaseFile, tenant: &Tenant) -> Vec<(String, CaseResult)> {
    let results = cases.cases.iter().map(|case| {
        let result = match difference(cases, case, tenant) {
            Ok(None) => CaseResult::Passed,
            Ok(Some(difference)) => CaseResult::Differs(difference),
            Err(error) => CaseResult::Broken(error),
        };
        (case.name.clone(), result)
    });
    results.collect()
}

fn difference(cases: &CaseFile, case: &Case, tenant: &Tenant) -> Result<Option<Difference>> {
    let named = |own: &Option<String>, usual: &Option<String>| own.clone().or_else(|| usual.clone());
    let policy = tenant.server(named(&case.server, &cases.server).as_deref())?;
    let agent = policy.agent(named(&case.agent, &cases.agent).as_deref())?;
    let person = case
        .person
        .as_ref()
        .map(|claims| policy.person(claims))
        .transpose()?;
    let caller = policy.caller(agent, person.as_ref())?;
    let request = case.request.request();
    let mut headers = Headers::of(&request);
    for (name, value) in &case.headers {
        headers.set(name, value);
    }
    let reply = case.reply.as_ref().map(|reply| reply.reply(&request));
    let outcome = outcome::of(policy, &caller, &request, &headers, reply.as_ref());

    let mut expected = case.expect.clone();
    if let Some(message) = expected
        .answer
        .as_mut()
        .and_then(|answer| answer.message.as_mut())
    {
        complete(message, &request);
    }
    let actual = comparable(&outcome, &expected);
    if actual == expected {
        return Ok(None);
    }
    let (expected, actual) = (
        serde_saphyr::to_string(&expected)?,
        serde_saphyr::to_string(&actual)?,
    );
    let lines = TextDiff::from_lines(&expected, &actual)
        .iter_all_changes()
        .map(|change| (change.tag(), change.value().trim_end().to_owned()))
        .collect();
    Ok(Some(Difference(lines)))
}

/// Of an outcome what was expected something of; with another decision also why, which is what one wants to know.
fn comparable(outcome: &Outcome, expected: &Expected) -> Expected {
    let another = outcome.decision != expected.decision;
    let reason = outcome.reason.map(str::to_owned);
    Expected {
        decision: outcome.decision,
        reason: reason.filter(|_| another || expected.reason.is_some()),
        rule: outcome
            .rule
            .clone()
            .filter(|_| another || expected.rule.is_some()),
        roles: expected.roles.as_ref().map(|_| outcome.roles.clone()),
        overridden: expected.overridden.as_ref().map(|_| {
            let overridden = outcome.forced.iter().filter(|forced| forced.overridden);
            overridden.map(|forced| forced.argument.clone()).collect()
        }),
        reported: expected
            .reported
            .as_ref()
            .map(|_| outcome.reported.iter().cloned().collect()),
        arguments: expected
            .arguments
            .as_ref()
            .and_then(|_| outcome.arguments.clone()),
        answer: expected
            .answer
            .as_ref()
            .zip(outcome.answer.as_ref())
            .map(|(expected, came)| answer(came, expected)),
    }
}

fn answer(came: &Answered, expected: &ExpectedAnswer) -> ExpectedAnswer {
    let another = came.outcome != expected.outcome;
    let reason = came.reason.map(str::to_owned);
    let dropped = came
        .dropped
        .iter()
        .map(|(tool, reason)| (tool.clone(), (*reason).to_owned()));
    ExpectedAnswer {
        outcome: came.outcome,
        reason: reason.filter(|_| another || expected.reason.is_some()),
        reported: expected.reported.as_ref().and(came.reported.map(str::to_owned)),
        tools: expected.tools.as_ref().and_then(|_| came.tools.clone()),
        dropped: expected.dropped.as_ref().map(|_| dropped.collect()),
        records_kept: expected.records_kept.and(came.records_kept),
        records_removed: expected.records_removed.and(came.records_removed),
        message: expected
            .message
            .as_ref()
            .and_then(|_| serde_json::from_str(came.body.as_deref()?).ok()),
    }
}

#[cfg(test)]
mod tests;
