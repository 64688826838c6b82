//! Scenarios on a real cluster: both directions each time, with what the upstream saw.
//!
//! What is shown goes as its users go, through `kubectl` and `kubectl bulkhead`: what people may, what fences refuse, how the
//! samples come up. Preparing and looking go over a connection of the harness's own.

mod agent;
mod dialler;
mod issuer;
mod kubectl;
mod ledger;
mod objects;
mod pods;
mod record;
mod tenants;
mod wait;

pub use agent::{Agent, Load, PROOF, call_message, dialled};
pub use dialler::{Dialler, Open};
pub use issuer::Issuer;
pub use kubectl::{Kubectl, Outcome};
pub use ledger::Ledger;
pub use objects::{apply, condition, delete, find, gone, object, objects, ready};
pub use pods::{exec, said};
pub use record::record;
pub use tenants::{Sample, Tenant, samples, server, tenant};
pub use wait::eventually;

/// A variable that `make e2e` sets. Scenarios never skip: without a cluster they fail and say how to have one.
///
/// # Panics
/// When the variable isn't set.
#[allow(clippy::panic, reason = "a scenario without its cluster must fail, loudly")]
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} isn't set: run the scenarios with `make e2e`"))
}
