//! The token of a pod's service account, as the kubelet projects it.

use bulkhead_core::policy::CompiledAgent;

use super::TokenError;

/// What the token of a pod says.
#[derive(Debug)]
pub(super) struct PodToken {
    /// The service account.
    pub(super) subject: String,
    /// The pod, if it says one.
    pub(super) pod: Option<String>,
}

impl PodToken {
    /// Whether it proves this agent, and the agent may act for itself.
    pub(super) fn check(&self, agent: &CompiledAgent) -> Result<(), TokenError> {
        if agent.subject() != Some(self.subject.as_str()) {
            Err(TokenError::Subject)
        } else if agent.requires_person() {
            Err(TokenError::PersonMissing)
        } else {
            Ok(())
        }
    }
}
