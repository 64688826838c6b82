//! Memory stays flat under what clients and servers do wrong: the program itself, under each fault again and again.
//!
//! Times are the product's own here. That a peer is ended which holds something for longer than it may is shown with shorter
//! ones elsewhere (`faults`, `slow_readers`); here peers go away by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "memory/faults.rs"]
mod faults;
#[path = "memory/program.rs"]
mod program;
#[path = "memory/server.rs"]
mod server;

use bulkhead_proxy::{limits::Limits, testing::until};

use crate::faults::{FAULTS, Scene};

/// How much more it may hold after five times as much of a fault, in KiB. Measured: less than 0.4 MiB either way.
const ALLOWANCE: u64 = 1024;

/// How many more times.
const MORE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_under_each_fault() {
    let scene = Scene::start().await;
    let sidecar = &scene.sidecar;
    let rest = async || {
        scene.good_call("billing", "list_invoices").await;
        let nothing = ["bulkhead_calls_in_flight 0", "bulkhead_connections 0"];
        sidecar.until_it_says(&nothing).await;
    };
    rest().await;
    let idle = sidecar.resident();
    // Two to three times what messages may hold, as `Limits::memory` says, and what is there without any.
    let most = idle + 3 * Limits::default().memory as u64 / 1024;
    eprintln!("{:50} before  after   peak, in KiB; idle: {idle}", "");
    for (fault, times, once) in FAULTS {
        for _ in 0..times {
            once(&scene).await;
        }
        rest().await;
        let before = sidecar.settled().await;
        sidecar.forget_peak();
        for _ in 0..MORE * times {
            once(&scene).await;
        }
        rest().await;
        let peak = sidecar.peak();
        eprintln!("{fault:50} {before:6} {:6} {peak:6}", sidecar.resident());
        assert!(
            peak <= most,
            "{fault}: {peak} KiB were held at once, of at most {most}"
        );
        let flat = || sidecar.resident() <= before + ALLOWANCE;
        until(&format!("{fault}: it holds what it held before"), flat).await;
    }
}
