//! Which runs lie where: a table's hash space cut into ranges, each with its runs, newest first.
//!
//! The manifest keeps this of run numbers, a table of open runs; the code that changes it is one.
//! Merges work on one range, so ranges are split as a table grows. A run made before a split
//! serves both halves until they are merged.

use crate::cold::RunId;

/// Something that stands for a run.
pub(crate) trait RunHandle: Clone {
    /// The run's number.
    fn run_id(&self) -> RunId;
}

impl RunHandle for RunId {
    fn run_id(&self) -> RunId {
        *self
    }
}

/// One range of places and its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range<R> {
    /// The range's first place.
    pub(crate) first: u64,
    /// Newest first.
    pub(crate) runs: Vec<R>,
}

/// All ranges of a table, in order, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranges<R> {
    ranges: Vec<Range<R>>,
}

impl<R: RunHandle> Ranges<R> {
    /// One range without runs.
    pub(crate) fn new() -> Self {
        Self {
            ranges: vec![Range {
                first: 0,
                runs: Vec::new(),
            }],
        }
    }

    /// From ranges as they were taken down; none if they are not in order from place 0 on.
    pub(crate) fn from_parts(ranges: Vec<Range<R>>) -> Option<Self> {
        let ordered = ranges
            .windows(2)
            .all(|pair| matches!(pair, [low, high] if low.first < high.first));
        (ordered && ranges.first().is_some_and(|range| range.first == 0)).then_some(Self { ranges })
    }

    /// The ranges in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<R>> {
        self.ranges.iter()
    }

    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The index of the range that holds `place`.
    pub(crate) fn index_of(&self, place: u64) -> usize {
        self.ranges
            .partition_point(|range| range.first <= place)
            .saturating_sub(1)
    }

    /// The range that holds `place`.
    pub(crate) fn at(&self, place: u64) -> &Range<R> {
        &self.ranges[self.index_of(place)]
    }

    /// The range at `index`.
    pub(crate) fn get(&self, index: usize) -> Option<&Range<R>> {
        self.ranges.get(index)
    }

    /// The last place of the range at `index`.
    pub(crate) fn last_of(&self, index: usize) -> u64 {
        self.ranges
            .get(index + 1)
            .map_or(u64::MAX, |next| next.first - 1)
    }

    /// Puts a new run before those that lie in `first..=last` already.
    pub(crate) fn add(&mut self, run: &R, first: u64, last: u64) {
        for index in self.index_of(first)..=self.index_of(last) {
            self.ranges[index].runs.insert(0, run.clone());
        }
    }

    /// Replaces neighbours in the range that begins at `first` by what they were merged to;
    /// says whether they were all there.
    pub(crate) fn replace(&mut self, first: u64, removed: &[RunId], added: Option<&R>) -> bool {
        let index = self.index_of(first);
        let range = &mut self.ranges[index];
        if range.first != first {
            return false;
        }
        let ids: Vec<RunId> = range.runs.iter().map(R::run_id).collect();
        let Some(at) = ids
            .windows(removed.len().max(1))
            .position(|window| window == removed)
        else {
            return false;
        };
        range.runs.splice(at..at + removed.len(), added.cloned());
        true
    }

    /// Splits the range that holds `at`, so that one begins there.
    pub(crate) fn split(&mut self, at: u64) {
        let index = self.index_of(at);
        let range = &self.ranges[index];
        if range.first != at {
            let upper = Range {
                first: at,
                runs: range.runs.clone(),
            };
            self.ranges.insert(index + 1, upper);
        }
    }

    /// Every run once, in no order.
    pub(crate) fn runs(&self) -> Vec<R> {
        let mut runs: Vec<R> = self
            .ranges
            .iter()
            .flat_map(|range| range.runs.iter().cloned())
            .collect();
        runs.sort_unstable_by_key(R::run_id);
        runs.dedup_by_key(|run| run.run_id());
        runs
    }

    /// Whether a run lies in any range.
    pub(crate) fn has(&self, id: RunId) -> bool {
        self.ranges
            .iter()
            .any(|range| range.runs.iter().any(|run| run.run_id() == id))
    }

    /// The same ranges, of another kind of handle; runs without one are left out.
    pub(crate) fn map<S: RunHandle>(&self, mut to: impl FnMut(&R) -> Option<S>) -> Ranges<S> {
        let ranges = self
            .ranges
            .iter()
            .map(|range| Range {
                first: range.first,
                runs: range.runs.iter().filter_map(&mut to).collect(),
            })
            .collect();
        Ranges { ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_made_before_a_split_serves_both_halves_until_they_are_merged() {
        let mut ranges = Ranges::new();
        ranges.add(&1, 0, u64::MAX);
        ranges.add(&2, 0, u64::MAX);
        ranges.split(1 << 63);
        ranges.add(&3, 0, 5);
        assert_eq!(ranges.at(0).runs, [3, 2, 1]);
        assert_eq!(ranges.at(u64::MAX).runs, [2, 1]);
        assert!(ranges.replace(0, &[2, 1], Some(&4)));
        assert_eq!(ranges.at(9).runs, [3, 4]);
        assert!(ranges.has(1));
        assert!(ranges.replace(1 << 63, &[2, 1], None));
        assert!(!ranges.has(1));
        assert_eq!(ranges.runs(), [3, 4]);
    }

    #[test]
    fn only_neighbours_that_are_still_there_are_replaced() {
        let mut ranges = Ranges::new();
        for run in [1, 2, 3] {
            ranges.add(&run, 0, u64::MAX);
        }
        assert!(!ranges.replace(0, &[3, 1], Some(&9)));
        assert!(!ranges.replace(7, &[3, 2], Some(&9)));
        assert_eq!(ranges.at(0).runs, [3, 2, 1]);
    }
}
