//! One key looked up through all levels.

use std::{cell::Cell, sync::Arc};

use rhash_protocol::{TableKind, limits::INLINE_VALUE_BYTES_MAX};

use super::{State, Table, TableError};
use crate::{
    cold::{ColdError, Fold, Glance, RecordKind, RecordSource, Run, Whole},
    hot::{Dirt, Frozen, FrozenSource, Origin, State as EntryState},
    key_hash::KeyHash,
    ranges::Ranges,
    shared::cold_error,
    waiting,
};

/// What was folded from a fragment in RAM and what lies below it must be spilled as a whole again, so it is
/// kept in RAM up to this length: to write so much once more costs about what a single get does that
/// reads a block of each of a few runs.
const FOLDED_BYTES_MAX: usize = 8 * 1024;

/// Runs whose filters are asked together.
const GLANCES: usize = 16;

/// A thread keeps a buffer for blocks up to this length; most blocks are a page.
const BLOCK_BYTES_KEPT: usize = 16 * 1024;

thread_local! {
    /// Where the thread reads blocks.
    static BLOCK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A key whose value lies, at least in part, below the hot map; with all that is needed to read it
/// without the table's lock.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    pub(super) hash: KeyHash,
    pub(super) key: Box<[u8]>,
    /// What the hot map has of it, and the intervals in transit that may have more, newest first.
    above: Vec<Arc<Frozen>>,
    cold: Arc<Ranges<Arc<Run>>>,
    /// What it was looked up in: the hot entry's version, if there was one, and the epoch.
    token: (Option<u32>, u64),
}

/// What names a read: the table, the key, and the state of it that is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ReadName {
    table: u64,
    key: Box<[u8]>,
    token: (Option<u32>, u64),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No entry.
    Absent,
    /// The whole value.
    Value(Vec<u8>),
    /// More bytes than were asked for; at least this many.
    Longer(u64),
}

/// How far a read came that was not let wait: of the looked-up key's runs, those before this one have nothing of the key,
/// and this one seems to have. Who reads it again goes on there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reached(Option<usize>);

/// What the hot map alone says of a key.
#[derive(Debug)]
pub(super) enum Hot<'a> {
    /// Its value.
    Value(crate::hot::Value<'a>),
    /// It has no entry.
    Absent,
    /// It must be looked up below.
    Below,
}

impl State {
    /// What the hot map alone says of a key.
    pub(super) fn look(&self, place: u64, key: &[u8]) -> Hot<'_> {
        match self.hot.get(place, key) {
            Some(entry) => match entry.header.state {
                EntryState::Base => Hot::Value(entry.value),
                EntryState::Tombstone => Hot::Absent,
                EntryState::Fragment if self.nothing_below(place) => Hot::Value(entry.value),
                EntryState::Fragment => Hot::Below,
            },
            None if self.nothing_below(place) => Hot::Absent,
            None => Hot::Below,
        }
    }

    /// All that is needed to read a key without the lock.
    pub(super) fn lookup(&self, hash: KeyHash, key: &[u8]) -> Lookup {
        let mut above = Vec::new();
        above.extend(self.hot.snapshot_of(hash.place, key).map(Arc::new));
        above.extend(
            self.transit
                .iter()
                .filter(|frozen| frozen.covers(hash.place))
                .cloned(),
        );
        Lookup {
            hash,
            key: key.into(),
            above,
            cold: Arc::clone(&self.cold),
            token: self.token(hash.place, key),
        }
    }

    /// Whether nothing has changed about a key since it was looked up.
    pub(super) fn is_current(&self, lookup: &Lookup) -> bool {
        lookup.token == self.token(lookup.hash.place, &lookup.key)
    }

    fn token(&self, place: u64, key: &[u8]) -> (Option<u32>, u64) {
        (
            self.hot.get(place, key).map(|entry| entry.header.version),
            self.epoch,
        )
    }
}

impl Lookup {
    /// Begins to fetch what of the runs' indexes it takes to find the key; does not wait.
    pub(super) fn begin_to_fetch(&self) {
        for run in &self.cold.at(self.hash.place).runs {
            run.begin_to_fetch(self.hash);
        }
    }

    /// Tells the system what of the runs' indexes was of use in a read that came so far; of what it always uses, the
    /// filters, one in `looks_for_a_note`.
    pub(super) fn note_use(&self, reached: Reached, looks_for_a_note: u64) {
        let turn = self.hash.place % looks_for_a_note;
        for (number, run) in self.cold.at(self.hash.place).runs.iter().enumerate() {
            // A read of several blocks does not say where it came to; it had most likely something of the key in all.
            let came_to_block = reached.0.is_none_or(|reached| reached == number);
            if came_to_block || (number as u64 % looks_for_a_note) == turn {
                run.note_use(self.hash, came_to_block);
            }
        }
    }

    /// Whether the hot map had nothing of the key.
    pub(super) fn was_cold(&self) -> bool {
        self.token.0.is_none()
    }
}

impl Table {
    /// A fold that stands at the looked-up key; none if no level has it.
    pub(super) fn fold(&self, lookup: &Lookup) -> Result<Option<Fold>, ColdError> {
        let (place, key) = (lookup.hash.place, &lookup.key);
        let mut sources: Vec<Box<dyn RecordSource + Send>> = Vec::new();
        let mut based = false;
        for frozen in &lookup.above {
            let hasher = self.shared.hasher.clone();
            if let Some(source) = FrozenSource::of_key(Arc::clone(frozen), hasher, place, key) {
                based = ends_look(&source);
                sources.push(Box::new(source));
            }
            if based {
                break;
            }
        }
        let mut under_way = None;
        if !based {
            for run in &lookup.cold.at(place).runs {
                match run.seek_key(lookup.hash, key) {
                    Ok(Some(cursor)) => {
                        based = ends_look(&cursor);
                        sources.push(Box::new(cursor));
                    }
                    Ok(None) => {}
                    // The blocks of the next runs are begun with, too: it will most likely take them all.
                    Err(error) if self.kind != TableKind::Values && waiting::is_refused() => {
                        under_way = Some(error);
                    }
                    Err(error) => return Err(error),
                }
                if based {
                    break;
                }
            }
        }
        if let Some(error) = under_way {
            return Err(error);
        }
        if sources.is_empty() {
            return Ok(None);
        }
        let mut fold = Fold::new(sources, self.kind);
        let deleted = fold.next_key()?.is_none_or(|folded| folded.deleted);
        Ok((!deleted).then_some(fold))
    }

    /// Reads a looked-up key's value, up to `bytes_max` of it.
    pub(super) fn read(&self, lookup: &Lookup, bytes_max: usize) -> Result<Found, TableError> {
        self.read_from(lookup, &mut Reached::default(), bytes_max)
    }

    fn read_from(
        &self,
        lookup: &Lookup,
        reached: &mut Reached,
        bytes_max: usize,
    ) -> Result<Found, TableError> {
        let found = match read_whole(self.kind, lookup, reached, bytes_max) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => self.read_folded(lookup, bytes_max),
            Err(error) => Err(error),
        };
        found.map_err(|error| cold_error(&error))
    }

    fn read_folded(&self, lookup: &Lookup, bytes_max: usize) -> Result<Found, ColdError> {
        let Some(mut fold) = self.fold(lookup)? else {
            return Ok(Found::Absent);
        };
        let mut value = Vec::new();
        while let Some(part) = fold.next_part()? {
            if value.len() + part.len() > bytes_max {
                return Ok(Found::Longer((value.len() + part.len()) as u64));
            }
            value.extend_from_slice(part);
        }
        Ok(Found::Value(value))
    }

    /// Reads as [`read`](Self::read) does what an answer can hold.
    pub(super) fn read_alone(
        &self,
        lookup: &Lookup,
        reached: &mut Reached,
    ) -> Result<Found, TableError> {
        self.read_from(lookup, reached, INLINE_VALUE_BYTES_MAX)
    }

    /// Reads as [`read_alone`](Self::read_alone) does, together with whoever reads the same at this
    /// moment.
    pub(super) fn read_shared(
        &self,
        lookup: &Lookup,
        reached: &mut Reached,
    ) -> Result<Found, TableError> {
        let name = ReadName {
            table: self.id,
            key: lookup.key.clone(),
            token: lookup.token,
        };
        let read = || self.read_alone(lookup, reached);
        self.shared.flights.share(&name, read)
    }

    /// Whether a looked-up key has an entry; reads no more than its newest record.
    pub(super) fn has(&self, lookup: &Lookup) -> Result<bool, TableError> {
        // A fragment of a list or counter makes an entry by itself.
        let read = || Ok(self.fold(lookup)?.is_some());
        read().map_err(|error: ColdError| cold_error(&error))
    }

    /// Keeps what a read found in RAM, if it is worth that and nothing has changed meanwhile.
    pub(super) fn maybe_promote(&self, lookup: &Lookup, found: &Found) {
        let Found::Value(value) = found else { return };
        let budget = &self.shared.budget;
        let (bytes_max, dirt) = if lookup.was_cold() {
            (usize::MAX, Dirt::Clean)
        } else {
            (FOLDED_BYTES_MAX, Dirt::Dirty)
        };
        let worth = value.len() <= bytes_max.min(budget.entries_bytes_max() / 64)
            && self.shared.readings.mark(self.id, lookup.hash)
            && budget.tracked_bytes() < budget.high_mark();
        if !worth {
            return;
        }
        let mut state = self.state.lock();
        if state.closed || !state.is_current(lookup) {
            return;
        }
        let bytes_before = state.hot.footprint_bytes();
        let (place, key) = (lookup.hash.place, &lookup.key);
        let kept = state
            .hot
            .promote(place, key, Some(value), dirt, Origin::Reads);
        budget.settle(bytes_before, state.hot.footprint_bytes());
        if kept.is_ok() {
            crate::counters::count(&self.shared.counters.promoted_entries, 1);
        }
    }
}

/// Reads a key that only runs have, if one record settles it; else none.
fn read_whole(
    kind: TableKind,
    lookup: &Lookup,
    reached: &mut Reached,
    bytes_max: usize,
) -> Result<Option<Found>, ColdError> {
    if kind != TableKind::Values || !lookup.above.is_empty() {
        return Ok(None);
    }
    let mut block = BLOCK.take();
    let found = look_in_runs(lookup, reached, bytes_max, &mut block);
    if block.capacity() <= BLOCK_BYTES_KEPT {
        BLOCK.set(block);
    }
    found
}

fn look_in_runs(
    lookup: &Lookup,
    reached: &mut Reached,
    bytes_max: usize,
    block: &mut Vec<u8>,
) -> Result<Option<Found>, ColdError> {
    let hash = lookup.hash;
    let runs = &lookup.cold.at(hash.place).runs;
    // The filters were asked before.
    let mut next = match reached.0 {
        Some(number) => {
            let looked = look_in_run(&runs[number], lookup, bytes_max, block)?;
            if let Looked::Settled(found) = looked {
                return Ok(found);
            }
            number + 1
        }
        None => 0,
    };
    while next < runs.len() {
        let some = &runs[next..runs.len().min(next + GLANCES)];
        let mut glances = [Glance::Outside; GLANCES];
        for (run, glance) in some.iter().zip(&mut glances) {
            *glance = run.glance(hash);
        }
        for (number, (run, glance)) in some.iter().zip(&glances).enumerate() {
            if !glance.may_contain() {
                continue;
            }
            *reached = Reached(Some(next + number));
            let looked = look_in_run(run, lookup, bytes_max, block)?;
            if let Looked::Settled(found) = looked {
                return Ok(found);
            }
        }
        next += some.len();
    }
    Ok(Some(Found::Absent))
}

/// What a look into a run came to.
enum Looked {
    /// It says nothing of the key.
    GoOn,
    /// What was found; none if it takes a fold to know.
    Settled(Option<Found>),
}

fn look_in_run(
    run: &Run,
    lookup: &Lookup,
    bytes_max: usize,
    block: &mut Vec<u8>,
) -> Result<Looked, ColdError> {
    Ok(match run.look_whole(lookup.hash, &lookup.key, block)? {
        Whole::Nothing => Looked::GoOn,
        Whole::Value(value) if value.len() > bytes_max => {
            Looked::Settled(Some(Found::Longer(value.len() as u64)))
        }
        Whole::Value(value) => Looked::Settled(Some(Found::Value(value.to_vec()))),
        Whole::Deleted => Looked::Settled(Some(Found::Absent)),
        Whole::Unclear => Looked::Settled(None),
    })
}

/// Whether what lies below a source's record does not matter.
fn ends_look(source: &impl RecordSource) -> bool {
    source
        .head()
        .is_some_and(|head| head.kind != RecordKind::Fragment)
}
