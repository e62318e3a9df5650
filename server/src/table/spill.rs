//! Spills: an interval of hot entries becomes a run.
//!
//! The interval leaves the hot map as one immutable piece and stays readable in transit; its run is
//! written without the lock; then, under it, the run takes the piece's place. A spill that fails
//! leaves the piece in transit, where it is read and tried again.

use std::sync::Arc;

use rhash_protocol::TableKind;

use super::{Table, TableError};
use crate::{
    cold::{ColdError, ColdStore, RecordKind, RecordSource, Run},
    counters::count,
    data_dir::manifest::Edit,
    hot::{Frozen, FrozenSource},
    ranges::Ranges,
    shared::cold_error,
};

/// What a spill came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spilled {
    /// RAM was freed.
    Some,
    /// There was nothing to spill.
    Nothing,
}

/// An interval in transit, and the runs that lie below it.
type TakenOut = (Arc<Frozen>, Arc<Ranges<Arc<Run>>>);

/// A run as it was written, and what it makes superfluous.
struct Written {
    run: Option<Arc<Run>>,
    records: u64,
    /// By the first place of a range: bytes of older runs that the new one hides.
    hidden: Vec<(u64, u64)>,
}

impl Table {
    /// Spills about `bytes_target` bytes of hot entries, or what an earlier spill left in transit.
    pub(crate) fn spill(&self, bytes_target: usize) -> Result<Spilled, TableError> {
        let Some(store) = &self.shared.cold else {
            return Ok(Spilled::Nothing);
        };
        let Some((frozen, cold)) = self.take_out(bytes_target) else {
            return Ok(Spilled::Nothing);
        };
        #[cfg(test)]
        self.shared.hooks.reached(super::hooks::Point::SpillFrozen);
        let written = self
            .write_run(store, &frozen, &cold)
            .map_err(|error| cold_error(&error))?;
        #[cfg(test)]
        self.shared.hooks.reached(super::hooks::Point::SpillWritten);
        self.take_in(&frozen, written)
    }

    /// Whether an interval is in transit, or hot entries are there.
    pub(crate) fn has_unspilled(&self) -> bool {
        let state = self.state.lock();
        !state.transit.is_empty() || state.hot.len() > 0
    }

    /// The oldest interval in transit, or a new one.
    pub(super) fn take_out(&self, bytes_target: usize) -> Option<TakenOut> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        // IMPORTANT: the oldest first, or an older interval's run would lie above a newer one's.
        if let Some(frozen) = state.transit.last() {
            return Some((Arc::clone(frozen), Arc::clone(&state.cold)));
        }
        let bytes_before = state.ram_bytes();
        let frozen = state.hot.freeze(bytes_target).map(Arc::new);
        if let Some(frozen) = &frozen {
            state.transit.insert(0, Arc::clone(frozen));
            state.epoch += 1;
        }
        self.shared.budget.settle(bytes_before, state.ram_bytes());
        frozen.map(|frozen| (frozen, Arc::clone(&state.cold)))
    }

    fn write_run(
        &self,
        store: &ColdStore,
        frozen: &Arc<Frozen>,
        cold: &Ranges<Arc<Run>>,
    ) -> Result<Written, ColdError> {
        let mut source = FrozenSource::dirty(Arc::clone(frozen), self.shared.hasher.clone());
        let mut written = Written {
            run: None,
            records: 0,
            hidden: Vec::new(),
        };
        if source.head().is_none() {
            return Ok(written);
        }
        let mut writer = store.begin(self.id, frozen.footprint_bytes() as u64)?;
        let mut range = cold.index_of(frozen.first());
        let mut hidden_bytes = 0;
        while let Some(record) = source.head() {
            writer.push(&record)?;
            written.records += 1;
            while record.hash.place > cold.last_of(range) {
                written.note_hidden(cold, range, std::mem::take(&mut hidden_bytes));
                range += 1;
            }
            if record.kind != RecordKind::Fragment && self.kind != TableKind::Lists {
                // It only steers merges: a filter that cannot be read must not keep entries in RAM.
                hidden_bytes += bytes_below(cold, range, &record).unwrap_or(0);
            }
            source.advance()?;
        }
        written.note_hidden(cold, range, hidden_bytes);
        written.run = Some(writer.finish(false)?);
        Ok(written)
    }

    /// Puts the run in the place of the interval.
    fn take_in(&self, frozen: &Arc<Frozen>, written: Written) -> Result<Spilled, TableError> {
        let _structure = self.structure.lock();
        let is_in_transit =
            |state: &super::State| state.transit.iter().any(|other| Arc::ptr_eq(other, frozen));
        if !is_in_transit(&self.state.lock()) {
            // The table was cleared or closed meanwhile: nobody shall see the run.
            if let Some(run) = written.run {
                run.remove_on_drop();
            }
            return Ok(Spilled::Some);
        }
        if let (Some(run), Some(_)) = (&written.run, &self.name) {
            let edit = Edit::Spilled {
                id: self.id,
                run: run.id(),
                first: frozen.first(),
                last: frozen.last(),
            };
            if let Err(error) = self.shared.record(edit) {
                run.remove_on_drop();
                return Err(error);
            }
        }
        let mut state = self.state.lock();
        let bytes_before = state.ram_bytes();
        if let Some(run) = &written.run {
            let mut cold = Ranges::clone(&state.cold);
            cold.add(run, frozen.first(), frozen.last());
            state.cold = Arc::new(cold);
            count(&self.shared.counters.spilled_entries, written.records);
            count(&self.shared.counters.spilled_bytes, run.bytes());
        }
        for (range, bytes) in written.hidden {
            *state.garbage.entry(range).or_default() += bytes;
        }
        // IMPORTANT: the run is among the cold ones before the interval leaves RAM.
        state.transit.retain(|other| !Arc::ptr_eq(other, frozen));
        state.epoch += 1;
        self.shared.budget.settle(bytes_before, state.ram_bytes());
        drop(state);
        self.shared.merge_wanted.ring();
        Ok(Spilled::Some)
    }
}

impl Written {
    fn note_hidden(&mut self, cold: &Ranges<Arc<Run>>, range: usize, bytes: u64) {
        if let Some(range) = cold.get(range)
            && bytes > 0
        {
            self.hidden.push((range.first, bytes));
        }
    }
}

/// About how many bytes of older records a base or a tombstone hides, by the runs' filters.
fn bytes_below(
    cold: &Ranges<Arc<Run>>,
    range: usize,
    record: &crate::cold::Record<'_>,
) -> Result<u64, ColdError> {
    let mut bytes = 0;
    for run in cold.get(range).map_or([].as_slice(), |range| &range.runs) {
        if run.may_contain(record.hash)? {
            bytes += run.bytes() / run.keys().max(1);
        }
    }
    Ok(bytes)
}
