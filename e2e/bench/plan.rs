//! A run: which loads, in which order, how often.

use std::{fs, net::SocketAddr, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::{
    contender::Contender,
    contenders::{self, bulkhead, loopback},
    load::{self, Pace, Target},
    pki::Pki,
    process, report, steps, upstream,
};

/// Connections of the closed loops.
pub(crate) const CONNECTIONS: [u32; 4] = [1, 8, 32, 64];
/// The closed loop in which CPU is measured: its place in [`CONNECTIONS`].
pub(crate) const CPU_AT: usize = 2;
/// Connections of the open loop.
pub(crate) const OPEN_CONNECTIONS: u32 = 32;
/// Calls a second of the open loop, over all connections.
pub(crate) const OPEN_RATE: u32 = 2000;

/// The steady agent: connections, and calls a second over all of them.
pub(crate) const STEADY_CONNECTIONS: u32 = 4;
pub(crate) const STEADY_RATE: u32 = 200;
/// Connections of the agent that floods: each asks anew as soon as it was answered.
pub(crate) const FLOOD_CONNECTIONS: u32 = 64;

/// How long a flood lasts before and after what is measured beside it.
const MARGIN: Duration = Duration::from_millis(500);

/// Flags of a run.
#[derive(Args)]
pub(crate) struct Plan {
    /// nginx.
    #[arg(long, default_value = "nginx")]
    pub(crate) nginx: PathBuf,
    /// Envoy.
    #[arg(long, default_value = "envoy")]
    pub(crate) envoy: PathBuf,
    /// The sidecar, of the release profile.
    #[arg(long)]
    pub(crate) proxy: PathBuf,
    /// Folder with sidecars that leave out a part of a call: `credential`, `records`, `both`.
    #[arg(long)]
    pub(crate) without: Option<PathBuf>,
    /// Workers of each proxy; the number of CPUs by default.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    pub(crate) workers: usize,
    /// How often everything is measured, all rows in turn each time.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only this row, beside the MCP server itself; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
    /// First of the ports on loopback that are used.
    #[arg(long, default_value_t = 19400)]
    first_port: u16,
    /// Folder for configurations and logs; made anew.
    #[arg(long)]
    folder: PathBuf,
    /// The page to write; its picture lies beside it.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What one row showed in one round.
pub(crate) struct Sample {
    /// Median and 99th percentile of the closed loops in microseconds, and calls a second; as [`CONNECTIONS`].
    pub(crate) closed: Vec<Figures>,
    pub(crate) open: Figures,
    /// The steady agent alone, and while its neighbour floods; where that is measured.
    pub(crate) beside: Option<[Figures; 2]>,
    /// CPU time of a call, in microseconds.
    pub(crate) cpu: f64,
    /// Bytes, after the loads of the round.
    pub(crate) memory: u64,
}

/// What one load showed.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) rate: f64,
}

/// A row with all that was measured of it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: &'static str,
    pub(crate) tls: String,
    /// Bytes, before the first load.
    pub(crate) idle: u64,
    pub(crate) samples: Vec<Sample>,
}

impl Plan {
    /// An address of its own.
    pub(crate) fn address(&self, number: u16) -> SocketAddr {
        loopback(self.first_port.saturating_add(number))
    }

    /// Whether a row is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Measures everything.
    pub(crate) fn run(&self) -> Result<()> {
        process::end_with_us()?;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        let folder = std::path::absolute(&self.folder)?;
        let pki = Pki::make(folder.join("pki"))?;
        let contenders = contenders::start(self, &pki, &folder)?;
        let mut rows = Vec::new();
        for contender in &contenders {
            let idle = contender.process.memory()?;
            // A look at each before the first round: what answers wrongly ends the run here.
            let first = load::run(contender.target(), 1, Pace::Closed, Duration::from_millis(200))
                .context(contender.name)?;
            rows.push(Row {
                name: contender.name,
                work: contender.work,
                tls: first.tls,
                idle,
                samples: Vec::new(),
            });
        }
        for round in 1..=self.rounds {
            for (row, contender) in rows.iter_mut().zip(&contenders) {
                println!("round {round} of {}: {}", self.rounds, row.name);
                row.samples.push(self.measure(contender).context(contender.name)?);
            }
        }
        drop(contenders);
        let policy = bulkhead::policy(self.first_port, bulkhead::Work::Call).to_string();
        let list =
            upstream::other(br#"{"id":7,"method":"tools/list"}"#).context("the server lists its tools")?;
        let steps = steps::measure(&policy, &list, &folder)?;
        report::write(&rows, &steps, self.page.as_deref())
    }

    fn measure(&self, contender: &Contender) -> Result<Sample> {
        let length = Duration::from_secs(self.seconds);
        let target = contender.target();
        let mut closed = Vec::new();
        let mut cpu = 0.0;
        for (place, connections) in CONNECTIONS.into_iter().enumerate() {
            let before = contender.process.cpu()?;
            let observed = load::run(target, connections, Pace::Closed, length)?;
            if place == CPU_AT {
                let used = contender.process.cpu()?.saturating_sub(before);
                cpu = used.as_secs_f64() * 1e6 / (observed.rate() * observed.elapsed.as_secs_f64());
            }
            closed.push(Figures::of(&observed));
        }
        let open = load::run(target, OPEN_CONNECTIONS, Pace::Open(OPEN_RATE), length)?;
        Ok(Sample {
            closed,
            open: Figures::of(&open),
            beside: contender
                .neighbour()
                .map(|neighbour| Self::beside(target, neighbour, length))
                .transpose()?,
            cpu,
            memory: contender.process.memory()?,
        })
    }
}

impl Plan {
    /// The steady agent alone, then while another agent floods.
    fn beside(target: &Target, neighbour: &Target, length: Duration) -> Result<[Figures; 2]> {
        let steady = || load::run(target, STEADY_CONNECTIONS, Pace::Open(STEADY_RATE), length);
        let alone = steady()?;
        let neighbour = neighbour.clone();
        // It begins before, and ends after.
        let flood = thread::spawn(move || {
            load::run(&neighbour, FLOOD_CONNECTIONS, Pace::Closed, length + 2 * MARGIN).map(drop)
        });
        thread::sleep(MARGIN);
        let beside = steady();
        flood.join().map_err(|_| anyhow!("the flood broke off"))??;
        Ok([Figures::of(&alone), Figures::of(&beside?)])
    }
}

impl Figures {
    fn of(observed: &load::Observed) -> Self {
        Self {
            p50: observed.micros(0.5),
            p99: observed.micros(0.99),
            rate: observed.rate(),
        }
    }
}
