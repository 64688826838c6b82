//! What was shown, as rows of a table that stands at the end of a run.

use std::{fs::OpenOptions, io::Write};

/// Notes one row down: a wall, the attack on it, what came of the attack with that wall and without it.
///
/// Rows go to the file that `BULKHEAD_E2E_FENCE_TABLE` names, separated by tabs; without it nothing is kept.
///
/// # Panics
/// When the file can't be written.
#[allow(clippy::expect_used, reason = "a table with rows missing must not look whole")]
pub fn record(wall: &str, attack: &str, with_wall: &str, without_wall: &str) {
    let Ok(file) = std::env::var("BULKHEAD_E2E_FENCE_TABLE") else {
        return;
    };
    let cells = [wall, attack, with_wall, without_wall].map(|cell| cell.replace(['\t', '\n'], " "));
    let mut table = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .expect("the table must be writable");
    // One write a row: scenarios run side by side.
    table
        .write_all(format!("{}\n", cells.join("\t")).as_bytes())
        .expect("the table must be writable");
}
