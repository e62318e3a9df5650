//! What waits to be written to the log, in the order of its numbers.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{Durability, Ledger, Lsn, Record, Shared, record};

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) next: Lsn,
    pub(super) chunks: VecDeque<Chunk>,
    /// Of the chunks, and of the one that is being written.
    pub(super) waiting_bytes: usize,
    /// What writes that were let in may still add.
    pub(super) reserved_bytes: usize,
    /// A buffer to be used again.
    pub(super) spare: Vec<u8>,
    pub(super) ledger: Ledger,
    pub(super) closed: bool,
}

/// Records in a row, as bytes.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) first: Lsn,
    pub(super) last: Lsn,
    /// The last record that is to be on stable storage as soon as it can; 0 for none.
    pub(super) wanted: Lsn,
    /// It shall begin a new segment, if there is room for one.
    pub(super) begins_segment: bool,
}

/// Room in the log's buffer, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct LogRoom {
    pub(super) shared: Arc<Shared>,
    pub(super) bytes: usize,
}

impl Drop for LogRoom {
    fn drop(&mut self) {
        self.shared.intake.lock().reserved_bytes -= self.bytes;
        self.shared.progress.wake_async();
    }
}

impl Shared {
    /// Puts a record at the end of what waits.
    pub(super) fn push(
        &self,
        intake: &mut Intake,
        durability: Durability,
        record: &Record<'_>,
    ) -> Lsn {
        let lsn = self.push_known(intake, durability, record);
        intake.ledger.apply(record);
        lsn
    }

    /// Like [`Shared::push`], of a record that tells the ledger nothing new.
    pub(super) fn push_known(
        &self,
        intake: &mut Intake,
        durability: Durability,
        record: &Record<'_>,
    ) -> Lsn {
        let lsn = intake.next;
        intake.next += 1;
        let unsynced = u32::try_from(lsn - self.progress.synced()).unwrap_or(u32::MAX);
        if intake.chunks.is_empty() {
            let bytes = std::mem::take(&mut intake.spare);
            intake.chunks.push_back(Chunk {
                bytes,
                first: lsn,
                ..Chunk::default()
            });
        }
        if let Some(chunk) = intake.chunks.back_mut() {
            let bytes_before = chunk.bytes.len();
            record::push_record(&mut chunk.bytes, lsn, unsynced, record);
            chunk.last = lsn;
            if durability == Durability::Always {
                chunk.wanted = lsn;
            }
            intake.waiting_bytes += chunk.bytes.len() - bytes_before;
        }
        self.last.store(lsn, Relaxed);
        lsn
    }
}
