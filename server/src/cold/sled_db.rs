//! A sled database; the one place that names sled.
//!
//! sled is given little memory and never asked to flush by itself: `sync` flushes it and then fsyncs its files, which
//! its own flush does not do. It panics over some damage where it should say what it found: here that is an error.

use std::{
    ops::RangeBounds,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use sled::IVec;

use super::{
    error::{ColdError, is_disk_full},
    sled_dirs::{SledDir, read_through, remove_torn_snapshots, sync_files},
};

/// What sled says where its file is locked.
const LOCK_ERROR: &str = "could not acquire lock";
/// The threads of a closed database end at once, but not at that moment.
const UNLOCK_WAIT_MAX: Duration = Duration::from_secs(5);
const UNLOCK_LOOK_EVERY: Duration = Duration::from_millis(1);
/// The bytes of one segment of sled's log; of the sizes tried, the one with the least RAM.
const SEGMENT_BYTES: usize = 128 * 1024;

/// Bytes written or removed after which sled is flushed: left to itself it lets garbage pile up in
/// RAM faster than it collects it, by tens of MB when runs come and go quickly.
const FLUSH_BYTES: u64 = 256 * 1024;

/// A database; closed before its directory is removed, by the order of the fields.
#[derive(Debug)]
pub(super) struct Database {
    db: sled::Db,
    /// Bytes written and removed since it was opened.
    changed_bytes: AtomicU64,
    /// A change or a sync failed. IMPORTANT: after an error sled takes no more changes, and what a failed sync left on the
    /// disk nobody knows, whatever a later one says; so all is written anew, elsewhere, before anything
    /// relies on it.
    in_doubt: AtomicBool,
    dir: SledDir,
}

impl Database {
    /// Opens the database in a directory.
    pub(super) fn open(dir: SledDir, cache_bytes: u64) -> Result<Self, ColdError> {
        Ok(Self {
            db: open_sled(dir.path(), cache_bytes)?,
            changed_bytes: AtomicU64::new(0),
            in_doubt: AtomicBool::new(false),
            dir,
        })
    }

    /// Makes an empty database, on stable storage.
    pub(super) fn make(path: &Path, cache_bytes: u64) -> Result<(), ColdError> {
        let db = open_sled(path, cache_bytes)?;
        // An error that it meets as it is dropped it keeps to itself.
        ask(path, "flush", || db.flush())?;
        drop(db);
        sync_files(path)
    }

    /// The directory that it is in.
    pub(super) fn dir(&self) -> &SledDir {
        &self.dir
    }

    /// Whether what it says is not to be relied on.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
    }

    /// From now on what it says is not to be relied on.
    pub(super) fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Release);
    }

    fn ask<T>(
        &self,
        action: &'static str,
        answer: impl FnOnce() -> sled::Result<T>,
    ) -> Result<T, ColdError> {
        ask(self.dir.path(), action, answer)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, ColdError> {
        self.ask("read", || self.db.get(key))
    }

    /// The entries of a range of keys, in order.
    pub(super) fn entries(&self, keys: impl RangeBounds<[u8; 16]>) -> Entries<'_> {
        Entries {
            database: self,
            entries: self.db.range(keys),
        }
    }

    pub(super) fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), ColdError> {
        self.ask("write", || self.db.insert(key, value)).map(drop)
    }

    pub(super) fn remove(&self, key: &[u8]) -> Result<(), ColdError> {
        self.ask("remove", || self.db.remove(key)).map(drop)
    }

    /// What its files take.
    pub(super) fn disk_bytes(&self) -> Result<u64, ColdError> {
        self.ask("measure", || self.db.size_on_disk())
    }

    /// Counts a change, and flushes when enough of them have come together.
    pub(super) fn changed(&self, bytes: usize) -> Result<(), ColdError> {
        let before = self
            .changed_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        if before / FLUSH_BYTES != before.saturating_add(bytes as u64) / FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Brings all that was written to stable storage.
    pub(super) fn sync(&self) -> Result<(), ColdError> {
        self.flush()?;
        // IMPORTANT: sled's own flush does not wait for the disk.
        sync_files(self.dir.path())
    }

    pub(super) fn flush(&self) -> Result<(), ColdError> {
        self.ask("flush", || self.db.flush()).map(drop)
    }
}

/// Entries in the order of their keys; none is asked for after an error.
pub(super) struct Entries<'a> {
    database: &'a Database,
    entries: sled::Iter,
}

impl Entries<'_> {
    /// The last one, if there is any.
    pub(super) fn last_one(mut self) -> Result<Option<(IVec, IVec)>, ColdError> {
        self.database
            .ask("read", || self.entries.next_back().transpose())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<(IVec, IVec), ColdError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self
            .database
            .ask("read", || self.entries.next().transpose());
        entry.transpose()
    }
}

/// Opens the database in a directory.
fn open_sled(path: &Path, cache_bytes: u64) -> Result<sled::Db, ColdError> {
    #[cfg(target_os = "linux")]
    super::sled_sync::link();
    remove_torn_snapshots(path)?;
    read_through(path)?;
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .mode(sled::Mode::LowSpace)
        .use_compression(false)
        .flush_every_ms(None);
    ask(path, "open", || open_once_unlocked(&config))
}

/// Opens the database once its lock is free. The data directory is locked for this server alone, so
/// sled's own lock can only be held by threads of a database that this process closed just now.
fn open_once_unlocked(config: &sled::Config) -> Result<sled::Db, sled::Error> {
    let deadline = Instant::now() + UNLOCK_WAIT_MAX;
    loop {
        match config.open() {
            Err(error) if error.to_string().contains(LOCK_ERROR) && Instant::now() < deadline => {
                std::thread::park_timeout(UNLOCK_LOOK_EVERY);
            }
            opened => return opened,
        }
    }
}

/// Asks sled for something; its panics are errors.
fn ask<T>(
    path: &Path,
    action: &'static str,
    answer: impl FnOnce() -> sled::Result<T>,
) -> Result<T, ColdError> {
    match catch_unwind(AssertUnwindSafe(answer)) {
        Ok(answer) => answer.map_err(|error| widen(action, path, error)),
        Err(_panic) => Err(ColdError::Sled {
            action,
            path: path.to_path_buf(),
            source: "it is damaged, and sled panicked over it".into(),
        }),
    }
}

fn widen(action: &'static str, dir: &Path, error: sled::Error) -> ColdError {
    match error {
        sled::Error::Io(source) if is_disk_full(&source) => ColdError::io(action, dir, source),
        error => ColdError::Sled {
            action,
            path: dir.to_path_buf(),
            source: Box::new(error),
        },
    }
}
