//! Values that were handed out and can be changed in place: kept, so that a change is noticed.
//!
//! An entry remembers what its object was encoded to when it last agreed with the table. When it is
//! evicted, or the table flushed, it is encoded again, and written if that is something else. The
//! lock is never held while Python runs.

use std::{
    hash::Hasher,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;
use pyo3::prelude::*;
use siphasher::sip128::{Hasher128, SipHasher13};

/// What an object takes beyond its bytes as encoded: its header, and the slot that refers to it.
const OBJECT_BYTES: usize = 64;

/// What an entry takes beyond its key and its object.
const ENTRY_BYTES: usize = 200;

/// What tells encodings apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print([u64; 2]);

impl Print {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        static KEYS: OnceLock<(u64, u64)> = OnceLock::new();
        let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
        let &(first, second) = KEYS.get_or_init(|| (random(), random()));
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(bytes);
        let hash = hasher.finish128();
        Self([hash.h1, hash.h2])
    }
}

/// A value that was handed out.
#[derive(Debug)]
pub(crate) struct LiveEntry {
    pub(crate) object: Py<PyAny>,
    /// What it was encoded to when it agreed with the table.
    pub(crate) print: Print,
    /// The table's epoch then; none if other clients had the table open.
    pub(crate) epoch: Option<u64>,
    /// What it takes.
    pub(crate) cost: usize,
}

impl LiveEntry {
    /// What an object takes that is encoded to so many bytes and made of so many objects.
    pub(crate) fn cost(key_bytes: usize, value_bytes: usize, objects: usize) -> usize {
        ENTRY_BYTES + key_bytes + value_bytes + objects * OBJECT_BYTES
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            object: self.object.clone_ref(py),
            ..*self
        }
    }
}

/// The live values of one table, the least recently used first to go.
#[derive(Debug)]
pub(crate) struct Live {
    state: Mutex<State>,
    /// How many there are, for those who only want to know whether there is any.
    count: AtomicUsize,
    bytes_max: usize,
}

#[derive(Debug)]
struct State {
    entries: LruCache<Box<[u8]>, LiveEntry>,
    bytes: usize,
}

impl Live {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let state = State {
            entries: LruCache::unbounded(),
            bytes: 0,
        };
        Self {
            state: Mutex::new(state),
            count: AtomicUsize::new(0),
            bytes_max,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn get(&self, py: Python<'_>, key: &[u8]) -> Option<LiveEntry> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state.lock();
        state.entries.get(key).map(|entry| entry.clone_ref(py))
    }

    /// Keeps a value; gives those that have to go for it.
    #[must_use = "what goes may have changed, and must be written"]
    pub(crate) fn put(&self, key: &[u8], entry: LiveEntry) -> Vec<(Box<[u8]>, LiveEntry)> {
        let mut gone = Vec::new();
        let mut state = self.state.lock();
        state.bytes += entry.cost;
        let old = state.entries.push(key.into(), entry);
        if let Some((_, old)) = &old {
            state.bytes -= old.cost;
        }
        while state.bytes > self.bytes_max {
            let Some((key, entry)) = state.entries.pop_lru() else {
                break;
            };
            state.bytes -= entry.cost;
            gone.push((key, entry));
        }
        self.count.store(state.entries.len(), Ordering::Relaxed);
        drop(state);
        // The object that was replaced may run Python as it goes.
        drop(old);
        gone
    }

    /// What an entry's object agrees with now, if it is the same object still.
    pub(crate) fn agreed(&self, key: &[u8], object: &Py<PyAny>, print: Print, epoch: Option<u64>) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.peek_mut(key)
            && entry.object.is(object)
        {
            entry.print = print;
            entry.epoch = epoch;
        }
    }

    pub(crate) fn remove(&self, key: &[u8]) -> Option<LiveEntry> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state.lock();
        let entry = state.entries.pop(key)?;
        state.bytes -= entry.cost;
        self.count.store(state.entries.len(), Ordering::Relaxed);
        Some(entry)
    }

    /// All entries, the oldest first.
    pub(crate) fn all(&self, py: Python<'_>) -> Vec<(Box<[u8]>, LiveEntry)> {
        let state = self.state.lock();
        let entries = state.entries.iter().rev();
        entries
            .map(|(key, entry)| (key.clone(), entry.clone_ref(py)))
            .collect()
    }

    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        let gone = std::mem::replace(&mut state.entries, LruCache::unbounded());
        state.bytes = 0;
        self.count.store(0, Ordering::Relaxed);
        drop(state);
        drop(gone);
    }
}
