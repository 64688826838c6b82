//! Decisions as lines for people: the sidecar's audit records, written while it waits.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
};

use serde::Deserialize;

use crate::{
    output,
    paint::{self, printable},
};

/// Writes audit records to stdout. One that can't be written is one that the sidecar couldn't record, so there, as in a
/// cluster, nothing is done without its record.
#[derive(Default)]
pub struct Log {
    /// What the calls under way are about.
    open: HashMap<u64, String>,
    /// What was said of definitions: in several versions of the protocol they are mostly one.
    definitions: HashSet<String>,
}

/// What is shown of a record.
#[derive(Debug, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Record {
    Decision {
        time: String,
        call: u64,
        #[serde(default)]
        method: Option<String>,
        #[serde(default)]
        tool: Option<String>,
        prompt: Option<String>,
        resource: Option<String>,
        #[serde(default)]
        rule: Option<String>,
        decision: String,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        overridden_arguments: Vec<String>,
        #[serde(default)]
        reported_rules: Vec<String>,
    },
    Outcome {
        time: String,
        call: u64,
        outcome: String,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        reported: Option<String>,
    },
    Definition {
        time: String,
        tool: Option<String>,
        prompt: Option<String>,
        resource: Option<String>,
        #[serde(default)]
        instructions: bool,
        fingerprint: String,
        reason: Option<String>,
    },
}

impl Write for Log {
    /// Takes one record; the caller has the others to give again.
    fn write(&mut self, records: &[u8]) -> io::Result<usize> {
        let record = records
            .split_inclusive(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        if let Some(line) = self.line(record) {
            output::text(&format!("{line}\n")).map_err(io::Error::other)?;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The line of a record. A call that was completed had its line with its decision.
    fn line(&mut self, record: &[u8]) -> Option<String> {
        let Ok(known) = serde_json::from_slice(record) else {
            // Of another kind: better as it is than not at all.
            return Some(printable(String::from_utf8_lossy(record).trim_end()));
        };
        match known {
            Record::Decision {
                time,
                call,
                method,
                tool,
                prompt,
                resource,
                rule,
                decision,
                reason,
                overridden_arguments,
                reported_rules,
            } => {
                let asked = [method, tool, prompt, resource]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" ");
                let asked = if asked.is_empty() {
                    "a request".to_owned()
                } else {
                    asked
                };
                let verdict = if decision == "permit" {
                    self.open.insert(call, asked.clone());
                    paint::good(&decision)
                } else {
                    paint::bad(&decision)
                };
                let mut why: Vec<_> = reason.into_iter().collect();
                why.extend(rule.map(|rule| format!("by {rule}")));
                if !overridden_arguments.is_empty() {
                    why.push(format!("overridden: {}", overridden_arguments.join(", ")));
                }
                why.extend(reported_rules.iter().map(|rule| format!("reported by {rule}")));
                let why = printable(&why.join(", "));
                Some(format!(
                    "{}  {verdict}  {}  {why}",
                    clock(&time),
                    printable(&asked)
                ))
            }
            Record::Outcome {
                time,
                call,
                outcome,
                reason,
                reported,
            } => {
                let asked = self.open.remove(&call).unwrap_or_default();
                let is_reported = reported.is_some();
                let reported = reported.map(|reason| format!("reported: {reason}"));
                let why = [Some(String::new()), reason, reported];
                let why = why.into_iter().flatten().collect::<Vec<_>>().join("  ");
                (outcome != "completed" || is_reported).then(|| {
                    let outcome = paint::unclear(&outcome);
                    format!("{}  {outcome}  {}{why}", clock(&time), printable(&asked))
                })
            }
            Record::Definition {
                time,
                tool,
                prompt,
                resource,
                instructions,
                fingerprint,
                reason,
            } => {
                let of_server = instructions.then(|| "instructions".to_owned());
                let name = [tool, prompt, resource, of_server]
                    .into_iter()
                    .flatten()
                    .next()
                    .unwrap_or_default();
                let verdict = match &reason {
                    None => paint::good("offered"),
                    Some(_) => paint::bad("withheld"),
                };
                let why = reason.map(|reason| format!("  {reason}")).unwrap_or_default();
                let line = format!("{verdict}  {}  {fingerprint}{why}", printable(&name));
                let is_new = self.definitions.insert(line.clone());
                is_new.then(|| format!("{}  {line}", clock(&time)))
            }
        }
    }
}

/// Writes a line about the session itself. With stdout gone the next decision fails, and says so.
pub fn line(text: &str) {
    if let Err(error) = output::line(text) {
        output::note(&format!("{error:#}"));
    }
}

/// Hours, minutes and seconds of an RFC 3339 time in UTC.
fn clock(time: &str) -> String {
    format!("{}Z", time.get(11..19).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(records: &[&str]) -> Vec<String> {
        let mut log = Log::default();
        let lines = records.iter().filter_map(|record| log.line(record.as_bytes()));
        lines
            .map(|line| anstream::adapter::strip_str(&line).to_string())
            .collect()
    }

    /// Records that are ready at the same time come in one write.
    #[test]
    fn of_several_records_one_is_taken_so_that_the_others_are_given_again() {
        let start = b"{\"record\":\"start\"}\n";
        assert_eq!(Log::default().write(&start.repeat(3)).unwrap(), start.len());
    }

    #[test]
    fn a_decision_is_a_line_and_an_outcome_only_when_it_is_no_success() {
        let permit = r#"{"record":"decision","time":"2026-11-22T10:00:00.5Z","call":1,"method":"tools/call","tool":"list","rule":"tools[list]","decision":"permit","overriddenArguments":["tenant_id"]}"#;
        let refuse = r#"{"record":"decision","time":"2026-11-22T10:00:01Z","call":2,"decision":"refuse","reason":"malformed_json"}"#;
        let completed =
            r#"{"record":"outcome","time":"2026-11-22T10:00:02Z","call":1,"outcome":"completed"}"#;
        let failed = r#"{"record":"outcome","time":"2026-11-22T10:00:02Z","call":1,"outcome":"failed","reason":"answer_mismatch"}"#;
        assert_eq!(
            lines(&[permit, refuse, completed]),
            [
                "10:00:00Z  permit  tools/call list  by tools[list], overridden: tenant_id",
                "10:00:01Z  refuse  a request  malformed_json",
            ]
        );
        assert_eq!(
            lines(&[permit, failed])[1],
            "10:00:02Z  failed  tools/call list  answer_mismatch"
        );
    }

    #[test]
    fn a_definition_is_told_of_once_and_again_when_it_is_withheld() {
        let shown = r#"{"record":"definition","time":"2026-11-22T10:00:00Z","tenant":"acme","tool":"list","protocolVersion":"2025-11-25","fingerprint":"sha256:00"}"#;
        let newer = shown.replace("2025-11-25", "2026-07-28");
        let withheld = shown.replace("sha256:00\"", "sha256:11\",\"reason\":\"definition_changed\"");
        let said = shown.replace("\"tool\":\"list\"", "\"instructions\":true");
        assert_eq!(
            lines(&[shown, &newer, &withheld, &said]),
            [
                "10:00:00Z  offered  list  sha256:00",
                "10:00:00Z  withheld  list  sha256:11  definition_changed",
                "10:00:00Z  offered  instructions  sha256:00",
            ]
        );
    }

    #[test]
    fn what_a_rule_only_reports_is_said() {
        let permit = r#"{"record":"decision","time":"2026-11-22T10:00:00Z","call":1,"method":"tools/call","tool":"list","decision":"permit","reportedRules":["tools[list].bounds[limit]"]}"#;
        let completed = r#"{"record":"outcome","time":"2026-11-22T10:00:01Z","call":1,"outcome":"completed","reported":"records_foreign"}"#;
        assert_eq!(
            lines(&[permit, completed]),
            [
                "10:00:00Z  permit  tools/call list  reported by tools[list].bounds[limit]",
                "10:00:01Z  completed  tools/call list  reported: records_foreign",
            ]
        );
    }

    #[test]
    fn a_client_can_not_repaint_the_terminal() {
        let refuse = r#"{"record":"decision","time":"t","call":2,"method":"\u001b[2J","decision":"refuse"}"#;
        assert!(!lines(&[refuse])[0].contains('\u{1b}'));
    }
}
