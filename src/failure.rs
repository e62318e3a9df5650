//! Why a command failed, and the exit code that says so.

use std::io;

use rhash_client::ErrorKind;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line made no sense in a way that only running it could tell.
    #[error("{0}")]
    Usage(String),
    /// The sentence says it all.
    #[error("{0}")]
    Plain(String),
    /// The server or the way to it failed.
    #[error("{}", client_text(.0))]
    Client(#[from] rhash_client::Error),
    /// Writing what was found failed.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::Plain(text.into())
    }

    /// Whether the reader of the output went away, as `head` does when it has enough.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// 2 for a command line that made no sense, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}

/// The error with its causes, and what to do about it where the command knows.
fn client_text(error: &rhash_client::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    match error.kind() {
        ErrorKind::NoSuchTable => format!("{text} (`rhash tables` lists those that there are)"),
        ErrorKind::KeyTooLarge => format!("{text}; use a shorter one, or a hash of it"),
        ErrorKind::ValueTooLarge => format!(
            "{text}; split it, or give the server a larger --max-value (by default an eighth of \
             --mem-limit)"
        ),
        _ => text,
    }
}
