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
use pyo3::{prelude::*, sync::PyOnceLock, types::PyList};
use siphasher::sip128::{Hasher128, SipHasher13};

/// What an object takes beyond its bytes as encoded: its header, and the slot that refers to it.
const OBJECT_BYTES: usize = 64;

/// What an entry takes beyond its key and its object.
const ENTRY_BYTES: usize = 200;

/// How many budgets the values may take that the program holds on to, and has in memory anyway.
const HELD_BUDGETS: usize = 4;

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
    /// The table's epoch then; none if it may have been another value by then, or other clients had
    /// the table open.
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

    /// Whether the program has the object, too, and may change it; this entry is a clone of one
    /// that is kept.
    pub(crate) fn is_held(&self, py: Python<'_>) -> PyResult<bool> {
        static LOOSE: PyOnceLock<usize> = PyOnceLock::new();
        let loose = LOOSE.get_or_try_init(py, || {
            // Counted as an entry's object is: one that is kept, and a clone of that.
            let kept = PyList::empty(py).into_any().unbind();
            references(py, &kept.clone_ref(py))
        })?;
        Ok(references(py, &self.object)? > *loose)
    }
}

/// How many references there are to an object, as Python counts them.
fn references(py: Python<'_>, object: &Py<PyAny>) -> PyResult<usize> {
    static COUNT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let count = COUNT.import(py, "sys", "getrefcount")?;
    count.call1((object,))?.extract()
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

/// An entry that should go.
#[derive(Debug)]
pub(crate) struct Oldest {
    pub(crate) key: Box<[u8]>,
    pub(crate) entry: LiveEntry,
    /// Whether it may stay if the program holds it.
    pub(crate) may_stay: bool,
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

    /// Keeps a value, however large it is; others may have to go for it.
    pub(crate) fn put(&self, key: &[u8], entry: LiveEntry) {
        let mut state = self.state.lock();
        state.bytes += entry.cost;
        let old = state.entries.push(key.into(), entry);
        if let Some((_, old)) = &old {
            state.bytes -= old.cost;
        }
        self.count.store(state.entries.len(), Ordering::Relaxed);
        drop(state);
        // The object that was replaced may run Python as it goes.
        drop(old);
    }

    /// The least recently used entry, if there are more than the budget has room for.
    pub(crate) fn oldest(&self, py: Python<'_>) -> Option<Oldest> {
        let state = self.state.lock();
        if state.bytes <= self.bytes_max {
            return None;
        }
        let (key, entry) = state.entries.peek_lru()?;
        Some(Oldest {
            key: key.clone(),
            entry: entry.clone_ref(py),
            may_stay: state.bytes <= self.bytes_max.saturating_mul(HELD_BUDGETS),
        })
    }

    /// An entry is in use.
    pub(crate) fn renew(&self, key: &[u8]) {
        self.state.lock().entries.promote(key);
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
        self.remove_if(key, |_any| true)
    }

    /// Removes an entry, if its object is this one still.
    pub(crate) fn remove_same(&self, key: &[u8], object: &Py<PyAny>) {
        drop(self.remove_if(key, |entry| entry.object.is(object)));
    }

    fn remove_if(&self, key: &[u8], fits: impl Fn(&LiveEntry) -> bool) -> Option<LiveEntry> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state.lock();
        state.entries.peek(key).filter(|entry| fits(entry))?;
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
