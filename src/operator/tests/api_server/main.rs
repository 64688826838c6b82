//! The operator against a real API server, under its own account and with the chart's rights alone. Nothing here makes
//! pods or signs certificates: the tests play cert-manager and the kubelet, by writing what those would.

// The lints' exemption for tests doesn't reach the helpers that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod audit;
mod building;
mod cert_manager;
mod claims;
mod drift;
mod ending;
mod fence_benchmark;
mod fence_people;
mod fences;
mod fixture;
mod issuers;
mod leading;
mod narrowing;
mod people;
mod quota;
mod reports;
mod rights;
mod sidecar;
mod table;
