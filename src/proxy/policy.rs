//! The policy in force: core's compiled policy with what the edge needs of it, made once.

use std::sync::Arc;

use bulkhead_core::policy::{CompileError, CompiledAgent, CompiledPolicy};

use crate::{
    gate::Endpoint,
    upstream::{BadTarget, Target},
};

/// A loaded policy.
#[derive(Debug)]
pub struct LoadedPolicy {
    compiled: CompiledPolicy,
    target: Arc<Target>,
}

/// Why a mounted document can't be put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Core doesn't accept it.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Its upstream can't be called.
    #[error(transparent)]
    Target(#[from] BadTarget),
}

impl LoadedPolicy {
    /// Compiles a mounted document.
    pub fn load(bytes: &[u8]) -> Result<Self, PolicyError> {
        let compiled = CompiledPolicy::from_json(bytes)?;
        let upstream = compiled.upstream();
        let target = Arc::new(Target::new(upstream.port, &upstream.path)?);
        Ok(Self { compiled, target })
    }

    /// Core's half.
    pub fn compiled(&self) -> &CompiledPolicy {
        &self.compiled
    }

    /// The revision of the mounted bytes.
    pub fn revision(&self) -> &str {
        self.compiled.revision()
    }

    /// The agent of a SPIFFE ID.
    pub fn agent(&self, spiffe_id: &str) -> Option<&Arc<CompiledAgent>> {
        self.compiled.acting_alone(spiffe_id)
    }

    /// Where the MCP server is.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// What the gate compares with.
    pub fn endpoint(&self, port: u16) -> Endpoint<'_> {
        Endpoint {
            hostnames: self.compiled.hostnames(),
            port,
            path: self.target.path(),
            has_issuers: !self.compiled.issuers().is_empty(),
        }
    }
}
