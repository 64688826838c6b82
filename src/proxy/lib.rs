//! Bulkhead's enforcing sidecar, as a library.
//!
//! The data path, in order: [`server`] accepts and shakes hands, [`endpoint`] authenticates and
//! checks the request's head, [`exchange`] parses, decides and rewrites with `bulkhead_core`, writes
//! the record of the intent, calls the [`upstream`], matches and filters the answer. What belongs to
//! another replica is handed on to its sidecar ([`peers`]), which does all of that anew. Everything
//! else (probes, metrics, reload, canary, drain, reports to the [`operator`]) runs beside it and never on its threads.

pub mod admin;
pub mod admission;
pub mod audit;
pub mod authentication;
pub mod body;
pub mod canary;
pub mod challenge;
pub mod config;
pub mod detached;
pub mod drain;
pub mod endpoint;
pub mod exchange;
pub mod findings;
pub mod gate;
mod hex;
pub mod identity;
pub mod inventory;
pub mod keyring;
pub mod kubelet;
pub mod limits;
pub mod link;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod minter;
pub mod operator;
mod pace;
pub mod peers;
pub mod policy;
pub mod probe;
pub mod quota;
pub mod readiness;
pub mod record;
pub mod refusal;
pub mod reload;
pub mod sealer;
pub mod server;
pub mod shared;
pub mod sidecar;
pub mod stalled;
pub mod telemetry;
pub mod throttle;
pub mod tls;
pub mod tokens;
pub mod upstream;
pub mod usage;
mod vanishing;
pub mod workers;

#[cfg(feature = "testing")]
pub mod testing;
