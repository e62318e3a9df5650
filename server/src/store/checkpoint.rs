//! The log of a store: replayed when it is opened, and cut by checkpoints.
//!
//! A checkpoint begins a new segment, writes to runs what the log said before it, brings these to stable
//! storage, says so in the manifest, and then removes the older segments. Writers go on meanwhile.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rhash_protocol::{ErrorCode, Ops, TableId, WireError};

use super::{Store, StoreConfig, StoreError};
use crate::{
    background,
    data_dir::manifest::{Edit, State as ManifestState, TableState},
    governor,
    log::{
        DiskFiles, Durability, Found, Ledger, Log, LogError, LogFiles, Lsn, Record, SessionRecord,
        Wanted, read_log, read_sound,
    },
    shared::{cold_error, data_dir_error, error_text},
    table::Table,
};

/// The directory of the log, inside the data directory.
pub(super) const LOG_DIR: &str = "log";
/// The thread of checkpoints looks at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What was logged is in runs after this, however little it is, so that starts are quick.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);
/// Where nothing was logged for this long, a checkpoint costs nobody anything, makes the next start quick, and gives
/// back the log's disk, …
const IDLE: Duration = Duration::from_secs(5);
/// … if there is as much of it.
const IDLE_BYTES_MIN: u64 = 1 << 20;
/// After a checkpoint that failed, it waits this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The log is told of so many tables before it is waited for.
const TABLES_TOLD_AT_ONCE: usize = 256;

impl Store {
    /// Reads the log through and applies nothing, so that a start which it refuses has not touched what a
    /// damaged manifest may have lost sight of; cuts a torn tail.
    pub(super) fn check_log(&self, config: &StoreConfig) -> Result<(), StoreError> {
        let (Some(dir), Some(manifest)) = (&config.data_dir, &self.shared.manifest) else {
            return Ok(());
        };
        let (logs, next_table, wanted) = {
            let manifest = manifest.lock();
            let state = manifest.state();
            (state.logs, state.next_table, wanted(state))
        };
        let dir = dir.join(LOG_DIR);
        if !logs && !dir.is_dir() {
            return Ok(());
        }
        let files = log_files(config, dir)?;
        let options = config.log_options(&self.shared.hasher);
        if config.salvages {
            // What is damaged is set aside and told of.
            return Ok(());
        }
        let found = read_log(&*files, options.mark, wanted, |_, record| {
            check_table(&record, next_table)
        })?;
        check_found(&*files, &found, logs)?;
        tell_torn(&found);
        Ok(())
    }

    /// Replays the log, and goes on with it, or removes it if there is to be none: if neither the server's
    /// durability nor that of any table asks for one.
    pub(super) fn open_log(&self, config: &StoreConfig) -> Result<(), StoreError> {
        let (Some(dir), Some(manifest)) = (&config.data_dir, &self.shared.manifest) else {
            return Ok(());
        };
        let before = manifest.lock().state().clone();
        let (checkpoint, logs) = (before.checkpoint, before.logs);
        let levels = before.tables.values().filter_map(|table| table.durability);
        let keeps = levels
            .chain([config.durability])
            .any(|level| level != Durability::None);
        let dir = dir.join(LOG_DIR);
        if !dir.is_dir() && !logs && !keeps {
            return Ok(());
        }
        let files = log_files(config, dir)?;
        let options = config.log_options(&self.shared.hasher);
        if logs || keeps {
            // Merges come with a replay, while there is no log yet.
            self.shared.was_synced.store(true, Relaxed);
        }
        let mut ledger = Ledger::new(self.shared.budget.kept().clone());
        let began = Instant::now();
        let mut told = HashSet::new();
        let apply = |lsn, record: Record<'_>| {
            ledger.replay(&record);
            if let Record::Table { table, .. } = &record {
                told.insert(*table);
            }
            self.replay(lsn, &record, &before)
        };
        let wanted = Wanted::from(checkpoint + 1);
        let found = if config.salvages {
            let mut found = read_sound(&*files, options.mark, wanted, apply, |_told_before| {})?;
            // IMPORTANT: what is logged from now on has higher numbers than what runs say of what is lost, or
            // the next replay would take it for written down.
            found.next = found.next.max(before.last_told() + 1);
            found
        } else {
            let found = read_log(&*files, options.mark, wanted, apply)?;
            check_found(&*files, &found, logs)?;
            found
        };
        tell_found(&found, checkpoint, began);
        if !keeps {
            return self.end_log(&*files, &found);
        }
        self.write_down_replayed(checkpoint)?;
        manifest
            .lock()
            .forget_makers(|maker| !ledger.may_ask_again(maker.session, maker.sequence));
        let log = Log::start(Arc::clone(&files), options, &found, ledger)?;
        // IMPORTANT: before anything more is logged of them. What told of a table may have been torn off, or no log
        // been kept.
        // A log that has no room for that, or failed, takes no writes either; reads go on.
        drop(self.tell_of_tables(&log, |id| !told.contains(&id)));
        if !logs {
            let mut manifest = manifest.lock();
            let lsn = checkpoint;
            manifest.record(Edit::Checkpoint { lsn, logs: true })?;
            manifest.sync()?;
        }
        // It was empty before.
        drop(self.shared.log.set(log));
        Ok(())
    }

    /// Applies a record to the tables, spilling where they get too large.
    fn replay(&self, lsn: Lsn, record: &Record<'_>, before: &ManifestState) -> Result<(), String> {
        let id = match record {
            _ if lsn <= before.checkpoint => return Ok(()),
            Record::Batch { table, .. } | Record::Emptied { table, .. } => *table,
            Record::Reply { .. }
            | Record::Session(_)
            | Record::Ended { .. }
            | Record::Table { .. } => return Ok(()),
        };
        // Marks of spills that come with the replay are of records that were replayed before.
        let (Some(table), Some(state)) = (self.tables.get(id), before.tables.get(&id)) else {
            // It was closed later.
            return Ok(());
        };
        if lsn <= state.emptied {
            return Ok(());
        }
        match record {
            Record::Batch { count, ops, .. } => table
                .replay(lsn, Ops::new(*count, ops), &state.marks)
                .map_err(|error| error.text)?,
            Record::Emptied { close, .. } => {
                drop(
                    table
                        .replay_emptied(lsn, *close)
                        .map_err(|error| error.text)?,
                );
                if *close {
                    if let Some(name) = table.name() {
                        self.tables.by_name.lock().remove(name);
                    }
                    self.tables.by_id.write().remove(&table.id());
                }
            }
            _ => {}
        }
        if self.shared.budget.wants_relief() {
            governor::relieve_at_start(&self.shared, &self.tables)?;
        }
        Ok(())
    }

    /// Writes down what was replayed of tables that are not logged any more: no checkpoint will, and each cuts
    /// the log.
    fn write_down_replayed(&self, checkpoint: Lsn) -> Result<(), StoreError> {
        for table in self.tables.all() {
            if let (Some(name), Durability::None) = (table.name(), table.durability())
                && table.last_record() > 0
            {
                let written = table.checkpoint(checkpoint);
                written.map_err(|error| StoreError::Table {
                    table: name.to_owned(),
                    text: error.text,
                })?;
            }
        }
        Ok(())
    }

    /// Writes down what was replayed, and removes the log.
    fn end_log(&self, files: &dyn LogFiles, found: &Found) -> Result<(), StoreError> {
        let Some(&(oldest, _)) = found.segments.first() else {
            return Ok(());
        };
        self.write_down(found.next - 1, 0)
            .map_err(|error| log_failed(&error))?;
        tracing::info!(
            from = oldest,
            "wrote down what the log said, and removed it"
        );
        for (first, _) in &found.segments {
            let removed = files.remove(*first);
            removed.map_err(|source| LogError::Io {
                what: "remove",
                path: files.path(*first),
                source,
            })?;
        }
        Ok(())
    }

    /// Writes to runs all that named tables were written, and cuts the log.
    ///
    /// # Errors
    /// Any of spilling, of syncing and of the manifest; the log is then as it was.
    pub fn checkpoint(&self) -> Result<(), WireError> {
        let _one = self.checkpointing.lock();
        self.checkpoint_held()
    }

    /// Makes a checkpoint for who holds `checkpointing`.
    pub(super) fn checkpoint_held(&self) -> Result<(), WireError> {
        let Some(manifest) = &self.shared.manifest else {
            return Ok(());
        };
        let since = manifest.lock().state().checkpoint;
        if let Some(error) = self.log().and_then(Log::blocked) {
            // It would only make what waits to be written longer.
            return Err(error);
        }
        let through = match self.shared.log.get() {
            Some(log) => self.begin_checkpoint(log)?,
            None => since,
        };
        self.write_down(through, since)?;
        if let Some(log) = self.shared.log.get() {
            // IMPORTANT: what the new segment tells of sessions and tables is on stable storage before the old ones
            // go, or a power cut could leave neither.
            log.sync_through(log.last())?;
            if let Err(error) = log.cut(through) {
                // What is left is cut by the next one.
                tracing::warn!(error = error_text(&error), "the log could not be cut");
            }
        }
        Ok(())
    }

    /// Brings all that was written to named tables which are not logged to stable storage.
    ///
    /// # Errors
    /// Any of spilling, of syncing and of the manifest.
    pub(crate) fn write_down_unlogged(&self) -> Result<(), WireError> {
        let _one = self.checkpointing.lock();
        let Some(cold) = &self.shared.cold else {
            return Ok(());
        };
        for table in self.tables.all() {
            if table.name().is_some() && table.log().is_none() {
                table.checkpoint(0)?;
                sync_runs(&table)?;
            }
        }
        cold.sync().map_err(|error| cold_error(&error))?;
        self.shared.sync_manifest()
    }

    /// Writes to runs what was logged after one record and up to another, and says so in the manifest. Where
    /// there is a log, that leaves out the tables of which it does not tell.
    fn write_down(&self, through: Lsn, since: Lsn) -> Result<(), WireError> {
        let (Some(cold), Some(manifest)) = (&self.shared.cold, &self.shared.manifest) else {
            return Ok(());
        };
        let log = self.shared.log.get();
        if log.is_none() {
            // IMPORTANT: before runs are synced, or a merge could put one that is not in their place.
            self.shared.was_synced.store(true, Relaxed);
        }
        for table in self.tables.all() {
            if table.name().is_none() || log.is_some() && table.log().is_none() {
                continue;
            }
            table.checkpoint(since)?;
            if log.is_none() {
                // Where there is no log, runs are not synced as they are written.
                sync_runs(&table)?;
            }
        }
        cold.sync().map_err(|error| cold_error(&error))?;
        if let Some(log) = log {
            log.sync_through(through)?;
        }
        let logs = log.is_some();
        // IMPORTANT: what it says is in runs is on stable storage by now; and it is itself, before the log
        // is cut.
        let mut manifest = manifest.lock();
        let edit = Edit::Checkpoint { lsn: through, logs };
        manifest
            .record(edit)
            .and_then(|()| manifest.sync())
            .map_err(|error| data_dir_error(&error))
    }

    /// Begins the segment that a checkpoint leaves.
    ///
    /// # Errors
    /// The log failed, or has no room on disk.
    fn begin_checkpoint(&self, log: &Log) -> Result<Lsn, WireError> {
        let through = log.begin_checkpoint()?;
        self.tell_of_tables(log, |_| true)?;
        Ok(through)
    }

    /// Tells the log of tables, a few at a time, so that it says by itself which there are, even where the manifest
    /// is lost. Tables that are made later tell of themselves.
    ///
    /// # Errors
    /// The log failed, or has no room on disk.
    fn tell_of_tables(
        &self,
        log: &Log,
        is_wanted: impl Fn(TableId) -> bool,
    ) -> Result<(), WireError> {
        let Some(manifest) = &self.shared.manifest else {
            return Ok(());
        };
        let mut from = 0;
        let mut written = Ok(());
        loop {
            let manifest = manifest.lock();
            let tables = manifest.state().tables.range(from..);
            let mut tables = tables.filter(|(id, _)| is_wanted(**id)).peekable();
            if tables.peek().is_none() {
                return written;
            }
            // IMPORTANT: under the manifest's lock, so that a table which is cleared or closed tells of that behind
            // this record.
            let told = tables.take(TABLES_TOLD_AT_ONCE).map(|(&id, table)| {
                from = id.saturating_add(1);
                (id, table.bare().to_bytes())
            });
            let last = log.tell_of_tables(told);
            drop(manifest);
            // So they never wait in RAM all at once, unless nothing can be written.
            written = written.and_then(|()| log.wait_here(Durability::EverySec, last));
        }
    }

    /// Begins what a stop writes down; returns the last record that will be in runs then.
    ///
    /// # Errors
    /// The log failed, or has no room on disk.
    pub(super) fn last_checkpoint(&self) -> Result<Lsn, WireError> {
        match (self.shared.log.get(), &self.shared.manifest) {
            (Some(log), _) => self.begin_checkpoint(log),
            (None, Some(manifest)) => Ok(manifest.lock().state().checkpoint),
            (None, None) => Ok(0),
        }
    }

    /// Starts the thread that makes checkpoints, if there is a log.
    pub(super) fn start_checkpoints(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.shared.log.get().is_none() {
            return Ok(());
        }
        // The store ends the thread, so the thread does not keep the store.
        let (store, wanted) = (Arc::downgrade(self), Arc::clone(&self.checkpoint_wanted));
        self.start_thread("checkpoint", move || {
            background::step_back();
            let mut seen = Watch {
                last: Instant::now(),
                logged: 0,
                logged_at: Instant::now(),
                written_down: 0,
                failed: false,
            };
            loop {
                wanted.wait(LOOK_EVERY);
                match look(&store, &mut seen) {
                    Looked::End => return,
                    Looked::Fine => {}
                    Looked::Failed => drop(wanted.wait(RETRY_AFTER)),
                }
            }
        })
    }

    /// Whether a checkpoint would add runs to a table that has too many to be read quickly.
    pub(super) fn waits_for_merges(&self) -> bool {
        let is_deep = |table: &Arc<Table>| table.runs_deepest() >= table.depths().stall;
        let waits =
            self.shared.merge_trouble.lock().is_none() && self.tables.all().iter().any(is_deep);
        if waits {
            self.shared.merge_wanted.ring();
        }
        waits
    }

    /// The log; none if named tables are not logged.
    pub(crate) fn log(&self) -> Option<&Log> {
        self.shared.log.get()
    }

    /// The sessions that the log tells of.
    pub(crate) fn logged_sessions(&self) -> Vec<SessionRecord> {
        self.log().map(Log::sessions).unwrap_or_default()
    }
}

/// The log of a directory, if there is one.
pub(super) fn existing_log(
    config: &StoreConfig,
    dir: &Path,
) -> Result<Option<Arc<dyn LogFiles>>, LogError> {
    let dir = dir.join(LOG_DIR);
    if !dir.is_dir() {
        return Ok(None);
    }
    log_files(config, dir).map(Some)
}

/// Why a store does not open or stop because of its log.
pub(super) fn log_failed(error: &WireError) -> StoreError {
    StoreError::Table {
        table: "(the log)".to_owned(),
        text: error.text.clone(),
    }
}

fn sync_runs(table: &Table) -> Result<(), WireError> {
    let mut runs = table.runs().into_iter();
    runs.try_for_each(|run| run.sync())
        .map_err(|error| cold_error(&error))
}

/// The records that the log must have: those up to the marks, since it was synced up to them before the manifest told
/// of their runs. A log without its end would bring together runs and writes of different times.
pub(super) fn wanted(state: &ManifestState) -> Wanted {
    let from = state.checkpoint + 1;
    // Nothing was synced for those that are not logged.
    let logged = |table: &&TableState| table.durability != Some(Durability::None);
    let known = |table: &TableState| table.emptied.max(table.marks.highest());
    let told = state.tables.values().filter(logged).map(known);
    let through = told.max().unwrap_or(0);
    match state.logs {
        true => Wanted {
            from,
            through: through.max(state.checkpoint),
        },
        false => Wanted::from(from),
    }
}

/// Whether the manifest may know a record's table. It did before anything was logged of it, so one that does not has
/// lost its end, and with it perhaps a table.
pub(super) fn check_table(record: &Record<'_>, next_table: TableId) -> Result<(), String> {
    match record {
        Record::Batch { table, .. }
        | Record::Emptied { table, .. }
        | Record::Table { table, .. }
            if *table >= next_table =>
        {
            Err(format!(
                "it is about table {table}, and MANIFEST knows of tables below {next_table} alone, so \
                 its end is lost"
            ))
        }
        _ => Ok(()),
    }
}

fn log_files(config: &StoreConfig, dir: PathBuf) -> Result<Arc<dyn LogFiles>, LogError> {
    #[cfg(test)]
    if let Some(files) = &config.log_files {
        return Ok(Arc::clone(files));
    }
    let _ = config;
    let files = DiskFiles::open(dir.clone()).map_err(|source| LogError::Io {
        what: "make the directory",
        path: dir,
        source,
    })?;
    Ok(Arc::new(files))
}

/// What the thread of checkpoints is to do next.
enum Looked {
    End,
    Fine,
    Failed,
}

/// What the thread of checkpoints has seen.
struct Watch {
    /// When the last checkpoint was.
    last: Instant,
    /// The last record at the last look, and when it was new.
    logged: Lsn,
    logged_at: Instant,
    /// The last record when the last checkpoint ended.
    written_down: Lsn,
    /// The last checkpoint failed, and the server's log says so.
    failed: bool,
}

impl Watch {
    /// Whether it is time for a checkpoint.
    fn is_due(&mut self, log: &Log) -> bool {
        let logged = log.last();
        if logged != self.logged {
            (self.logged, self.logged_at) = (logged, Instant::now());
        }
        let is_idle = self.logged_at.elapsed() >= IDLE && log.bytes() > IDLE_BYTES_MIN;
        let is_old = self.last.elapsed() >= CHECKPOINT_EVERY;
        log.wants_checkpoint() || logged > self.written_down && (is_idle || is_old)
    }
}

fn look(store: &Weak<Store>, seen: &mut Watch) -> Looked {
    let Some(store) = store.upgrade() else {
        return Looked::End;
    };
    let Some(log) = store.log() else {
        return Looked::End;
    };
    if store.stopped.load(Relaxed) || store.shared.budget.is_stopping() {
        return Looked::End;
    }
    if log.failure().is_some() {
        return Looked::Fine;
    }
    let is_stale = &store.shared.log_is_stale;
    if !(seen.is_due(log) || is_stale.load(Relaxed)) || store.waits_for_merges() {
        return Looked::Fine;
    }
    is_stale.store(false, Relaxed);
    let began = Instant::now();
    let bytes_before = log.bytes();
    match store.checkpoint() {
        Ok(()) => {
            (seen.last, seen.written_down) = (Instant::now(), log.last());
            log.set_checkpoint_trouble(None);
            seen.failed = false;
            let elapsed_ms = began.elapsed().as_millis() as u64;
            tracing::debug!(bytes_before, bytes = log.bytes(), elapsed_ms, "checkpoint");
            Looked::Fine
        }
        Err(error) if error.code == ErrorCode::ShuttingDown => Looked::End,
        Err(error) => {
            if !seen.failed {
                tracing::error!(error = error.text, "a checkpoint failed");
            }
            seen.failed = true;
            log.set_checkpoint_trouble(Some(error));
            Looked::Failed
        }
    }
}

/// Whether there is a log, if there must be one.
fn check_found(files: &dyn LogFiles, found: &Found, logs: bool) -> Result<(), LogError> {
    if logs && found.segments.is_empty() {
        let (lsn, path) = (found.next, files.path(found.next));
        return Err(LogError::Missing { lsn, path });
    }
    Ok(())
}

fn tell_torn(found: &Found) {
    if let Some(torn) = &found.torn {
        tracing::warn!(
            path = %torn.path.display(),
            offset = torn.offset,
            bytes = torn.bytes,
            "cut the log's torn tail; what was in it had not been synced"
        );
    }
}

fn tell_found(found: &Found, checkpoint: Lsn, began: Instant) {
    tell_torn(found);
    let records = found.next.saturating_sub(checkpoint + 1);
    if records > 0 {
        let elapsed_ms = began.elapsed().as_millis() as u64;
        tracing::info!(records, elapsed_ms, "replayed the log");
    }
}
