//! The two threads of the log: one writes what gathered, one syncs it.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rhash_protocol::{ErrorCode, WireError};

use super::{
    Chunk, LogOptions, Lsn, Shared,
    files::{LogFile, LogFiles},
    progress::SyncWork,
    segment::{HEADER_BYTES, header},
};

/// Neither thread calls anything deep.
pub(super) const STACK_BYTES: usize = 256 * 1024;
/// Room is taken on disk in steps of this, …
const ALLOCATE_BYTES: u64 = 1 << 20;
/// … and so much is kept free behind what waits, so that discards can be logged on a full disk, …
const RESERVE_BYTES: u64 = 1 << 20;
/// … which leave so much of it to what makes more room than they do: clears, closes and checkpoints.
pub(super) const RESERVE_BYTES_MIN: u64 = RESERVE_BYTES / 2;
/// On a full disk it is tried this often whether there is room again.
const RETRY_EVERY: Duration = Duration::from_millis(250);
/// A segment that could not be begun is tried again after so many bytes.
const ROLL_RETRY_BYTES: u64 = 1 << 20;
/// A buffer that grew beyond this is not kept.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Writes the segment at hand.
#[derive(Debug)]
pub(super) struct Writer {
    file: Arc<dyn LogFile>,
    /// Where the next record goes: all before it is whole.
    offset: u64,
    allocated: u64,
    /// The segment is not ended before it has so many bytes.
    roll_from: u64,
}

impl Writer {
    /// Makes a segment, with its header on stable storage.
    pub(super) fn begin(
        files: &Arc<dyn LogFiles>,
        options: &LogOptions,
        first: Lsn,
    ) -> io::Result<Self> {
        let file = files.create(first)?;
        let make = || {
            file.write_at(&header(options.mark, first), 0)?;
            // IMPORTANT: header and name are there before any record, or a start could not tell a torn
            // segment from a damaged one.
            file.sync()?;
            files.sync_names()
        };
        if let Err(error) = make() {
            // What was begun is no segment, and would be in the way of the next attempt.
            drop(files.remove(first));
            return Err(error);
        }
        Ok(Self::new(options, file))
    }

    /// Goes on in a segment that has a sound header and nothing else.
    pub(super) fn go_on(
        files: &Arc<dyn LogFiles>,
        options: &LogOptions,
        file: Arc<dyn LogFile>,
    ) -> io::Result<Self> {
        // It may have been read from the page cache alone.
        file.sync()?;
        files.sync_names()?;
        Ok(Self::new(options, file))
    }

    fn new(options: &LogOptions, file: Arc<dyn LogFile>) -> Self {
        Self {
            file,
            offset: HEADER_BYTES as u64,
            allocated: 0,
            roll_from: options.segment_bytes,
        }
    }

    /// The file of the segment at hand.
    pub(super) fn file(&self) -> Arc<dyn LogFile> {
        Arc::clone(&self.file)
    }

    /// Writes what gathers until the log is closed.
    pub(super) fn run(mut self, shared: &Shared) {
        while let Some(chunk) = self.next_chunk(shared) {
            let chunk_bytes = chunk.bytes.len();
            if shared.progress.failure().is_none() {
                self.write(shared, &chunk);
            }
            let mut intake = shared.intake.lock();
            intake.waiting_bytes -= chunk_bytes;
            let mut bytes = chunk.bytes;
            if bytes.capacity() <= SPARE_BYTES_MAX {
                bytes.clear();
                intake.spare = bytes;
            }
            drop(intake);
            shared.progress.wake_async();
        }
        shared.progress.end();
    }

    /// Waits for the next chunk; none once the log is closed and all is written.
    fn next_chunk(&mut self, shared: &Shared) -> Option<Chunk> {
        let mut intake = shared.intake.lock();
        loop {
            if shared.abandoned.load(Relaxed) {
                return None;
            }
            if let Some(chunk) = intake.chunks.pop_front() {
                return Some(chunk);
            }
            if intake.closed {
                return None;
            }
            let waited = shared.work.wait_for(&mut intake, RETRY_EVERY);
            if waited.timed_out() && shared.progress.trouble().is_some() {
                drop(intake);
                self.allocate(shared, 0);
                intake = shared.intake.lock();
            }
        }
    }

    /// Writes a chunk, however long there is no room for it, unless the log ends or fails.
    fn write(&mut self, shared: &Shared, chunk: &Chunk) {
        let wants_segment = chunk.begins_segment && self.offset > HEADER_BYTES as u64;
        if wants_segment || self.offset >= self.roll_from {
            self.roll(shared, chunk.first);
        }
        while shared.progress.failure().is_none() && !chunk.bytes.is_empty() {
            self.allocate(shared, chunk.bytes.len() as u64);
            match self.file.write_at(&chunk.bytes, self.offset) {
                Ok(()) => {
                    self.offset += chunk.bytes.len() as u64;
                    self.tell_room(shared);
                    shared.bytes.fetch_add(chunk.bytes.len() as u64, Relaxed);
                    shared.progress.wrote(chunk.last, self.offset, chunk.wanted);
                    if self.allocated == u64::MAX {
                        shared.progress.set_trouble(None);
                    }
                    return;
                }
                Err(error) if is_full(&error) => {
                    // IMPORTANT: what was half-written goes, or it would lie before the next record.
                    if let Err(error) = self.file.truncate(self.offset) {
                        shared.fail(&format!("cut: {error}"));
                        return;
                    }
                    self.allocated = 0;
                    self.tell_room(shared);
                    shared.progress.set_stuck(no_room(&error));
                    let mut intake = shared.intake.lock();
                    if intake.closed || shared.stopping.load(Relaxed) {
                        drop(intake);
                        shared.fail(&format!("write: {error}"));
                        return;
                    }
                    shared.work.wait_for(&mut intake, RETRY_EVERY);
                }
                Err(error) => shared.fail(&format!("write: {error}")),
            }
        }
    }

    /// Takes room on disk for so many bytes more and for what may come after them; says if there is none.
    fn allocate(&mut self, shared: &Shared, bytes: u64) {
        let needed = self.offset + bytes + RESERVE_BYTES + shared.options.buffer_bytes as u64;
        if needed <= self.allocated {
            return;
        }
        match self.file.allocate(needed + ALLOCATE_BYTES) {
            Ok(()) => {
                self.allocated = needed + ALLOCATE_BYTES;
                self.tell_room(shared);
                shared.progress.set_trouble(None);
            }
            Err(error) if is_full(&error) => {
                if shared.progress.trouble().is_none() {
                    tracing::error!(%error, "no room on disk for the log");
                }
                // A segment that was just begun has no reserve yet; one that others left room for may.
                let least = self.offset + bytes + RESERVE_BYTES;
                if self.allocated < least && self.file.allocate(least).is_ok() {
                    self.allocated = least;
                }
                self.tell_room(shared);
                shared.progress.set_trouble(Some(no_room(&error)));
            }
            // The file system knows no such thing. A write that finds no room says so itself.
            Err(_) => {
                self.allocated = u64::MAX;
                self.tell_room(shared);
            }
        }
    }

    fn tell_room(&self, shared: &Shared) {
        shared
            .progress
            .set_room(self.allocated.saturating_sub(self.offset));
    }

    /// Ends the segment and begins another; if there is no room for one, it goes on.
    fn roll(&mut self, shared: &Shared, first: Lsn) {
        if let Err(error) = self.file.sync() {
            shared.fail(&format!("sync: {error}"));
            return;
        }
        // IMPORTANT: this one keeps its reserve until the next one has its own, or discards would find none where the disk
        // is full by now.
        match Self::begin(&shared.files, &shared.options, first)
            .and_then(|next| next.reserve(shared, first))
        {
            Ok(next) => {
                // What was allocated and not written is given back. If that fails it is no less of a segment.
                if let Err(error) = self.file.truncate(self.offset) {
                    tracing::warn!(%error, "a segment of the log keeps room that it does not need");
                }
                *self = next;
                self.tell_room(shared);
                shared.bytes.fetch_add(HEADER_BYTES as u64, Relaxed);
                shared.progress.rolled(first, self.file());
            }
            Err(error) => {
                tracing::warn!(%error, "no new segment of the log could be begun; the old one goes on");
                self.roll_from = self.offset + ROLL_RETRY_BYTES;
                let told = match is_full(&error) {
                    true => no_room(&error),
                    false => no_segment(&error),
                };
                // Who waits for a checkpoint learns that it cannot cut anything.
                shared.progress.refuse_segment(first, told);
            }
        }
    }

    /// Takes the reserve of a segment that was just begun; without room for it there is no segment.
    fn reserve(mut self, shared: &Shared, first: Lsn) -> io::Result<Self> {
        let reserved = self.offset + RESERVE_BYTES + shared.options.buffer_bytes as u64;
        match self.file.allocate(reserved) {
            Ok(()) => {
                self.allocated = reserved;
                shared.progress.set_trouble(None);
            }
            Err(error) if is_full(&error) => {
                drop(shared.files.remove(first));
                return Err(error);
            }
            // It will be met again.
            Err(_) => {}
        }
        Ok(self)
    }
}

/// Syncs what is written: at once if a record of it is wanted, and else every second.
pub(super) fn sync_loop(shared: &Shared) {
    loop {
        match shared.progress.next_sync() {
            SyncWork::End => return,
            SyncWork::Sync(_, _, _) if shared.abandoned.load(Relaxed) => return,
            SyncWork::Sync(file, through, began) => match file.sync() {
                Ok(()) => shared.progress.synced_through(through, began),
                // IMPORTANT: never tried again. The kernel may have dropped what it could not write, and a
                // second sync would call that a success.
                Err(error) => shared.fail(&format!("sync: {error}")),
            },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn no_room(error: &io::Error) -> WireError {
    WireError {
        code: ErrorCode::DiskFull,
        text: format!(
            "no room on disk for the log ({error}); make some, and writes go on by themselves; reads, \
             discards and closes go on meanwhile"
        ),
    }
}

fn no_segment(error: &io::Error) -> WireError {
    WireError {
        code: ErrorCode::Storage,
        text: format!(
            "no new segment of the log can be begun ({error}), so the log cannot be cut; it is tried again each \
             second, and reads and temporary tables go on"
        ),
    }
}
