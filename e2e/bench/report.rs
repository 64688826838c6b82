//! The table, and the page with its picture.

mod picture;
mod ratios;

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    plan::{
        CONNECTIONS, CPU_AT, FLOOD_CONNECTIONS, Figures, OPEN_CONNECTIONS, OPEN_RATE, Row,
        STEADY_CONNECTIONS, STEADY_RATE, Sample,
    },
    steps::Steps,
};

/// A row's figures: the medians of its rounds. What is added is what a round's row had beyond the MCP server alone, which
/// was measured in the same round.
struct Line<'a> {
    row: &'a Row,
    added_p50: f64,
    added_p99: f64,
    open_p50: f64,
    open_p99: f64,
    rates: Vec<f64>,
    cpu: f64,
    memory: f64,
}

/// Prints the table; with a page, writes it and its picture.
pub(crate) fn write(rows: &[Row], steps: &Steps, page: Option<&Path>) -> Result<()> {
    let lines = lines(rows)?;
    let table = table(&lines);
    let ratios = ratios::table(rows);
    let beside = beside(&lines);
    let alone = alone(steps);
    println!("\n{table}\n{ratios}\n{beside}\n{alone}");
    if let Some(page) = page {
        let picture = page.with_extension("svg");
        picture::draw(&lines, &picture)?;
        let name = picture.file_name().and_then(|name| name.to_str());
        fs::write(
            page,
            text(
                &lines,
                [&table, &ratios, &beside, &alone],
                name.context("the page has a name")?,
            ),
        )?;
        println!("written: {} and {}", page.display(), picture.display());
    }
    Ok(())
}

fn lines(rows: &[Row]) -> Result<Vec<Line<'_>>> {
    let direct = &rows.first().context("there is a first row")?.samples;
    let added = |row: &Row, figure: fn(&Sample) -> f64| {
        let rounds = row.samples.iter().zip(direct);
        median(rounds.map(|(own, direct)| figure(own) - figure(direct)))
    };
    let line = |row| Line {
        row,
        added_p50: added(row, |sample| sample.closed[0].p50),
        added_p99: added(row, |sample| sample.closed[0].p99),
        open_p50: added(row, |sample| sample.open.p50),
        open_p99: added(row, |sample| sample.open.p99),
        rates: (0..CONNECTIONS.len())
            .map(|place| median(row.samples.iter().map(|sample| sample.closed[place].rate)))
            .collect(),
        cpu: median(row.samples.iter().map(|sample| sample.cpu)),
        memory: median(row.samples.iter().map(|sample| mib(sample.memory))),
    };
    Ok(rows.iter().map(line).collect())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

fn table(lines: &[Line<'_>]) -> String {
    let mut table = format!(
        "| row | added p50 / p99, 1 connection | added p50 / p99, {OPEN_RATE}/s over {OPEN_CONNECTIONS} | {} | CPU a call | memory idle / after |\n",
        CONNECTIONS
            .map(|connections| format!("calls/s, {connections}"))
            .join(" | "),
    );
    let _ = writeln!(table, "|---|---|---|{}---|---|", "---|".repeat(CONNECTIONS.len()));
    for line in lines {
        let rates: Vec<_> = line.rates.iter().map(|rate| format!("{rate:.0}")).collect();
        let _ = writeln!(
            table,
            "| {} | {:.0} / {:.0} µs | {:.0} / {:.0} µs | {} | {:.0} µs | {:.0} / {:.0} MiB |",
            line.row.name,
            line.added_p50,
            line.added_p99,
            line.open_p50,
            line.open_p99,
            rates.join(" | "),
            line.cpu,
            mib(line.row.idle),
            line.memory,
        );
    }
    table
}

/// What one agent has of another's flood.
fn beside(lines: &[Line<'_>]) -> String {
    let mut table = String::from(
        "| row | p50 / p99 alone | p50 / p99 beside a flood | ratio of the p99 |\n|---|---|---|---|\n",
    );
    for line in lines {
        let rounds: Vec<_> = line
            .row
            .samples
            .iter()
            .filter_map(|sample| sample.beside)
            .collect();
        if rounds.is_empty() {
            continue;
        }
        let figure = |figure: fn(&[Figures; 2]) -> f64| median(rounds.iter().map(figure));
        let _ = writeln!(
            table,
            "| {} | {:.0} / {:.0} µs | {:.0} / {:.0} µs | {:.1} |",
            line.row.name,
            figure(|[alone, _]| alone.p50),
            figure(|[alone, _]| alone.p99),
            figure(|[_, beside]| beside.p50),
            figure(|[_, beside]| beside.p99),
            figure(|[alone, beside]| beside.p99 / alone.p99),
        );
    }
    table
}

/// What the steps of a call take.
fn alone(steps: &Steps) -> String {
    let mut text = String::from("| step | alone |\n|---|---|\n");
    for (step, micros) in [
        (
            "message read, decided, argument forced, read and decided again, digest of the arguments",
            steps.decision,
        ),
        ("credential: claims and signature (EdDSA)", steps.credential),
        ("two records, to a file", steps.records),
        ("answer read, matched, passed", steps.answer),
    ] {
        let _ = writeln!(text, "| {step} | {micros:.1} µs |");
    }
    text
}

fn text(lines: &[Line<'_>], [table, ratios, beside, alone]: [&str; 4], picture: &str) -> String {
    let mut work = String::new();
    for line in lines {
        let _ = writeln!(
            work,
            "| {} | {} | {} |",
            line.row.name, line.row.work, line.row.tls
        );
    }
    let rounds = lines.first().map_or(0, |line| line.row.samples.len());
    format!(
        "# Performance

<!-- Written by `make bench`. Don't edit: run it again. -->

One `tools/call` over mTLS to an MCP server that answers at once: {request} bytes of request, {answer} of answer, HTTP/1.1 on
kept connections, one call at a time on each. Callers, proxy and server share the cores of one machine
({machine}), so a figure means something only beside the others of this table. All rows
run in turns; a figure is the median of {rounds} rounds. What is *added* is what a row took in a round beyond the MCP server alone in that round. At the open loop calls are due
whether answers come or not, and one that had to wait counts from when it was due. CPU is the proxy's own, at {cpu_at}
connections; memory is resident, summed over its processes. The sidecar is compiled as for a release: by a profile of such
loads (`e2e/release.sh`); the others are as their makers or Cargo's release profile build them.

![Added latency and calls a second]({picture})

{table}
Rows against each other. Each round's figures are compared with those of the same round: the machine differs more from minute to
minute than rows do. A ratio below zero is of a round in which calls of one row took less than of the MCP server alone.

{ratios}
| row | what it does with each call | key exchange, cipher suite |
|---|---|---|
{work}
What it takes to be the row *Bulkhead*: the caller is known by its certificate and its token, the message is read strictly, decided, its
forced argument set, read and decided again; a credential is signed for the server; what is about to happen is recorded
before it happens, and what came of it after. No other row does any of it but where its line says so.

No sidecar that runs anywhere can leave out the credential or the records: those of the last rows were compiled for them from
patched sources (`e2e/bench/without.sh`), to show what the two cost.

## One agent beside another that floods

An agent makes {STEADY_RATE} calls a second over {STEADY_CONNECTIONS} connections, alone and while another agent of the tenant asks over
{FLOOD_CONNECTIONS} connections without a pause. Bulkhead lets that one have 4 calls under way (`limits.concurrent`) and refuses the others
(429), and while these are too many it doesn't read from that agent; the pass-through lets everything through. The flood itself, its answers and refusals, takes its share of the same
cores.

{beside}
## The steps of a call

Each repeated by one thread, with everything that it needs in the caches; in a sidecar, between calls of the kernel and other
connections, it takes more.

{alone}",
        request = crate::call::REQUEST.len(),
        answer = crate::call::ANSWER.len(),
        machine = machine(),
        cpu_at = CONNECTIONS[CPU_AT],
    )
}

/// The machine, in few words.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .and_then(|line| line.split_once(':'))
        .map(|(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, {}", model.unwrap_or("of an unknown kind"))
}
