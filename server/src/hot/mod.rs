//! The hot tier of one table: entries in RAM, in buckets that are ordered by place.
//!
//! A key's place selects its bucket by its leading bits (extendible hashing), so the buckets in
//! order are the entries in order but for the sort inside each. That is what makes spilling a
//! range of places, and scanning in the order of places, cheap: neither ever sorts more than a
//! bucket. Intervals of buckets that are to be spilled are taken out as [`Frozen`], stay readable
//! while they are written, and are freed as a whole; `sweep` decides which entries stay for having
//! been read.

mod chunk;
mod arena;
mod large;
mod bucket;
mod frozen;
mod sweep;

pub(crate) use arena::{ArenaFull, Header, State};
pub(crate) use bucket::{CleanBase, Entry, Value, counter_value};
pub(crate) use frozen::{Frozen, FrozenSource};
#[cfg(test)]
pub(crate) use sweep::SWEEPS;
pub(crate) use sweep::Sweep;

use bucket::Bucket;

/// How many places are warmed together: as many as the processor's nearest cache holds until they
/// are used.
pub(crate) const WARMED_AT_ONCE: usize = 32;
/// The most leading bits that select a bucket.
const DEPTH_MAX: u8 = 24;

/// The entries of a table that are in RAM.
#[derive(Debug)]
pub(crate) struct HotMap {
    /// By the `depth` leading bits of a place: its bucket's index.
    directory: Vec<u32>,
    buckets: Vec<Bucket>,
    depth: u8,
    entries: usize,
    bytes: usize,
    /// What entries take that were read of late.
    used_bytes: usize,
    version: u32,
    /// Where the next freeze begins.
    hand: u64,
    /// Sweeps leave nothing dirty behind them.
    logged: bool,
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
            used_bytes: 0,
            version: 0,
            hand: 0,
            logged: false,
        };
        map.bytes = map.fixed_bytes();
        map
    }

    /// Says that a log tells of what is written: sweeps then leave nothing dirty behind them.
    pub(crate) fn set_logged(&mut self) {
        self.logged = true;
    }

    /// How many entries it has: bases, fragments and tombstones.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// The RAM that it takes.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.bytes
    }

    /// What of it belongs to entries that were read of late.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Changes with each write, so that who looked can tell that there is something new.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// The entry of `key`.
    #[inline]
    pub(crate) fn get(&self, place: u64, key: &[u8]) -> Option<Entry<'_>> {
        self.buckets[self.bucket_index(place)].get(place, key)
    }

    /// Brings what a read or a change at each of these places will touch into the processor's
    /// caches. These looks do not depend on each other, so their misses overlap; those of changes
    /// one after the other do not. Give it [`WARMED_AT_ONCE`] places at a time.
    #[inline]
    pub(crate) fn warm(&self, places: impl Iterator<Item = u64>) {
        let touched = places.fold(0, |touched, place| {
            touched ^ self.buckets[self.bucket_index(place)].warm(place)
        });
        std::hint::black_box(touched);
    }

    /// Counts a use of the entry of `key`, which keeps it from spills to come. Only reads are uses:
    /// what is written in bulk shall not push out what is read.
    #[inline]
    pub(crate) fn touch(&mut self, place: u64, key: &[u8]) {
        let index = self.bucket_index(place);
        let bucket = &mut self.buckets[index];
        let used_before = bucket.used_bytes();
        bucket.touch(place, key);
        self.used_bytes += bucket.used_bytes() - used_before;
    }

    /// Sets the whole value of `key`.
    pub(crate) fn put(&mut self, place: u64, key: &[u8], value: &[u8]) -> Result<(), ArenaFull> {
        self.set(place, State::Base, Dirt::Dirty, Origin::Write, key, value)
    }

    /// Says that `key` has no entry, whatever lies below.
    pub(crate) fn bury(&mut self, place: u64, key: &[u8]) -> Result<(), ArenaFull> {
        let origin = Origin::Write;
        self.set(place, State::Tombstone, Dirt::Dirty, origin, key, &[])
    }

    /// Takes in what a read of the tiers below found, or that it found nothing.
    pub(crate) fn promote(
        &mut self,
        place: u64,
        key: &[u8],
        value: Option<&[u8]>,
        dirt: Dirt,
        origin: Origin,
    ) -> Result<(), ArenaFull> {
        match value {
            Some(value) => self.set(place, State::Base, dirt, origin, key, value),
            None => self.set(place, State::Tombstone, dirt, origin, key, &[]),
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
        let (bytes_before, used_before) = (bucket.footprint_bytes(), bucket.used_bytes());
        if bucket.remove(place, key) {
            self.entries -= 1;
            self.used_bytes = self.used_bytes - used_before + bucket.used_bytes();
            self.bytes = self.bytes - bytes_before + bucket.footprint_bytes();
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
            for at in bucket.sorted_refs_from(from) {
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
            for at in bucket.sorted_refs_from(from) {
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
        origin: Origin,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), ArenaFull> {
        let header = Header {
            place,
            version: self.next_version(),
            state,
            clean: dirt == Dirt::Clean,
            uses: u8::from(origin == Origin::Reads),
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
        let used_before = bucket.used_bytes();
        let result = change(bucket);
        self.entries = self.entries - entries_before + bucket.len();
        self.bytes = self.bytes - bytes_before + bucket.footprint_bytes();
        self.used_bytes = self.used_bytes - used_before + bucket.used_bytes();
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
        self.used_bytes -= bucket.used_bytes();
        if depth == self.depth {
            self.directory = self
                .directory
                .iter()
                .flat_map(|&index| [index, index])
                .collect();
            self.depth += 1;
        }
        let mut old = std::mem::take(&mut self.buckets[index]);
        let bit = 1u64 << (63 - depth);
        let mut halves = [0, 1].map(|_| Bucket::to_be_like(&old, depth + 1));
        // Each half will soon need an index of this size. To free one and make two would leave holes.
        for at in old.hand_over_index(&mut halves[0]) {
            let entry = old.entry(at);
            let half = usize::from(entry.header.place & bit != 0);
            // Each half holds less than the whole did, so it cannot run out of chunks.
            let adopted = halves[half].adopt(&entry);
            debug_assert!(adopted.is_ok());
        }
        if halves[0].len() == 0 {
            halves[0] = Bucket::to_be_like(&old, depth + 1);
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
        self.used_bytes +=
            self.buckets[index].used_bytes() + self.buckets[high_index as usize].used_bytes();
    }

    fn fixed_bytes(&self) -> usize {
        size_of::<Self>()
            + self.directory.capacity() * size_of::<u32>()
            + self.buckets.capacity() * size_of::<Bucket>()
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

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A write, or what a write had to know.
    Write,
    /// It was read again and again: that counts as its first use in RAM.
    Reads,
}

#[cfg(test)]
mod tests;
