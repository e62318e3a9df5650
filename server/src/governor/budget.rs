//! How much RAM entries may take, and who waits when it is taken.
//!
//! `tracked` is what tables say they hold (hot maps and intervals in transit), and what is charged for
//! half-received requests and for answers that are kept. `admitted` is what writes that were let in may still add. Together they stay under `entries_max`, which the
//! governor moves so that the whole process stays under the memory limit.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rhash_protocol::{ErrorCode, WireError};
use tokio::sync::Notify;

use super::{KeptAccount, KeptRoom};
use crate::{counters::Waiting, pages};

/// A writer waits no longer than this for RAM to become free.
const STALL_MAX: Duration = Duration::from_secs(60);
/// A half-received request goes on after this, even if there is no room for it.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(2);
/// A writer looks again this often, should a wake-up have been for others.
const STALL_LOOK: Duration = Duration::from_millis(20);
/// Where nothing else is let in, discards take at most this share of what entries may take at first.
const DISCARDS_SHARE: usize = 16;

/// The account of the RAM that entries take.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What tables hold.
    entries: AtomicUsize,
    /// What is charged for half-received requests.
    buffers: AtomicUsize,
    /// What is charged for answers that may be asked for again.
    kept: KeptAccount,
    admitted: AtomicUsize,
    entries_max: AtomicUsize,
    /// The least that was tracked since there is no room any more: what discards take is above it.
    discards_from: AtomicUsize,
    discards_bytes_max: usize,
    /// Writers that wait: the governor then spills below the high mark, too.
    waiting: AtomicUsize,
    /// The governor found nothing more to spill.
    at_floor: AtomicBool,
    freed: Notify,
    governor_wanted: Mutex<bool>,
    governor_wakes: Condvar,
    stopping: AtomicBool,
    trouble: Mutex<Option<WireError>>,
}

impl Budget {
    /// An account with `entries_max` bytes.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries: AtomicUsize::new(0),
            buffers: AtomicUsize::new(0),
            kept: KeptAccount::default(),
            admitted: AtomicUsize::new(0),
            entries_max: AtomicUsize::new(entries_max),
            discards_from: AtomicUsize::new(usize::MAX),
            discards_bytes_max: entries_max / DISCARDS_SHARE,
            waiting: AtomicUsize::new(0),
            at_floor: AtomicBool::new(false),
            freed: Notify::new(),
            governor_wanted: Mutex::new(false),
            governor_wakes: Condvar::new(),
            stopping: AtomicBool::new(false),
            trouble: Mutex::new(None),
        }
    }

    /// Such an account, in which long answers that are kept take no more than this.
    pub(crate) fn keeping_at_most(self, kept_bytes_max: usize) -> Self {
        Self {
            kept: KeptAccount::new(kept_bytes_max),
            ..self
        }
    }

    /// The account of answers that may be asked for again.
    pub(crate) fn kept(&self) -> &KeptAccount {
        &self.kept
    }

    /// Keeps an answer in the room that was taken for it.
    pub(crate) fn keep(&self, room: KeptRoom, bytes: Bytes) -> Bytes {
        let kept = room.keep(bytes);
        self.grew();
        kept
    }

    /// What tables hold, and what is charged for buffers.
    pub(crate) fn tracked_bytes(&self) -> usize {
        self.entries_bytes() + self.buffers_bytes()
    }

    /// What is charged for buffers of connections, and for answers that are kept.
    pub(crate) fn buffers_bytes(&self) -> usize {
        self.buffers.load(Relaxed) + self.kept.bytes()
    }

    /// What tables hold.
    pub(crate) fn entries_bytes(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// What entries may take.
    pub(crate) fn entries_bytes_max(&self) -> usize {
        self.entries_max.load(Relaxed)
    }

    /// Moves what entries may take.
    pub(crate) fn set_entries_bytes_max(&self, bytes: usize) {
        self.entries_max.store(bytes, Relaxed);
    }

    /// Above this the governor spills: ahead of the limit, so that writers need not wait.
    pub(crate) fn high_mark(&self) -> usize {
        self.entries_bytes_max() / 4 * 3
    }

    /// The governor spills down to this.
    pub(crate) fn low_mark(&self) -> usize {
        self.entries_bytes_max() / 8 * 5
    }

    /// Takes what a table grew or shrank by into the account.
    pub(crate) fn settle(&self, bytes_before: usize, bytes_after: usize) {
        self.change(&self.entries, bytes_before, bytes_after);
    }

    /// Takes what buffers grew or shrank by into the account.
    pub(crate) fn settle_buffers(&self, bytes_before: usize, bytes_after: usize) {
        self.change(&self.buffers, bytes_before, bytes_after);
    }

    fn change(&self, part: &AtomicUsize, bytes_before: usize, bytes_after: usize) {
        if bytes_after >= bytes_before {
            part.fetch_add(bytes_after - bytes_before, Relaxed);
            self.grew();
        } else {
            part.fetch_sub(bytes_before - bytes_after, Relaxed);
            self.freed.notify_waiters();
        }
    }

    fn grew(&self) {
        self.make_room_of_warm(0);
        if self.tracked_bytes() > self.high_mark() {
            self.wake_governor();
        }
    }

    /// Lets a write of about `bytes` in at once, or not.
    pub(crate) fn try_admit(&self, bytes: usize) -> bool {
        let mut admitted = self.admitted.load(Relaxed);
        loop {
            self.make_room_of_warm(admitted + bytes);
            // A write larger than all the room there is goes in alone.
            let fits = self.tracked_bytes() + admitted + bytes <= self.entries_bytes_max();
            let has_given = self.tracked_bytes() <= self.low_mark()
                || self.at_floor.load(Relaxed) && self.trouble.lock().is_none();
            let alone = admitted == 0 && has_given;
            if !fits && !alone {
                return false;
            }
            let next = admitted + bytes;
            match self
                .admitted
                .compare_exchange_weak(admitted, next, Relaxed, Relaxed)
            {
                Ok(_) => return true,
                Err(now) => admitted = now,
            }
        }
    }

    /// Whether discards of so many bytes may go in where nothing else may: until they are spilled, each takes RAM.
    ///
    /// They have a room of their own. Should entries be left less than they have, which is how a list that finds
    /// no room on disk may end, then discards are what gives it some.
    pub(crate) fn lets_discards_in(&self, bytes: usize) -> bool {
        let (tracked_bytes, bytes_max) = (self.tracked_bytes(), self.entries_bytes_max());
        let from = if tracked_bytes <= bytes_max {
            self.discards_from.store(usize::MAX, Relaxed);
            bytes_max
        } else {
            let before = self.discards_from.fetch_min(tracked_bytes, Relaxed);
            before.min(tracked_bytes)
        };
        tracked_bytes + bytes <= from + self.discards_bytes_max
    }

    /// Memory that lies warm for entries to come is RAM, too: where it and what is tracked are more than
    /// entries may take, it goes, but for what those that come now will take of it.
    fn make_room_of_warm(&self, coming_bytes: usize) {
        let warm_bytes = pages::warm_bytes();
        let taken_bytes = self.tracked_bytes() + coming_bytes.max(warm_bytes);
        let over_bytes = taken_bytes.saturating_sub(self.entries_bytes_max());
        let unwanted_bytes = warm_bytes.saturating_sub(coming_bytes);
        if over_bytes > 0 && unwanted_bytes > 0 {
            pages::cool(over_bytes.min(unwanted_bytes));
        }
    }

    /// Gives back what [`Budget::try_admit`] took.
    pub(crate) fn release(&self, bytes: usize) {
        self.admitted.fetch_sub(bytes, Relaxed);
        self.freed.notify_waiters();
    }

    /// Waits until a write of about `bytes` may go in.
    ///
    /// # Errors
    /// What keeps RAM from becoming free, if that goes on for too long.
    pub(crate) async fn admit(&self, bytes: usize) -> Result<(), WireError> {
        let _waiting = Waiting::among(&self.waiting);
        let began = Instant::now();
        while began.elapsed() < STALL_MAX {
            self.wake_governor();
            let freed = self.freed.notified();
            if self.try_admit(bytes) {
                return Ok(());
            }
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
            // Elapsing is no failure: the loop looks again.
            drop(tokio::time::timeout(STALL_LOOK, freed).await);
        }
        Err(self.trouble().unwrap_or_else(|| WireError {
            code: ErrorCode::Busy,
            text: format!(
                "no room for {bytes} bytes after {} s: the disk does not keep up with the writes; \
                 try again, or give the server a larger --mem-limit",
                STALL_MAX.as_secs()
            ),
        }))
    }

    /// Whether more is charged than there is room for.
    pub(crate) fn is_short(&self) -> bool {
        self.tracked_bytes() > self.entries_bytes_max()
    }

    /// Waits until entries have made room for what was charged, or cannot, or a while has passed.
    pub(crate) async fn make_room(&self) {
        let began = Instant::now();
        let _waiting = Waiting::among(&self.waiting);
        while self.is_short() && !self.at_floor.load(Relaxed) && began.elapsed() < ROOM_WAIT_MAX {
            self.wake_governor();
            let freed = self.freed.notified();
            // Elapsing is no failure: the loop looks again.
            drop(tokio::time::timeout(STALL_LOOK, freed).await);
        }
    }

    /// Whether the governor shall spill.
    pub(crate) fn wants_relief(&self) -> bool {
        let waited_for = self.waiting.load(Relaxed) > 0 && self.tracked_bytes() > self.low_mark();
        waited_for || self.tracked_bytes() > self.high_mark()
    }

    /// The governor says whether it found nothing more to spill.
    pub(crate) fn set_at_floor(&self, at_floor: bool) {
        if self.at_floor.swap(at_floor, Relaxed) != at_floor {
            self.freed.notify_waiters();
        }
    }

    /// Why spills fail, if they do.
    pub(crate) fn trouble(&self) -> Option<WireError> {
        self.trouble.lock().clone()
    }

    /// Says why spills fail, or that they work again.
    pub(crate) fn set_trouble(&self, trouble: Option<WireError>) {
        let mut current = self.trouble.lock();
        if *current != trouble {
            *current = trouble;
            drop(current);
            self.freed.notify_waiters();
        }
    }

    /// Tells the governor to look now.
    pub(crate) fn wake_governor(&self) {
        let mut wanted = self.governor_wanted.lock();
        if !*wanted {
            *wanted = true;
            self.governor_wakes.notify_one();
        }
    }

    /// The governor's wait: until it is wanted, or for `at_most`.
    pub(crate) fn wait_for_work(&self, at_most: Duration) {
        let mut wanted = self.governor_wanted.lock();
        if !*wanted {
            self.governor_wakes.wait_for(&mut wanted, at_most);
        }
        *wanted = false;
    }

    /// Ends the governor.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.wake_governor();
    }

    /// Whether the governor shall end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_does_not_fit_is_let_in_only_alone_and_under_the_low_mark() {
        let budget = Budget::new(800);
        assert!(budget.try_admit(900), "alone, whatever its length");
        assert!(!budget.try_admit(1));
        budget.release(900);
        budget.settle(0, 501);
        assert!(budget.try_admit(299));
        assert!(!budget.try_admit(1));
        budget.release(299);
        assert!(!budget.try_admit(300), "the low mark is at 500");
        assert!(!budget.wants_relief(), "the high mark is at 600");
        budget.set_at_floor(true);
        assert!(budget.try_admit(300), "nothing more can be spilled");
    }

    #[test]
    fn discards_have_room_of_their_own_where_entries_were_left_less_than_they_have() {
        let budget = Budget::new(800);
        assert!(budget.lets_discards_in(850));
        assert!(!budget.lets_discards_in(851));
        budget.settle(0, 700);
        budget.set_entries_bytes_max(400);
        assert!(budget.lets_discards_in(50));
        budget.settle(700, 740);
        assert!(budget.lets_discards_in(10));
        assert!(!budget.lets_discards_in(11), "the room is taken once");
        budget.settle(740, 600);
        assert!(budget.lets_discards_in(50));
        assert!(!budget.lets_discards_in(51), "as much above what is left");
        budget.settle(600, 390);
        assert!(budget.lets_discards_in(60), "there is room again");
        budget.settle(390, 420);
        assert!(budget.lets_discards_in(50), "a room that is counted anew");
    }

    /// A write that did not fit between the two marks waited for a governor that saw no need.
    #[tokio::test]
    async fn a_writer_that_waits_below_the_high_mark_is_relieved() {
        let budget = Arc::new(Budget::new(800));
        budget.settle(0, 550);
        assert!(!budget.wants_relief());
        let admitting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.admit(400).await }
        });
        while !budget.wants_relief() {
            tokio::task::yield_now().await;
        }
        budget.settle(550, 100);
        let admitted = tokio::time::timeout(Duration::from_secs(10), admitting).await;
        assert!(admitted.expect("in time").expect("no panic").is_ok());
        assert!(!budget.wants_relief());
    }

    #[tokio::test]
    async fn a_writer_that_waits_is_told_why_nothing_is_freed() {
        let budget = Budget::new(800);
        budget.settle(0, 800);
        let full = WireError {
            code: ErrorCode::DiskFull,
            text: "the disk is full".to_owned(),
        };
        budget.set_trouble(Some(full.clone()));
        assert_eq!(budget.admit(1).await, Err(full));
    }
}
