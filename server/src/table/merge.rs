//! Merges: runs that are neighbours in age become one, range by range.
//!
//! Runs of a range are sorted into size classes. Eight neighbours of one class are merged, so each
//! byte is written about once for each class that a table has grown through. A range in which much
//! was overwritten is merged whole, and one that has grown large is split, so that no merge needs
//! more than a bounded share of disk and time.

use std::{ops::Range as Indices, sync::Arc};

use super::{Table, TableError};
use crate::{
    cold::{ColdError, MergePlan, NOTE_BYTES, Run, RunId},
    counters::count,
    data_dir::manifest::Edit,
    ranges::Ranges,
    shared::cold_error,
};

/// So many neighbours of one size class are merged.
pub(crate) const FAN_IN: usize = 8;
/// Whatever their sizes, a range has at most this many runs, or the smallest neighbours are merged.
const RUNS_MAX: usize = 2 * FAN_IN;
/// At this many runs in a range, spills wait for merges.
pub(crate) const RUNS_STALL: usize = 3 * FAN_IN;
/// A size class is this many times as large as the one before.
const CLASS_FACTOR: u64 = 6;
/// Below this size all runs are of one class.
const CLASS_BYTES_MIN: u64 = 32 * 1024;
/// A range is merged whole when this part of it is hidden by newer records.
const GARBAGE_SHARE: u64 = 3;
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
}

/// A merge to be done.
#[derive(Debug)]
struct Task {
    cold: Arc<Ranges<Arc<Run>>>,
    range: usize,
    runs: Indices<usize>,
    garbage: u64,
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
    pub(crate) fn merge_one(&self) -> Result<MergeDone, TableError> {
        self.split_ranges()?;
        let Some(task) = self.next_task() else {
            return Ok(MergeDone::Nothing);
        };
        self.do_task(&task)
    }

    fn do_task(&self, task: &Task) -> Result<MergeDone, TableError> {
        let Some(range) = task.cold.get(task.range) else {
            return Ok(MergeDone::Nothing);
        };
        let Some(inputs) = range.runs.get(task.runs.clone()) else {
            return Ok(MergeDone::Nothing);
        };
        let includes_oldest = task.runs.end == range.runs.len();
        let Some(store) = &self.shared.cold else {
            return Ok(MergeDone::Nothing);
        };
        let plan = MergePlan {
            table: self.id,
            kind: self.kind,
            places: range.first..=task.cold.last_of(task.range),
            includes_oldest,
            sync: false,
            read_ahead_bytes: (READ_AHEAD_BYTES / inputs.len().max(1))
                .clamp(READ_AHEAD_BYTES_MIN, READ_AHEAD_BYTES_MAX),
            note: [0; NOTE_BYTES],
        };
        let merged = store.merge(inputs, &plan, &|_bytes| !self.is_closed());
        #[cfg(test)]
        self.shared.hooks.reached(super::hooks::Point::MergeWritten);
        match merged {
            Err(ColdError::Cancelled) => Ok(MergeDone::Nothing),
            Err(error) => Err(cold_error(&error)),
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
        let Some(range) = task.cold.get(task.range) else {
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
        if self.name.is_some() {
            let added = merged.as_ref().map(|run| run.id());
            let edit = Edit::Merged {
                id: self.id,
                first: range.first,
                removed,
                added,
            };
            if let Err(error) = self.shared.record(edit) {
                if let Some(run) = merged {
                    run.remove_on_drop();
                }
                return Err(error);
            }
        }
        for run in inputs.iter().filter(|run| !cold.has(run.id())) {
            run.remove_on_drop();
        }
        let mut state = self.state.lock();
        // Reads that are under way keep the old picture, and with it the old runs.
        let old = std::mem::replace(&mut state.cold, Arc::new(cold));
        if let Some(garbage) = state.garbage.get_mut(&range.first)
            && task.runs.len() == range.runs.len()
        {
            *garbage = garbage.saturating_sub(task.garbage);
        }
        drop(state);
        drop(old);
        count(&self.shared.counters.merges, 1);
        count(
            &self.shared.counters.merged_bytes,
            merged.map_or(0, |run| run.bytes()),
        );
        Ok(MergeDone::Some)
    }

    /// Merges all runs of the first range, due or not.
    #[cfg(test)]
    pub(crate) fn merge_all(&self) -> Result<MergeDone, TableError> {
        let cold = Arc::clone(&self.state.lock().cold);
        let runs = 0..cold.get(0).map_or(0, |range| range.runs.len());
        self.do_task(&Task {
            range: 0,
            runs,
            garbage: 0,
            cold,
        })
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
        let task = Task {
            range,
            runs: from..rng.usize(from..runs) + 1,
            garbage: 0,
            cold,
        };
        self.do_task(&task).map(|done| done == MergeDone::Some)
    }

    fn next_task(&self) -> Option<Task> {
        let state = self.state.lock();
        if state.closed {
            return None;
        }
        let cold = Arc::clone(&state.cold);
        let garbage = state.garbage.clone();
        drop(state);
        let mut deepest: Option<Task> = None;
        for (index, range) in cold.iter().enumerate() {
            let last = cold.last_of(index);
            let mut sizes = Vec::with_capacity(range.runs.len());
            for run in &range.runs {
                sizes.push(share(run, range.first, last));
            }
            let garbage = garbage.get(&range.first).copied().unwrap_or(0);
            let Some(runs) = choose(&sizes, garbage) else {
                continue;
            };
            let depth = range.runs.len();
            let is_deeper = deepest.as_ref().and_then(|task| task.cold.get(task.range));
            if is_deeper.is_none_or(|other| depth > other.runs.len()) {
                deepest = Some(Task {
                    cold: Arc::clone(&cold),
                    range: index,
                    runs,
                    garbage,
                });
            }
        }
        deepest
    }

    /// Splits ranges that have grown large.
    fn split_ranges(&self) -> Result<(), TableError> {
        let steps = self.shared.steps;
        let cold = Arc::clone(&self.state.lock().cold);
        for (index, range) in cold.iter().enumerate() {
            let last = cold.last_of(index);
            let mut bytes = 0;
            for run in &range.runs {
                bytes += share(run, range.first, last);
            }
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
            let mut state = self.state.lock();
            let mut cold = Ranges::clone(&state.cold);
            cold.split(half);
            state.cold = Arc::new(cold);
            // Each half is taken to have half of what is hidden.
            if let Some(garbage) = state.garbage.remove(&range.first) {
                state.garbage.insert(range.first, garbage / 2);
                state.garbage.insert(half, garbage / 2);
            }
        }
        Ok(())
    }
}

/// About how many bytes a run has in `first..=last`; places are hashes, so they lie evenly.
fn share(run: &Run, first: u64, last: u64) -> u64 {
    let (run_first, run_last) = (run.first_place(), run.last_place());
    let (from, to) = (first.max(run_first), last.min(run_last));
    if from > to {
        return 0;
    }
    let part = (to - from) as f64 + 1.0;
    let whole = (run_last - run_first) as f64 + 1.0;
    (run.bytes() as f64 * (part / whole)) as u64
}

/// Which neighbours are to be merged, of runs with these sizes, newest first.
fn choose(sizes: &[u64], garbage: u64) -> Option<Indices<usize>> {
    let all_bytes: u64 = sizes.iter().sum();
    if garbage > 0 && garbage >= all_bytes / GARBAGE_SHARE {
        return Some(0..sizes.len());
    }
    let classes: Vec<u32> = sizes.iter().map(|&bytes| class(bytes)).collect();
    let mut from = 0;
    while from < classes.len() {
        let same = classes[from..]
            .iter()
            .take_while(|&&class| class == classes[from])
            .count();
        if same >= FAN_IN {
            return Some(from..from + same);
        }
        from += same;
    }
    if sizes.len() <= RUNS_MAX {
        return None;
    }
    // Sizes that alternate between classes never make eight of a kind.
    let window = |from: usize| sizes[from..from + FAN_IN].iter().sum::<u64>();
    (0..=sizes.len() - FAN_IN)
        .min_by_key(|&from| window(from))
        .map(|from| from..from + FAN_IN)
}

fn class(bytes: u64) -> u32 {
    (bytes / CLASS_BYTES_MIN)
        .checked_ilog(CLASS_FACTOR)
        .map_or(0, |class| class + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_neighbours_of_a_class_are_merged() {
        assert_eq!(choose(&[1 << 20; 7], 0), None);
        assert_eq!(choose(&[1 << 20; 8], 0), Some(0..8));
        let mut sizes = vec![100, 1 << 30];
        sizes.extend([1 << 20; 8]);
        sizes.push(1 << 32);
        assert_eq!(choose(&sizes, 0), Some(2..10));
    }

    #[test]
    fn sizes_that_alternate_are_merged_where_they_are_least() {
        let sizes: Vec<u64> = (0..17)
            .map(|i| if i % 2 == 0 { 1 << 20 } else { 1 << 28 })
            .collect();
        assert_eq!(choose(&sizes[..16], 0), None);
        assert_eq!(choose(&sizes, 0).map(|runs| runs.len()), Some(FAN_IN));
    }

    #[test]
    fn a_range_that_is_mostly_hidden_is_merged_whole() {
        assert_eq!(choose(&[1000, 2000], 999), None);
        assert_eq!(choose(&[1000, 2000], 1000), Some(0..2));
    }
}
