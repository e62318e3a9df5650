//! The write-ahead log of named tables: what was acknowledged survives the process, and at the level
//! `always` the machine.
//!
//! Records are numbered and put into a buffer under the lock of the table that they change, which is
//! a copy of bytes and no I/O, so their order is the order of changes for each table. One thread writes what
//! gathered, another brings it to stable storage; an answer is held back until its record is as safe
//! as its level asks. The log is a row of segments; a checkpoint begins a new one, writes all older
//! changes into runs, and then removes the segments before. How safe that is, each table says of its own
//! records. What a record says, and how it is applied at a start, belongs to tables and sessions.

mod files;
pub(crate) mod record;
mod segment;
mod replay;
mod ledger;
mod intake;
mod room;
mod progress;
mod writer;
mod copy;
#[cfg(test)]
pub(crate) mod memory_files;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
pub use rhash_protocol::Durability;
use rhash_protocol::{ErrorCode, TableId, WireError};

pub(crate) use files::{DiskFiles, LogFiles, ReadOnly};
pub(crate) use ledger::Ledger;
pub(crate) use record::{By, Holding, OwnedReply, Record, SessionRecord};
pub use replay::LogError;
pub(crate) use replay::{Found, Wanted, read_log, read_sound};

use crate::{key_hash::KeyHasher, session::SessionId};
pub(crate) use intake::LogRoom;
use intake::{Chunk, Intake};
use progress::Progress;
pub(crate) use room::Admit;
use segment::HEADER_BYTES;
use writer::Writer;

/// Numbers a record; each is one more than the one before, over all tables of a server.
pub type Lsn = u64;

/// Tells the log under this secret from others, in each of its segments.
pub(crate) fn mark_of(hasher: &KeyHasher) -> u32 {
    hasher.hash(b"rhash log").check
}

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOptions {
    /// The level of records that are of no table.
    pub(crate) durability: Durability,
    /// What may wait to be written, unless one record has more by itself.
    pub(crate) buffer_bytes: usize,
    /// A segment ends beyond this.
    pub(crate) segment_bytes: u64,
    /// Writers wait for a checkpoint beyond this.
    pub(crate) limit_bytes: u64,
    /// Tells the data directory from others.
    pub(crate) mark: u32,
}

/// The log of a server.
#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    files: Arc<dyn LogFiles>,
    options: LogOptions,
    /// Taken after the locks of tables; held for a copy of bytes.
    intake: Mutex<Intake>,
    /// Wakes the thread that writes.
    work: Condvar,
    progress: Progress,
    /// The number of the last record.
    last: AtomicU64,
    /// What all segments have, but for what waits.
    bytes: AtomicU64,
    /// What of `bytes` tells of sessions and tables as checkpoints found them. The next one writes it anew, so it is no
    /// reason for one, nor to keep writers waiting.
    told_bytes: AtomicU64,
    /// What the last checkpoint took of that.
    last_told_bytes: AtomicU64,
    /// Nothing more is written, not even what waits: as if the process had been killed.
    abandoned: AtomicBool,
    /// What finds no room on disk is given up, rather than tried again.
    stopping: AtomicBool,
}

impl Log {
    /// Goes on with a log after what was found of it, in a new segment, or in the last one if that is empty.
    ///
    /// # Errors
    /// [`LogError`] if what is there cannot be synced, or the segment not be made.
    pub(crate) fn start(
        files: Arc<dyn LogFiles>,
        options: LogOptions,
        found: &Found,
        ledger: Ledger,
    ) -> Result<Self, LogError> {
        let mut segments = found.segments.clone();
        let mut empty = None;
        let io_error = |what, first| replay::io_error(&*files, what, first);
        if let Some(&(first, _)) = segments.last() {
            if first == found.next {
                // It has no records, and its name is the new one's. IMPORTANT: it is not removed, not for a moment,
                // or a crash could leave no log where the manifest says that there is one.
                segments.pop();
                empty = Some(files.open(first).map_err(io_error("open", first))?);
            } else {
                // Its end may have been cut, or be in the page cache alone.
                let sync = || files.open(first)?.sync();
                sync().map_err(io_error("sync", first))?;
            }
        }
        let bytes = segments.iter().map(|(_, bytes)| bytes).sum::<u64>() + HEADER_BYTES as u64;
        let writer = match empty {
            Some(file) => Writer::go_on(&files, &options, file),
            None => Writer::begin(&files, &options, found.next),
        };
        let writer = writer.map_err(io_error("make", found.next))?;
        let shared = Arc::new(Shared {
            intake: Mutex::new(Intake {
                next: found.next,
                chunks: VecDeque::new(),
                waiting_bytes: 0,
                reserved_bytes: 0,
                spare: Vec::new(),
                ledger,
                closed: false,
            }),
            work: Condvar::new(),
            progress: Progress::new(found.next - 1, segments, found.next, writer.file()),
            last: AtomicU64::new(found.next - 1),
            bytes: AtomicU64::new(bytes),
            told_bytes: AtomicU64::new(0),
            last_told_bytes: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            files,
            options,
        });
        let log = Self {
            shared,
            threads: Mutex::default(),
        };
        let shared = Arc::clone(&log.shared);
        log.start_thread("log", move || writer.run(&shared))?;
        let shared = Arc::clone(&log.shared);
        log.start_thread("log-sync", move || writer::sync_loop(&shared))?;
        Ok(log)
    }

    fn start_thread(
        &self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), LogError> {
        let started = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(writer::STACK_BYTES)
            .spawn(run);
        let files = &*self.shared.files;
        let thread = started.map_err(replay::io_error(files, "start a thread for", 0))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn durability(&self) -> Durability {
        self.shared.options.durability
    }

    /// The number of the last record.
    pub(crate) fn last(&self) -> Lsn {
        self.shared.last.load(Relaxed)
    }

    /// What the log takes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    /// Why no more is logged, if the disk failed.
    pub(crate) fn failure(&self) -> Option<WireError> {
        self.shared.progress.failure()
    }

    /// Why only discards are logged, or nothing.
    pub(crate) fn trouble(&self) -> Option<WireError> {
        self.failure().or_else(|| self.shared.progress.trouble())
    }

    /// Why a record is not written before there is room on disk, if it is not yet.
    pub(crate) fn stuck_before(&self, lsn: Lsn) -> Option<WireError> {
        self.shared.progress.stuck_before(lsn)
    }

    /// Why nothing new is written for now, or ever again, if so.
    pub(crate) fn blocked(&self) -> Option<WireError> {
        self.failure().or_else(|| self.stuck_before(Lsn::MAX))
    }

    /// Appends a record that nobody waits for, or that is waited for by [`sync_through`](Self::sync_through).
    ///
    /// # Errors
    /// As [`append_at`](Self::append_at).
    pub(crate) fn append(&self, record: &Record<'_>) -> Result<Lsn, WireError> {
        self.append_at(self.durability(), record)
    }

    /// Appends a record that is waited for at this level: a copy of bytes, no I/O. For a change of a table,
    /// call it under that table's lock.
    ///
    /// # Errors
    /// The log has failed; nothing was appended.
    pub(crate) fn append_at(
        &self,
        durability: Durability,
        record: &Record<'_>,
    ) -> Result<Lsn, WireError> {
        if let Some(error) = self.shared.progress.failure() {
            return Err(error);
        }
        let mut intake = self.shared.intake.lock();
        if intake.closed {
            return Err(stopping());
        }
        let lsn = self.shared.push(&mut intake, durability, record);
        drop(intake);
        self.shared.work.notify_one();
        Ok(lsn)
    }

    /// Appends a record that begins a session, unless that has begun; returns its number, or 0.
    ///
    /// # Errors
    /// The log has failed.
    pub(crate) fn begin_session(
        &self,
        session: SessionId,
        record: impl FnOnce() -> SessionRecord,
    ) -> Result<Lsn, WireError> {
        if self.shared.intake.lock().ledger.has(session) {
            return Ok(0);
        }
        self.append(&Record::Session(Box::new(record())))
    }

    /// Appends what a session is now, whatever was said of it before.
    pub(crate) fn tell_session(&self, session: SessionRecord) {
        // A log that failed tells of nothing any more.
        drop(self.append(&Record::Session(Box::new(session))));
    }

    /// Lets go of the answers of a session up to a number. No record says so: the next one of the session does.
    pub(crate) fn settle(&self, session: SessionId, settled: u64) {
        self.shared.intake.lock().ledger.settle(session, settled);
    }

    /// Appends that a session is over, if it ever began.
    pub(crate) fn end_session(&self, session: SessionId) {
        if self.shared.intake.lock().ledger.has(session) {
            // A log that failed tells of it no more; the session's lease then begins anew at the next start.
            drop(self.append(&Record::Ended { session }));
        }
    }

    /// Whether a record is as safe as a level asks.
    pub(crate) fn reached(&self, durability: Durability, lsn: Lsn) -> bool {
        self.shared.progress.reached(durability, lsn)
    }

    /// Whether a record is as safe as the level asks of records that are of no table.
    #[cfg(test)]
    pub(crate) fn is_acked(&self, lsn: Lsn) -> bool {
        self.reached(self.durability(), lsn)
    }

    /// Whether a record is on stable storage.
    #[cfg(test)]
    pub(crate) fn is_synced(&self, lsn: Lsn) -> bool {
        self.shared.progress.reached(Durability::Always, lsn)
    }

    /// Waits until a record is as safe as a level asks.
    ///
    /// # Errors
    /// The log failed before.
    pub(crate) async fn wait(&self, durability: Durability, lsn: Lsn) -> Result<(), WireError> {
        if self.reached(durability, lsn) {
            return Ok(());
        }
        if durability == Durability::Always {
            self.shared.progress.want(lsn);
        }
        self.shared.progress.wait_async(durability, lsn).await
    }

    /// Blocks until a record is as safe as a level asks.
    ///
    /// # Errors
    /// The log failed before; `DiskFull` if there is no room to write the record, which may yet be written.
    pub(crate) fn wait_here(&self, durability: Durability, lsn: Lsn) -> Result<(), WireError> {
        if durability == Durability::Always {
            self.shared.progress.want(lsn);
        }
        self.shared.progress.wait(durability, lsn)
    }

    /// Blocks until a record is on stable storage.
    ///
    /// # Errors
    /// As [`wait_here`](Self::wait_here).
    pub(crate) fn sync_through(&self, lsn: Lsn) -> Result<(), WireError> {
        self.wait_here(Durability::Always, lsn)
    }

    /// Blocks until a record is as safe as the level asks of records that are of no table.
    ///
    /// # Errors
    /// The log failed before.
    #[cfg(test)]
    pub(crate) fn wait_acked(&self, lsn: Lsn) -> Result<(), WireError> {
        self.wait_here(self.durability(), lsn)
    }

    /// Begins a new segment, which tells of all sessions; returns the last record before it. Of the tables
    /// [`tell_of_tables`](Self::tell_of_tables) tells. Blocks until the segment is there.
    ///
    /// # Errors
    /// There can be none, for now or for good; the old one goes on, and nothing was appended.
    pub(crate) fn begin_checkpoint(&self) -> Result<Lsn, WireError> {
        let first = self.begin_segment();
        self.shared.progress.wait_begun(first)?;
        let last = first - 1;
        // What others appended meanwhile stands before what follows, which tells of it, too. A start that finds no older
        // segments takes nothing from it for sessions that it does not know yet.
        let mut intake = self.shared.intake.lock();
        let sessions = intake.ledger.ids();
        let bytes_before = intake.waiting_bytes;
        // One at a time, since their answers may be long.
        for session in sessions {
            if let Some(session) = intake.ledger.session(session) {
                let record = Record::Session(Box::new(session));
                self.shared
                    .push_known(&mut intake, self.durability(), &record);
            }
        }
        self.shared.last_told_bytes.store(0, Relaxed);
        self.end_telling(intake, bytes_before);
        Ok(last)
    }

    /// Lets a new segment begin with the next record; returns its number.
    fn begin_segment(&self) -> Lsn {
        self.shared.progress.forget_refusal();
        let mut intake = self.shared.intake.lock();
        let first = intake.next;
        intake.chunks.push_back(Chunk {
            first,
            last: first - 1,
            begins_segment: true,
            ..Chunk::default()
        });
        drop(intake);
        self.shared.work.notify_one();
        first
    }

    /// Appends what tables are, behind [`begin_checkpoint`](Self::begin_checkpoint); returns the last record.
    pub(crate) fn tell_of_tables(&self, tables: impl Iterator<Item = (TableId, Vec<u8>)>) -> Lsn {
        let mut intake = self.shared.intake.lock();
        let bytes_before = intake.waiting_bytes;
        for (table, state) in tables {
            let state = state.as_slice();
            let record = Record::Table { table, state };
            self.shared
                .push_known(&mut intake, self.durability(), &record);
        }
        let last = intake.next - 1;
        self.end_telling(intake, bytes_before);
        last
    }

    /// Counts what was appended for a checkpoint, and has it written.
    fn end_telling(&self, intake: MutexGuard<'_, Intake>, bytes_before: usize) {
        let told_bytes = (intake.waiting_bytes - bytes_before) as u64;
        drop(intake);
        self.shared.last_told_bytes.fetch_add(told_bytes, Relaxed);
        self.shared.told_bytes.fetch_add(told_bytes, Relaxed);
        self.shared.work.notify_one();
    }

    /// Removes the segments whose records are all up to `through`.
    ///
    /// # Errors
    /// A file cannot be removed; it is tried again by the next checkpoint.
    pub(crate) fn cut(&self, through: Lsn) -> Result<(), LogError> {
        let files = &*self.shared.files;
        while let Some((first, bytes)) = self.shared.progress.oldest_through(through) {
            files
                .remove(first)
                .map_err(replay::io_error(files, "remove", first))?;
            self.shared.progress.forget_oldest(first);
            self.shared.bytes.fetch_sub(bytes, Relaxed);
        }
        let told_bytes = self.shared.last_told_bytes.load(Relaxed);
        self.shared.told_bytes.store(told_bytes, Relaxed);
        self.shared.progress.wake_async();
        files
            .sync_names()
            .map_err(replay::io_error(files, "sync the directory of", through))
    }

    /// Says why the last checkpoint failed, if it did: beyond the log's limit writes then get this error.
    pub(crate) fn set_checkpoint_trouble(&self, trouble: Option<WireError>) {
        self.shared.progress.set_checkpoint_trouble(trouble);
    }

    /// Takes no more writes: something that they rely on failed.
    pub(crate) fn fail(&self, why: &str) {
        self.shared.fail(why);
    }

    /// The sessions that a start would find.
    pub(crate) fn sessions(&self) -> Vec<SessionRecord> {
        self.shared.intake.lock().ledger.snapshot()
    }

    /// What finds no room on disk from now on fails the log, so that nobody waits for it any more.
    pub(crate) fn begin_stop(&self) {
        self.shared.stopping.store(true, Relaxed);
        self.shared.work.notify_one();
    }

    /// Writes and syncs all that waits, and ends the threads. Nothing may be appended after this.
    pub(crate) fn stop(&self) {
        self.shared.intake.lock().closed = true;
        self.shared.work.notify_one();
        self.join();
    }

    /// Ends the threads at once, as if the process had been killed.
    pub(crate) fn abandon(&self) {
        self.shared.abandoned.store(true, Relaxed);
        // Whoever waits for a record waits in vain.
        self.shared.progress.fail(stopping());
        self.shared.intake.lock().closed = true;
        self.shared.work.notify_one();
        self.join();
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log had panicked");
            }
        }
    }
}

fn stopping() -> WireError {
    WireError {
        code: ErrorCode::ShuttingDown,
        text: "the server is stopping".to_owned(),
    }
}

impl Drop for Log {
    // Without a stop before, this is as a crash.
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Shared {
    fn fail(&self, why: &str) {
        if self.progress.fail(WireError {
            code: ErrorCode::Storage,
            text: format!(
                "the log failed ({why}): named tables take no more writes until the server is \
                 started again, and the last ones may be lost; reads and temporary tables go on"
            ),
        }) {
            tracing::error!(why, "the log failed; named tables take no more writes");
        }
    }
}
