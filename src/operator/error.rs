//! What can go wrong in a reconcile, and what follows from it.

use std::time::Duration;

use bulkhead_api::conditions::reasons;
use kube::core::Status;

/// Longest text that goes into a condition or an event.
pub const LONGEST_MESSAGE: usize = 1024;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("cannot {action}")]
    Request {
        /// What was tried.
        action: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// An object can't be written as JSON.
    #[error("cannot serialize {what}")]
    Serialize {
        /// Which object.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An object isn't what was applied, however often it is applied.
    #[error(
        "cannot keep {object} as it should be ({what}): something changes it at once, an admission webhook for example; exempt \
         this tenant's namespaces from it"
    )]
    Contested {
        /// Which object.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// The pure half refused to build what it had accepted.
    #[error("cannot build the tenant's objects: {0}")]
    Build(String),
    /// The reconcile's task ended without a result.
    #[error("the reconcile broke off: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// When a failed reconcile is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Soon: it was a race or the API server's own trouble.
    Quickly,
    /// Later and later: nobody knows when it will go away.
    WithBackOff,
}

impl Error {
    /// The reason of the condition `Ready=False`, of events, and in metrics.
    pub fn reason(&self) -> &'static str {
        match self.status() {
            Some(status) if status.code == 403 && status.message.contains("exceeded quota") => {
                reasons::QUOTA_EXCEEDED
            }
            Some(status) if status.code == 403 && status.message.contains("being terminated") => {
                reasons::NAMESPACE_TERMINATING
            }
            _ => reasons::RECONCILE_FAILED,
        }
    }

    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self.status() {
            Some(status) if status.code == 409 || status.code == 429 || status.code >= 500 => Retry::Quickly,
            _ => Retry::WithBackOff,
        }
    }

    /// The whole chain of causes, bounded.
    pub fn chain(&self) -> String {
        if let Some(status) = self.status() {
            // kube's own text of it repeats itself in a debug form that nobody wants to read.
            return bounded(&format!("{self}: {}", status.message));
        }
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let part = error.to_string();
            // Many an error repeats what it was caused by.
            if !text.contains(&part) {
                text = format!("{text}: {part}");
            }
            cause = error.source();
        }
        bounded(&text)
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Request { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }
}

/// How long to wait after so many failures in a row.
pub fn back_off(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(5);
    FIRST
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)))
        .min(LONGEST)
}

/// A text cut to [`LONGEST_MESSAGE`] bytes.
pub fn bounded(text: &str) -> String {
    if text.len() <= LONGEST_MESSAGE {
        return text.to_owned();
    }
    let mut end = LONGEST_MESSAGE - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Says what was being done when a request failed.
pub trait Doing<T> {
    /// Adds it to the error.
    fn doing(self, action: impl Into<String>) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, action: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error::Request {
            action: action.into(),
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> Error {
        let status = Status {
            code,
            message: message.into(),
            ..Status::default()
        };
        Err::<(), _>(kube::Error::Api(Box::new(status)))
            .doing("apply Deployment acme/crm")
            .unwrap_err()
    }

    #[test]
    fn each_kind_of_refusal_has_its_reason_and_its_patience() {
        for (code, message, reason, retry) in [
            (
                403,
                "exceeded quota: bulkhead",
                "QuotaExceeded",
                Retry::WithBackOff,
            ),
            (
                403,
                "forbidden: User cannot",
                "ReconcileFailed",
                Retry::WithBackOff,
            ),
            (
                403,
                "because it is being terminated",
                "NamespaceTerminating",
                Retry::WithBackOff,
            ),
            (422, "invalid", "ReconcileFailed", Retry::WithBackOff),
            (
                409,
                "the object has been modified",
                "ReconcileFailed",
                Retry::Quickly,
            ),
            (429, "slow down", "ReconcileFailed", Retry::Quickly),
            (503, "no leader", "ReconcileFailed", Retry::Quickly),
        ] {
            let error = refused(code, message);
            assert_eq!(
                (error.reason(), error.retry()),
                (reason, retry),
                "{code} {message}"
            );
        }
    }

    #[test]
    fn the_chain_says_what_was_done_and_what_came_back() {
        assert_eq!(
            refused(422, "spec.x: Required").chain(),
            "cannot apply Deployment acme/crm: spec.x: Required"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let text = bounded(&"ä".repeat(LONGEST_MESSAGE));
        assert!(text.len() <= LONGEST_MESSAGE && text.ends_with("ä…"));
        assert_eq!(bounded("short"), "short");
    }

    #[test]
    fn patience_grows_and_ends() {
        let waits: Vec<_> = [1, 2, 3, 100]
            .into_iter()
            .map(|failures| back_off(failures).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 300]);
    }
}
