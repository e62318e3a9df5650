//! Counting: the exact number of entries, from hashes alone.
//!
//! Keys are told apart by their 128-bit hash (see [`KeyHash`]): the hot entries', and for runs the
//! column of hashes. The cost is about 10 bytes read for each cold key and version of it, or the
//! runs' blocks where they have no column, since their records are small.

use std::sync::Arc;

use super::{Answer, Table, TableError};
use crate::{
    cold::{ColdError, HASHES_READ_AHEAD_BYTES, HashCursor, RecordKind, Run},
    hot::{Entry, Frozen, State as EntryState},
    key_hash::{KeyHash, KeyHasher},
    ranges::Ranges,
    shared::cold_error,
};

/// Hot entries whose hashes are taken down at a time.
const SLICE_ENTRIES: usize = 16 * 1024;

/// What of a table lies in a slice of its places.
struct Slice {
    first: u64,
    last: u64,
    /// Newest first, each in order.
    above: Vec<Vec<(KeyHash, bool)>>,
    cold: Arc<Ranges<Arc<Run>>>,
}

/// One level's hashes, in order.
enum Hashes {
    Above(std::vec::IntoIter<(KeyHash, bool)>),
    Run(HashCursor),
}

impl Hashes {
    /// The next key's hash, and whether the level says that it is there.
    fn next(&mut self) -> Result<Option<(KeyHash, bool)>, ColdError> {
        match self {
            Self::Above(hashes) => Ok(hashes.next()),
            Self::Run(cursor) => {
                let head = cursor.head();
                cursor.advance()?;
                Ok(head.map(|(hash, kind)| (hash, kind != RecordKind::Tombstone)))
            }
        }
    }
}

impl Table {
    /// About what a count has in RAM at a time.
    pub(crate) fn count_bytes(&self) -> usize {
        let hot = self.state.lock().hot.len().min(SLICE_ENTRIES);
        // What is in transit may be as much again.
        let hashes_bytes = 2 * hot * size_of::<(KeyHash, bool)>();
        hashes_bytes + self.runs_deepest() * HASHES_READ_AHEAD_BYTES
    }

    /// Counts the entries, exactly.
    pub fn len(self: &Arc<Self>) -> Answer<u64> {
        self.on_pool(|table| {
            let mut count = 0;
            let mut first = 0;
            loop {
                let slice = table.slice(first)?;
                let last = slice.last;
                count += count_slice(slice).map_err(|error| cold_error(&error))?;
                match last.checked_add(1) {
                    Some(next) => first = next,
                    None => return Ok(count),
                }
            }
        })
    }

    /// All levels of the places from `first` on, as they are at one moment.
    fn slice(&self, first: u64) -> Result<Slice, TableError> {
        let hasher = &self.shared.hasher;
        let state = self.state.lock();
        if state.closed {
            return Err(self.closed_error());
        }
        let mut hot = Vec::new();
        let hot_last = state.hot.visit(first, SLICE_ENTRIES, |entry| {
            hot.push(hash_of(hasher, entry))
        });
        let cold = Arc::clone(&state.cold);
        let last = hot_last.min(cold.last_of(cold.index_of(first)));
        let transit: Vec<Arc<Frozen>> = state.transit.clone();
        drop(state);
        hot.retain(|(hash, _)| hash.place <= last);
        let mut above = vec![hot];
        for frozen in transit {
            let mut hashes = Vec::new();
            frozen.visit(first, last, |entry| hashes.push(hash_of(hasher, entry)));
            above.push(hashes);
        }
        Ok(Slice {
            first,
            last,
            above,
            cold,
        })
    }
}

fn hash_of(hasher: &KeyHasher, entry: &Entry<'_>) -> (KeyHash, bool) {
    (
        hasher.hash(entry.key),
        entry.header.state != EntryState::Tombstone,
    )
}

/// Merges the levels' hashes, place by place; of each key the newest level's word counts.
fn count_slice(slice: Slice) -> Result<u64, ColdError> {
    let mut levels: Vec<Hashes> = slice
        .above
        .into_iter()
        .map(|hashes| Hashes::Above(hashes.into_iter()))
        .collect();
    for run in &slice.cold.at(slice.first).runs {
        levels.push(Hashes::Run(run.hashes(slice.first, slice.last)?));
    }
    let mut heads = Vec::with_capacity(levels.len());
    for level in &mut levels {
        heads.push(level.next()?);
    }
    let mut count = 0;
    let mut checks = Vec::new();
    while let Some(place) = heads.iter().flatten().map(|(hash, _)| hash.place).min() {
        checks.clear();
        for (level, head) in levels.iter_mut().zip(&mut heads) {
            while let Some((hash, present)) = *head
                && hash.place == place
            {
                if !checks.contains(&hash.check) {
                    checks.push(hash.check);
                    count += u64::from(present);
                }
                *head = level.next()?;
            }
        }
    }
    Ok(count)
}
