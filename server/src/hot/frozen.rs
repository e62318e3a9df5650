//! An interval of places taken out of a hot map: immutable, readable, freed as a whole.

use std::sync::Arc;

use super::{
    arena::{EntryRef, State},
    bucket::{Bucket, Entry, Value},
    sweep::Sweep,
};
use crate::{
    cold::{ColdError, Record, RecordKind, RecordSource},
    data_dir::Mark,
    key_hash::{KeyHash, KeyHasher},
    log::Lsn,
};

/// Entries of one interval of places, in transit to the cold tier or copied for a scan.
#[derive(Debug)]
pub(crate) struct Frozen {
    first: u64,
    last: u64,
    /// For a copy that was cut short: the last key that it has at place `last`.
    last_key: Option<Vec<u8>>,
    /// In the order of places, each with the first place that it may hold.
    buckets: Vec<(u64, Bucket)>,
    bytes: usize,
    /// What of it belongs to entries that have left the hot map for it.
    live_bytes: usize,
    /// What of it belongs to entries that are in the hot map as well, and are written for the log's sake.
    kept_bytes: usize,
    /// The last record of the log that its table had applied; 0 for none.
    lsn: Lsn,
    /// All writes to these places up to that record are in here, or below.
    is_whole: bool,
}

impl Frozen {
    /// An empty interval from `first` to the end.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            first,
            last: u64::MAX,
            last_key: None,
            buckets: Vec::new(),
            bytes: 0,
            live_bytes: 0,
            kept_bytes: 0,
            lsn: 0,
            is_whole: false,
        }
    }

    /// Says which record of the log its table had applied last, when `sweep` took the entries out.
    pub(crate) fn set_lsn(&mut self, lsn: Lsn, sweep: Sweep) {
        self.lsn = lsn;
        self.is_whole = sweep.is_whole();
    }

    /// The last record that may be in it; 0 for none.
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// What its run will say of the log; none if that is nothing.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let Self {
            first, last, lsn, ..
        } = *self;
        (self.is_whole && lsn > 0).then_some(Mark { first, last, lsn })
    }

    /// The interval's first place.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The interval's last place.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The last key that a copy has at its last place, if it was cut there.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        self.last_key.as_deref()
    }

    /// Whether `place` lies in the interval.
    pub(crate) fn covers(&self, place: u64) -> bool {
        self.first <= place && place <= self.last
    }

    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(|(_, bucket)| bucket.len()).sum()
    }

    /// The RAM that it takes.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.bytes
    }

    /// What of it belongs to its entries; the rest is freed with them.
    pub(crate) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// About what its run may take.
    pub(crate) fn run_bytes(&self) -> usize {
        self.live_bytes + self.kept_bytes
    }

    /// Visits the entries of `first..=last` in order.
    pub(crate) fn visit(&self, first: u64, last: u64, mut visitor: impl FnMut(&Entry<'_>)) {
        for (bucket_first, bucket) in &self.buckets[self.bucket_of(first).min(self.buckets.len())..]
        {
            if *bucket_first > last {
                break;
            }
            for at in bucket.sorted_refs() {
                let entry = bucket.entry(at);
                if (first..=last).contains(&entry.header.place) {
                    visitor(&entry);
                }
            }
        }
    }

    pub(super) fn push_bucket(
        &mut self,
        first: u64,
        bucket: Bucket,
        live_bytes: usize,
        kept_bytes: usize,
    ) {
        self.live_bytes += live_bytes;
        self.kept_bytes += kept_bytes;
        self.bytes += bucket.footprint_bytes() + size_of::<(u64, Bucket)>();
        self.buckets.push((first, bucket));
    }

    pub(super) fn push_copy(&mut self, entry: &Entry<'_>) {
        if self.buckets.is_empty() {
            self.buckets.push((self.first, Bucket::default()));
        }
        if let Some((_, bucket)) = self.buckets.last_mut() {
            // A copy is bounded far below what an arena can hold.
            let adopted = bucket.adopt(entry);
            debug_assert!(adopted.is_ok());
            self.last = entry.header.place;
            self.last_key = Some(entry.key.to_vec());
        }
    }

    pub(super) fn end_at(&mut self, last: u64) {
        self.last = last;
    }

    /// For copies that were not cut short.
    pub(super) fn end_open(&mut self) {
        self.last = u64::MAX;
        self.last_key = None;
    }

    /// The bucket that would hold `place`.
    fn bucket_of(&self, place: u64) -> usize {
        self.buckets
            .partition_point(|(first, _)| *first <= place)
            .saturating_sub(1)
    }
}

/// Reads a frozen interval as records.
#[derive(Debug)]
pub(crate) struct FrozenSource {
    frozen: Arc<Frozen>,
    hasher: KeyHasher,
    wanted: Wanted,
    bucket: usize,
    refs: Vec<EntryRef>,
    next: usize,
    part: usize,
    hash: KeyHash,
}

/// Which entries a source yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All.
    All,
    /// Those that the cold tier does not have yet.
    Dirty,
    /// Those of the bucket at hand, which is one key's.
    Bucket,
}

impl FrozenSource {
    /// The entries that the cold tier does not have yet.
    pub(crate) fn dirty(frozen: Arc<Frozen>, hasher: KeyHasher) -> Self {
        let mut source = Self::at(frozen, hasher, Wanted::Dirty);
        source.settle();
        source
    }

    /// The entries from `place` on, or those after the key `after` at that place.
    pub(crate) fn after(
        frozen: Arc<Frozen>,
        hasher: KeyHasher,
        place: u64,
        after: Option<&[u8]>,
    ) -> Self {
        let mut source = Self::at(frozen, hasher, Wanted::All);
        source.bucket = source.frozen.bucket_of(place);
        source.sort_bucket();
        source.settle();
        while source.head().is_some_and(|head| match after {
            None => head.hash.place < place,
            Some(after) => (head.hash.place, head.key) <= (place, after),
        }) {
            source.next_entry();
        }
        source
    }

    /// The entry of one key, if it is there.
    pub(crate) fn of_key(
        frozen: Arc<Frozen>,
        hasher: KeyHasher,
        place: u64,
        key: &[u8],
    ) -> Option<Self> {
        let bucket = frozen.bucket_of(place);
        let at = frozen.buckets.get(bucket)?.1.find(place, key)?;
        let mut source = Self::at(frozen, hasher, Wanted::Bucket);
        source.bucket = bucket;
        source.refs = vec![at];
        source.settle();
        Some(source)
    }

    fn at(frozen: Arc<Frozen>, hasher: KeyHasher, wanted: Wanted) -> Self {
        let mut source = Self {
            frozen,
            hasher,
            wanted,
            bucket: 0,
            refs: Vec::new(),
            next: 0,
            part: 0,
            hash: KeyHash { place: 0, check: 0 },
        };
        if wanted != Wanted::Bucket {
            source.sort_bucket();
        }
        source
    }

    fn sort_bucket(&mut self) {
        self.next = 0;
        self.refs = match self.frozen.buckets.get(self.bucket) {
            Some((_, bucket)) => bucket.sorted_refs(),
            None => Vec::new(),
        };
    }

    fn entry(&self) -> Option<Entry<'_>> {
        let at = *self.refs.get(self.next)?;
        Some(self.frozen.buckets.get(self.bucket)?.1.entry(at))
    }

    /// Moves on to the next entry that is wanted, if the one at hand is not.
    fn settle(&mut self) {
        loop {
            match self.entry() {
                Some(entry) if self.wanted == Wanted::Dirty && entry.header.clean => self.next += 1,
                Some(entry) => {
                    self.hash = self.hasher.hash(entry.key);
                    return;
                }
                None if self.wanted == Wanted::Bucket => return,
                None if self.bucket + 1 < self.frozen.buckets.len() => {
                    self.bucket += 1;
                    self.sort_bucket();
                }
                None => return,
            }
        }
    }

    fn next_entry(&mut self) {
        self.part = 0;
        self.next += 1;
        self.settle();
    }
}

impl RecordSource for FrozenSource {
    fn head(&self) -> Option<Record<'_>> {
        let entry = self.entry()?;
        let kind = match entry.header.state {
            _ if self.part > 0 => RecordKind::Fragment,
            State::Base => RecordKind::Base,
            State::Fragment => RecordKind::Fragment,
            State::Tombstone => RecordKind::Tombstone,
        };
        let part = match entry.value {
            Value::Inline(value) => value,
            Value::Large(large) => large.part(self.part).unwrap_or_default(),
        };
        Some(Record {
            hash: self.hash,
            kind,
            key: entry.key,
            part,
        })
    }

    fn advance(&mut self) -> Result<(), ColdError> {
        let next_part = self.part + 1;
        let more = match self.entry() {
            Some(Entry {
                value: Value::Large(large),
                ..
            }) => large.part(next_part).is_some(),
            _ => false,
        };
        if more {
            self.part = next_part;
        } else {
            self.next_entry();
        }
        Ok(())
    }
}
