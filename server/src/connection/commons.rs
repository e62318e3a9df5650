//! Memory that all connections share, since what each may need, times their number, is more than
//! there is.
//!
//! Room is taken in units. When there is none left, one connection at a time may overdraw: it is
//! sure to finish what it began, gives all back, and lets the others go on. So the whole is
//! bounded, and no two halves wait for each other. What is taken part by part overdraws apart, so
//! that what is short never waits for what is long.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::{self, OwnedMutexGuard, oneshot};

use crate::store::BufferAccount;

/// Room is counted in units, so that a few bytes more or less are no matter for all.
pub(crate) const UNIT_BYTES: usize = 4 * 1024;

/// The most units: 1 GiB.
const UNITS_MAX: usize = 1 << 18;

/// A bounded amount of memory.
#[derive(Debug)]
pub(crate) struct Commons {
    pool: Arc<Mutex<Pool>>,
    units_max: usize,
    /// Of those that take what they need at once.
    overdraft: Arc<sync::Mutex<()>>,
    /// Of those that take it part by part.
    overdraft_in_parts: Arc<sync::Mutex<()>>,
    /// How many have had to wait.
    waits: AtomicU64,
    account: BufferAccount,
}

/// The units that are free, and who waits for some.
#[derive(Debug, Default)]
struct Pool {
    free: usize,
    /// From the one that needs fewest; of those that need as many, from the one that came first.
    ///
    /// IMPORTANT: whoever can have its units is handed them, and nobody else is woken. If all looked
    /// for themselves whenever an answer has left, each answer would wait for all who wait.
    waiting: BTreeMap<(usize, u64), Waiter>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiter {
    need: Need,
    taker: oneshot::Sender<Share>,
}

/// What somebody needs.
#[derive(Debug, Clone, Copy)]
struct Need {
    /// So many units are taken
    units: usize,
    /// where so many are free.
    of_free: usize,
}

/// A place among those who wait, left when this is dropped.
struct Place<'a> {
    pool: &'a Mutex<Pool>,
    key: (usize, u64),
    handed: oneshot::Receiver<Share>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.lock().waiting.remove(&self.key);
    }
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
    units: usize,
    pool: Arc<Mutex<Pool>>,
}

impl Drop for Units {
    fn drop(&mut self) {
        self.pool.lock().free += self.units;
        hand_out(&self.pool);
    }
}

/// Hands units to those who wait, for as long as there are enough for one of them.
fn hand_out(pool: &Arc<Mutex<Pool>>) {
    while let Some((taker, share)) = take_for_first(pool) {
        // One that has left its place this moment gives them back.
        drop(taker.send(share));
    }
}

fn take_for_first(pool: &Arc<Mutex<Pool>>) -> Option<(oneshot::Sender<Share>, Share)> {
    let mut inside = pool.lock();
    let first = inside.waiting.first_entry()?;
    let need = first.get().need;
    // Whoever comes after it needs as many at least.
    if need.of_free > inside.free {
        return None;
    }
    let (_, waiter) = inside.waiting.pop_first()?;
    let share = inside.take(need, pool)?;
    Some((waiter.taker, share))
}

impl Pool {
    /// Takes units where enough are free.
    fn take(&mut self, need: Need, own: &Arc<Mutex<Self>>) -> Option<Share> {
        if self.free < need.of_free {
            return None;
        }
        self.free -= need.units;
        Some(Share::Units {
            _units: Units {
                units: need.units,
                pool: Arc::clone(own),
            },
        })
    }

    /// Waits among the others, in a place that `own` has.
    fn wait<'a>(&mut self, need: Need, own: &'a Mutex<Self>) -> Place<'a> {
        let (taker, handed) = oneshot::channel();
        let key = (need.of_free, self.next_number);
        self.next_number += 1;
        self.waiting.insert(key, Waiter { need, taker });
        Place {
            pool: own,
            key,
            handed,
        }
    }
}

impl Commons {
    /// Room of this many bytes; what is charged for it goes to `account`.
    pub(crate) fn new(bytes: u64, account: BufferAccount) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let units_max = (bytes / UNIT_BYTES).clamp(1, UNITS_MAX);
        let pool = Pool {
            free: units_max,
            ..Pool::default()
        };
        Self {
            pool: Arc::new(Mutex::new(pool)),
            units_max,
            overdraft: Arc::default(),
            overdraft_in_parts: Arc::default(),
            waits: AtomicU64::new(0),
            account,
        }
    }

    /// What `bytes` need: as much again is left for others, so that whoever takes much and then stands
    /// still leaves room for those who need little.
    fn need(&self, bytes: usize) -> Need {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, self.units_max);
        let left = match units {
            1 => 0,
            units => units.min(self.units_max - units),
        };
        Need {
            units,
            of_free: units + left,
        }
    }

    /// Takes room for `bytes` if there is some now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Share> {
        self.pool.lock().take(self.need(bytes), &self.pool)
    }

    /// Waits until there is room for `bytes`, or until it may overdraw. Cancel safe.
    ///
    /// Those who need much keep no room from those who need little and come after them. They are sure
    /// to overdraw, in their turn.
    pub(crate) async fn take(&self, bytes: usize) -> Share {
        self.wait_for(self.need(bytes), &self.overdraft).await
    }

    /// The same for one more part of what has `held_bytes` already: all parts together leave as much as
    /// they take, and however many take part after part, there is room for what is short.
    pub(crate) async fn take_part(&self, held_bytes: usize, bytes: usize) -> Share {
        let units = bytes.div_ceil(UNIT_BYTES).max(1);
        let held = held_bytes.div_ceil(UNIT_BYTES);
        let need = Need {
            units,
            of_free: units.saturating_mul(2).saturating_add(held),
        };
        self.wait_for(need, &self.overdraft_in_parts).await
    }

    async fn wait_for(&self, need: Need, overdraft: &Arc<sync::Mutex<()>>) -> Share {
        let mut place = {
            let mut pool = self.pool.lock();
            match pool.take(need, &self.pool) {
                Some(share) => return share,
                None => pool.wait(need, &self.pool),
            }
        };
        self.waits.fetch_add(1, Relaxed);
        tokio::select! {
            biased;
            Ok(share) = &mut place.handed => share,
            guard = Arc::clone(overdraft).lock_owned() => Share::Overdraft { _guard: guard },
        }
    }

    /// Whether some wait for room, so that nobody should keep what is not needed.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.pool.lock().waiting.is_empty()
    }

    /// Whether nobody has any of it.
    #[cfg(test)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.pool.lock().free == self.units_max
            && self.overdraft.try_lock().is_ok()
            && self.overdraft_in_parts.try_lock().is_ok()
    }

    /// What is free of it.
    pub(crate) fn free_bytes(&self) -> usize {
        self.pool.lock().free * UNIT_BYTES
    }

    /// What is taken of it, but for what one may overdraw.
    pub(crate) fn taken_bytes(&self) -> u64 {
        (self.units_max * UNIT_BYTES - self.free_bytes()) as u64
    }

    /// How often somebody had to wait for it.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Relaxed)
    }

    /// Whether at least half of it is free.
    pub(crate) fn is_roomy(&self) -> bool {
        self.pool.lock().free >= self.units_max / 2
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

    // All who waited were once woken whenever anybody gave back anything.
    #[tokio::test]
    async fn units_are_handed_to_the_one_that_can_have_them_and_nobody_else_is_woken() {
        let commons = commons(16 * UNIT_BYTES as u64);
        let most = commons.take(8 * UNIT_BYTES).await;
        let mut few: Vec<Share> = Vec::new();
        for _ in 0..8 {
            few.push(commons.take(UNIT_BYTES).await);
        }
        let overdrawn = commons.take(UNIT_BYTES).await;
        let mut waiting: Vec<_> = [4, 2, 2]
            .map(|units| tokio_test::task::spawn(commons.take(units * UNIT_BYTES)))
            .into();
        for take in &mut waiting {
            assert!(take.poll().is_pending());
        }
        // Three are too few for any of them, the fourth is enough for who needs two and came first.
        for _ in 0..3 {
            drop(few.pop());
        }
        assert!(waiting.iter().all(|take| !take.is_woken()));
        drop(few.pop());
        assert_eq!(
            waiting
                .iter()
                .map(|take| take.is_woken())
                .collect::<Vec<_>>(),
            [false, true, false]
        );
        // One that has gone leaves what it was handed to the next.
        drop(waiting.remove(1));
        assert!(waiting[1].is_woken() && !waiting[0].is_woken());
        drop((waiting, few, most, overdrawn));
        assert!(commons.is_untouched() && !commons.is_wanted());
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
