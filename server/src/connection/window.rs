//! How much a connection's answers may take before its next request waits, and all connections'
//! answers together.
//!
//! An answer's length is known only once it is there, so that room for it is taken by what the
//! answers before it needed for each entry. An answer that would be longer takes more room as it is
//! made, or else ends early: its table asks by an [`Allowance`]. The next ones expect more.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rhash_protocol::limits::{ANSWER_BYTES_TARGET, INLINE_VALUE_BYTES_MAX};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::commons::{Charge, Commons, Share};
use crate::table::{Allowance, Unbounded};

/// The longest answer, but for streams.
pub(crate) const ANSWER_BYTES_MAX: usize = ANSWER_BYTES_TARGET + INLINE_VALUE_BYTES_MAX;

/// One answer to a get fits even the smallest window.
const WINDOW_BYTES_MIN: usize = ANSWER_BYTES_MAX;
/// Permits are counted in 32 bits.
const WINDOW_BYTES_MAX: usize = 1 << 30;

/// What any answer takes, so that their number is bounded too.
const ANSWER_BYTES_MIN: usize = 1024;

/// An answer's bytes are there more than once until it is written: as values that were found, packed,
/// and encoded.
const COPIES: usize = 2;

/// What looking an entry up takes until it is answered, beyond its value.
pub(crate) const LOOKUP_BYTES: usize = 128;

/// What an entry is taken for before any was seen.
const ENTRY_BYTES_AT_FIRST: usize = 1024;

/// An entry smaller than expected lowers the expectation by this share of the difference.
const LEARN_SHARE: usize = 8;

/// Room for one answer, given back when the last of its clones is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Option<Arc<Taken>>);

/// What the answers of one connection have taken of what all share.
#[derive(Debug, Default)]
struct InUse {
    bytes: AtomicUsize,
    /// Told when it is less.
    less: Notify,
}

/// What an answer does with its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// It is as long as that.
    Whole,
    /// It ends where its room does.
    AtMost,
}

/// What was taken for an answer.
#[derive(Debug)]
struct Taken {
    in_use: Arc<InUse>,
    /// How long the answer may be.
    bytes: AtomicUsize,
    /// How long it would have been, where that was refused.
    refused_bytes: AtomicUsize,
    /// Of the connection's window, of what all share, and as the entries were charged for it.
    parts: Mutex<(OwnedSemaphorePermit, Vec<Share>, Charge)>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Before it is told: who waits looks at once at how much is free.
        self.parts.get_mut().1.clear();
        self.in_use.bytes.fetch_sub(self.bytes(), Relaxed);
        self.in_use.less.notify_waiters();
    }
}

impl InUse {
    /// Whether a connection may take so much more: no more of what all share than it leaves. However
    /// many peers read nothing, there is room for those who do.
    fn is_fair(&self, more_bytes: usize, commons: &Commons) -> bool {
        let bytes = self.bytes.load(Relaxed).saturating_add(more_bytes);
        let left_bytes = commons
            .free_bytes()
            .saturating_sub(more_bytes.saturating_mul(COPIES));
        bytes.saturating_mul(COPIES) <= left_bytes
    }
}

impl Room {
    /// How long its answer is, or would have been if there had been room for what is left out of it.
    pub(crate) fn wanted_bytes(&self, answer_bytes: usize) -> usize {
        let refused = self
            .0
            .as_ref()
            .map_or(0, |taken| taken.refused_bytes.load(Relaxed));
        answer_bytes.max(refused)
    }

    /// The same room, for the table that makes the answer.
    pub(crate) fn allowance(&self) -> Arc<dyn Allowance> {
        match &self.0 {
            Some(taken) => Arc::clone(taken) as Arc<dyn Allowance>,
            None => Arc::new(Unbounded),
        }
    }
}

impl Allowance for Taken {
    fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    fn raise_to(&self, bytes: usize) -> bool {
        let is_raised = self.try_raise_to(bytes);
        if !is_raised {
            self.refused_bytes.store(bytes, Relaxed);
        }
        is_raised
    }
}

impl Taken {
    fn try_raise_to(&self, bytes: usize) -> bool {
        let mut parts = self.parts.lock();
        let (own, shares, charge) = &mut *parts;
        let taken = self.bytes.load(Relaxed);
        let missing = bytes.saturating_sub(taken);
        if missing == 0 {
            return true;
        }
        let Ok(permits) = u32::try_from(missing) else {
            return false;
        };
        let Ok(more) = Arc::clone(own.semaphore()).try_acquire_many_owned(permits) else {
            return false;
        };
        if !self.in_use.is_fair(missing, charge.commons()) {
            return false;
        }
        // Who overdraws is sure to finish, so that it needs no more of what all share.
        if !matches!(shares.last(), Some(Share::Overdraft { .. })) {
            match charge.commons().try_take(missing.saturating_mul(COPIES)) {
                Some(share) => shares.push(share),
                None => return false,
            }
        }
        own.merge(more);
        self.in_use.bytes.fetch_add(missing, Relaxed);
        charge.set(bytes.saturating_mul(COPIES));
        self.bytes.store(bytes, Relaxed);
        true
    }
}

/// The room for a connection's answers.
#[derive(Debug)]
pub(crate) struct Window {
    room: Arc<Semaphore>,
    bytes_max: usize,
    entry_bytes: AtomicUsize,
    in_use: Arc<InUse>,
    commons: Arc<Commons>,
}

impl Window {
    /// A window of this many bytes, or at least one answer.
    pub(crate) fn new(bytes: u64, commons: Arc<Commons>) -> Self {
        let bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes_max = bytes_max.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        Self {
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            entry_bytes: AtomicUsize::new(ENTRY_BYTES_AT_FIRST),
            in_use: Arc::default(),
            commons,
        }
    }

    /// What an answer of this many entries will probably take, whose keys take `key_bytes`.
    pub(crate) fn expect(&self, entries: usize, key_bytes: usize) -> usize {
        let entry_bytes = self.entry_bytes.load(Relaxed).saturating_add(LOOKUP_BYTES);
        entries
            .saturating_mul(entry_bytes)
            .min(ANSWER_BYTES_MAX)
            .saturating_add(key_bytes)
    }

    /// What the answers take that are on their way, or being made.
    pub(crate) fn bytes_in_use(&self) -> usize {
        self.in_use.bytes.load(Relaxed)
    }

    /// Whether answers are on their way.
    pub(crate) fn is_in_use(&self) -> bool {
        self.room.available_permits() < self.bytes_max
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

    /// Waits for room of at most this many bytes, for an answer that ends where its room does: less
    /// where that would be more than a fair part of what all share. One that has answers on their way
    /// waits for these to leave instead, so that nothing is made for who takes nothing. Cancel safe.
    pub(crate) async fn reserve_up_to(&self, bytes: usize) -> Room {
        self.room_for(bytes.min(self.bytes_max), Length::AtMost)
            .await
    }

    /// Waits for room for an answer of this many bytes, or all there is if that is less. Cancel safe.
    pub(crate) async fn reserve(&self, bytes: usize) -> Room {
        self.room_for(bytes.min(self.bytes_max), Length::Whole)
            .await
    }

    /// Waits for room for an answer that may be longer than any window, and then is the only one: it is
    /// charged as long as it is, and takes what all share whole, or overdraws. Cancel safe.
    pub(crate) async fn reserve_whole(&self, bytes: usize) -> Room {
        self.room_for(bytes, Length::Whole).await
    }

    async fn room_for(&self, bytes: usize, length: Length) -> Room {
        let mut bytes = bytes.max(ANSWER_BYTES_MIN);
        let own_bytes = bytes.min(self.bytes_max);
        let own = Arc::clone(&self.room).acquire_many_owned(own_bytes as u32);
        // The semaphore is never closed, so that there is always a permit in the end.
        let Ok(mut own) = own.await else {
            return Room::default();
        };
        loop {
            let mut less = pin!(self.in_use.less.notified());
            // From here on no news is missed.
            less.as_mut().enable();
            // One with nothing on its way waits for others alone.
            if self.in_use.bytes.load(Relaxed) == 0 {
                if length == Length::AtMost {
                    let fair_bytes = self.commons.free_bytes() / COPIES / 2;
                    bytes = bytes.min(fair_bytes.max(ANSWER_BYTES_MIN));
                    drop(own.split(own.num_permits().saturating_sub(bytes)));
                }
                break;
            }
            if self.in_use.is_fair(bytes, &self.commons) {
                break;
            }
            less.await;
        }
        let share = self.commons.take(bytes.saturating_mul(COPIES)).await;
        self.in_use.bytes.fetch_add(bytes, Relaxed);
        let mut charge = Charge::none(Arc::clone(&self.commons));
        charge.set(bytes.saturating_mul(COPIES));
        Room(Some(Arc::new(Taken {
            in_use: Arc::clone(&self.in_use),
            bytes: AtomicUsize::new(bytes),
            refused_bytes: AtomicUsize::new(0),
            parts: Mutex::new((own, vec![share], charge)),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::commons::UNIT_BYTES, *};
    use crate::store::BufferAccount;

    fn window(mem_limit_bytes: u64) -> Window {
        let commons = Commons::new(mem_limit_bytes, BufferAccount::of_nothing());
        Window::new(mem_limit_bytes / 64, Arc::new(commons))
    }

    #[test]
    fn what_is_expected_follows_what_was_seen() {
        let window = window(64 << 20);
        assert_eq!(
            window.expect(3, 0),
            3 * (ENTRY_BYTES_AT_FIRST + LOOKUP_BYTES)
        );
        window.learn(2, 200_000);
        assert_eq!(
            window.expect(1, 0),
            100_000 + LOOKUP_BYTES,
            "at once where it was too little"
        );
        assert_eq!(
            window.expect(1000, 0),
            WINDOW_BYTES_MIN,
            "one answer is no longer than this"
        );
        for _ in 0..100 {
            window.learn(10, 1000);
        }
        assert!(
            window.expect(1, 0) < 120 + LOOKUP_BYTES,
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
        assert!(next.await.0.is_some());
    }

    #[tokio::test]
    async fn an_answer_takes_more_room_only_where_there_is_some() {
        let window = window(24 << 20);
        let first = window.reserve(100_000).await.allowance();
        assert_eq!(first.bytes(), 100_000);
        assert!(first.raise_to(50_000) && first.raise_to(200_000));
        assert_eq!(first.bytes(), 200_000);
        let second = window.reserve(window.bytes_max - 200_000).await;
        assert!(!first.raise_to(200_001) && !second.allowance().raise_to(usize::MAX));
        drop(second);
        assert!(first.raise_to(window.bytes_max));
        drop(first);
        // What all share ends sooner than the window: half of it is left.
        let commons = Arc::new(Commons::new(80 << 10, BufferAccount::of_nothing()));
        let window = Window::new(384 << 10, Arc::clone(&commons));
        let first = window.reserve(10 << 10).await.allowance();
        assert!(!first.raise_to(21 << 10) && first.raise_to(20 << 10));
        let second = window.reserve_up_to(1 << 20);
        let pending = tokio::select! { biased; _ = second => false, () = async {} => true };
        assert!(pending, "a second answer waits for the first");
        let other = Window::new(384 << 10, Arc::clone(&commons));
        let less = other.reserve_up_to(1 << 20).await.allowance();
        assert_eq!(less.bytes(), 10 << 10, "it leaves as much as it takes");
    }

    // Answers that named a value instead of holding it once went on being made for peers that read nothing.
    #[tokio::test]
    async fn who_has_answers_on_their_way_waits_for_these_rather_than_be_given_less() {
        let commons = Arc::new(Commons::new(128 << 10, BufferAccount::of_nothing()));
        let window = Window::new(384 << 10, Arc::clone(&commons));
        let first = window.reserve_up_to(8 << 10).await;
        let mut second = Box::pin(window.reserve_up_to(48 << 10));
        let pending = tokio::select! { biased; _ = &mut second => false, () = async {} => true };
        assert!(pending && !commons.is_wanted(), "it waits for its own");
        drop(first);
        // The half of what is free, each of whose bytes is taken twice.
        let second = second.await;
        assert_eq!(second.allowance().bytes(), 32 << 10);
        assert_eq!(window.bytes_in_use(), 32 << 10);
        assert_eq!(
            window.room.available_permits(),
            window.bytes_max - (32 << 10)
        );
        // What did not fit is expected to be asked for again.
        assert_eq!(second.wanted_bytes(100), 100);
        assert!(!second.allowance().raise_to(48 << 10));
        assert_eq!(second.wanted_bytes(100), 48 << 10);
        drop(second);
        assert!(commons.is_untouched() && !window.is_in_use());
    }

    #[tokio::test]
    async fn an_answer_that_is_longer_than_a_window_is_the_only_one() {
        let commons = Arc::new(Commons::new(1 << 20, BufferAccount::of_nothing()));
        let windows = [(); 3].map(|()| Window::new(384 << 10, Arc::clone(&commons)));
        let first = windows[0].reserve_whole(64 << 20).await;
        assert_eq!(
            (windows[0].bytes_in_use(), commons.free_bytes()),
            (64 << 20, 0)
        );
        // Of those there is one more, which overdraws.
        let second = windows[1].reserve_whole(64 << 20).await;
        let mut third = Box::pin(windows[2].reserve_whole(64 << 20));
        let pending = tokio::select! { biased; _ = &mut third => false, () = async {} => true };
        assert!(pending && commons.is_wanted());
        drop(first);
        assert!(third.await.0.is_some());
        assert_eq!(windows[0].bytes_in_use(), 0);
        drop(second);
    }

    // A handful of peers that read nothing once took all there was, and everybody else waited.
    #[tokio::test]
    async fn who_reads_nothing_leaves_room_for_the_others() {
        let commons = Arc::new(Commons::new(4 << 20, BufferAccount::of_nothing()));
        let windows: Vec<Window> = (0..100)
            .map(|_| Window::new(1 << 20, Arc::clone(&commons)))
            .collect();
        let mut answers = Vec::new();
        for window in &windows {
            loop {
                let reserve = window.reserve(20 << 10);
                tokio::select! {
                    biased;
                    room = reserve => answers.push(room),
                    () = async {} => break,
                }
            }
        }
        assert!(commons.free_bytes() >= UNIT_BYTES && !commons.is_wanted());
        let reader = Window::new(1 << 20, Arc::clone(&commons));
        let small = tokio::select! {
            biased;
            room = reader.reserve(1) => Some(room),
            () = async {} => None,
        };
        assert!(small.is_some(), "{} bytes are free", commons.free_bytes());
    }

    #[tokio::test]
    async fn all_windows_together_are_bounded() {
        let commons = Arc::new(Commons::new(1, BufferAccount::of_nothing()));
        let windows = [(); 3].map(|()| Window::new(1 << 20, Arc::clone(&commons)));
        let first = windows[0].reserve(1).await;
        let second = windows[1].reserve(1).await;
        let mut third = Box::pin(windows[2].reserve(1));
        let pending = tokio::select! { biased; _ = &mut third => false, () = async {} => true };
        assert!(pending && commons.is_wanted());
        drop(first);
        assert!(third.await.0.is_some());
        drop(second);
    }
}
