//! The cold tier: sorted runs of records on disk.
//!
//! A [`ColdStore`] owns the homes of runs: small ones live in sled, others are a file each. A run
//! is written front to back by a [`RunWriter`], read as a [`Run`] through one reader whatever its
//! home, folded with others by a [`Fold`], and merged with its neighbours in age by
//! [`ColdStore::merge`]. What the runs of a table mean together is for `table` to know.
//!
//! In the order in which bytes go down: `record` lies in blocks, `filter`, `leaf` and `column`
//! index them, `format` seals the pieces, `writer` puts them in order, and a `home` keeps them.
//! Whatever is read is verified first: damage is an error, never an absence.

mod error;
mod record;
mod filter;
mod leaf;
mod column;
mod format;
mod disk;
mod home;
mod open_files;
pub(crate) mod direct;
mod file_home;
#[cfg(target_os = "linux")]
mod sled_sync;
mod sled_dirs;
mod sled_db;
mod sled_home;
mod memory_home;
mod faults;
mod writer;
mod lost;
mod run;
mod verify;
mod glance;
mod cursor;
mod hashes;
mod fold;
mod merge;
mod copy;
mod store;
pub(crate) mod raw;
#[cfg(test)]
mod tests;

pub use cursor::RunCursor;
pub use direct::BlockReads;
pub(crate) use disk::reserve_bytes;
pub use disk::{Claim, Purpose};
pub use error::ColdError;
pub(crate) use error::is_disk_full;
pub use faults::Faults;
#[cfg(test)]
pub(crate) use file_home::is_read_at_once;
pub use fold::{BoxedSource, Fold, FoldedKey};
pub use format::RunSummary;
pub use glance::{Glance, Whole};
pub use hashes::{HashCursor, READ_AHEAD_BYTES as HASHES_READ_AHEAD_BYTES};
pub use merge::MergePlan;
pub use record::{KEY_BYTES_MAX, PART_BYTES_MAX, Record, RecordKind, RecordSource};
pub use run::{READ_AHEAD_BYTES_MAX, Run};
pub(crate) use sled_dirs::{sled_directories, sled_extras};
pub(crate) use store::RUNS_DIR;
pub use store::{ColdOptions, ColdStore, FoundRun, RunId};
pub use verify::{BadPiece, RunVisitor};
pub use writer::RunWriter;
