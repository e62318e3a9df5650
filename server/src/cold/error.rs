//! Why the cold tier could not do something.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use super::store::RunId;
use crate::{size::ByteSize, waiting::WouldWait};

/// Why the cold tier could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColdError {
    /// The file system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The disk, or the quota on it, is full; what was being written is gone, all else is as before.
    #[error("the disk is full: cannot {action} {}", path.display())]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
    },
    /// The server was told to use no more disk.
    #[error(
        "the disk limit is reached: {} of {} ({used_bytes} of {limit_bytes} bytes) are used, and the \
         last {} are kept for deletes and merges; discard entries, clear or close tables, or start \
         the server with a larger --disk-limit",
        ByteSize(*used_bytes), ByteSize(*limit_bytes), ByteSize(*reserve_bytes)
    )]
    DiskLimit {
        /// What runs take.
        used_bytes: u64,
        /// `--disk-limit`.
        limit_bytes: u64,
        /// What of it no entries are written to.
        reserve_bytes: u64,
    },
    /// What was read is not what was written.
    #[error("run {run} is damaged at byte {offset}: {what}")]
    Damaged {
        /// What does not fit.
        what: &'static str,
        /// In which run.
        run: RunId,
        /// Where in the run the damaged piece begins.
        offset: u64,
    },
    /// The run was written by a newer version.
    #[error("run {run} has format {found}, this version reads formats up to {supported}")]
    Format {
        /// Which run.
        run: RunId,
        /// The format that it has.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// The run's keys are placed under another secret.
    #[error("run {run} was written under the secret of another data directory")]
    OtherSecret {
        /// Which run.
        run: RunId,
    },
    /// There is no such run.
    #[error("run {run} does not exist")]
    Missing {
        /// Which run.
        run: RunId,
    },
    /// sled failed; after an I/O error it stays unusable until the server starts again.
    #[error("sled cannot {action} {}", path.display())]
    Sled {
        /// What was tried.
        action: &'static str,
        /// In which directory.
        path: PathBuf,
        /// How it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A key or part is longer than a record can hold.
    #[error("a {what} of {bytes} bytes in a record, the limit is {limit}")]
    TooLong {
        /// `key` or `part`.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest that is allowed.
        limit: usize,
    },
    /// A record of a table of counters does not hold a counter.
    #[error("a counter of {bytes} bytes instead of 8")]
    NotACounter {
        /// The length of what it holds.
        bytes: usize,
    },
    /// A read that must not wait for the disk would have had to; whoever forbade it tries again, and tells nobody.
    #[error("it would wait for the disk")]
    WouldWait,
    /// The caller's progress function asked for the end of the merge.
    #[error("the merge was cancelled")]
    Cancelled,
}

impl ColdError {
    /// An error of the file system, with a full disk told apart.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if is_disk_full(&source) {
            Self::DiskFull { action, path }
        } else {
            Self::Io {
                action,
                path,
                source,
            }
        }
    }
}

impl From<WouldWait> for ColdError {
    fn from(WouldWait: WouldWait) -> Self {
        Self::WouldWait
    }
}

/// Whether the error says that the disk or the quota on it is full.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
