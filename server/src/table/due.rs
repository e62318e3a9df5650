//! Which merge is due: for too many runs, or for what it gives back.
//!
//! Too many runs come first (`depth`). A range with much garbage is merged whole, oldest run included:
//! when that is half of it while the table grows, which costs little. Once the table has come to
//! rest, the worst ranges are, until less than a tenth of the whole is garbage. A run from before a
//! split that few ranges still need is merged where it is needed, so that its file can go.
//!
//! Under a disk limit a merge needs room for what it will come to. Where disk is short, merges that
//! free files at once come first; one that came to more than there was room for waits for more.

use std::{
    collections::HashMap,
    ops::Range as Indices,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Table,
    depth::deepest,
    merge::Need,
    survey::{Held, Survey, held, share},
};
use crate::{
    cold::{Claim, ColdError, ColdStore, Purpose, Run, RunId},
    ranges::{Range, Ranges},
};

/// While a table grows, a range is merged for its garbage when that is this part of it.
const GARBAGE_SHARE_GROWING: u64 = 2;
/// The same once the table has come to rest.
const GARBAGE_SHARE_SETTLED: u64 = 10;
/// The same where disk is short.
const GARBAGE_SHARE_SHORT: u64 = 12;
/// A table has come to rest when nothing was spilled for so long.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// After a merge that failed, its range waits so long for the next.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// While a table grows, a range is surveyed again when it has changed by this part.
const CHANGE_SHARE_GROWING: u64 = 8;
/// The same otherwise; estimates of bytes need not be looked at again for less.
const CHANGE_SHARE_SETTLED: u64 = 256;

/// A merge to be done.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) cold: Arc<Ranges<Arc<Run>>>,
    pub(super) merge: Merge,
    /// The table had been emptied so often.
    pub(super) emptied: u64,
    /// The room for merges when it was chosen.
    pub(super) room_bytes: u64,
}

/// Which runs of which range, by number.
#[derive(Debug, Clone)]
pub(super) struct Merge {
    pub(super) range: usize,
    pub(super) runs: Indices<usize>,
    /// About what they will come to.
    pub(super) output_bytes: u64,
    /// What no other range needs of them.
    pub(super) freed_bytes: u64,
    pub(super) cause: Cause,
}

/// Why a merge is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A range has too many runs.
    Depth,
    /// Much of what lies there is garbage.
    Garbage,
}

impl Merge {
    fn gains_at_once(&self) -> bool {
        self.freed_bytes > self.output_bytes
    }

    /// The room that it needs.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            purpose: match self.gains_at_once() {
                true => Purpose::Merge,
                false => Purpose::MergeAhead,
            },
            bytes: self.output_bytes,
        }
    }
}

/// How much garbage is borne, and how closely it is watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Garbage is borne up to this part, as a divisor.
    pub(super) garbage_share: u64,
    change_share: u64,
    /// In the table as a whole, or in each range.
    whole: bool,
    /// What gives disk back at once comes before what gives back more later.
    at_once: bool,
}

impl Table {
    /// The merge that is due most, of those that there is room for.
    ///
    /// # Errors
    /// [`ColdError::DiskLimit`], if there is room for none of those that keep runs few.
    pub(super) fn next_task(
        &self,
        store: &ColdStore,
        need: Need,
    ) -> Result<Option<Task>, ColdError> {
        let state = self.state.lock();
        if state.closed {
            return Ok(None);
        }
        let cold = Arc::clone(&state.cold);
        let patience = Patience::of(need, state.is_settled());
        let emptied = state.emptied;
        drop(state);
        let room_ahead_bytes = store.room_bytes(Purpose::MergeAhead)?;
        let room_bytes = store.room_bytes(Purpose::Merge)?;
        let room = |merge: &Merge| match merge.claim().purpose {
            Purpose::MergeAhead => room_ahead_bytes,
            _ => room_bytes,
        };
        let fits = |merge: &Merge| match self.needs_bytes(&cold, merge) {
            None => Fit::Rests,
            Some(bytes) if bytes <= room(merge) => Fit::Yes,
            Some(_) => Fit::NoRoom,
        };
        let held = held(&cold);
        let (deepest, lacks_room) = deepest(&cold, self.depths(), &held, &fits);
        // Where there are so many runs that reads and spills suffer, garbage waits.
        let garbage = match &deepest {
            Some((depth, _)) if *depth > self.depths().most => None,
            _ => self.garbage(&cold, patience, &held, &fits),
        };
        let merge = match (garbage, deepest) {
            (Some(merge), _) | (None, Some((_, merge))) => merge,
            (None, None) if lacks_room => return Err(store.disk_full()),
            (None, None) => return Ok(None),
        };
        Ok(Some(Task {
            room_bytes: room(&merge),
            cold,
            merge,
            emptied,
        }))
    }

    /// The room that a merge needs; none if one of this range failed of late.
    fn needs_bytes(&self, cold: &Ranges<Arc<Run>>, merge: &Merge) -> Option<u64> {
        let range = cold.get(merge.range);
        let surveys = self.surveys.lock();
        let known = range.and_then(|range| surveys.get(&range.first));
        let failed_at = known.and_then(|survey| survey.failed_at);
        if failed_at.is_some_and(|failed_at| failed_at.elapsed() < REST_AFTER_FAILURE) {
            return None;
        }
        let needs_bytes = known.map_or(0, |survey| survey.needs_bytes);
        Some(merge.output_bytes.max(needs_bytes))
    }

    /// Remembers that a merge came to more than there was room for, so that others come first.
    pub(super) fn lacked_room(&self, task: &Task) {
        self.learn(task, |survey| {
            let more_bytes = task.merge.output_bytes / 8 + 1;
            survey.needs_bytes = task.room_bytes.saturating_add(more_bytes);
        });
    }

    /// Remembers that a merge failed, so that the same damage does not keep the others waiting.
    pub(super) fn failed(&self, task: &Task) {
        self.learn(task, |survey| survey.failed_at = Some(Instant::now()));
    }

    fn learn(&self, task: &Task, learn: impl FnOnce(&mut Survey)) {
        let index = task.merge.range;
        let Some(range) = task.cold.get(index) else {
            return;
        };
        let last = task.cold.last_of(index);
        let mut surveys = self.surveys.lock();
        let survey = surveys
            .entry(range.first)
            .or_insert_with(|| self.survey(range, last));
        learn(survey);
    }

    fn survey(&self, range: &Range<Arc<Run>>, last: u64) -> Survey {
        // It only steers merges: a range that cannot be read keeps nobody from the others.
        Survey::take(range, last, self.kind).unwrap_or_else(|error| {
            tracing::warn!(table = self.id, %error, "a range cannot be surveyed");
            Survey::of_nothing(range, last)
        })
    }

    /// What to merge for its garbage, and where; none if it is borne.
    fn garbage(
        &self,
        cold: &Ranges<Arc<Run>>,
        patience: Patience,
        held: &HashMap<RunId, Held>,
        fits: &dyn Fn(&Merge) -> Fit,
    ) -> Option<Merge> {
        let surveys = self.surveyed(cold, patience);
        let mut total = Garbage::default();
        let mut worst: Option<((bool, f64), Merge)> = None;
        for (index, (range, survey)) in cold.iter().zip(surveys).enumerate() {
            let (garbage, merge) = garbage_of(index, range, cold.last_of(index), survey, held);
            total.add(garbage);
            if !patience.whole && garbage.is_borne(patience) {
                continue;
            }
            let rank = (patience.at_once && merge.gains_at_once(), garbage.share());
            let is_worst = worst.as_ref().is_none_or(|(other, _)| rank > *other);
            if is_worst && garbage.bytes > 0 && fits(&merge) == Fit::Yes {
                worst = Some((rank, merge));
            }
        }
        if patience.whole && total.is_borne(patience) {
            return None;
        }
        worst.map(|(_, merge)| merge)
    }

    /// A survey of each range, taken anew where the last one says too little.
    fn surveyed(&self, cold: &Ranges<Arc<Run>>, patience: Patience) -> Vec<Survey> {
        let mut kept = self.surveys.lock();
        if kept.len() > cold.len() {
            kept.clear();
        }
        let survey = |(index, range): (usize, &Range<Arc<Run>>)| {
            let last = cold.last_of(index);
            // Of many small tables each has one such run, and a survey takes more than that does.
            if let [] | [_] = &range.runs[..]
                && range.runs.iter().all(|run| run.tombstones() == 0)
            {
                return Survey::of_nothing(range, last);
            }
            let holds = |survey: &&Survey| survey.holds(range, last, patience.change_share);
            if let Some(survey) = kept.get(&range.first).filter(holds) {
                return *survey;
            }
            let survey = self.survey(range, last);
            kept.insert(range.first, survey);
            survey
        };
        cold.iter().enumerate().map(survey).collect()
    }
}

impl Patience {
    /// The patience with a table that has come to rest, or not.
    pub(super) fn of(need: Need, settled: bool) -> Self {
        let short = need == Need::Space;
        Self {
            garbage_share: match need {
                Need::Space => GARBAGE_SHARE_SHORT,
                Need::Order if settled => GARBAGE_SHARE_SETTLED,
                Need::Order => GARBAGE_SHARE_GROWING,
            },
            change_share: match settled || short {
                true => CHANGE_SHARE_SETTLED,
                false => CHANGE_SHARE_GROWING,
            },
            whole: settled && !short,
            at_once: short,
        }
    }
}

/// Whether a merge can be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    /// There is too little disk for it.
    NoRoom,
    /// One of the same range failed of late.
    Rests,
}

/// Garbage, and all that it lies among.
#[derive(Debug, Default, Clone, Copy)]
struct Garbage {
    bytes: u64,
    of_bytes: u64,
}

impl Garbage {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.of_bytes += other.of_bytes;
    }

    fn share(self) -> f64 {
        self.bytes as f64 / self.of_bytes.max(1) as f64
    }

    fn is_borne(self, patience: Patience) -> bool {
        self.bytes == 0 || self.bytes < self.of_bytes / patience.garbage_share
    }
}

/// What each run of a range has in it.
pub(super) fn sizes(range: &Range<Arc<Run>>, last: u64) -> Vec<u64> {
    let sizes = range.runs.iter();
    sizes.map(|run| share(run, range.first, last)).collect()
}

/// The garbage that a range answers for, and what to merge there to be rid of it.
fn garbage_of(
    index: usize,
    range: &Range<Arc<Run>>,
    last: u64,
    survey: Survey,
    held: &HashMap<RunId, Held>,
) -> (Garbage, Merge) {
    let sizes = sizes(range, last);
    let due =
        |(run, &bytes): (&Arc<Run>, &u64)| held.get(&run.id()).map_or(0, |held| held.due_to(bytes));
    let dues: Vec<u64> = range.runs.iter().zip(&sizes).map(due).collect();
    let dead_bytes: u64 = dues.iter().sum();
    let bytes: u64 = sizes.iter().sum();
    let garbage = Garbage {
        bytes: survey.garbage_bytes + dead_bytes,
        of_bytes: bytes + dead_bytes,
    };
    let runs = if survey.garbage_bytes >= dead_bytes {
        0..sizes.len()
    } else {
        around_the_deadest(&sizes, &dues)
    };
    let merge = Merge {
        range: index,
        output_bytes: match runs.len() == sizes.len() {
            true => bytes.saturating_sub(survey.garbage_bytes),
            false => sizes[runs.clone()].iter().sum(),
        },
        freed_bytes: freed_at_once(&range.runs[runs.clone()], held),
        runs,
        cause: Cause::Garbage,
    };
    (garbage, merge)
}

/// The bytes of those of a range's runs that no other range needs.
pub(super) fn freed_at_once(runs: &[Arc<Run>], held: &HashMap<RunId, Held>) -> u64 {
    let last_held = |run: &&Arc<Run>| held.get(&run.id()).is_none_or(|held| held.ranges == 1);
    runs.iter().filter(last_held).map(|run| run.bytes()).sum()
}

/// The run with the most dead bytes, and the newer ones if they are less than it.
fn around_the_deadest(sizes: &[u64], dues: &[u64]) -> Indices<usize> {
    let deadest = (0..dues.len()).max_by_key(|&run| dues[run]).unwrap_or(0);
    let newer: u64 = sizes[..deadest].iter().sum();
    if newer <= sizes[deadest] {
        0..deadest + 1
    } else {
        deadest..deadest + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_run_is_merged_with_newer_ones_unless_they_are_more() {
        assert_eq!(around_the_deadest(&[1, 2, 9, 50], &[0, 1, 9, 0]), 0..3);
        assert_eq!(around_the_deadest(&[9, 2, 9, 50], &[0, 1, 9, 0]), 2..3);
    }
}
