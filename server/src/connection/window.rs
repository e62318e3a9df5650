//! How much a connection's answers may take before its next request waits, and all connections'
//! answers together.
//!
//! An answer's length is known only once it is there, so that room for it is taken by what the
//! answers before it needed for each entry. Where that is too little, the answer goes all the same
//! and the next ones take more.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use rhash_protocol::limits::{ANSWER_BYTES_TARGET, INLINE_VALUE_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::commons::{Charge, Commons, Share};

/// The share of the memory limit that one connection's answers may take.
const LIMIT_SHARE: u64 = 64;

/// The share of the memory limit that all answers may take.
pub(crate) const COMMON_LIMIT_SHARE: u64 = 16;

/// One answer to a get fits even the smallest window.
const WINDOW_BYTES_MIN: usize = ANSWER_BYTES_TARGET + INLINE_VALUE_BYTES_MAX;
const WINDOW_BYTES_MAX: usize = 4 << 20;

/// What any answer takes, so that their number is bounded too.
const ANSWER_BYTES_MIN: usize = 1024;

/// An answer's bytes are there more than once until it is written: as values that were found, packed,
/// and encoded.
const COPIES: usize = 2;

/// What looking an entry up takes until it is answered, beyond its value.
const LOOKUP_BYTES: usize = 128;

/// What an entry is taken for before any was seen.
const ENTRY_BYTES_AT_FIRST: usize = 1024;

/// An entry smaller than expected lowers the expectation by this share of the difference.
const LEARN_SHARE: usize = 8;

/// Room for one answer, given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Of the connection's window, of what all share, and as the entries were charged for it.
    _taken: Option<(OwnedSemaphorePermit, Share, Charge)>,
}

/// The room for a connection's answers.
#[derive(Debug)]
pub(crate) struct Window {
    room: Arc<Semaphore>,
    bytes_max: usize,
    entry_bytes: AtomicUsize,
    commons: Arc<Commons>,
}

impl Window {
    /// The window of a connection to a server with this memory limit.
    pub(crate) fn new(mem_limit_bytes: u64, commons: Arc<Commons>) -> Self {
        let share = usize::try_from(mem_limit_bytes / LIMIT_SHARE).unwrap_or(WINDOW_BYTES_MAX);
        let bytes_max = share.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        Self {
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            entry_bytes: AtomicUsize::new(ENTRY_BYTES_AT_FIRST),
            commons,
        }
    }

    /// What an answer of this many entries will probably take.
    pub(crate) fn expect(&self, entries: usize) -> usize {
        entries
            .saturating_mul(self.entry_bytes.load(Relaxed).saturating_add(LOOKUP_BYTES))
            .min(ANSWER_BYTES_TARGET + INLINE_VALUE_BYTES_MAX)
    }

    /// Learns from an answer that is there.
    pub(crate) fn learn(&self, entries: usize, bytes: usize) {
        let Some(seen) = bytes.checked_div(entries) else {
            return;
        };
        let expected = self.entry_bytes.load(Relaxed);
        let next = match expected.checked_sub(seen) {
            Some(less) => expected - less / LEARN_SHARE,
            None => seen,
        };
        // Two answers may learn at once, and one of them is lost: it is an estimate.
        self.entry_bytes.store(next, Relaxed);
    }

    /// Waits for room of this many bytes, or all there is if that is less. Cancel safe.
    pub(crate) async fn reserve(&self, bytes: usize) -> Room {
        let bytes = bytes.clamp(ANSWER_BYTES_MIN, self.bytes_max);
        let own = Arc::clone(&self.room).acquire_many_owned(bytes as u32);
        // The semaphore is never closed, so that there is always a permit in the end.
        let Ok(own) = own.await else {
            return Room::default();
        };
        let share = self.commons.take(bytes * COPIES).await;
        let mut charge = Charge::none(Arc::clone(&self.commons));
        charge.set(bytes * COPIES);
        Room {
            _taken: Some((own, share, charge)),
        }
    }

    /// Whether other connections wait for the room that answers take.
    pub(crate) fn is_wanted(&self) -> bool {
        self.commons.is_wanted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BufferAccount;

    fn window(mem_limit_bytes: u64) -> Window {
        let commons = Commons::new(mem_limit_bytes, BufferAccount::of_nothing());
        Window::new(mem_limit_bytes, Arc::new(commons))
    }

    #[test]
    fn what_is_expected_follows_what_was_seen() {
        let window = window(64 << 20);
        assert_eq!(window.expect(3), 3 * (ENTRY_BYTES_AT_FIRST + LOOKUP_BYTES));
        window.learn(2, 200_000);
        assert_eq!(
            window.expect(1),
            100_000 + LOOKUP_BYTES,
            "at once where it was too little"
        );
        assert_eq!(
            window.expect(1000),
            WINDOW_BYTES_MIN,
            "one answer is no longer than this"
        );
        for _ in 0..100 {
            window.learn(10, 1000);
        }
        assert!(
            window.expect(1) < 120 + LOOKUP_BYTES,
            "in steps where it was too much"
        );
        window.learn(0, 0);
    }

    #[tokio::test]
    async fn a_full_window_makes_the_next_answer_wait() {
        let window = window(24 << 20);
        assert_eq!(window.bytes_max, 384 << 10);
        let all = window.reserve(usize::MAX).await;
        let mut next = Box::pin(window.reserve(1));
        let pending = tokio::select! { biased; _ = &mut next => false, () = async {} => true };
        assert!(pending);
        drop(all);
        assert!(next.await._taken.is_some());
    }

    #[tokio::test]
    async fn all_windows_together_are_bounded() {
        let commons = Arc::new(Commons::new(1, BufferAccount::of_nothing()));
        let windows = [(); 3].map(|()| Window::new(64 << 20, Arc::clone(&commons)));
        let first = windows[0].reserve(1).await;
        let second = windows[1].reserve(1).await;
        let mut third = Box::pin(windows[2].reserve(1));
        let pending = tokio::select! { biased; _ = &mut third => false, () = async {} => true };
        assert!(pending && windows[0].is_wanted());
        drop(first);
        assert!(third.await._taken.is_some());
        drop(second);
    }
}
