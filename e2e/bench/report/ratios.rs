//! Rows against each other, round by round: what both met in the same minute says more than two medians.

use std::fmt::Write as _;

use super::median;
use crate::plan::{CONNECTIONS, CPU_AT, Row, Sample};

/// What is compared.
#[derive(Clone, Copy)]
enum Figure {
    /// Beyond the MCP server alone, at one connection.
    AddedMedian,
    /// The same at the open loop, of the slowest hundredth.
    AddedTail,
    /// At this place of [`CONNECTIONS`].
    Rate(usize),
    Cpu,
}

impl Figure {
    fn name(self) -> String {
        match self {
            Self::AddedMedian => "added p50, 1 connection".to_owned(),
            Self::AddedTail => "added p99, open loop".to_owned(),
            Self::Rate(place) => format!("calls/s, {} connections", CONNECTIONS[place]),
            Self::Cpu => "CPU a call".to_owned(),
        }
    }

    /// Of a row's round, and the round of the MCP server alone.
    fn of(self, row: &Sample, direct: &Sample) -> f64 {
        match self {
            Self::AddedMedian => row.closed[0].p50 - direct.closed[0].p50,
            Self::AddedTail => row.open.p99 - direct.open.p99,
            Self::Rate(place) => row.closed[place].rate,
            Self::Cpu => row.cpu,
        }
    }
}

const OWN: &str = "Bulkhead";
const NEITHER: &str = "Bulkhead, neither";
const BARE: &str = "hyper + rustls";
const NGINX: &str = "nginx";
const ENVOY: &str = "Envoy, token, MCP";

/// As many connections as there are at most.
const MOST: usize = CONNECTIONS.len() - 1;

/// A figure, of which row, as so many times that of which other.
const RATIOS: [(Figure, &str, &str); 10] = [
    (Figure::AddedMedian, OWN, NGINX),
    (Figure::AddedTail, OWN, NGINX),
    (Figure::AddedTail, OWN, ENVOY),
    (Figure::Rate(CPU_AT), OWN, NGINX),
    (Figure::Rate(MOST), OWN, NGINX),
    (Figure::Rate(CPU_AT), OWN, ENVOY),
    (Figure::Rate(MOST), OWN, ENVOY),
    (Figure::Cpu, OWN, BARE),
    (Figure::Cpu, NEITHER, BARE),
    (Figure::Cpu, BARE, NGINX),
];

/// The table of those whose rows were measured.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| figure | of | as so many times that of | median of the rounds | least to most |\n|---|---|---|---|---|\n",
    );
    for (figure, of, to) in RATIOS {
        let rounds = rounds(rows, figure, of, to);
        if rounds.is_empty() {
            continue;
        }
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = median(rounds.iter().copied());
        let name = figure.name();
        let _ = writeln!(
            table,
            "| {name} | {of} | {to} | {middle:.2} | {least:.2} to {most:.2} |"
        );
    }
    table
}

/// The ratio in each round; none where a row wasn't measured.
fn rounds(rows: &[Row], figure: Figure, of: &str, to: &str) -> Vec<f64> {
    let samples = |name| {
        let row = rows.iter().find(|row| row.name == name);
        row.map_or(&[][..], |row| &row.samples)
    };
    let direct = rows.first().map_or(&[][..], |row| &row.samples);
    let both = samples(of).iter().zip(samples(to));
    both.zip(direct)
        .map(|((of, to), direct)| figure.of(of, direct) / figure.of(to, direct))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Figures;

    /// A row whose rounds all have this one figure everywhere.
    fn row(name: &'static str, rounds: [f64; 3]) -> Row {
        let sample = |figure| {
            let figures = Figures {
                p50: figure,
                p99: figure,
                rate: figure,
            };
            Sample {
                closed: vec![figures; CONNECTIONS.len()],
                open: figures,
                beside: None,
                cpu: figure,
                memory: 0,
            }
        };
        Row {
            name,
            work: "",
            tls: String::new(),
            idle: 0,
            samples: rounds.map(sample).into(),
        }
    }

    #[test]
    fn a_ratio_is_of_figures_of_the_same_round() {
        // The last round is of a machine that was ten times as slow.
        let rows = [
            row("direct", [10.0, 10.0, 100.0]),
            row(NGINX, [20.0, 40.0, 200.0]),
            row(OWN, [40.0, 70.0, 350.0]),
        ];
        let table = table(&rows);
        let lines: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| added p50, 1 connection | Bulkhead | nginx | 2.50 | 2.00 to 3.00 |",
                "| added p99, open loop | Bulkhead | nginx | 2.50 | 2.00 to 3.00 |",
                "| calls/s, 32 connections | Bulkhead | nginx | 1.75 | 1.75 to 2.00 |",
                "| calls/s, 64 connections | Bulkhead | nginx | 1.75 | 1.75 to 2.00 |",
            ],
            "what wasn't measured is left out"
        );
    }
}
