//! The hot tier of one table: entries in RAM, in buckets that are ordered by place.
//!
//! A key's place selects its bucket by its leading bits (extendible hashing), so the buckets in
//! order are the entries in order but for the sort inside each. That is what makes spilling a
//! range of places, and scanning in the order of places, cheap: neither ever sorts more than a
//! bucket. An interval of buckets that is to be spilled is taken out whole as [`Frozen`], stays
//! readable while it is written, and is freed as a whole.

mod chunk;
mod arena;
mod large;
mod bucket;
mod frozen;

pub(crate) use arena::{ArenaFull, Header, State};
pub(crate) use bucket::{CleanBase, Entry, Value, counter_value};
pub(crate) use frozen::{Frozen, FrozenSource};

use bucket::Bucket;

/// The most leading bits that select a bucket.
const DEPTH_MAX: u8 = 24;
/// Of a bucket that is frozen, at most this part is kept hot for having been read.
const KEPT_SHARE: usize = 2;

/// The entries of a table that are in RAM.
#[derive(Debug)]
pub(crate) struct HotMap {
    /// By the `depth` leading bits of a place: its bucket's index.
    directory: Vec<u32>,
    buckets: Vec<Bucket>,
    depth: u8,
    entries: usize,
    bytes: usize,
    version: u32,
    /// Where the next freeze begins.
    hand: u64,
}

impl HotMap {
    /// An empty map.
    pub(crate) fn new() -> Self {
        let mut map = Self {
            directory: vec![0],
            buckets: vec![Bucket::default()],
            depth: 0,
            entries: 0,
            bytes: 0,
            version: 0,
            hand: 0,
        };
        map.bytes = map.fixed_bytes();
        map
    }

    /// How many entries it has: bases, fragments and tombstones.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// The RAM that it takes.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.bytes
    }

    /// The entry of `key`.
    #[inline]
    pub(crate) fn get(&self, place: u64, key: &[u8]) -> Option<Entry<'_>> {
        self.buckets[self.bucket_index(place)].get(place, key)
    }

    /// Marks the entry of `key` as read, which keeps it from the next spill.
    #[inline]
    pub(crate) fn touch(&mut self, place: u64, key: &[u8]) {
        let index = self.bucket_index(place);
        self.buckets[index].touch(place, key);
    }

    /// Sets the whole value of `key`.
    pub(crate) fn put(&mut self, place: u64, key: &[u8], value: &[u8]) -> Result<(), ArenaFull> {
        self.set(place, State::Base, Dirt::Dirty, key, value)
    }

    /// Says that `key` has no entry, whatever lies below.
    pub(crate) fn bury(&mut self, place: u64, key: &[u8]) -> Result<(), ArenaFull> {
        self.set(place, State::Tombstone, Dirt::Dirty, key, &[])
    }

    /// Takes in what a read of the tiers below found, or that it found nothing.
    pub(crate) fn promote(
        &mut self,
        place: u64,
        key: &[u8],
        value: Option<&[u8]>,
        dirt: Dirt,
    ) -> Result<(), ArenaFull> {
        match value {
            Some(value) => self.set(place, State::Base, dirt, key, value),
            None => self.set(place, State::Tombstone, dirt, key, &[]),
        }
    }

    /// Adds `bytes` to the end of the list at `key`.
    pub(crate) fn append(
        &mut self,
        place: u64,
        key: &[u8],
        bytes: &[u8],
        clean_base: CleanBase,
    ) -> Result<(), ArenaFull> {
        let version = self.next_version();
        self.change(place, |bucket| {
            bucket.append(place, version, key, bytes, clean_base)
        })
    }

    /// Adds `delta` to the counter at `key`.
    pub(crate) fn add(&mut self, place: u64, key: &[u8], delta: i64) -> Result<(), ArenaFull> {
        let version = self.next_version();
        self.change(place, |bucket| bucket.add(place, version, key, delta))
    }

    /// Forgets the entry of `key`, where nothing lies below that a tombstone must hide.
    pub(crate) fn forget(&mut self, place: u64, key: &[u8]) {
        let index = self.bucket_index(place);
        let bucket = &mut self.buckets[index];
        let bytes_before = bucket.footprint_bytes();
        if bucket.remove(place, key) {
            self.entries -= 1;
            self.bytes = self.bytes - bytes_before + bucket.footprint_bytes();
        }
    }

    /// Takes out about `bytes_target` bytes of entries, a whole interval of buckets from where the
    /// last freeze ended. Entries read since the last freeze stay, unless they are most of it.
    /// None if there is nothing to take.
    pub(crate) fn freeze(&mut self, bytes_target: usize) -> Option<Frozen> {
        if self.entries == 0 {
            return None;
        }
        // An interval must not wrap round, so a hand near the end may find little there.
        let frozen = self.freeze_from(self.hand, bytes_target);
        match frozen {
            Some(frozen) => Some(frozen),
            None => self.freeze_from(0, bytes_target),
        }
    }

    /// A copy of the entries after `after` in order, of about `bytes_max` bytes, as a frozen
    /// interval that ends where the copy does.
    pub(crate) fn snapshot(&self, from: u64, after: Option<&[u8]>, bytes_max: usize) -> Frozen {
        let mut copy = Frozen::new(from);
        let mut slot = self.slot(from);
        let mut bytes = 0;
        while slot < self.directory.len() {
            let bucket = &self.buckets[self.directory[slot] as usize];
            for at in bucket.sorted_refs() {
                let entry = bucket.entry(at);
                let position = (entry.header.place, entry.key);
                let wanted = match after {
                    None => position.0 >= from,
                    Some(after) => position > (from, after),
                };
                if !wanted {
                    continue;
                }
                bytes += entry.key.len() + entry.value.len();
                copy.push_copy(&entry);
                if bytes >= bytes_max {
                    return copy;
                }
            }
            slot = self.slot_after(slot);
        }
        copy.end_open();
        copy
    }

    /// A copy of one entry.
    pub(crate) fn snapshot_of(&self, place: u64, key: &[u8]) -> Option<Frozen> {
        let entry = self.get(place, key)?;
        let mut copy = Frozen::new(place);
        copy.push_copy(&entry);
        Some(copy)
    }

    /// Visits entries in order from `from` on, bucket by bucket, until about `entries_max` were
    /// visited; returns the last place that was covered.
    pub(crate) fn visit(
        &self,
        from: u64,
        entries_max: usize,
        mut visitor: impl FnMut(&Entry<'_>),
    ) -> u64 {
        let mut slot = self.slot(from);
        let mut entries = 0;
        while slot < self.directory.len() {
            let bucket = &self.buckets[self.directory[slot] as usize];
            for at in bucket.sorted_refs() {
                let entry = bucket.entry(at);
                if entry.header.place >= from {
                    visitor(&entry);
                }
            }
            entries += bucket.len();
            slot = self.slot_after(slot);
            if entries >= entries_max {
                break;
            }
        }
        if slot < self.directory.len() {
            self.slot_first_place(slot) - 1
        } else {
            u64::MAX
        }
    }

    fn set(
        &mut self,
        place: u64,
        state: State,
        dirt: Dirt,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), ArenaFull> {
        let header = Header {
            place,
            version: self.next_version(),
            state,
            clean: dirt == Dirt::Clean,
            used: dirt == Dirt::Clean,
            large: false,
        };
        self.change(place, |bucket| bucket.set(header, key, value))
    }

    #[inline]
    fn change(
        &mut self,
        place: u64,
        change: impl FnOnce(&mut Bucket) -> Result<(), ArenaFull>,
    ) -> Result<(), ArenaFull> {
        let index = self.bucket_index(place);
        let bucket = &mut self.buckets[index];
        let (entries_before, bytes_before) = (bucket.len(), bucket.footprint_bytes());
        let result = change(bucket);
        self.entries = self.entries - entries_before + bucket.len();
        self.bytes = self.bytes - bytes_before + bucket.footprint_bytes();
        if bucket.is_full() {
            self.split(index, place);
        }
        result
    }

    fn next_version(&mut self) -> u32 {
        self.version = self.version.wrapping_add(1);
        self.version
    }

    /// Splits a bucket by the next bit of its places.
    fn split(&mut self, index: usize, place: u64) {
        let bucket = &self.buckets[index];
        let depth = bucket.depth;
        if depth == DEPTH_MAX || bucket.has_one_place() {
            let entries = bucket.len();
            self.buckets[index].split_entries_min = entries * 2;
            return;
        }
        self.bytes -= self.fixed_bytes() + bucket.footprint_bytes();
        if depth == self.depth {
            self.directory = self
                .directory
                .iter()
                .flat_map(|&index| [index, index])
                .collect();
            self.depth += 1;
        }
        let old = std::mem::take(&mut self.buckets[index]);
        let bit = 1u64 << (63 - depth);
        let mut halves = [0, 1].map(|_| Bucket::with_capacity(depth + 1, old.len() / 2));
        for at in old.refs() {
            let entry = old.entry(at);
            let half = usize::from(entry.header.place & bit != 0);
            // Each half holds less than the whole did, so it cannot run out of chunks.
            let adopted = halves[half].adopt(&entry);
            debug_assert!(adopted.is_ok());
        }
        let [low, high] = halves;
        self.buckets[index] = low;
        self.buckets.push(high);
        let high_index = (self.buckets.len() - 1) as u32;
        // The old bucket's slots in the directory are neighbours; the upper half is the new one's.
        let slots = 1usize << (self.depth - depth);
        let first_slot = self.slot(place) & !(slots - 1);
        for slot in &mut self.directory[first_slot + slots / 2..first_slot + slots] {
            *slot = high_index;
        }
        let halves_bytes = self.buckets[index].footprint_bytes()
            + self.buckets[high_index as usize].footprint_bytes();
        self.bytes += self.fixed_bytes() + halves_bytes;
    }

    /// Sums the bytes anew, after many buckets changed.
    fn recount(&mut self) {
        self.bytes = self.fixed_bytes()
            + self
                .buckets
                .iter()
                .map(Bucket::footprint_bytes)
                .sum::<usize>();
        self.entries = self.buckets.iter().map(Bucket::len).sum();
    }

    fn fixed_bytes(&self) -> usize {
        size_of::<Self>()
            + self.directory.capacity() * size_of::<u32>()
            + self.buckets.capacity() * size_of::<Bucket>()
    }

    fn freeze_from(&mut self, hand: u64, bytes_target: usize) -> Option<Frozen> {
        let mut slot = self.slot(hand);
        let first = self.slot_first_place(slot);
        let mut frozen = Frozen::new(first);
        let mut bytes = 0;
        while slot < self.directory.len() && bytes < bytes_target {
            let index = self.directory[slot] as usize;
            let next_slot = self.slot_after(slot);
            let bucket_first = self.slot_first_place(slot);
            let bucket = &mut self.buckets[index];
            if bucket.len() > 0 {
                let old = std::mem::replace(bucket, Bucket::with_capacity(bucket.depth, 0));
                bytes += old.footprint_bytes();
                let kept = keep_used(bucket, bucket_first, old, &mut frozen);
                bytes -= kept.min(bytes);
            }
            slot = next_slot;
        }
        let end = slot == self.directory.len();
        let last = if end {
            u64::MAX
        } else {
            self.slot_first_place(slot) - 1
        };
        self.hand = if end { 0 } else { last + 1 };
        self.recount();
        frozen.end_at(last);
        (frozen.len() > 0).then_some(frozen)
    }

    #[inline]
    fn bucket_index(&self, place: u64) -> usize {
        self.directory[self.slot(place)] as usize
    }

    /// The slot of a place in the directory.
    #[inline]
    fn slot(&self, place: u64) -> usize {
        // A shift by all 64 bits is not defined, so one bit is shifted apart.
        (place >> 1 >> (63 - self.depth)) as usize
    }

    /// The first slot of the bucket after that of `slot`.
    fn slot_after(&self, slot: usize) -> usize {
        let slots = 1usize << (self.depth - self.buckets[self.directory[slot] as usize].depth);
        (slot & !(slots - 1)) + slots
    }

    /// The first place of the bucket of `slot`.
    fn slot_first_place(&self, slot: usize) -> u64 {
        let slots = 1usize << (self.depth - self.buckets[self.directory[slot] as usize].depth);
        let first_slot = (slot & !(slots - 1)) as u64;
        if self.depth == 0 {
            0
        } else {
            first_slot << (64 - self.depth)
        }
    }
}

/// Whether the tiers below say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dirt {
    /// They do.
    Clean,
    /// They do not, so this must be spilled.
    Dirty,
}

/// Moves `old` to `frozen`, but copies what was read back into `bucket`; returns those bytes.
fn keep_used(bucket: &mut Bucket, first: u64, mut old: Bucket, frozen: &mut Frozen) -> usize {
    let used: Vec<_> = old.refs().filter(|&at| old.entry(at).header.used).collect();
    if used.len() <= old.len() / KEPT_SHARE {
        for at in used {
            let mut entry = old.entry(at);
            // It must be read again to be kept again.
            entry.header.used = false;
            if bucket.adopt(&entry).is_ok() {
                old.hide(at);
            }
        }
    }
    if old.len() > 0 {
        frozen.push_bucket(first, old);
    }
    bucket.footprint_bytes()
}

#[cfg(test)]
mod tests;
