//! Exit codes: part of the command's interface, listed in `docs/cli.md`, never renumbered.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked. `status`: ready. `call`: the tool answered.
    Success = 0,
    /// Anything that has no code of its own.
    Failure = 1,
    /// `call`: the tool ran, or its arguments were checked, and the answer is an error (`isError`). `explain`: it would be.
    ToolError = 2,
    /// `status`: the tenant exists and isn't ready.
    NotReady = 3,
    /// The tenant, server or agent doesn't exist.
    NotFound = 4,
    /// `call`: the sidecar or the server refused the call. `explain`: the sidecar would.
    Refused = 5,
    /// `call`: no connection: name resolution, network policy, TLS. `dev`: nothing listens at the server's port.
    CannotConnect = 6,
    /// `policy test`: a decision isn't the expected one.
    Different = 7,
    /// Stopped by Ctrl-C or a termination signal: 128 + SIGINT, as shells count.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends a command with a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// The code.
    pub exit: Exit,
    /// What a person reads on stderr.
    pub message: String,
}

impl ExitError {
    /// Something named on the command line doesn't exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::NotFound,
            message: message.into(),
        }
    }
}

/// The exit code of an error: that of an [`ExitError`] anywhere in its chain, otherwise [`Exit::Failure`].
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<ExitError>())
        .map_or(Exit::Failure, |error| error.exit)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_exit_error_keeps_its_code_under_added_context() {
        let error = Err::<(), _>(ExitError::not_found("no tenant"))
            .context("reading")
            .unwrap_err();
        assert_eq!(exit_of(&error), Exit::NotFound);
    }

    #[test]
    fn any_other_error_is_a_failure() {
        assert_eq!(exit_of(&anyhow::anyhow!("boom")), Exit::Failure);
    }

    #[test]
    fn codes_are_the_documented_ones() {
        let codes = [
            (Exit::Success, 0),
            (Exit::Failure, 1),
            (Exit::ToolError, 2),
            (Exit::NotReady, 3),
            (Exit::NotFound, 4),
            (Exit::Refused, 5),
            (Exit::CannotConnect, 6),
            (Exit::Different, 7),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code);
            let row = format!("| {code} |");
            assert!(
                include_str!("../../docs/cli.md").contains(&row),
                "docs/cli.md has no row `{row}`"
            );
        }
    }
}
