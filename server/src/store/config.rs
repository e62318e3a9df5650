//! What a store is made of, and why it could not be.

use std::{io, path::PathBuf, sync::Arc};

use rhash_protocol::limits::VALUE_BYTES_MAX;

use crate::{
    cold::{BlockReads, ColdError, ColdOptions, Faults},
    data_dir::DataDirError,
    governor::Steps,
    key_hash::KeyHasher,
    log::{self, Durability, LogError, LogOptions},
};

#[cfg(test)]
use crate::log::LogFiles;

/// The most tables that a server may have.
pub const TABLES_MAX: usize = 1 << 20;

/// What a store is made of.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `--mem-limit`.
    pub mem_limit_bytes: u64,
    /// The data directory; none is `--memory-only`.
    pub data_dir: Option<PathBuf>,
    /// `--disk-limit`.
    pub disk_limit_bytes: Option<u64>,
    /// The most tables, named and temporary.
    pub tables_max: usize,
    /// The longest value that a put may carry.
    pub value_bytes_max: usize,
    /// Threads that read cold blocks.
    pub read_threads: usize,
    /// Runs below this go to sled, others get a file.
    pub small_run_bytes: u64,
    /// How blocks of run files are read.
    pub block_reads: BlockReads,
    /// How safe a write is when it is answered, to a named table that has no durability of its own.
    /// Default: [`Durability::None`].
    pub durability: Durability,
    /// What the log may take on disk: beyond half of it a checkpoint begins, and beyond all of it writers
    /// wait. Default: four times the memory limit, but at least 256 MiB and at most 1 GiB.
    pub log_limit_bytes: u64,
    /// For tests: how much is done at a time, and how much entries may take, far below what a
    /// server needs. None: all follows from the memory limit.
    pub tiny: Option<Tiny>,
    /// For tests: lets the disk fail on purpose.
    pub faults: Option<Arc<Faults>>,
    /// Skips what of the log cannot be read; of a repair, which has told of it.
    pub(crate) salvages: bool,
    /// Where the log is, if it is not in the data directory.
    #[cfg(test)]
    pub(crate) log_files: Option<Arc<dyn LogFiles>>,
}

/// Budgets that only tests want.
#[derive(Debug, Clone, Copy)]
pub struct Tiny {
    /// What entries may take.
    pub entries_bytes: usize,
    /// What one spill takes.
    pub spill_bytes: usize,
    /// A range is split beyond this.
    pub range_bytes: u64,
    /// Leading bits of a key's hash that are kept.
    pub place_bits: u32,
    /// Whether the governor and the merging thread run.
    pub threads: bool,
}

impl StoreConfig {
    /// The defaults under a memory limit; `None` as directory has no cold tier.
    pub fn new(mem_limit_bytes: u64, data_dir: Option<PathBuf>) -> Self {
        Self {
            mem_limit_bytes,
            data_dir,
            disk_limit_bytes: None,
            tables_max: TABLES_MAX,
            value_bytes_max: usize::try_from(mem_limit_bytes / 8)
                .unwrap_or(usize::MAX)
                .min(VALUE_BYTES_MAX),
            read_threads: 16,
            small_run_bytes: 1 << 20,
            block_reads: BlockReads::Auto,
            durability: Durability::None,
            log_limit_bytes: log_limit_bytes(mem_limit_bytes),
            tiny: None,
            faults: None,
            salvages: false,
            #[cfg(test)]
            log_files: None,
        }
    }
}

/// Why a store could not open or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cold tier failed.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The log cannot be read, or not be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A table could not be spilled.
    #[error("table {table}: {text}")]
    Table {
        /// Which one.
        table: String,
        /// Why.
        text: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// No secret could be drawn.
    #[error("cannot draw a secret: {0}")]
    Secret(getrandom::Error),
}

/// The least limit of the log: a checkpoint writes many runs, which short ones are not worth.
pub const LOG_LIMIT_BYTES_MIN: u64 = 1 << 20;
/// So many times the memory limit the log may take if nothing is said: by the time that a checkpoint is due,
/// most of what the log says has been spilled for want of RAM, and the checkpoint writes the rest. An index build whose
/// log was as long as memory, and so was written down once in the middle, took a third more time and twice the writes.
const LOG_SHARE: u64 = 4;
/// At least this much, for the same reason, …
const LOG_BYTES_MIN: u64 = 512 << 20;
/// … and no more than a start replays in a few seconds.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// The share of the memory limit that waits to be written to the log, as a divisor: less than the margin that the
/// governor keeps free, which sees what it takes as overhead.
const LOG_BUFFER_SHARE: u64 = 64;
const LOG_BUFFER_BYTES_MIN: u64 = 256 << 10;
const LOG_BUFFER_BYTES_MAX: u64 = 4 << 20;
/// The log has about so many segments, so that what a checkpoint has made needless goes soon.
const LOG_SEGMENTS: u64 = 8;
const LOG_SEGMENT_BYTES_MIN: u64 = 4 << 10;
const LOG_SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// What the log may take under a memory limit if nothing is said.
pub(crate) fn log_limit_bytes(mem_limit_bytes: u64) -> u64 {
    mem_limit_bytes
        .saturating_mul(LOG_SHARE)
        .clamp(LOG_BYTES_MIN, LOG_BYTES_MAX)
}

impl StoreConfig {
    /// Places keys under a secret.
    pub(super) fn hasher(&self, secret: &[u8; 16]) -> KeyHasher {
        let hasher = KeyHasher::new(secret);
        match self.tiny {
            Some(tiny) => hasher.with_place_bits(tiny.place_bits),
            None => hasher,
        }
    }

    /// How runs are kept whose keys are placed so.
    pub(super) fn cold_options(&self, hasher: &KeyHasher) -> ColdOptions {
        let mut options = ColdOptions::new(hasher.clone()).with_mem_limit(self.mem_limit_bytes);
        options.small_run_bytes = self.small_run_bytes;
        options.block_reads = self.block_reads;
        options.disk_limit_bytes = self.disk_limit_bytes;
        options.faults = self.faults.clone();
        options
    }

    /// How the log is kept.
    pub(super) fn log_options(&self, hasher: &KeyHasher) -> LogOptions {
        let buffer_bytes = (self.mem_limit_bytes / LOG_BUFFER_SHARE)
            .clamp(LOG_BUFFER_BYTES_MIN, LOG_BUFFER_BYTES_MAX);
        LogOptions {
            durability: self.durability,
            buffer_bytes: buffer_bytes as usize,
            segment_bytes: (self.log_limit_bytes / LOG_SEGMENTS)
                .clamp(LOG_SEGMENT_BYTES_MIN, LOG_SEGMENT_BYTES_MAX),
            limit_bytes: self.log_limit_bytes,
            mark: log::mark_of(hasher),
        }
    }

    /// How much is done at a time.
    pub(super) fn steps(&self) -> Steps {
        match self.tiny {
            None => Steps::under(self.mem_limit_bytes).within(self.disk_limit_bytes),
            Some(tiny) => Steps {
                spill_bytes: tiny.spill_bytes,
                ranges_soon: usize::MAX,
                range_bytes_soon: tiny.range_bytes,
                range_bytes_late: tiny.range_bytes,
            },
        }
    }
}
