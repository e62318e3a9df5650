//! Backups: a copy of all named tables, as they are at one record of the log, made while writers go on.
//!
//! The copy is what a crash at one moment would have left: the manifest as it was then, the runs that it
//! names, and the log up to the last record that there was. So a server that is started on it does what any
//! start after a crash does, and has of each table all writes up to that record and none behind it.
//! A checkpoint goes before, so that most of it is in runs.
//!
//! Runs never change: those that have a file get a second name for it where the file system has them, which takes
//! no time and no disk; others are copied, those in sled as files of their own. Merges and closes go on
//! meanwhile; what they put away stays until it was copied.

mod partial;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rhash_protocol::{BackupInfo, ErrorCode, TableId, WireError};

use super::Store;
use crate::{
    cold::{ColdError, Run, RunId},
    data_dir::manifest::Manifest,
    log::{DiskFiles, Log, LogError, Lsn},
    shared::{cold_error, data_dir_error, error_text},
};
use partial::{Partial, sync_files};

/// Runs that the manifest names are looked for among those of the tables so often: a run that was spilled just now
/// is in the manifest a moment before it is in its table.
const LOOKS_MAX: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What there is at one moment.
struct Moment {
    /// A manifest that says so.
    manifest: Vec<u8>,
    tables: u64,
    /// The last record of the log.
    last: Lsn,
    /// The runs that the manifest names.
    runs: Vec<Arc<Run>>,
}

impl Store {
    /// Copies all named tables, as they are at one moment, to the new directory `dir`, on which a store can be
    /// opened. What it is called until it is whole ends with `.partial`; that is removed if it is not to be. Blocks
    /// for as long as that takes, or until `goes_on` is false.
    ///
    /// # Errors
    /// `BadRequest` for a directory that cannot be made, and for a store that has no log, since then no moment has
    /// all tables; `Busy` if another backup is under way; `ShuttingDown`; `Damaged` if a run or a record of the log
    /// cannot be read; `DiskFull` or `Storage` if the copy cannot be written. The store goes on as before.
    pub fn backup(&self, dir: &Path, goes_on: &dyn Fn() -> bool) -> Result<BackupInfo, WireError> {
        let (Some(manifest), Some(data_dir)) = (&self.shared.manifest, &self.data_dir) else {
            return Err(refusal(
                "a server with --memory-only has nothing on disk that could be copied",
            ));
        };
        let Some(log) = self.log() else {
            return Err(refusal(
                "without a log (--durability none) there is no moment that a copy could show of all tables: stop the \
                 server and copy its data directory, or start it with --durability everysec",
            ));
        };
        let Some(_one) = self.backing_up.try_lock() else {
            return Err(busy());
        };
        let goes_on = || goes_on() && !self.shared.budget.is_stopping();
        if !goes_on() {
            return Err(stopping());
        }
        let began = Instant::now();
        let mut partial = Partial::begin(data_dir.path(), dir)?;
        let (moment, log_bytes) = self.copy_log(manifest, log, &partial, &goes_on)?;
        let mut info = BackupInfo {
            record: moment.last,
            tables: moment.tables,
            log_bytes,
            ..BackupInfo::default()
        };
        copy_runs(moment.runs, &partial, &mut info, &goes_on)?;
        let identity = data_dir.identity();
        let identity = identity.map_err(|error| data_dir_error(&error))?;
        partial.write("IDENTITY", &identity)?;
        partial.write("MANIFEST", &moment.manifest)?;
        if !goes_on() {
            return Err(stopping());
        }
        partial.complete()?;
        let elapsed_ms = began.elapsed().as_millis() as u64;
        tracing::info!(
            dir = %dir.display(),
            record = info.record,
            tables = info.tables,
            runs_linked = info.runs_linked,
            linked_bytes = info.linked_bytes,
            runs_copied = info.runs_copied,
            copied_bytes = info.copied_bytes,
            log_bytes,
            elapsed_ms,
            "made a backup"
        );
        Ok(info)
    }

    /// Chooses the moment, and copies the log up to it. No checkpoint cuts the log meanwhile; runs, which take
    /// longer, are copied without keeping checkpoints away.
    fn copy_log(
        &self,
        manifest: &Mutex<Manifest>,
        log: &Log,
        partial: &Partial,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(Moment, u64), WireError> {
        let _no_checkpoint = self.checkpointing.lock();
        // It would add runs to a table that has too many.
        if !self.waits_for_merges()
            && let Err(error) = self.checkpoint_held()
        {
            if !goes_on() {
                return Err(stopping());
            }
            tracing::warn!(
                error = error.text,
                "a backup is made without a checkpoint, and has a longer log"
            );
        }
        let moment = self.moment(manifest, log)?;
        log.sync_through(moment.last)?;
        let dir = partial.log_dir();
        let files = DiskFiles::open(dir.clone())
            .map_err(|error| cold_error(&ColdError::io("make", &dir, error)))?;
        let mut bytes = 0;
        for part in log.parts_through(moment.last) {
            if !goes_on() {
                return Err(stopping());
            }
            bytes += log.copy_part(part, &files).map_err(log_error)?;
        }
        Ok((moment, bytes))
    }

    /// What there is now.
    fn moment(&self, manifest: &Mutex<Manifest>, log: &Log) -> Result<Moment, WireError> {
        let mut missing = None;
        for _ in 0..LOOKS_MAX {
            // IMPORTANT: before the manifest is looked at and after it. A run that is named there was in its table
            // before unless it is new, and is after unless it was merged; and who is held here stays on disk.
            let mut open = HashMap::new();
            self.hold_runs(&mut open);
            let (bytes, tables, named, last) = {
                let manifest = manifest.lock();
                let state = manifest.state();
                let mut named = BTreeMap::new();
                for (&id, table) in &state.tables {
                    named.extend(table.ranges.runs().into_iter().map(|run| (run, id)));
                }
                let tables = state.tables.len() as u64;
                // IMPORTANT: while nothing can be recorded. Runs that are recorded have no write behind this one, and
                // tables that are not have none up to it.
                (state.encode(), tables, named, log.last())
            };
            self.hold_runs(&mut open);
            missing = named
                .iter()
                .find(|(run, _)| !open.contains_key(*run))
                .map(|(&run, &id)| (run, id));
            if missing.is_none() {
                return Ok(Moment {
                    manifest: bytes,
                    tables,
                    last,
                    runs: named.keys().filter_map(|run| open.remove(run)).collect(),
                });
            }
            thread::park_timeout(LOOK_EVERY);
        }
        Err(self.not_open(missing))
    }

    /// Adds the runs of all named tables.
    fn hold_runs(&self, open: &mut HashMap<RunId, Arc<Run>>) {
        for table in self.tables_that(|table| table.name().is_some()) {
            open.extend(table.runs().into_iter().map(|run| (run.id(), run)));
        }
    }

    /// The error that a run is in the manifest, and not there.
    fn not_open(&self, missing: Option<(RunId, TableId)>) -> WireError {
        let (run, table) = missing.unwrap_or_default();
        let found = self.tables.get(table);
        let name = found.as_ref().and_then(|table| table.name());
        WireError {
            code: ErrorCode::Damaged,
            text: format!(
                "run {run} of the table {:?} is missing or damaged, and a backup would lack its entries; the \
                 server's log says more",
                name.unwrap_or("?")
            ),
        }
    }
}

/// Links or copies runs, and lets go of each once it was.
fn copy_runs(
    runs: Vec<Arc<Run>>,
    partial: &Partial,
    info: &mut BackupInfo,
    goes_on: &dyn Fn() -> bool,
) -> Result<(), WireError> {
    let dir = partial.runs_dir();
    let mut to_copy = Vec::new();
    // All links first, since what they keep on disk may be put away meanwhile.
    for run in runs {
        if !goes_on() {
            return Err(stopping());
        }
        if let Some(error) = run.lost_error() {
            // A copy would lack it without a word.
            return Err(cold_error(&error));
        }
        if run.link_into(&dir) {
            info.runs_linked += 1;
            info.linked_bytes += run.bytes();
        } else {
            to_copy.push(run);
        }
    }
    for run in to_copy {
        run.copy_into(&dir, goes_on).map_err(|error| match error {
            ColdError::Cancelled => stopping(),
            error => cold_error(&error),
        })?;
        info.runs_copied += 1;
        info.copied_bytes += run.bytes();
    }
    // What was linked may be in the page cache alone, as runs of deletes are.
    sync_files(&dir, goes_on)
}

fn refusal(text: &str) -> WireError {
    WireError {
        code: ErrorCode::BadRequest,
        text: text.to_owned(),
    }
}

/// The error that a backup is under way.
pub(crate) fn busy() -> WireError {
    WireError {
        code: ErrorCode::Busy,
        text: "another backup is being made; try again when it is done".to_owned(),
    }
}

fn stopping() -> WireError {
    WireError {
        code: ErrorCode::ShuttingDown,
        text: "the server is stopping; the backup was given up".to_owned(),
    }
}

/// An error of the log for a client, with a full disk told apart.
fn log_error(error: LogError) -> WireError {
    match error {
        LogError::Io { what, path, source } => cold_error(&ColdError::io(what, &path, source)),
        error => WireError {
            code: match error {
                LogError::Damaged { .. } | LogError::Missing { .. } => ErrorCode::Damaged,
                _ => ErrorCode::Storage,
            },
            text: error_text(&error),
        },
    }
}
