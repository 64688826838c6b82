//! The CEL rules, offline: every row of `rules.yaml` that a rule decides, and no rule without a row.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Clippy sees no tests in these helpers.

#[path = "support/table.rs"]
mod table;

use std::thread;

use bulkhead_api::McpTenant;
use kube::{
    CustomResourceExt as _,
    core::cel::{validate_cel, validate_cel_update},
};
use serde_json::Value;
use table::{By, Changes, Row, Table};

/// What the rules say against an object, `None` when nothing.
fn verdict(table: &Table, row: &Row, changes: &Changes) -> Option<String> {
    let read = |changes: &Changes| -> McpTenant {
        serde_json::from_value(table.object(changes))
            .unwrap_or_else(|error| panic!("“{}”, {changes:?}: {error}", row.about))
    };
    let outcome = match &row.old {
        Some(old) => validate_cel_update(&read(changes), &read(old)),
        None => validate_cel(&read(changes)),
    };
    outcome.err().map(|errors| errors.to_string())
}

#[test]
fn rules_refuse_what_they_are_about_and_nothing_else() {
    let table = Table::read();
    // Rules are compiled for each object anew, which takes most of the time: on every core.
    let cores = thread::available_parallelism().unwrap().get();
    let wrong: Vec<_> = thread::scope(|scope| {
        let part = table.rows.len().div_ceil(cores);
        let parts: Vec<_> = table.rows.chunks(part).collect();
        let running: Vec<_> = parts
            .into_iter()
            .map(|rows| {
                scope.spawn(|| {
                    rows.iter()
                        .flat_map(|row| wrong_with(&table, row))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        running
            .into_iter()
            .flat_map(|part| part.join().unwrap())
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the rules say of a row's objects that they should not.
fn wrong_with(table: &Table, row: &Row) -> Vec<String> {
    let mut wrong = Vec::new();
    for changes in &row.accept {
        if let Some(errors) = verdict(table, row, changes) {
            wrong.push(format!(
                "“{}” should accept {changes:?}, but: {errors}",
                row.about
            ));
        }
    }
    for changes in row.reject.iter().filter(|_| row.by == By::Cel) {
        match verdict(table, row, changes) {
            Some(errors) if errors.contains(&row.says) => {}
            Some(errors) => wrong.push(format!(
                "“{}”, {changes:?}: refused otherwise: {errors}",
                row.about
            )),
            None => wrong.push(format!("“{}” should reject {changes:?}", row.about)),
        }
    }
    wrong
}

#[test]
fn every_rule_has_a_row_and_a_message() {
    let table = Table::read();
    let crd = serde_json::to_value(McpTenant::crd()).unwrap();
    let mut rules = Vec::new();
    collect_rules(&crd, &mut rules);
    assert!(!rules.is_empty());
    for rule in rules {
        let message = rule["message"]
            .as_str()
            .unwrap_or_else(|| panic!("no message: {rule}"));
        assert!(
            table
                .rows
                .iter()
                .any(|row| row.by == By::Cel && message.contains(&row.says)),
            "no row of rules.yaml is about “{message}”"
        );
    }
}

fn collect_rules<'a>(value: &'a Value, rules: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Array(found) if name == "x-kubernetes-validations" => rules.extend(found),
                    _ => collect_rules(field, rules),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_rules(item, rules)),
        _ => {}
    }
}
