//! Surveys: how much of a range's runs is garbage, told from a sample of its hashes.
//!
//! Places are hashes, so a few slices of a range say what the whole of it is like: of the keys in them, which
//! records are hidden by newer ones. That costs some hundred reads of the columns of hashes a range,
//! whatever its size, needs nothing to be kept while entries are written, and holds after a start.

use std::{collections::HashMap, sync::Arc, time::Instant};

use rhash_protocol::TableKind;

use crate::{
    cold::{ColdError, HashCursor, RecordKind, Run, RunId},
    ranges::{Range, Ranges},
};

/// Records that a survey looks at; the share that it finds is then right within two hundredths.
const SAMPLE_RECORDS: f64 = 8192.0;
/// The slices that they are taken from: a spilled interval may cover a part of a range only.
const SLICES: u64 = 4;
/// About what a tombstone takes, with its share of filter and column.
const TOMBSTONE_BYTES: u64 = 32;
/// About what a merge saves where a list's fragment is folded into an older record.
const FRAGMENT_BYTES: u64 = 24;

/// What a survey found in one range, and of which runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survey {
    newest: RunId,
    runs: usize,
    /// What the range's runs had in it.
    bytes: u64,
    /// And how many keys.
    keys: u64,
    /// What of that is garbage.
    pub(super) garbage_bytes: u64,
    /// A merge of it was seen to need so much room at least.
    pub(super) needs_bytes: u64,
    /// A merge of it failed then.
    pub(super) failed_at: Option<Instant>,
}

impl Survey {
    /// Looks at a sample of a range's records.
    pub(super) fn take(
        range: &Range<Arc<Run>>,
        last: u64,
        kind: TableKind,
    ) -> Result<Self, ColdError> {
        let mut sample = Sample::default();
        for (from, to) in slices(range, last) {
            sample.add(&range.runs, from, to, kind)?;
        }
        let nothing = Self::of_nothing(range, last);
        Ok(Self {
            garbage_bytes: (nothing.bytes as f64 * sample.share()) as u64,
            ..nothing
        })
    }

    /// A survey that found no garbage.
    pub(super) fn of_nothing(range: &Range<Arc<Run>>, last: u64) -> Self {
        Self {
            newest: range.runs.first().map_or(0, |run| run.id()),
            runs: range.runs.len(),
            bytes: range_bytes(range, last),
            keys: range_keys(range, last),
            garbage_bytes: 0,
            needs_bytes: 0,
            failed_at: None,
        }
    }

    /// Whether it still says enough about the range, which may have changed by this part.
    pub(super) fn holds(&self, range: &Range<Arc<Run>>, last: u64, change_share: u64) -> bool {
        // IMPORTANT: only where runs were added, none merged: what a merge leaves may be as long as
        // what there was, and the same merge would be due for ever.
        let added = range.runs.len().checked_sub(self.runs);
        let grew = added.and_then(|added| range.runs.get(added));
        match added {
            Some(0) if range.runs.is_empty() => true,
            Some(added) if grew.is_some_and(|run| run.id() == self.newest) => {
                let changed_bytes = range_bytes(range, last).abs_diff(self.bytes);
                // A delete is short, but hides as much as any other record.
                let changed_keys = range_keys(range, last).abs_diff(self.keys);
                added == 0
                    || (changed_bytes < self.bytes / change_share
                        && changed_keys < self.keys / change_share)
            }
            _ => false,
        }
    }
}

/// The bytes that a range's runs have in it.
pub(super) fn range_bytes(range: &Range<Arc<Run>>, last: u64) -> u64 {
    range
        .runs
        .iter()
        .map(|run| share(run, range.first, last))
        .sum()
}

/// About how many keys a range's runs have in it.
fn range_keys(range: &Range<Arc<Run>>, last: u64) -> u64 {
    let runs = range.runs.iter();
    let keys: f64 = runs
        .map(|run| run.keys() as f64 * run.share_between(range.first, last))
        .sum();
    keys as u64
}

/// About how many bytes a run has in `first..=last`.
pub(super) fn share(run: &Run, first: u64, last: u64) -> u64 {
    (run.bytes() as f64 * run.share_between(first, last)) as u64
}

/// By run, who needs it: a run from before a split takes disk for nobody in the ranges that were
/// merged without it, until the last range that needs it is merged.
pub(super) fn held(cold: &Ranges<Arc<Run>>) -> HashMap<RunId, Held> {
    let mut by_run: HashMap<RunId, Held> = HashMap::new();
    for (index, range) in cold.iter().enumerate() {
        let last = cold.last_of(index);
        for run in &range.runs {
            let held = by_run.entry(run.id()).or_insert_with(|| Held {
                dead_bytes: run.bytes(),
                live_bytes: 0,
                ranges: 0,
            });
            let live_bytes = share(run, range.first, last);
            held.live_bytes += live_bytes;
            held.dead_bytes = held.dead_bytes.saturating_sub(live_bytes);
            held.ranges += 1;
        }
    }
    by_run
}

/// What of a run is needed, and what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Needed by no range.
    pub(super) dead_bytes: u64,
    /// Needed by some.
    pub(super) live_bytes: u64,
    /// By how many.
    pub(super) ranges: usize,
}

impl Held {
    /// What of the dead bytes a range answers for that needs so many of the live ones.
    pub(super) fn due_to(self, live_bytes: u64) -> u64 {
        if self.live_bytes == 0 {
            return self.dead_bytes / self.ranges.max(1) as u64;
        }
        (self.dead_bytes as f64 * (live_bytes as f64 / self.live_bytes as f64)) as u64
    }
}

/// Slices of a range that hold about as many records as a survey looks at.
fn slices(range: &Range<Arc<Run>>, last: u64) -> Vec<(u64, u64)> {
    let keys = range_keys(range, last) as f64;
    let span = last - range.first;
    let step = span / SLICES;
    let width = (step as f64 * (SAMPLE_RECORDS / keys.max(1.0))) as u64;
    if width >= step {
        return vec![(range.first, last)];
    }
    (0..SLICES)
        .map(|slice| {
            let from = range.first + slice * step;
            (from, from + width)
        })
        .collect()
}

/// The weight of what was looked at.
#[derive(Debug, Default)]
struct Sample {
    bytes: u64,
    garbage_bytes: u64,
}

/// A run in a sample.
struct Level {
    cursor: HashCursor,
    /// About what a record that is no tombstone takes.
    record_bytes: u64,
}

impl Level {
    fn weight(&self, kind: RecordKind) -> u64 {
        match kind {
            RecordKind::Tombstone => TOMBSTONE_BYTES,
            _ => self.record_bytes,
        }
    }
}

impl Sample {
    fn share(&self) -> f64 {
        self.garbage_bytes as f64 / self.bytes.max(1) as f64
    }

    fn add(
        &mut self,
        runs: &[Arc<Run>],
        from: u64,
        to: u64,
        kind: TableKind,
    ) -> Result<(), ColdError> {
        let mut levels = Vec::with_capacity(runs.len());
        for run in runs {
            let tombstones_bytes = run.tombstones().saturating_mul(TOMBSTONE_BYTES);
            let others = run.keys().saturating_sub(run.tombstones());
            levels.push(Level {
                cursor: run.hashes(from, to)?,
                record_bytes: run.bytes().saturating_sub(tombstones_bytes) / others.max(1),
            });
        }
        // Newest first, what a place's keys have: the check, the level, the record's kind.
        let mut records: Vec<(u32, usize, RecordKind)> = Vec::new();
        while let Some(place) = levels
            .iter()
            .filter_map(|level| level.cursor.head())
            .map(|(hash, _)| hash.place)
            .min()
        {
            records.clear();
            for (number, level) in levels.iter_mut().enumerate() {
                while let Some((hash, record)) = level.cursor.head()
                    && hash.place == place
                {
                    records.push((hash.check, number, record));
                    level.cursor.advance()?;
                }
            }
            records.sort_by_key(|(check, _, _)| *check);
            for key in records.chunk_by(|left, right| left.0 == right.0) {
                self.add_key(key, &levels, kind);
            }
        }
        Ok(())
    }

    /// Weighs the records of one key, newest first.
    fn add_key(&mut self, records: &[(u32, usize, RecordKind)], levels: &[Level], kind: TableKind) {
        let (mut hidden, mut folded) = (false, false);
        for &(_, level, record) in records {
            let Some(level) = levels.get(level) else {
                continue;
            };
            let bytes = level.weight(record);
            self.bytes += bytes;
            let garbage_bytes = match record {
                _ if hidden => bytes,
                // Once nothing older is left, nothing is left for it to hide.
                RecordKind::Tombstone => bytes,
                // Of several numbers to add, one is left.
                _ if folded && kind == TableKind::Counters => bytes,
                _ if folded => bytes.min(FRAGMENT_BYTES),
                _ => 0,
            };
            self.garbage_bytes += garbage_bytes;
            hidden |= record != RecordKind::Fragment;
            folded = true;
        }
    }
}
