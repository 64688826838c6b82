//! What the targets share: a policy with one of everything, and its agents.

use std::sync::LazyLock;

use bulkhead_core::policy::CompiledPolicy;

/// Reads, and is limited.
pub const BILLING: &str = "spiffe://acme/billing";

/// May call everything.
pub const ROOT: &str = "spiffe://acme/root";

/// The value that `tenant` is forced to.
pub const TENANT: &str = "acme";

/// The greatest `limit`.
pub const MOST: f64 = 100.0;

/// Tools of `billing` whose `tenant` is forced and `limit` bounded.
pub const FORCED: &str = "list";

/// The policy.
pub static POLICY: LazyLock<CompiledPolicy> = LazyLock::new(|| {
    CompiledPolicy::from_json(include_bytes!("seeds/policy/everything.json")).expect("the policy compiles")
});
