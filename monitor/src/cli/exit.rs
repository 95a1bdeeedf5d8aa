//! Exit statuses.

use std::{io, process::ExitCode};

use super::output::Closed;
use crate::{api::client::ClientError, config::ConfigError, runtime::RuntimeError};

/// Findings exist, and `--exit-code` was given.
pub(super) const FINDINGS: u8 = 1;
/// Bad usage, or input that cannot be read or is invalid.
pub(super) const USAGE: u8 = 2;
/// The system refuses: privileges, kernel, no daemon.
pub(super) const REFUSED: u8 = 3;

/// What the system refuses to a command, besides the daemon's answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// No runtime.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// No room, or the like.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// The daemon is of another version.
    #[error("the daemon's answer is not understood: {0}")]
    Answer(#[source] serde_json::Error),
}

/// A status for the system.
pub(super) fn code(status: u8) -> ExitCode {
    ExitCode::from(status)
}

/// Prints an error and tells the status that it ends with. That the reader of the output has left
/// is none.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    let status = status_of(error);
    if let Some(status) = status {
        super::output::complain(&message(error));
        code(status)
    } else {
        ExitCode::SUCCESS
    }
}

/// The error and its causes, each said once: many errors have their cause in their own text.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

fn status_of(error: &anyhow::Error) -> Option<u8> {
    error
        .chain()
        .find_map(|cause| {
            if cause.is::<Closed>() {
                Some(None)
            } else if let Some(error) = cause.downcast_ref::<RuntimeError>() {
                Some(Some(error.exit_code()))
            } else if cause.is::<ClientError>() || cause.is::<Refused>() {
                Some(Some(REFUSED))
            } else if cause.is::<ConfigError>() {
                Some(Some(USAGE))
            } else {
                None
            }
        })
        // What is left is input that could not be read.
        .unwrap_or(Some(USAGE))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_said_once() {
        let path = "/run/x".into();
        let source = std::io::Error::other("gone");
        let error = anyhow::Error::from(ClientError::Broken { path, source });
        assert_eq!(message(&error), "the daemon on /run/x went away: gone");
        let error = error.context("cannot follow");
        assert_eq!(
            message(&error),
            "cannot follow: the daemon on /run/x went away: gone"
        );
    }

    #[test]
    fn errors_have_the_status_of_their_kind() {
        let check = |error: anyhow::Error, status: Option<u8>| {
            assert_eq!(status_of(&error), status, "{error:#}");
        };
        check(Closed.into(), None);
        check(
            Err::<(), _>(Closed)
                .context("cannot print")
                .expect_err("closed"),
            None,
        );
        let path = "/run/x".into();
        check(ClientError::Stopped { path }.into(), Some(REFUSED));
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        check(Refused::Output(full()).into(), Some(REFUSED));
        check(Refused::Start(full()).into(), Some(REFUSED));
        let file = crate::config::FileError::Content {
            path: "a.toml".into(),
            line: 1,
            message: "x".into(),
        };
        check(ConfigError::from(file).into(), Some(USAGE));
        check(anyhow::anyhow!("a.pcap: truncated"), Some(USAGE));
    }
}
