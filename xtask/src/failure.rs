//! Why a task ended early, and the exit status that says so.

use std::fmt;
use std::process::ExitCode;

/// Why a task ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line was not understood.
    Usage(String),
    /// A check did not pass, or could not be made.
    Failed(String),
}

impl Failure {
    /// A failure to do `what`, with its cause.
    pub(crate) fn new(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {cause}"))
    }

    /// The status that the task ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

impl From<rhash_client::Error> for Failure {
    fn from(error: rhash_client::Error) -> Self {
        Self::Failed(format!("the client: {error} ({:?})", error.kind()))
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new("a task of the driver", error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}
