//! The entries of one interval of places: an arena, an index into it, and the large values beside.
//!
//! A bucket is small enough (see [`ENTRIES_MAX`] and [`BYTES_MAX`]) that copying or sorting all of
//! it is no pause that anybody notices, so garbage is dropped, entries are evicted and a bucket is
//! split by copying what shall live on.

use hashbrown::HashTable;

use super::{
    arena::{Arena, ArenaFull, EntryRef, Header, State},
    large::Large,
};

/// Entries at which a bucket splits. They fill an index of 2048 slots to its brim.
pub(crate) const ENTRIES_MAX: usize = 1792;
/// Bytes at which a bucket of several entries splits.
pub(crate) const BYTES_MAX: usize = 512 * 1024;
/// A bucket of fewer entries than this does not split for its bytes.
const ENTRIES_TO_SPLIT_MIN: usize = 64;
/// Longer values are kept beside the arena.
pub(crate) const INLINE_BYTES_MAX: usize = 2048;
/// Garbage below this is not worth a copy.
const DEAD_BYTES_MIN: usize = 1024;
/// A clean list of at most this length is kept when it is appended to; a longer one is let go, so
/// that what is spilled later is only what was appended.
const CLEAN_LIST_KEPT_BYTES_MAX: usize = 256;
/// What allocators add to a small allocation, for the accounts.
const INDEX_SLOT_BYTES: usize = size_of::<EntryRef>() + 1;

/// A value in RAM.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    /// In the arena.
    Inline(&'a [u8]),
    /// Beside it.
    Large(&'a Large),
}

impl Value<'_> {
    /// The value's length.
    pub(crate) fn len(&self) -> usize {
        match self {
            Value::Inline(bytes) => bytes.len(),
            Value::Large(large) => large.len(),
        }
    }

    /// The value as one run of bytes, at the end of `out`.
    pub(crate) fn copy_to(&self, out: &mut Vec<u8>) {
        match self {
            Value::Inline(bytes) => out.extend_from_slice(bytes),
            Value::Large(large) => large.parts().for_each(|part| out.extend_from_slice(part)),
        }
    }
}

/// An entry in RAM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// What is known of it beside its bytes.
    pub(crate) header: Header,
    /// Its key.
    pub(crate) key: &'a [u8],
    /// Its value, or the part of it that the entry has.
    pub(crate) value: Value<'a>,
}

/// What becomes of a clean base that is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CleanBase {
    /// A long one is let go: only what is appended must then be spilled.
    MayGo,
    /// It stays, for operations to come that must know the whole value.
    Stays,
}

/// Entries of one interval of places.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    arena: Arena,
    index: HashTable<EntryRef>,
    larges: Vec<Option<Large>>,
    larges_free: Vec<u32>,
    larges_bytes: usize,
    /// What entries take that were read of late.
    used_bytes: usize,
    /// How many leading bits of the place all entries share.
    pub(crate) depth: u8,
    /// How many entries it will have, as far as anybody can tell. Its index is made for them when the
    /// first comes, since to grow it by and by is to hash all of them again and again.
    entries_expected: usize,
    /// Splitting again is of no use below this many entries, since all had one place when tried.
    pub(crate) split_entries_min: usize,
}

impl Bucket {
    /// An empty bucket that takes no RAM yet, and that will soon be like `other`.
    pub(crate) fn to_be_like(other: &Self, depth: u8) -> Self {
        Self::expecting(depth, other.len(), other.arena.footprint_bytes())
    }

    /// An empty bucket for so many entries, which take so many bytes.
    pub(crate) fn expecting(depth: u8, entries: usize, bytes: usize) -> Self {
        Self {
            arena: Arena::expecting(bytes),
            entries_expected: entries.min(ENTRIES_MAX),
            depth,
            ..Self::default()
        }
    }

    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The RAM that it takes.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.arena.footprint_bytes()
            + self.index.capacity() * 8 / 7 * INDEX_SLOT_BYTES
            + self.larges.capacity() * size_of::<Option<Large>>()
            + self.larges_bytes
    }

    /// What entries take that were read of late.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Whether it should be split.
    pub(crate) fn is_full(&self) -> bool {
        let entries = self.len();
        // An index that is full would double for the next entry, just to be split.
        (entries >= ENTRIES_MAX
            || entries > ENTRIES_TO_SPLIT_MIN && self.footprint_bytes() > BYTES_MAX)
            && entries > self.split_entries_min
    }

    /// Whether a split would leave one half empty, however often it is repeated.
    pub(crate) fn has_one_place(&self) -> bool {
        let mut places = self.refs().map(|at| self.arena.place(at));
        let first = places.next();
        places.all(|place| Some(place) == first)
    }

    /// The entry of `key`.
    #[inline]
    pub(crate) fn get(&self, place: u64, key: &[u8]) -> Option<Entry<'_>> {
        self.find(place, key).map(|at| self.entry(at))
    }

    /// Looks at an entry of this place, if there is one, for the sake of looking.
    #[inline]
    pub(crate) fn warm(&self, place: u64) -> u64 {
        let same = |at: &EntryRef| self.arena.place(*at) == place;
        let found = self.index.find(index_hash(place), same);
        found.map_or(0, |at| u64::from(at.bits()))
    }

    /// Counts a use of the entry of `key`.
    #[inline]
    pub(crate) fn touch(&mut self, place: u64, key: &[u8]) {
        if let Some(at) = self.find(place, key)
            && self.arena.count_use(at)
        {
            self.used_bytes += self.cost_bytes(at);
        }
    }

    /// What an entry takes.
    pub(crate) fn cost_bytes(&self, at: EntryRef) -> usize {
        let large_bytes = match self.entry(at).value {
            Value::Inline(_) => 0,
            Value::Large(large) => large.footprint_bytes(),
        };
        self.arena.entry_bytes(at) + INDEX_SLOT_BYTES + large_bytes
    }

    /// Sets what is known of `key` to `value` whole.
    pub(crate) fn set(
        &mut self,
        header: Header,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), ArenaFull> {
        let found = self.find(header.place, key);
        let uses_before = found.map_or(0, |at| self.arena.header(at).uses);
        let header = Header {
            uses: uses_before.max(header.uses),
            large: value.len() > INLINE_BYTES_MAX,
            ..header
        };
        if let Some(at) = found
            && !header.large
            && !self.arena.header(at).large
            && self.arena.overwrite(at, value)
        {
            self.arena.set_header(at, header);
            if uses_before == 0 && header.uses > 0 {
                self.used_bytes += self.cost_bytes(at);
            }
            return Ok(());
        }
        if header.large {
            let number = self.keep_large(Large::new(value));
            self.write(found, header, key, &number.to_le_bytes(), 0)
        } else {
            self.write(found, header, key, value, 0)
        }
    }

    /// Adds `bytes` to what is known of the list at `key`.
    pub(crate) fn append(
        &mut self,
        place: u64,
        version: u32,
        key: &[u8],
        bytes: &[u8],
        clean_base: CleanBase,
    ) -> Result<(), ArenaFull> {
        let fresh = Header {
            place,
            version,
            state: State::Fragment,
            clean: false,
            uses: 0,
            large: false,
        };
        let Some(at) = self.find(place, key) else {
            return self.set(fresh, key, bytes);
        };
        let old = self.arena.header(at);
        let header = Header {
            version,
            clean: false,
            ..old
        };
        match old.state {
            State::Tombstone => self.set(
                Header {
                    state: State::Base,
                    ..header
                },
                key,
                bytes,
            ),
            State::Base if old.clean && self.lets_go(at, clean_base) => self.set(
                Header {
                    uses: old.uses,
                    ..fresh
                },
                key,
                bytes,
            ),
            State::Base | State::Fragment => self.grow(at, header, key, bytes),
        }
    }

    /// Adds `delta` to what is known of the counter at `key`.
    pub(crate) fn add(
        &mut self,
        place: u64,
        version: u32,
        key: &[u8],
        delta: i64,
    ) -> Result<(), ArenaFull> {
        let (state, uses, old) = match self.find(place, key) {
            None => (State::Fragment, 0, 0),
            Some(at) => {
                let header = self.arena.header(at);
                match header.state {
                    State::Tombstone => (State::Base, header.uses, 0),
                    state => (state, header.uses, counter_value(self.arena.value(at))),
                }
            }
        };
        let header = Header {
            place,
            version,
            state,
            clean: false,
            uses,
            large: false,
        };
        self.set(header, key, &old.wrapping_add(delta).to_le_bytes())
    }

    /// Forgets the entry of `key`.
    pub(crate) fn remove(&mut self, place: u64, key: &[u8]) -> bool {
        let arena = &self.arena;
        let same = |at: &EntryRef| arena.is_of(*at, place, key);
        let Ok(found) = self.index.find_entry(index_hash(place), same) else {
            return false;
        };
        let at = found.remove().0;
        self.let_go(at);
        self.collect_garbage();
        true
    }

    /// Says that the cold tier has the entry.
    pub(crate) fn mark_clean(&mut self, at: EntryRef) {
        let header = self.arena.header(at);
        self.arena.set_header(
            at,
            Header {
                clean: true,
                ..header
            },
        );
    }

    /// Takes an entry out of the index and leaves its bytes where they are.
    pub(crate) fn hide(&mut self, at: EntryRef) {
        let hash = index_hash(self.arena.place(at));
        if let Ok(found) = self.index.find_entry(hash, |other| *other == at) {
            found.remove();
        }
    }

    /// Takes all entries out of the index, and leaves their bytes where they are. The index, which is then
    /// empty, is made that of `heir`.
    pub(crate) fn hand_over_index(&mut self, heir: &mut Self) -> Vec<EntryRef> {
        let refs = self.refs().collect();
        heir.index = std::mem::take(&mut self.index);
        heir.index.clear();
        refs
    }

    /// All entries, in no order.
    pub(crate) fn refs(&self) -> impl Iterator<Item = EntryRef> {
        self.index.iter().copied()
    }

    /// All entries in the order of places and keys.
    pub(crate) fn sorted_refs(&self) -> Vec<EntryRef> {
        self.sorted_refs_from(0)
    }

    /// The entries from a place on, in the order of places and keys.
    pub(crate) fn sorted_refs_from(&self, from: u64) -> Vec<EntryRef> {
        let keyed = self.refs().map(|at| (self.arena.place(at), at));
        let mut keyed: Vec<(u64, EntryRef)> = keyed.filter(|&(place, _)| place >= from).collect();
        keyed.sort_unstable_by(|(left_place, left), (right_place, right)| {
            left_place
                .cmp(right_place)
                .then_with(|| self.arena.key(*left).cmp(self.arena.key(*right)))
        });
        keyed.into_iter().map(|(_, at)| at).collect()
    }

    /// The entry at `at`.
    #[inline]
    pub(crate) fn entry(&self, at: EntryRef) -> Entry<'_> {
        let (header, key, value) = self.arena.parts(at);
        let value = if header.large {
            match self.large(value) {
                Some(large) => Value::Large(large),
                None => Value::Inline(&[]),
            }
        } else {
            Value::Inline(value)
        };
        Entry { header, key, value }
    }

    /// Copies an entry of another bucket in; its key must not be here yet.
    pub(crate) fn adopt(&mut self, entry: &Entry<'_>) -> Result<(), ArenaFull> {
        match entry.value {
            Value::Inline(value) => self.write(None, entry.header, entry.key, value, 0),
            Value::Large(large) => {
                let number = self.keep_large(large.share());
                self.write(None, entry.header, entry.key, &number.to_le_bytes(), 0)
            }
        }
    }

    /// Where the entry of `key` is.
    pub(crate) fn find(&self, place: u64, key: &[u8]) -> Option<EntryRef> {
        let arena = &self.arena;
        let same = |at: &EntryRef| arena.is_of(*at, place, key);
        self.index.find(index_hash(place), same).copied()
    }

    fn lets_go(&self, at: EntryRef, clean_base: CleanBase) -> bool {
        clean_base == CleanBase::MayGo && self.entry(at).value.len() > CLEAN_LIST_KEPT_BYTES_MAX
    }

    /// Adds to an entry's value, and moves the entry where it outgrew its place.
    fn grow(
        &mut self,
        at: EntryRef,
        header: Header,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<(), ArenaFull> {
        if header.large {
            let number = read_number(self.arena.value(at));
            if let Some(Some(large)) = self.larges.get_mut(number as usize) {
                let bytes_before = large.footprint_bytes();
                large.append(bytes);
                let bytes_more = large.footprint_bytes() - bytes_before;
                self.larges_bytes += bytes_more;
                if header.uses > 0 {
                    self.used_bytes += bytes_more;
                }
            }
            self.arena.set_header(at, header);
            return Ok(());
        }
        if self.arena.extend(at, bytes) {
            self.arena.set_header(at, header);
            return Ok(());
        }
        let mut value = Vec::with_capacity(self.arena.value(at).len() + bytes.len());
        value.extend_from_slice(self.arena.value(at));
        value.extend_from_slice(bytes);
        if value.len() > INLINE_BYTES_MAX {
            let number = self.keep_large(Large::new(&value));
            let header = Header {
                large: true,
                ..header
            };
            return self.write(Some(at), header, key, &number.to_le_bytes(), 0);
        }
        // Half as much again: each byte is then copied twice on average, however long a list gets.
        let slack = (value.len() / 2).min(INLINE_BYTES_MAX - value.len()) as u16;
        self.write(Some(at), header, key, &value, slack)
    }

    /// Writes an entry anew, in the place of an old one if there is one.
    fn write(
        &mut self,
        old: Option<EntryRef>,
        header: Header,
        key: &[u8],
        value: &[u8],
        slack: u16,
    ) -> Result<(), ArenaFull> {
        let new = self.arena.push(header, key, value, slack)?;
        if header.uses > 0 {
            self.used_bytes += self.cost_bytes(new);
        }
        let arena = &self.arena;
        let hash = index_hash(header.place);
        match old {
            None => {
                if self.index.capacity() == 0 {
                    let rehash = |at: &EntryRef| index_hash(arena.place(*at));
                    self.index.reserve(self.entries_expected, rehash);
                }
                self.index
                    .insert_unique(hash, new, |at| index_hash(arena.place(*at)));
            }
            Some(old) => {
                if let Some(slot) = self.index.find_mut(hash, |at| *at == old) {
                    *slot = new;
                }
                self.let_go(old);
                self.collect_garbage();
            }
        }
        Ok(())
    }

    fn let_go(&mut self, at: EntryRef) {
        if self.arena.header(at).uses > 0 {
            self.used_bytes -= self.cost_bytes(at);
        }
        if self.arena.header(at).large {
            let number = read_number(self.arena.value(at));
            if let Some(large) = self.larges.get_mut(number as usize).and_then(Option::take) {
                self.larges_bytes -= large.footprint_bytes();
                self.larges_free.push(number);
            }
        }
        self.arena.retire(at);
    }

    /// Copies the living together once the dead take more than a third.
    fn collect_garbage(&mut self) {
        let dead_bytes = self.arena.dead_bytes();
        if dead_bytes < DEAD_BYTES_MIN || dead_bytes * 3 < self.arena.footprint_bytes() {
            return;
        }
        let live_bytes = self.arena.footprint_bytes().saturating_sub(dead_bytes);
        let mut arena = Arena::expecting(live_bytes);
        for at in self.index.iter_mut() {
            let header = self.arena.header(*at);
            let slack = self.arena.slack(*at).min(INLINE_BYTES_MAX) as u16;
            // The new arena holds less than the old one, so it cannot run out of chunks.
            if let Ok(new) = arena.push(header, self.arena.key(*at), self.arena.value(*at), slack) {
                *at = new;
            }
        }
        self.arena = arena;
        self.used_bytes = self.count_used_bytes();
        if self.index.is_empty() {
            self.index = HashTable::new();
        }
    }

    /// Sums anew what entries take that were read of late.
    pub(super) fn count_used_bytes(&self) -> usize {
        self.refs()
            .filter(|&at| self.arena.header(at).uses > 0)
            .map(|at| self.cost_bytes(at))
            .sum()
    }

    fn keep_large(&mut self, large: Large) -> u32 {
        self.larges_bytes += large.footprint_bytes();
        match self.larges_free.pop() {
            Some(number) => {
                self.larges[number as usize] = Some(large);
                number
            }
            None => {
                self.larges.push(Some(large));
                (self.larges.len() - 1) as u32
            }
        }
    }

    fn large(&self, value: &[u8]) -> Option<&Large> {
        self.larges.get(read_number(value) as usize)?.as_ref()
    }
}

/// The number that a counter's bytes stand for.
pub(crate) fn counter_value(bytes: &[u8]) -> i64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

fn read_number(value: &[u8]) -> u32 {
    value
        .first_chunk()
        .map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
}

/// Entries of a bucket share their leading bits, so the index takes its bits from the others.
#[inline]
fn index_hash(place: u64) -> u64 {
    place.rotate_left(40)
}
