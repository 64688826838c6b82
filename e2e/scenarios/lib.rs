//! Scenarios on a real cluster: both directions each time, with what the upstream saw.
//!
//! The harness drives the cluster as its users do, through `kubectl` and `kubectl bulkhead`, so what it does is what a
//! person could do. It only looks for itself.

mod agent;
mod dialler;
mod issuer;
mod kubectl;
mod ledger;
mod objects;
mod record;
mod tenants;
mod wait;

pub use agent::{Agent, Load, PROOF, call_message, dialled, said};
pub use dialler::{Dialler, Open};
pub use issuer::Issuer;
pub use kubectl::{Kubectl, Outcome};
pub use ledger::Ledger;
pub use objects::{find, gone, object, objects};
pub use record::record;
pub use tenants::{Sample, Tenant, condition, samples, server, tenant};
pub use wait::eventually;

/// A variable that `make e2e` sets. Scenarios never skip: without a cluster they fail and say how to have one.
///
/// # Panics
/// When the variable isn't set.
#[allow(clippy::panic, reason = "a scenario without its cluster must fail, loudly")]
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} isn't set: run the scenarios with `make e2e`"))
}
