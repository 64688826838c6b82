//! The Kubernetes multi-tenancy benchmark, every check that it has, against a tenant.
//!
//! Its identifiers and titles are as they are written there, the doubled one included. A check that asks for a refusal has a
//! control: the same request is granted to the cluster's administrator in a namespace without walls, so that it can fail.

mod checks;
mod pods;

use std::{fmt::Write as _, path::PathBuf};

use kube::Client;

use crate::{
    fixture::{Fixture, USER, client},
    people::{People, may},
    table,
};

/// What came of a check.
#[derive(Debug)]
enum Outcome {
    /// What the benchmark asks for is so.
    Passed,
    /// The benchmark wants tenants to do it themselves, and nobody but the operator may.
    RefusedByDesign,
    /// It isn't so.
    NotMet(String),
    /// Nothing here can tell.
    NotJudged(&'static str),
}

/// One line of the table.
struct Row {
    id: &'static str,
    title: &'static str,
    /// As whom it was tried.
    who: &'static str,
    how: &'static str,
    outcome: Outcome,
}

/// What checks work with.
struct Bench<'a> {
    fixture: &'a Fixture,
    people: &'a People,
    /// Whom neither RBAC nor a fence refuses to write in tenants' namespaces: the operator, with every right.
    unfenced: Client,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_of_the_multi_tenancy_benchmark_comes_out_as_documented() {
    let fixture = Fixture::start().await;
    let (people, operator) = People::around_two_tenants(&fixture).await;
    fixture.fence(&[]).await;
    let kubeconfig = fixture.server.user_kubeconfig(USER, &["system:masters"]).unwrap();
    let bench = Bench {
        fixture: &fixture,
        people: &people,
        unfenced: client(kubeconfig).await,
    };
    let implemented = bench.implemented().await;
    let announced = bench.announced().await;
    operator.stop().await;

    let mut ids: Vec<_> = implemented.iter().map(|row| (row.id, row.title)).collect();
    ids.dedup();
    assert_eq!(ids.len(), 19, "the benchmark has nineteen: {ids:#?}");
    let text = format!(
        "{}\nAnnounced by the benchmark and never written; judged as their titles say:\n\n{}",
        written(&implemented),
        written(&announced)
    );
    table::show(&format!("\nThe multi-tenancy benchmark:\n\n{text}\n"));
    let document = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/multi-tenancy-benchmark.md");
    table::compare_part(&document, "outcomes", &text);
}

fn written(rows: &[Row]) -> String {
    let mut text = "| id | check | as | how it is judged | outcome |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let outcome = match &row.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::RefusedByDesign => "refused by design".to_owned(),
            Outcome::NotMet(why) => format!("**not met**: {why}"),
            Outcome::NotJudged(why) => format!("not judged: {why}"),
        };
        let Row {
            id, title, who, how, ..
        } = row;
        // Writing to a text never fails.
        let _ = writeln!(text, "| {id} | {title} | {who} | {how} | {outcome} |");
    }
    text
}

/// Passed when nothing was found that speaks against it.
fn passed_unless(found: &[String]) -> Outcome {
    if found.is_empty() {
        Outcome::Passed
    } else {
        Outcome::NotMet(found.join("; "))
    }
}

impl Bench<'_> {
    /// The administrator may, so that a "no" to others means something.
    async fn control(&self, verb: &str, group: &str, resource: &str, namespace: &str) {
        assert!(
            may(&self.fixture.admin, verb, group, resource, "", namespace).await,
            "the control of {verb} {resource}"
        );
    }
}
