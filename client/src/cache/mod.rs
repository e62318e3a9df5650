//! The write-back cache of a client: one budget in bytes, and where asked in items, for all tables.
//!
//! What waits for the server (dirty, or in flight) is kept table by table in [`Pending`] and never
//! evicted; what is clean is in one LRU list for all tables and makes room. An entry goes from
//! dirty to in flight to clean; a write behind one in flight waits until that is answered.
//!
//! Clean entries are kept only for tables that no other client has open. So that a read that was
//! under way does not leave an old value behind, a reader takes a [`ReadMark`] before it asks the
//! server, and its answer is kept only if nothing touched the key since.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::FailedKeys;

mod limits;
mod says;
mod op;
mod pending;
mod clean;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    clean::ReadMark,
    limits::CacheLimits,
    op::CachedOp,
    pending::Batch,
    says::{Due, Look, Written},
};
use self::{
    clean::{CleanEntries, clean_cost},
    limits::BATCH_LIMITS,
    pending::{Added, Known, Pending},
};

/// Names a table in the cache; keys carry it as their first bytes.
pub(crate) type Slot = u32;

/// The length of a slot before a key.
pub(crate) const SLOT_BYTES: usize = size_of::<Slot>();

/// What a pending entry takes beyond its key and value: map, order and key headers.
pub(crate) const PENDING_OVERHEAD_BYTES: usize = 200;

/// The epoch of a table that is not open: nothing is kept for it.
const NO_EPOCH: u64 = u64::MAX;

/// The cache. The lock is held for short sections only and never while something waits.
#[derive(Debug)]
pub(crate) struct Cache {
    limits: CacheLimits,
    state: Mutex<State>,
    /// Wakes writers that wait for room, after something was settled.
    pub(crate) room: Notify,
    /// Wakes the flusher.
    pub(crate) flush_wanted: Notify,
}

#[derive(Debug)]
struct State {
    clean: CleanEntries,
    pending_bytes: usize,
    pending_items: usize,
    tables: HashMap<Slot, Table>,
    /// Tables with dirty writes, by the time at which the flusher should look at them.
    due: BTreeSet<(Instant, Slot)>,
    stamp_last: u64,
}

#[derive(Debug, Default)]
struct Table {
    pending: Pending,
    /// Whether clean entries may be kept.
    sole: bool,
    /// Grows when all clean entries of the table become void.
    epoch: u64,
}

impl State {
    fn look(&mut self, slot: Slot, key: &[u8]) -> Look {
        let Some(table) = self.tables.get(&slot) else {
            return Look::Miss(self.clean.mark(key, NO_EPOCH));
        };
        match table.pending.look(key) {
            Known::Value(value) => return Look::Value(value),
            Known::Fragments => return Look::Fragments,
            Known::Nothing => {}
        }
        if table.sole
            && let Some(value) = self.clean.get(key, table.epoch)
        {
            return Look::Value(value);
        }
        Look::Miss(self.clean.mark(key, table.epoch))
    }
}

impl Cache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                clean: CleanEntries::new(),
                pending_bytes: 0,
                pending_items: 0,
                tables: HashMap::new(),
                due: BTreeSet::new(),
                stamp_last: 0,
            }),
            room: Notify::new(),
            flush_wanted: Notify::new(),
        }
    }

    pub(crate) fn open(&self, slot: Slot, sole: bool) {
        self.state.lock().tables.insert(
            slot,
            Table {
                sole,
                ..Table::default()
            },
        );
    }

    /// Forgets a table; gives the keys of writes that did not get to the server.
    pub(crate) fn close(&self, slot: Slot) -> FailedKeys {
        let mut state = self.state.lock();
        let Some(table) = state.tables.remove(&slot) else {
            return FailedKeys::default();
        };
        state.pending_bytes -= table.pending.bytes();
        state.pending_items -= table.pending.len();
        if let Some(due) = table.pending.due {
            state.due.remove(&(due, slot));
        }
        drop(state);
        self.room.notify_waiters();
        table.pending.keys().map(without_slot).collect()
    }

    pub(crate) fn look(&self, slot: Slot, key: &[u8]) -> Look {
        self.state.lock().look(slot, key)
    }

    /// What the cache says about several keys at one moment.
    pub(crate) fn look_many(&self, slot: Slot, keys: &[Vec<u8>]) -> Vec<Look> {
        let mut state = self.state.lock();
        keys.iter().map(|key| state.look(slot, key)).collect()
    }

    /// Takes a write in, behind those of the same key that are there.
    pub(crate) fn write(&self, slot: Slot, key: &[u8], op: CachedOp) -> Written {
        let cost = key.len() + PENDING_OVERHEAD_BYTES + op.heap_bytes();
        if cost > self.limits.bytes_max / 4 {
            return Written::TooLarge(op);
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(table) = state.tables.get_mut(&slot) else {
            return Written::TooLarge(op);
        };
        let no_room = state.pending_bytes + cost > self.limits.bytes_max
            || self
                .limits
                .items_max
                .is_some_and(|max| state.pending_items >= max && !table.pending.contains(key));
        if no_room && state.pending_items > 0 {
            return Written::NoRoom(op);
        }
        let before = table.pending.bytes();
        let stamp = state.stamp_last + 1;
        let is_known = op.known().is_some();
        let added = match table
            .pending
            .write(key, op, stamp, self.limits.op_bytes_max)
        {
            Ok(added) => added,
            Err(op) => return Written::Behind(op),
        };
        state.stamp_last = stamp;
        state.pending_bytes = state.pending_bytes + table.pending.bytes() - before;
        state.clean.touch(key);
        if !is_known {
            state.clean.forget();
        }
        if added == Added::Entry {
            state.pending_items += 1;
            state.clean.remove(key);
        }
        let mut wake = false;
        if table.pending.due.is_none() {
            let due = Instant::now() + self.limits.flush_interval;
            // The flusher sleeps until the first time of all.
            wake = state.due.first().is_none_or(|&(first, _)| due < first);
            table.pending.due = Some(due);
            state.due.insert((due, slot));
        }
        self.evict(state);
        if wake || self.is_full(state) {
            Written::FlushNow
        } else {
            Written::Cached
        }
    }

    fn is_full(&self, state: &State) -> bool {
        state.pending_bytes >= self.limits.flush_bytes
            || self
                .limits
                .items_max
                .is_some_and(|max| state.pending_items >= max.div_ceil(2))
    }

    /// Drops clean entries, the least recently used first, until the bounds hold.
    fn evict(&self, state: &mut State) {
        let items_max = self.limits.items_max.unwrap_or(usize::MAX);
        while state.clean.bytes() + state.pending_bytes > self.limits.bytes_max
            || state.clean.len() + state.pending_items > items_max
        {
            if !state.clean.evict_one() {
                return;
            }
        }
    }

    /// Whether the answer to a read of many keys is worth keeping: it is where nothing has to go for
    /// it, or where its key was read before of late. So a pass over much data does not push out what
    /// is in use, nor cost an eviction for each key.
    pub(crate) fn admits(&self, key: &[u8], value_bytes: usize) -> bool {
        let mut state = self.state.lock();
        let bytes = state.clean.bytes() + state.pending_bytes + clean_cost(key.len(), value_bytes);
        let items = state.clean.len() + state.pending_items;
        let fits = bytes <= self.limits.bytes_max
            && self
                .limits
                .items_max
                .is_none_or(|items_max| items < items_max);
        fits || state.clean.was_seen(key)
    }

    /// Keeps what the server said about a key, unless something touched it since `mark`.
    pub(crate) fn install(&self, slot: Slot, key: Arc<[u8]>, value: Option<Bytes>, mark: ReadMark) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(table) = state.tables.get(&slot) else {
            return;
        };
        let is_fresh = state.clean.mark(&key, table.epoch) == mark;
        if is_fresh && table.sole && !table.pending.contains(&key) {
            state.clean.put(key, value, mark.epoch);
            self.evict(state);
        }
    }

    /// A write of `key` that does not go through the cache begins, or was answered: what is
    /// cached is void. Gives the mark under which the value after it may be kept.
    pub(crate) fn touch(&self, slot: Slot, key: &[u8]) -> ReadMark {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.clean.touch(key);
        state.clean.remove(key);
        state.clean.forget();
        let epoch = state
            .tables
            .get(&slot)
            .map_or(NO_EPOCH, |table| table.epoch);
        state.clean.mark(key, epoch)
    }

    /// Keeps the value of a key that the answer to a write told, unless it was touched since that
    /// write began; reads that began before now are void either way.
    pub(crate) fn install_written(
        &self,
        slot: Slot,
        key: Arc<[u8]>,
        value: Option<Bytes>,
        begun: ReadMark,
    ) {
        let now = self.touch(slot, &key);
        if now.touches == begun.touches + 1 && now.epoch == begun.epoch {
            self.install(slot, key, value, now);
        }
    }

    /// All clean entries of a table are void: it was cleared, or written past the cache.
    pub(crate) fn forget_clean(&self, slot: Slot) {
        if let Some(table) = self.state.lock().tables.get_mut(&slot) {
            table.epoch += 1;
        }
    }

    /// Whether no other client has the table open.
    pub(crate) fn set_sole(&self, slot: Slot, sole: bool) {
        if let Some(table) = self.state.lock().tables.get_mut(&slot) {
            table.sole = sole;
            table.epoch += 1;
        }
    }

    /// The table's epoch, if clean entries of it are kept, and how often the cache forgot something.
    pub(crate) fn moment(&self, slot: Slot) -> (Option<u64>, u64) {
        let state = self.state.lock();
        let table = state.tables.get(&slot).filter(|table| table.sole);
        (table.map(|table| table.epoch), state.clean.forgotten())
    }

    /// The stamp of the newest write, for [`settled_up_to`](Self::settled_up_to).
    pub(crate) fn stamp_last(&self) -> u64 {
        self.state.lock().stamp_last
    }

    /// Whether all writes of a table up to `stamp` are on the server.
    pub(crate) fn settled_up_to(&self, slot: Slot, stamp: u64) -> bool {
        let state = self.state.lock();
        let oldest = state
            .tables
            .get(&slot)
            .and_then(|table| table.pending.oldest_stamp());
        oldest.is_none_or(|oldest| oldest > stamp)
    }

    /// Whether a write of the key is not known to be on the server.
    pub(crate) fn is_pending(&self, slot: Slot, key: &[u8]) -> bool {
        self.state
            .lock()
            .tables
            .get(&slot)
            .is_some_and(|table| table.pending.contains(key))
    }

    /// The keys of all writes of a table that are not known to be on the server.
    pub(crate) fn pending_keys(&self, slot: Slot) -> FailedKeys {
        let state = self.state.lock();
        let table = state.tables.get(&slot);
        table
            .into_iter()
            .flat_map(|table| table.pending.keys())
            .map(without_slot)
            .collect()
    }

    /// The tables that have something pending.
    pub(crate) fn pending_slots(&self) -> Vec<Slot> {
        let state = self.state.lock();
        let pending = state
            .tables
            .iter()
            .filter(|(_, table)| table.pending.len() > 0);
        pending.map(|(slot, _)| *slot).collect()
    }

    /// Takes the oldest dirty writes of a table for one batch.
    pub(crate) fn take_batch(&self, slot: Slot) -> Option<Batch> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let pending = &mut state.tables.get_mut(&slot)?.pending;
        let batch = pending.take_batch(&BATCH_LIMITS, self.limits.op_bytes_max);
        // What is left is either due still, or waits for its key's batch in flight, and is due
        // when that is answered.
        if (batch.is_none() || !pending.has_dirty())
            && let Some(due) = pending.due.take()
        {
            state.due.remove(&(due, slot));
        }
        batch
    }

    /// Takes the dirty write of one key, if none is in flight.
    pub(crate) fn take_one(&self, slot: Slot, key: &[u8]) -> Option<Batch> {
        let op_bytes_max = self.limits.op_bytes_max;
        self.state
            .lock()
            .tables
            .get_mut(&slot)?
            .pending
            .take_one(key, op_bytes_max)
    }

    /// The server has the batch.
    pub(crate) fn settle(&self, slot: Slot, batch: u64, keys: &[Arc<[u8]>]) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(table) = state.tables.get_mut(&slot) else {
            return;
        };
        let (bytes, items) = (table.pending.bytes(), table.pending.len());
        let (sole, epoch) = (table.sole, table.epoch);
        let clean = &mut state.clean;
        table.pending.settle(batch, keys, |key, value| {
            if sole {
                clean.put(Arc::clone(key), value, epoch);
            }
        });
        state.pending_bytes -= bytes - table.pending.bytes();
        state.pending_items -= items - table.pending.len();
        table.pending.held_until = None;
        let due = Instant::now();
        reschedule(table, &mut state.due, slot, due);
        self.evict(state);
        drop(guard);
        self.room.notify_waiters();
        self.flush_wanted.notify_one();
    }

    /// The server does not have the batch: its writes are dirty again, and the flusher tries at
    /// `retry`, or not by itself if that is none.
    pub(crate) fn restore(&self, slot: Slot, batch: &Batch, retry: Option<Instant>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(table) = state.tables.get_mut(&slot) else {
            return;
        };
        let bytes = table.pending.bytes();
        table.pending.restore(batch.number, &batch.keys);
        state.pending_bytes = state.pending_bytes + table.pending.bytes() - bytes;
        table.pending.held_until = retry;
        if let Some(due) = table.pending.due.take() {
            state.due.remove(&(due, slot));
        }
        if let Some(retry) = retry {
            reschedule(table, &mut state.due, slot, retry);
        }
        drop(guard);
        self.flush_wanted.notify_one();
    }

    /// What the flusher should do at this time.
    pub(crate) fn next_due(&self, now: Instant) -> Due {
        let state = self.state.lock();
        let first = state.due.first();
        if let Some(&(due, slot)) = first
            && due <= now
        {
            return Due::Table(slot);
        }
        if self.is_full(&state) {
            let held = |slot| {
                let until = state
                    .tables
                    .get(&slot)
                    .and_then(|table| table.pending.held_until);
                until.is_some_and(|until| until > now)
            };
            if let Some(&(_, slot)) = state.due.iter().find(|&&(_, slot)| !held(slot)) {
                return Due::Table(slot);
            }
        }
        Due::Later(first.map(|&(due, _)| due))
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let state = self.state.lock();
        state.clean.bytes() + state.pending_bytes
    }

    #[cfg(test)]
    pub(crate) fn items(&self) -> usize {
        let state = self.state.lock();
        state.clean.len() + state.pending_items
    }
}

fn reschedule(table: &mut Table, all: &mut BTreeSet<(Instant, Slot)>, slot: Slot, due: Instant) {
    if table.pending.has_dirty() && table.pending.due.is_none() {
        table.pending.due = Some(due);
        all.insert((due, slot));
    }
}

fn without_slot(key: &[u8]) -> &[u8] {
    key.get(SLOT_BYTES..).unwrap_or_default()
}
