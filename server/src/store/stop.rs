//! The end of a store: named tables are written down, and the directory is marked as cleanly stopped.

use std::sync::atomic::Ordering::Relaxed;

use super::{Store, StoreError, checkpoint::log_failed};
use crate::{data_dir::manifest::Edit, hot::Sweep, table::Table};

impl Store {
    /// Ends the threads, spills named tables, drops temporary ones, and marks the directory as
    /// cleanly stopped. Blocks while it writes. A store that was stopped does nothing more.
    ///
    /// # Errors
    /// A table could not be spilled, or the disk not be synced; what is on disk is as after a crash.
    pub fn stop(&self) -> Result<(), StoreError> {
        self.shared.budget.stop();
        self.shared.merge_wanted.ring();
        self.checkpoint_wanted.ring();
        if self.stopped.swap(true, Relaxed) {
            return Ok(());
        }
        if let Some(log) = self.shared.log.get() {
            // A thread that waits for room for the log could not be joined.
            log.begin_stop();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
        self.shared.freeing.finish();
        let Some(cold) = &self.shared.cold else {
            return Ok(());
        };
        // A backup sees that all ends, and removes what it has made.
        drop(self.backing_up.lock());
        let through = self.last_checkpoint();
        let mut failed = through.as_ref().err().map(log_failed);
        for table in self.tables.all() {
            let stored = match table.name() {
                Some(name) => self.store_all(name, &table),
                // Closing a table that somebody closes at the same time is as good.
                None => self.close_table(table.id()).or(Ok(())),
            };
            // One table that fails does not keep the others in RAM.
            failed = failed.or(stored.err());
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let through = through.map_err(|error| log_failed(&error))?;
        cold.sync()?;
        if let Some(log) = self.shared.log.get() {
            log.stop();
            if let Some(error) = log.failure() {
                return Err(log_failed(&error));
            }
        }
        if let Some(manifest) = &self.shared.manifest {
            // IMPORTANT: the runs are synced before the manifest says that the stop was clean.
            let mut manifest = manifest.lock();
            manifest.record(Edit::Checkpoint {
                lsn: through,
                // What is left of it tells of the sessions.
                logs: self.shared.log.get().is_some(),
            })?;
            manifest.record(Edit::Stopped {
                next_table: self.next_table.load(Relaxed),
            })?;
            manifest.rewrite()?;
        }
        if let Some(log) = self.shared.log.get() {
            log.cut(through)?;
        }
        Ok(())
    }

    /// Spills a table whole, and syncs its runs.
    fn store_all(&self, name: &str, table: &Table) -> Result<(), StoreError> {
        while table.has_unspilled() {
            table
                .spill(self.shared.steps.spill_bytes, Sweep::All)
                .map_err(|error| StoreError::Table {
                    table: name.to_owned(),
                    text: error.text,
                })?;
        }
        for run in table.runs() {
            run.sync()?;
        }
        Ok(())
    }
}
