//! One table's writes that are not yet known to be on the server.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{CachedOp, PENDING_OVERHEAD_BYTES, SLOT_BYTES};

/// Entries of which a batch is looked for at most: those whose key is in flight already stay.
const SKIPPED_MAX: usize = 1024;

/// The writes of one key: at most one in flight, and at most one that waits behind it.
#[derive(Debug)]
struct Entry {
    key: Arc<[u8]>,
    /// Sent, and not answered.
    in_flight: Option<Stamped>,
    /// Not sent.
    dirty: Option<Stamped>,
}

#[derive(Debug)]
struct Stamped {
    op: CachedOp,
    /// When the oldest write in it was made, as a number that grows.
    stamp: u64,
}

/// What a write was added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// Nothing: it makes the entry.
    Entry,
    /// Writes of the same key.
    Behind,
}

/// What the pending writes say about a key.
pub(crate) enum Known {
    /// The value is this, or there is none.
    Value(Option<Bytes>),
    /// There are fragments, and what they add to is on the server.
    Fragments,
    /// Nothing is pending.
    Nothing,
}

/// A batch of writes, on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) keys: Vec<Arc<[u8]>>,
    /// How many operations there are: mostly one a key.
    pub(crate) count: u32,
    /// The operations, packed.
    pub(crate) packed: Vec<u8>,
}

/// Where a batch is closed.
#[derive(Debug)]
pub(crate) struct BatchLimits {
    pub(crate) bytes_target: usize,
    pub(crate) entries_max: usize,
}

#[derive(Debug, Default)]
struct Packed {
    count: u32,
    bytes: Vec<u8>,
}

/// The pending writes of one table.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    entries: HashMap<Arc<[u8]>, Entry, lru::DefaultHasher>,
    /// Dirty keys in the order of their stamps.
    order: BTreeMap<u64, Arc<[u8]>>,
    /// The batches in flight, with the oldest stamp of each.
    flights: BTreeMap<u64, u64>,
    batch_last: u64,
    /// What all entries take.
    bytes: usize,
    /// When the flusher should look at the table.
    pub(super) due: Option<Instant>,
    /// Before this time it should not, since the server refused.
    pub(super) held_until: Option<Instant>,
}

impl Pending {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.order.is_empty()
    }

    /// The stamp of the oldest write that is not on the server.
    pub(crate) fn oldest_stamp(&self) -> Option<u64> {
        let dirty = self.order.first_key_value().map(|(stamp, _)| *stamp);
        let in_flight = self.flights.values().min().copied();
        match (dirty, in_flight) {
            (Some(dirty), Some(in_flight)) => Some(dirty.min(in_flight)),
            (one, other) => one.or(other),
        }
    }

    /// All keys, with their table's prefix.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.keys().map(|key| &**key)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn look(&self, key: &[u8]) -> Known {
        let Some(entry) = self.entries.get(key) else {
            return Known::Nothing;
        };
        let (dirty, in_flight) = (&entry.dirty, &entry.in_flight);
        let Some(newest) = dirty.as_ref().or(in_flight.as_ref()) else {
            return Known::Nothing;
        };
        if let Some(known) = newest.op.known() {
            return Known::Value(known.cloned());
        }
        // Fragments that wait behind a known value in flight add to that.
        let (Some(dirty), Some(in_flight)) = (dirty, in_flight) else {
            return Known::Fragments;
        };
        match in_flight.op.known() {
            None => Known::Fragments,
            Some(_) => match in_flight.op.clone().then(dirty.op.clone()).known() {
                Some(value) => Known::Value(value.cloned()),
                None => Known::Fragments,
            },
        }
    }

    /// Adds a write behind those that are there; gives it back if that would grow what waits for
    /// the key beyond `op_bytes_max`.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        op: CachedOp,
        stamp: u64,
        op_bytes_max: usize,
    ) -> Result<Added, CachedOp> {
        let Some(entry) = self.entries.get_mut(key) else {
            let shared: Arc<[u8]> = key.into();
            self.bytes += key.len() + PENDING_OVERHEAD_BYTES + op.heap_bytes();
            self.order.insert(stamp, Arc::clone(&shared));
            let entry = Entry {
                key: Arc::clone(&shared),
                in_flight: None,
                dirty: Some(Stamped { op, stamp }),
            };
            self.entries.insert(shared, entry);
            return Ok(Added::Entry);
        };
        let dirty = match entry.dirty.take() {
            Some(old) if old.op.grown_bytes(&op) > op_bytes_max => {
                entry.dirty = Some(old);
                return Err(op);
            }
            Some(old) => {
                self.bytes -= old.op.heap_bytes();
                Stamped {
                    op: old.op.then(op),
                    stamp: old.stamp,
                }
            }
            None => {
                self.order.insert(stamp, Arc::clone(&entry.key));
                Stamped { op, stamp }
            }
        };
        self.bytes += dirty.op.heap_bytes();
        entry.dirty = Some(dirty);
        Ok(Added::Behind)
    }

    /// Takes the oldest writes for a batch of about `bytes_target`, all of different keys, none
    /// of which is in flight: so if a batch fails, no later write of its keys can have passed it.
    pub(crate) fn take_batch(
        &mut self,
        limits: &BatchLimits,
        op_bytes_max: usize,
    ) -> Option<Batch> {
        let mut taken = Vec::new();
        let mut batch = Packed::default();
        let mut skipped = 0;
        for (&stamp, key) in &self.order {
            if batch.bytes.len() >= limits.bytes_target || taken.len() >= limits.entries_max {
                break;
            }
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            if entry.in_flight.is_some() {
                skipped += 1;
                if skipped >= SKIPPED_MAX {
                    break;
                }
                continue;
            }
            batch.push_dirty(key, entry, op_bytes_max);
            taken.push((stamp, Arc::clone(key)));
        }
        self.launch(taken, batch)
    }

    /// Takes the write of one key, if it is dirty and not in flight.
    pub(crate) fn take_one(&mut self, key: &[u8], op_bytes_max: usize) -> Option<Batch> {
        let entry = self.entries.get_mut(key)?;
        let stamp = match (&entry.in_flight, &entry.dirty) {
            (None, Some(dirty)) => dirty.stamp,
            _ => return None,
        };
        let taken = vec![(stamp, Arc::clone(&entry.key))];
        let mut batch = Packed::default();
        batch.push_dirty(key, entry, op_bytes_max);
        self.launch(taken, batch)
    }

    fn launch(&mut self, taken: Vec<(u64, Arc<[u8]>)>, batch: Packed) -> Option<Batch> {
        let oldest = taken.iter().map(|(stamp, _)| *stamp).min()?;
        self.batch_last += 1;
        self.flights.insert(self.batch_last, oldest);
        let mut keys = Vec::with_capacity(taken.len());
        for (stamp, key) in taken {
            self.order.remove(&stamp);
            keys.push(key);
        }
        let Packed { count, bytes } = batch;
        Some(Batch {
            number: self.batch_last,
            keys,
            count,
            packed: bytes,
        })
    }

    /// The server has the batch: gives each key with its value, where that is known and final.
    pub(crate) fn settle(
        &mut self,
        number: u64,
        keys: &[Arc<[u8]>],
        mut clean: impl FnMut(&Arc<[u8]>, Option<Bytes>),
    ) {
        self.flights.remove(&number);
        for key in keys {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            let Some(done) = entry.in_flight.take() else {
                continue;
            };
            self.bytes -= done.op.heap_bytes();
            if entry.dirty.is_some() {
                continue;
            }
            self.entries.remove(key);
            self.bytes -= key.len() + PENDING_OVERHEAD_BYTES;
            match done.op {
                CachedOp::Put(value) => clean(key, Some(value)),
                CachedOp::Discard => clean(key, None),
                CachedOp::Append(_) | CachedOp::Add(_) => {}
            }
        }
    }

    /// The server does not have the batch: its writes are dirty again, before later ones.
    pub(crate) fn restore(&mut self, number: u64, keys: &[Arc<[u8]>]) {
        self.flights.remove(&number);
        for key in keys {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            let Some(failed) = entry.in_flight.take() else {
                continue;
            };
            self.bytes -= failed.op.heap_bytes();
            let op = match entry.dirty.take() {
                None => failed.op,
                Some(later) => {
                    self.order.remove(&later.stamp);
                    self.bytes -= later.op.heap_bytes();
                    failed.op.then(later.op)
                }
            };
            self.bytes += op.heap_bytes();
            self.order.insert(failed.stamp, Arc::clone(key));
            entry.dirty = Some(Stamped {
                op,
                stamp: failed.stamp,
            });
        }
    }
}

impl Packed {
    /// Moves the dirty write of an entry into the batch and in flight.
    fn push_dirty(&mut self, key: &[u8], entry: &mut Entry, op_bytes_max: usize) {
        if let Some(dirty) = entry.dirty.take() {
            let key = key.get(SLOT_BYTES..).unwrap_or_default();
            self.count += dirty.op.push(key, op_bytes_max, &mut self.bytes);
            entry.in_flight = Some(dirty);
        }
    }
}
