//! Which writes the log lets in, and which wait: its buffer, its limit and its disk have room for so much.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rhash_protocol::{ErrorCode, WireError};

use super::{Durability, Log, LogRoom, Lsn, writer};

/// A write waits no longer than this for room in the log.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(60);
/// It looks again this often, should a wake-up have been for others.
const ROOM_LOOK: Duration = Duration::from_millis(20);
/// Where there is no disk for a checkpoint, discards may take the log beyond its limit by this part of it.
const DISCARDS_SHARE: u64 = 2;
/// At `everysec`, writes wait once what was written first is so old and not on stable storage.
const UNSYNCED_AGE_MAX: Duration = Duration::from_millis(1500);

/// Which writes are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Those for which there is room.
    Any,
    /// Discards, also where a disk is full: they are what makes room.
    Discards,
}

impl Log {
    /// What a checkpoint could cut of it.
    fn bytes_to_cut(&self) -> u64 {
        self.bytes()
            .saturating_sub(self.shared.told_bytes.load(Relaxed))
    }

    /// Whether it is time for a checkpoint: beyond half of what the log may take.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.bytes_to_cut() > self.shared.options.limit_bytes / 2
    }

    /// Waits for room for a record of about so many bytes and this level; hold what is returned until it was appended.
    ///
    /// # Errors
    /// `Storage` if the log failed, `DiskFull` if it has no room on disk, `Busy` after a long wait.
    pub(crate) async fn admit(
        &self,
        bytes: usize,
        durability: Durability,
        admit: Admit,
    ) -> Result<LogRoom, WireError> {
        let began = Instant::now();
        loop {
            let moved = self.shared.progress.moved();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if let Some(room) = self.try_admit(bytes, durability, admit)? {
                return Ok(room);
            }
            if began.elapsed() > ROOM_WAIT_MAX {
                return Err(self.no_room(bytes));
            }
            // Elapsing is no failure: the loop looks again.
            drop(tokio::time::timeout(ROOM_LOOK, moved).await);
        }
    }

    pub(super) fn try_admit(
        &self,
        bytes: usize,
        durability: Durability,
        admit: Admit,
    ) -> Result<Option<LogRoom>, WireError> {
        let progress = &self.shared.progress;
        if let Some(error) = progress.failure() {
            return Err(error);
        }
        if admit == Admit::Any
            && let Some(error) = progress.trouble()
        {
            return Err(error);
        }
        let limit_bytes = self.shared.options.limit_bytes;
        let limit_bytes = match admit {
            Admit::Any => limit_bytes,
            Admit::Discards => limit_bytes + limit_bytes / DISCARDS_SHARE,
        };
        if self.bytes_to_cut() > limit_bytes {
            // A checkpoint that fails would be waited for in vain.
            let trouble = progress.checkpoint_trouble();
            let trouble = trouble.or_else(|| progress.trouble());
            return trouble.map_or(Ok(None), Err);
        }
        if durability == Durability::EverySec && progress.unsynced_age() > UNSYNCED_AGE_MAX {
            return Ok(None);
        }
        let mut intake = self.shared.intake.lock();
        let taken = intake.waiting_bytes + intake.reserved_bytes;
        if taken > 0 && taken + bytes > self.shared.options.buffer_bytes {
            return Ok(None);
        }
        // IMPORTANT: what discards leave is for clears and checkpoints. One that finds no room fails.
        let least = (taken + bytes) as u64 + writer::RESERVE_BYTES_MIN;
        if let Some(error) = progress.trouble()
            && (progress.room() < least || progress.stuck_before(Lsn::MAX).is_some())
        {
            return Err(error);
        }
        intake.reserved_bytes += bytes;
        drop(intake);
        Ok(Some(LogRoom {
            shared: Arc::clone(&self.shared),
            bytes,
        }))
    }

    fn no_room(&self, bytes: usize) -> WireError {
        WireError {
            code: ErrorCode::Busy,
            text: format!(
                "no room for {bytes} bytes in the log after {} s (it has {} of {} bytes): the disk does \
                 not keep up with the writes; try again, or give the server a larger --log-limit",
                ROOM_WAIT_MAX.as_secs(),
                self.bytes(),
                self.shared.options.limit_bytes
            ),
        }
    }
}
