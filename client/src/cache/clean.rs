//! What the server has, too: one LRU list for all tables, and the marks that keep old answers out.

use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;

/// What a clean entry takes beyond its key and value: the list's node and the map's slot.
const CLEAN_OVERHEAD_BYTES: usize = 120;

/// Keys share these counters of touches; sharing one costs only a cached read.
const TOUCHES: usize = 1024;

/// Keys that are remembered after they were read and not kept.
const SEEN: usize = 16 * 1024;

/// When a read began, so that its answer is not kept if it came to be old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadMark {
    /// The table's epoch.
    pub(super) epoch: u64,
    /// The writes of the key, or of one that shares its counter.
    pub(super) touches: u64,
}

/// The clean entries of all tables.
#[derive(Debug)]
pub(super) struct CleanEntries {
    entries: LruCache<Arc<[u8]>, Clean>,
    bytes: usize,
    touches: Box<[u64; TOUCHES]>,
    /// Marks of keys that were read of late and not kept, each in the place of its hash.
    seen: Box<[u32; SEEN]>,
    /// Grows whenever the cache may have come to know less of a key than it did.
    forgotten: u64,
}

#[derive(Debug)]
struct Clean {
    value: Option<Bytes>,
    /// The table's epoch when it was read; it is void in another.
    epoch: u64,
}

impl CleanEntries {
    pub(super) fn new() -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            touches: Box::new([0; TOUCHES]),
            seen: Box::new([0; SEEN]),
            forgotten: 0,
        }
    }

    /// How often something was forgotten. While this stays the same, a key of which nothing is known
    /// was not written.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// A write leaves no value behind that is known.
    pub(super) fn forget(&mut self) {
        self.forgotten += 1;
    }

    /// Whether a key was read before of late; notes that it was read now.
    pub(super) fn was_seen(&mut self, key: &[u8]) -> bool {
        let hash = hash(key);
        let mark = hash as u32 | 1;
        let place = &mut self.seen[(hash >> 32) as usize % SEEN];
        std::mem::replace(place, mark) == mark
    }

    /// What all entries take, the void ones included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The value of a key, or that there is none, as known in this epoch.
    pub(super) fn get(&mut self, key: &[u8], epoch: u64) -> Option<Option<Bytes>> {
        let clean = self.entries.get(key)?;
        (clean.epoch == epoch).then(|| clean.value.clone())
    }

    pub(super) fn put(&mut self, key: Arc<[u8]>, value: Option<Bytes>, epoch: u64) {
        let entry = Clean { value, epoch };
        let key_bytes = key.len();
        self.bytes += cost(key_bytes, &entry);
        // The list is unbounded: what comes back is the older entry of the same key.
        if let Some((_, old)) = self.entries.push(key, entry) {
            self.bytes -= cost(key_bytes, &old);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(old) = self.entries.pop(key) {
            self.bytes -= cost(key.len(), &old);
        }
    }

    /// Drops the least recently used entry, if there is one.
    pub(super) fn evict_one(&mut self) -> bool {
        let Some((key, old)) = self.entries.pop_lru() else {
            return false;
        };
        self.bytes -= cost(key.len(), &old);
        self.forgotten += 1;
        true
    }

    /// The mark of a read of this key that begins now.
    pub(super) fn mark(&self, key: &[u8], epoch: u64) -> ReadMark {
        ReadMark {
            epoch,
            touches: self.touches[touch_index(key)],
        }
    }

    /// A write of this key: reads that began before are void.
    pub(super) fn touch(&mut self, key: &[u8]) {
        self.touches[touch_index(key)] += 1;
    }
}

/// What a clean entry takes.
pub(super) fn clean_cost(key_bytes: usize, value_bytes: usize) -> usize {
    key_bytes + CLEAN_OVERHEAD_BYTES + value_bytes
}

fn cost(key_bytes: usize, clean: &Clean) -> usize {
    clean_cost(key_bytes, clean.value.as_ref().map_or(0, Bytes::len))
}

/// Which counter of touches a key shares.
fn touch_index(key: &[u8]) -> usize {
    (hash(key) >> 32) as usize % TOUCHES
}

fn hash(key: &[u8]) -> u64 {
    let mut hash = 0u64;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    hash
}
