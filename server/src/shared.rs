//! What all tables of a store share: the tiers' homes, the account of RAM, the threads that read.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicUsize},
};

use parking_lot::Mutex;
use rhash_protocol::{Durability, ErrorCode, TableId, WireError, limits::ERROR_TEXT_BYTES_MAX};

use crate::{
    cold::{ColdError, ColdStore, is_disk_full},
    counters::Counters,
    data_dir::{
        DataDirError,
        manifest::{Edit, Manifest, TableState},
    },
    flights::Flights,
    freeing::Freeing,
    governor::{Bell, Budget, Steps},
    key_hash::KeyHasher,
    log::{Log, Lsn},
    moment::Moment,
    pool::ReadPool,
    readings::Readings,
    table::{Found, ReadName},
};

/// What all tables of a store share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Places keys.
    pub(crate) hasher: KeyHasher,
    /// The cold tier; none in a server that has no disk.
    pub(crate) cold: Option<ColdStore>,
    /// What outlives the server; taken after every other lock.
    pub(crate) manifest: Option<Mutex<Manifest>>,
    /// The log of named tables, once what it said before was replayed; none: they are not logged. There
    /// is one if the server's durability asks for it, or that of a table which the start found.
    pub(crate) log: OnceLock<Log>,
    /// That of named tables which have none of their own; of a server that has no disk, none.
    pub(crate) durability: Durability,
    /// Somebody was told that runs are on stable storage, though there is no log; so they are kept there.
    pub(crate) was_synced: AtomicBool,
    /// The account of RAM.
    pub(crate) budget: Budget,
    /// How much is done at a time.
    pub(crate) steps: Steps,
    /// The threads that read cold blocks.
    pub(crate) pool: ReadPool,
    /// The cold keys that are read right now.
    pub(crate) flights: Flights<ReadName, Result<Found, WireError>>,
    /// For `stats`.
    pub(crate) counters: Counters,
    /// The longest value that a put may carry.
    pub(crate) value_bytes_max: usize,
    /// Which keys were read of late, so that the second read promotes.
    pub(crate) readings: Readings,
    /// What was closed and takes long to free.
    pub(crate) freeing: Freeing,
    /// A checkpoint would cut most of the log, which tells of what was closed or cleared.
    pub(crate) log_is_stale: AtomicBool,
    /// When anything was last spilled.
    pub(crate) spilled: Moment,
    /// Spills that wait for merges right now.
    pub(crate) waits_for_merges: AtomicUsize,
    /// Merge work is there.
    pub(crate) merge_wanted: Bell,
    /// Merge work was done, or failed.
    pub(crate) merge_done: Bell,
    /// Why merges fail, if they do.
    pub(crate) merge_trouble: Mutex<Option<WireError>>,
    /// The disk limit is reached, and no merge that there is room for would give anything back.
    pub(crate) no_space_to_gain: AtomicBool,
    /// A test's eyes and hands at the points where threads meet.
    #[cfg(test)]
    pub(crate) hooks: crate::table::hooks::Hooks,
}

impl Shared {
    /// Writes a change of a table into the manifest.
    pub(crate) fn record(&self, edit: Edit) -> Result<(), WireError> {
        match &self.manifest {
            Some(manifest) => manifest
                .lock()
                .record(edit)
                .map_err(|error| data_dir_error(&error)),
            None => Ok(()),
        }
    }

    /// Writes a change of a table into the manifest, and, where there is a log, brings it to stable
    /// storage.
    pub(crate) fn record_durably(&self, edit: Edit) -> Result<(), WireError> {
        self.record(edit)?;
        if self.log.get().is_some() {
            self.sync_manifest()?;
        }
        Ok(())
    }

    /// A named table as the manifest has it but for its runs, and the record up to which the log is in runs.
    pub(crate) fn noted_table(&self, id: TableId) -> Option<(TableState, Lsn)> {
        let manifest = self.manifest.as_ref()?.lock();
        let state = manifest.state();
        let table = state.tables.get(&id)?;
        Some((table.bare(), state.checkpoint))
    }

    /// Brings the manifest to stable storage.
    pub(crate) fn sync_manifest(&self) -> Result<(), WireError> {
        match &self.manifest {
            Some(manifest) => manifest
                .lock()
                .sync()
                .map_err(|error| data_dir_error(&error)),
            None => Ok(()),
        }
    }
}

/// An error with its causes, cut to the length that the protocol allows.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
    text
}

/// A cold tier's error for a client.
pub(crate) fn cold_error(error: &ColdError) -> WireError {
    let code = match error {
        ColdError::DiskFull { .. } | ColdError::DiskLimit { .. } => ErrorCode::DiskFull,
        ColdError::Damaged { .. } | ColdError::Missing { .. } => ErrorCode::Damaged,
        _ => ErrorCode::Storage,
    };
    let text = match error {
        // Each block that is not in the page cache costs one of these, which nobody reads.
        ColdError::WouldWait => String::new(),
        _ => error_text(error),
    };
    WireError { code, text }
}

/// A data directory's error for a client.
pub(crate) fn data_dir_error(error: &DataDirError) -> WireError {
    match error {
        DataDirError::Io { source, .. } if is_disk_full(source) => WireError {
            code: ErrorCode::DiskFull,
            text: format!("the disk is full: {}", error_text(error)),
        },
        _ => WireError {
            code: ErrorCode::Storage,
            text: error_text(error),
        },
    }
}
