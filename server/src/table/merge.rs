//! Merges: runs that are neighbours in age become one, range by range.
//!
//! Which ones, `due` says. A range that has grown large is split, so that no merge needs more than a
//! bounded share of disk and time.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use super::{
    Table, TableError,
    due::{Merge, Task},
    survey::range_bytes,
};
use crate::{
    cold::{ColdError, MergePlan, Run, RunId},
    counters::count,
    data_dir::manifest::Edit,
    ranges::Ranges,
    shared::cold_error,
};

/// A table has at most this many ranges.
const RANGES_MAX: usize = 4096;
/// What a merge reads ahead in all runs together, at most.
const READ_AHEAD_BYTES: usize = 1024 * 1024;
const READ_AHEAD_BYTES_MIN: usize = 16 * 1024;
const READ_AHEAD_BYTES_MAX: usize = 128 * 1024;

/// What a look for merge work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeDone {
    /// Runs were merged, or a range was split.
    Some,
    /// There was nothing to do.
    Nothing,
    /// A merge came to more than there was room for, and was given up.
    NoRoom,
}

/// What merges are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// That runs stay few, and garbage bounded.
    Order,
    /// Every byte that they can give back.
    Space,
}

impl Table {
    /// The most runs that any range has.
    pub(crate) fn runs_deepest(&self) -> usize {
        self.state
            .lock()
            .cold
            .iter()
            .map(|range| range.runs.len())
            .max()
            .unwrap_or(0)
    }

    /// Does one merge, if one is due. One thread at a time calls this.
    pub(crate) fn merge_one(&self, need: Need) -> Result<MergeDone, TableError> {
        while self.split_ranges()? {}
        let Some(store) = &self.shared.cold else {
            return Ok(MergeDone::Nothing);
        };
        // A merge that lacks room is not the next one again, so this ends.
        loop {
            let task = self.next_task(store, need);
            let Some(task) = task.map_err(|error| cold_error(&error))? else {
                return Ok(MergeDone::Nothing);
            };
            let done = self.do_task(&task, need)?;
            if done != MergeDone::NoRoom || self.shared.budget.is_stopping() {
                return Ok(done);
            }
        }
    }

    fn do_task(&self, task: &Task, need: Need) -> Result<MergeDone, TableError> {
        let Merge { range, runs, .. } = &task.merge;
        let places_last = task.cold.last_of(*range);
        let Some(range) = task.cold.get(*range) else {
            return Ok(MergeDone::Nothing);
        };
        let Some(inputs) = range.runs.get(runs.clone()) else {
            return Ok(MergeDone::Nothing);
        };
        let includes_oldest = runs.end == range.runs.len();
        let Some(store) = &self.shared.cold else {
            return Ok(MergeDone::Nothing);
        };
        let places = range.first..=places_last;
        let note = match self.note_of_merge(inputs, &places) {
            Ok(note) => note,
            Err(error) => {
                self.failed(task);
                return Err(cold_error(&error));
            }
        };
        let plan = MergePlan {
            table: self.id,
            kind: self.kind,
            says_nothing_is_left: self.name.is_some()
                && includes_oldest
                && reaches_in(&task.cold, task.merge.range),
            places,
            includes_oldest,
            claim: task.merge.claim(),
            sync: false,
            read_ahead_bytes: (READ_AHEAD_BYTES / inputs.len().max(1))
                .clamp(READ_AHEAD_BYTES_MIN, READ_AHEAD_BYTES_MAX),
            note,
        };
        let worked_from = Cell::new(Instant::now());
        let goes_on = |_bytes| {
            if need == Need::Order {
                self.give_way(task.merge.cause, worked_from.get().elapsed());
            }
            worked_from.set(Instant::now());
            self.emptied() == task.emptied
        };
        let merged = store.merge(inputs, &plan, &goes_on);
        #[cfg(test)]
        self.shared.hooks.reached(super::hooks::Point::MergeWritten);
        match merged {
            Err(ColdError::Cancelled) => Ok(MergeDone::Nothing),
            Err(ColdError::DiskLimit { .. }) => {
                self.lacked_room(task);
                Ok(MergeDone::NoRoom)
            }
            Err(error) => {
                self.failed(task);
                Err(cold_error(&error))
            }
            Ok(merged) => self.take_merged(task, inputs, merged),
        }
    }

    /// Puts the merged run in the place of its inputs, if they are still there.
    fn take_merged(
        &self,
        task: &Task,
        inputs: &[Arc<Run>],
        merged: Option<Arc<Run>>,
    ) -> Result<MergeDone, TableError> {
        let Some(range) = task.cold.get(task.merge.range) else {
            return Ok(MergeDone::Nothing);
        };
        let removed: Vec<RunId> = inputs.iter().map(|run| run.id()).collect();
        let _structure = self.structure.lock();
        let mut cold = Ranges::clone(&self.state.lock().cold);
        if !cold.replace(range.first, &removed, merged.as_ref()) {
            if let Some(run) = merged {
                run.remove_on_drop();
            }
            return Ok(MergeDone::Nothing);
        }
        let mut kept = Ok(());
        if self.name.is_some() {
            let added = merged.as_ref().map(|run| run.id());
            let edit = Edit::Merged {
                id: self.id,
                first: range.first,
                removed,
                added,
            };
            // IMPORTANT: where runs are to survive a power cut, the inputs stay until output and manifest are on
            // stable storage.
            let lasts = self.log().is_some() || self.shared.was_synced.load(Relaxed);
            let recorded = match &merged {
                Some(run) if lasts => run.sync_named().map_err(|error| cold_error(&error)),
                _ => Ok(()),
            };
            if let Err(error) = recorded.and_then(|()| self.shared.record(edit)) {
                if let Some(run) = merged {
                    run.remove_on_drop();
                }
                return Err(error);
            }
            if lasts {
                kept = self.shared.sync_manifest();
            }
        }
        // IMPORTANT: after a sync that failed nobody knows which of both the manifest names on disk, so that both
        // stay until a start has read it; RAM goes on with what the manifest says here.
        match &kept {
            Ok(()) => inputs
                .iter()
                .filter(|run| !cold.has(run.id()))
                .for_each(|run| run.remove_on_drop()),
            Err(error) => {
                if let Some(log) = self.shared.log.get() {
                    log.fail(&error.text);
                }
            }
        }
        let mut state = self.state.lock();
        // Reads that are under way keep the old picture, and with it the old runs.
        let old = std::mem::replace(&mut state.cold, Arc::new(cold));
        drop(state);
        drop(old);
        count(&self.shared.counters.merges, 1);
        count(
            &self.shared.counters.merged_bytes,
            merged.map_or(0, |run| run.bytes()),
        );
        kept.map(|()| MergeDone::Some)
    }

    /// Merges all runs of the first range, due or not.
    #[cfg(test)]
    pub(crate) fn merge_all(&self) -> Result<MergeDone, TableError> {
        let cold = Arc::clone(&self.state.lock().cold);
        let runs = 0..cold.get(0).map_or(0, |range| range.runs.len());
        self.merge_these(cold, 0, runs)
    }

    /// Merges any neighbours, due or not.
    #[cfg(test)]
    pub(crate) fn merge_some(&self, rng: &mut fastrand::Rng) -> Result<bool, TableError> {
        let cold = Arc::clone(&self.state.lock().cold);
        let range = rng.usize(..cold.len());
        let runs = cold.get(range).map_or(0, |range| range.runs.len());
        if runs == 0 {
            return Ok(false);
        }
        let from = rng.usize(..runs);
        let done = self.merge_these(cold, range, from..rng.usize(from..runs) + 1);
        done.map(|done| done == MergeDone::Some)
    }

    #[cfg(test)]
    fn merge_these(
        &self,
        cold: Arc<Ranges<Arc<Run>>>,
        range: usize,
        runs: std::ops::Range<usize>,
    ) -> Result<MergeDone, TableError> {
        let task = Task {
            cold,
            merge: Merge {
                range,
                runs,
                output_bytes: 0,
                freed_bytes: 0,
                cause: super::due::Cause::Depth,
            },
            emptied: self.emptied(),
            room_bytes: u64::MAX,
        };
        self.do_task(&task, Need::Space)
    }

    /// Splits ranges that have grown large; says whether there were any, and so may be more.
    fn split_ranges(&self) -> Result<bool, TableError> {
        let mut any = false;
        let steps = self.shared.steps;
        let cold = Arc::clone(&self.state.lock().cold);
        for (index, range) in cold.iter().enumerate() {
            let last = cold.last_of(index);
            let bytes = range_bytes(range, last);
            let half = range.first + ((last - range.first) >> 1) + 1;
            if cold.len() >= RANGES_MAX
                || bytes <= steps.range_bytes_max(cold.len())
                || half <= range.first
                || last == range.first
            {
                continue;
            }
            let _structure = self.structure.lock();
            if self.name.is_some() {
                self.shared.record(Edit::Split {
                    id: self.id,
                    at: half,
                })?;
            }
            // Who changes the ranges holds `structure`, so that they are as they were.
            let mut cold = Ranges::clone(&self.state.lock().cold);
            cold.split(half);
            for first in [range.first, half] {
                self.let_go(&mut cold, first)?;
            }
            self.surveys.lock().remove(&range.first);
            self.state.lock().cold = Arc::new(cold);
            any = true;
        }
        Ok(any)
    }

    /// Takes runs out of the range that begins at `first` that have nothing there: or their files would
    /// stay for its sake.
    fn let_go(&self, cold: &mut Ranges<Arc<Run>>, first: u64) -> Result<(), TableError> {
        let last = cold.last_of(cold.index_of(first));
        let elsewhere = |run: &&Arc<Run>| run.last_place() < first || run.first_place() > last;
        let runs = cold.at(first).runs.iter().filter(elsewhere);
        let removed: Vec<RunId> = runs.map(|run| run.id()).collect();
        for run in removed {
            if self.name.is_some() {
                self.shared.record(Edit::Merged {
                    id: self.id,
                    first,
                    removed: vec![run],
                    added: None,
                })?;
            }
            cold.replace(first, &[run], None);
        }
        Ok(())
    }
}

/// Whether runs of other ranges reach into this one: of a time before it was split off, or merged here.
fn reaches_in(cold: &Ranges<Arc<Run>>, index: usize) -> bool {
    let Some(range) = cold.get(index) else {
        return false;
    };
    let last = cold.last_of(index);
    let others = cold.iter().filter(|other| other.first != range.first);
    others
        .flat_map(|other| other.runs.iter())
        .any(|run| run.first_place() <= last && run.last_place() >= range.first)
}
