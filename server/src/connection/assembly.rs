//! How much all half-received requests of a server may take.
//!
//! A connection takes room for the parts of a long request as they come. When there is none left,
//! one connection at a time may overdraw: it is sure to get its request whole, gives all back, and
//! lets the others go on. So the whole is bounded, and no two halves wait for each other.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::store::BufferAccount;

/// The share of the memory limit that half-received requests may take together, the one that
/// overdraws apart.
const LIMIT_SHARE: u64 = 16;

/// Room is taken in units, since permits are counted in 32 bits.
const UNIT_BYTES: usize = 64 * 1024;

/// The most units of the pool: 1 GiB.
const UNITS_MAX: usize = 1 << 14;

/// What a byte of a half-received request is charged: its buffer doubles as it grows, and is
/// copied while both are there; then its value is copied once more, into its table.
const CHARGE_FACTOR: usize = 4;

/// The room of a server.
#[derive(Debug)]
pub(crate) struct AssemblyPool {
    units: Arc<Semaphore>,
    overdraft: Arc<Mutex<()>>,
    account: BufferAccount,
}

impl AssemblyPool {
    /// The room of a server with this memory limit; what is taken of it is charged to `account`.
    pub(crate) fn new(mem_limit_bytes: u64, account: BufferAccount) -> Self {
        let share = usize::try_from(mem_limit_bytes / LIMIT_SHARE).unwrap_or(usize::MAX);
        Self {
            units: Arc::new(Semaphore::new((share / UNIT_BYTES).clamp(1, UNITS_MAX))),
            overdraft: Arc::default(),
            account,
        }
    }
}

/// What one connection has taken of it.
#[derive(Debug)]
pub(crate) struct AssemblyRoom {
    pool: Arc<AssemblyPool>,
    taken: Vec<OwnedSemaphorePermit>,
    units: usize,
    overdraft: Option<OwnedMutexGuard<()>>,
    charged_bytes: usize,
}

impl AssemblyRoom {
    /// Nothing yet.
    pub(crate) fn new(pool: Arc<AssemblyPool>) -> Self {
        Self {
            pool,
            taken: Vec::new(),
            units: 0,
            overdraft: None,
            charged_bytes: 0,
        }
    }

    /// Waits until there is room for `bytes` in all. Cancel safe.
    pub(crate) async fn cover(&mut self, bytes: usize) {
        self.take(bytes).await;
        self.charge(bytes.saturating_mul(CHARGE_FACTOR));
        self.pool.account.make_room().await;
    }

    async fn take(&mut self, bytes: usize) {
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(self.units);
        if missing == 0 || self.overdraft.is_some() {
            return;
        }
        let units = Arc::clone(&self.pool.units);
        let overdraft = Arc::clone(&self.pool.overdraft);
        tokio::select! {
            biased;
            // The semaphore is never closed.
            Ok(permit) = units.acquire_many_owned(missing as u32) => {
                self.units += missing;
                self.taken.push(permit);
            }
            guard = overdraft.lock_owned() => self.overdraft = Some(guard),
        }
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.taken.clear();
        self.units = 0;
        self.overdraft = None;
        self.charge(0);
    }

    fn charge(&mut self, bytes: usize) {
        if bytes != self.charged_bytes {
            self.pool.account.settle(self.charged_bytes, bytes);
            self.charged_bytes = bytes;
        }
    }
}

impl Drop for AssemblyRoom {
    fn drop(&mut self) {
        self.charge(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms() -> [AssemblyRoom; 3] {
        // One unit for all.
        let pool = Arc::new(AssemblyPool::new(1 << 20, BufferAccount::of_nothing()));
        [(); 3].map(|()| AssemblyRoom::new(Arc::clone(&pool)))
    }

    #[tokio::test]
    async fn where_room_ends_one_overdraws_and_the_others_wait_for_it() {
        let [mut first, mut second, mut third] = rooms();
        first.cover(10).await;
        second.cover(10).await;
        assert!(second.overdraft.is_some() && first.overdraft.is_none());
        second.cover(100 << 20).await;

        let mut waiting = Box::pin(third.cover(10));
        let pending = tokio::select! { biased; () = &mut waiting => false, () = async {} => true };
        assert!(pending);
        second.release();
        waiting.await;
        assert!(third.overdraft.is_some());
    }

    #[tokio::test]
    async fn room_that_is_given_back_is_there_for_others() {
        let [mut first, mut second, _] = rooms();
        first.cover(UNIT_BYTES).await;
        first.cover(UNIT_BYTES).await;
        assert_eq!(first.units, 1, "what is covered is not taken twice");
        first.release();
        second.cover(1).await;
        assert_eq!((second.units, second.overdraft.is_none()), (1, true));
    }
}
