//! Rows against each other, round by round: what both met in the same minute says more than two medians.

use std::fmt::Write as _;

use super::median;
use crate::plan::{CONNECTIONS, CPU_AT, Row, Sample};

/// A figure of one row as so many times that of another.
struct Ratio {
    what: &'static str,
    of: &'static str,
    to: &'static str,
    /// Of a round: the row's, and the MCP server's alone.
    figure: fn(&Sample, &Sample) -> f64,
}

const OWN: &str = "Bulkhead";
const BARE: &str = "hyper + rustls";
const NGINX: &str = "nginx";
const ENVOY: &str = "Envoy, token, MCP";

fn added_p50(row: &Sample, direct: &Sample) -> f64 {
    row.closed[0].p50 - direct.closed[0].p50
}

fn added_open_p99(row: &Sample, direct: &Sample) -> f64 {
    row.open.p99 - direct.open.p99
}

fn cpu(row: &Sample, _: &Sample) -> f64 {
    row.cpu
}

/// At the connections at which CPU is measured, and at the most.
fn rate(row: &Sample, _: &Sample) -> f64 {
    row.closed[CPU_AT].rate
}

fn most_rate(row: &Sample, _: &Sample) -> f64 {
    row.closed[CONNECTIONS.len() - 1].rate
}

const RATIOS: [Ratio; 9] = [
    Ratio::new("added p50, 1 connection", OWN, NGINX, added_p50),
    Ratio::new("added p99, open loop", OWN, NGINX, added_open_p99),
    Ratio::new("added p99, open loop", OWN, ENVOY, added_open_p99),
    Ratio::new("calls/s, 32 connections", OWN, NGINX, rate),
    Ratio::new("calls/s, 64 connections", OWN, NGINX, most_rate),
    Ratio::new("calls/s, 32 connections", OWN, ENVOY, rate),
    Ratio::new("calls/s, 64 connections", OWN, ENVOY, most_rate),
    Ratio::new("CPU a call", OWN, BARE, cpu),
    Ratio::new("CPU a call", BARE, NGINX, cpu),
];

impl Ratio {
    const fn new(
        what: &'static str,
        of: &'static str,
        to: &'static str,
        figure: fn(&Sample, &Sample) -> f64,
    ) -> Self {
        Self { what, of, to, figure }
    }

    /// Of each round; none where a row wasn't measured.
    fn rounds(&self, rows: &[Row]) -> Vec<f64> {
        let samples = |name| {
            rows.iter()
                .find(|row| row.name == name)
                .map_or(&[][..], |row| &row.samples)
        };
        let direct = rows.first().map_or(&[][..], |row| &row.samples);
        samples(self.of)
            .iter()
            .zip(samples(self.to))
            .zip(direct)
            .map(|((of, to), direct)| (self.figure)(of, direct) / (self.figure)(to, direct))
            .collect()
    }
}

/// The table of those whose rows were measured.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| figure | of | as so many times that of | median of the rounds | least to most |\n|---|---|---|---|---|\n",
    );
    for ratio in &RATIOS {
        let rounds = ratio.rounds(rows);
        if rounds.is_empty() {
            continue;
        }
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {:.2} | {least:.2} to {most:.2} |",
            ratio.what,
            ratio.of,
            ratio.to,
            median(rounds.iter().copied()),
        );
    }
    table
}
