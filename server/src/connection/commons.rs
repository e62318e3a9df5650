//! Memory that all connections share, since what each may need, times their number, is more than
//! there is.
//!
//! Room is taken in units. When there is none left, one connection at a time may overdraw: it is
//! sure to finish what it began, gives all back, and lets the others go on. So the whole is
//! bounded, and no two halves wait for each other. What is taken part by part overdraws apart, so
//! that what is short never waits for what is long.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::{Mutex, Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::{counters::Waiting, store::BufferAccount};

/// Room is counted in units, since permits are counted in 32 bits.
pub(crate) const UNIT_BYTES: usize = 4 * 1024;

/// The most units: 1 GiB.
const UNITS_MAX: usize = 1 << 18;

/// A bounded amount of memory.
#[derive(Debug)]
pub(crate) struct Commons {
    units: Arc<Semaphore>,
    units_max: usize,
    /// Of those that take what they need at once.
    overdraft: Arc<Mutex<()>>,
    /// Of those that take it part by part.
    overdraft_in_parts: Arc<Mutex<()>>,
    /// Tells one of those who wait that units are free again.
    freed: Arc<Notify>,
    waiting: AtomicUsize,
    /// How many have had to wait.
    waits: AtomicU64,
    account: BufferAccount,
}

/// Room that was taken, given back when it is dropped.
#[derive(Debug)]
pub(crate) enum Share {
    /// So many units of all.
    Units { _units: Units },
    /// As much as is needed, by one connection at a time.
    Overdraft { _guard: OwnedMutexGuard<()> },
}

/// Units that were taken.
#[derive(Debug)]
pub(crate) struct Units {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Drop for Units {
    fn drop(&mut self) {
        // IMPORTANT: free before it is told, or who is told would look too early.
        drop(self.permit.take());
        // All of them: the one that would be told may need more than this.
        self.freed.notify_waiters();
    }
}

impl Commons {
    /// Room of this many bytes; what is charged for it goes to `account`.
    pub(crate) fn new(bytes: u64, account: BufferAccount) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let units_max = (bytes / UNIT_BYTES).clamp(1, UNITS_MAX);
        Self {
            units: Arc::new(Semaphore::new(units_max)),
            units_max,
            overdraft: Arc::default(),
            overdraft_in_parts: Arc::default(),
            freed: Arc::default(),
            waiting: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            account,
        }
    }

    /// Takes room for `bytes` if there is some now, and as much again for others: whoever takes much
    /// and then stands still leaves room for those who need little.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Share> {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, self.units_max);
        let left = match units {
            1 => 0,
            units => units.min(self.units_max - units),
        };
        if self.units.available_permits() < units + left {
            return None;
        }
        self.try_take_units(units)
    }

    /// Takes room for one more part of what has `held_bytes` already, if all parts together leave as
    /// much as they take: however many take part after part, there is room for what is short.
    fn try_take_part(&self, held_bytes: usize, bytes: usize) -> Option<Share> {
        let units = bytes.div_ceil(UNIT_BYTES).max(1);
        let held = held_bytes.div_ceil(UNIT_BYTES);
        let needed = units.saturating_mul(2).saturating_add(held);
        if self.units.available_permits() < needed {
            return None;
        }
        self.try_take_units(units)
    }

    fn try_take_units(&self, units: usize) -> Option<Share> {
        let permits = u32::try_from(units).ok()?;
        let permit = Arc::clone(&self.units).try_acquire_many_owned(permits);
        permit.ok().map(|permit| Share::Units {
            _units: Units {
                permit: Some(permit),
                freed: Arc::clone(&self.freed),
            },
        })
    }

    /// Waits until there is room for `bytes`, or until it may overdraw. Cancel safe.
    ///
    /// Those who wait stand in no line: one that needs much would keep those from room who need
    /// little. It is sure to overdraw, in its turn.
    pub(crate) async fn take(&self, bytes: usize) -> Share {
        self.wait_for(&self.overdraft, || self.try_take(bytes))
            .await
    }

    /// The same for one more part of what has `held_bytes` already.
    pub(crate) async fn take_part(&self, held_bytes: usize, bytes: usize) -> Share {
        let try_take = || self.try_take_part(held_bytes, bytes);
        self.wait_for(&self.overdraft_in_parts, try_take).await
    }

    async fn wait_for(
        &self,
        overdraft: &Arc<Mutex<()>>,
        try_take: impl Fn() -> Option<Share>,
    ) -> Share {
        if let Some(share) = try_take() {
            return share;
        }
        let _waiting = Waiting::among(&self.waiting);
        self.waits.fetch_add(1, Relaxed);
        let mut overdraft = pin!(Arc::clone(overdraft).lock_owned());
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on no news is missed.
            freed.as_mut().enable();
            if let Some(share) = try_take() {
                return share;
            }
            tokio::select! {
                biased;
                () = freed => {}
                guard = &mut overdraft => return Share::Overdraft { _guard: guard },
            }
        }
    }

    /// Whether some wait for room, so that nobody should keep what is not needed.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Whether nobody has any of it.
    #[cfg(test)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.units.available_permits() == self.units_max
            && self.overdraft.try_lock().is_ok()
            && self.overdraft_in_parts.try_lock().is_ok()
    }

    /// What is free of it.
    pub(crate) fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT_BYTES
    }

    /// What is taken of it, but for what one may overdraw.
    pub(crate) fn taken_bytes(&self) -> u64 {
        let free = self.units.available_permits();
        (self.units_max.saturating_sub(free) * UNIT_BYTES) as u64
    }

    /// How often somebody had to wait for it.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Relaxed)
    }

    /// Whether at least half of it is free.
    pub(crate) fn is_roomy(&self) -> bool {
        self.units.available_permits() >= self.units_max / 2
    }
}

/// What was charged to the account of the RAM that entries take, so that they make way.
#[derive(Debug)]
pub(crate) struct Charge {
    commons: Arc<Commons>,
    bytes: usize,
}

impl Charge {
    /// Nothing yet.
    pub(crate) fn none(commons: Arc<Commons>) -> Self {
        Self { commons, bytes: 0 }
    }

    /// The memory that it is charged for.
    pub(crate) fn commons(&self) -> &Arc<Commons> {
        &self.commons
    }

    /// Charges so much from now on, in the place of what was.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.commons.account.settle(self.bytes, bytes);
            self.bytes = bytes;
        }
    }

    /// Waits until entries have made way, where they can; bounded.
    pub(crate) async fn make_room(&self) {
        self.commons.account.make_room().await;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commons(bytes: u64) -> Commons {
        Commons::new(bytes, BufferAccount::of_nothing())
    }

    #[tokio::test]
    async fn where_room_ends_one_overdraws_and_the_others_wait_for_it() {
        let commons = commons(4 * UNIT_BYTES as u64);
        let first = commons.take(3 * UNIT_BYTES).await;
        assert!(!commons.is_roomy());
        let second = commons.take(2 * UNIT_BYTES).await;
        assert!(matches!(second, Share::Overdraft { .. }));
        assert!(!commons.is_wanted());
        let mut third = Box::pin(commons.take(2 * UNIT_BYTES));
        let pending = tokio::select! { biased; _ = &mut third => false, () = async {} => true };
        assert!(pending && commons.is_wanted());
        drop(first);
        assert!(matches!(third.await, Share::Units { .. }));
        assert!(!commons.is_wanted());
        drop(second);
    }

    // One that sent a long request slowly once took nearly all there was, part by part.
    #[tokio::test]
    async fn what_is_taken_in_parts_leaves_as_much_as_it_takes() {
        let commons = commons(64 * UNIT_BYTES as u64);
        let mut parts = Vec::new();
        let overdraft = loop {
            match commons
                .take_part(parts.len() * UNIT_BYTES, UNIT_BYTES)
                .await
            {
                Share::Units { _units } => parts.push(_units),
                overdraft => break overdraft,
            }
        };
        assert_eq!((parts.len(), commons.free_bytes()), (32, 32 * UNIT_BYTES));
        let short = commons.take(16 * UNIT_BYTES).await;
        assert!(matches!(short, Share::Units { .. }));
        // Nor does it wait for the rest of the long one where room has ended.
        let short_of_room = commons.take(16 * UNIT_BYTES).await;
        assert!(matches!(short_of_room, Share::Overdraft { .. }));
        assert!(!commons.is_wanted());
        drop(overdraft);
    }

    #[tokio::test]
    async fn what_is_larger_than_all_takes_all() {
        let commons = commons(2 * UNIT_BYTES as u64);
        let all = commons.take(100 * UNIT_BYTES).await;
        assert!(matches!(all, Share::Units { .. }));
        drop(all);
        assert!(commons.is_roomy());
    }
}
