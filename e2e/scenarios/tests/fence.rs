//! The network's half of the fence: closed before anything runs, closed until it is gone. What the API server refuses is
//! shown by the operator's tests on an API server; what holds nowhere is shown by `unenforced`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a scenario fails by panicking"
)]

mod fence {
    mod closed_before_it_runs;
    mod closed_until_gone;
    mod narrowed;
    mod shared_pod;
}
