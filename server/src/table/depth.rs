//! How many runs a range may have, and which are merged when it has more.
//!
//! Runs of a range are sorted into size classes. Some eight neighbours of one class are merged, so
//! each byte is written about once for each class that a table has grown through.

use std::{collections::HashMap, ops::Range as Indices, sync::Arc};

use rhash_protocol::TableKind;

use super::{
    due::{Cause, Fit, Merge, freed_at_once, sizes},
    survey::Held,
};
use crate::{
    cold::{Run, RunId},
    ranges::Ranges,
};

/// A size class is this many times as large as the one before.
const CLASS_FACTOR: u64 = 6;
/// Below this size all runs are of one class.
const CLASS_BYTES_MIN: u64 = 32 * 1024;

/// How many runs are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depths {
    /// So many neighbours of one size class are merged.
    fan_in: usize,
    /// Whatever their sizes, a range has at most this many runs, or the smallest neighbours are
    /// merged.
    pub(super) most: usize,
    /// At this many runs in a range, spills wait for merges.
    pub(crate) stall: usize,
}

impl Depths {
    /// A get of a value ends with the first run that has it, and each one before it costs a look at a
    /// filter. A list's fragments are read wherever they lie, so that more runs cost less, and
    /// merging them later writes less.
    pub(crate) const fn of(kind: TableKind) -> Self {
        let fan_in = match kind {
            TableKind::Values => 8,
            TableKind::Lists | TableKind::Counters => 12,
        };
        Self {
            fan_in,
            most: 2 * fan_in,
            stall: 3 * fan_in,
        }
    }
}

/// The range with the most runs of those that have too many and whose merge fits: how many it has,
/// and which to merge; and whether there is one whose merge does not.
pub(super) fn deepest(
    cold: &Ranges<Arc<Run>>,
    depths: Depths,
    held: &HashMap<RunId, Held>,
    fits: &dyn Fn(&Merge) -> Fit,
) -> (Option<(usize, Merge)>, bool) {
    let mut deepest: Option<(usize, Merge)> = None;
    let mut lacks_room = false;
    for (index, range) in cold.iter().enumerate() {
        let depth = range.runs.len();
        if deepest.as_ref().is_some_and(|(other, _)| *other >= depth) {
            continue;
        }
        let sizes = sizes(range, cold.last_of(index));
        let Some(runs) = choose(&sizes, depths) else {
            continue;
        };
        let merge = Merge {
            range: index,
            output_bytes: sizes[runs.clone()].iter().sum(),
            freed_bytes: freed_at_once(&range.runs[runs.clone()], held),
            runs,
            cause: Cause::Depth,
        };
        match fits(&merge) {
            Fit::Yes => deepest = Some((depth, merge)),
            Fit::NoRoom => lacks_room = true,
            Fit::Rests => {}
        }
    }
    (deepest, lacks_room)
}

/// Which neighbours are too many, of runs with these sizes, newest first.
fn choose(sizes: &[u64], depths: Depths) -> Option<Indices<usize>> {
    let classes: Vec<u32> = sizes.iter().map(|&bytes| class(bytes)).collect();
    let mut from = 0;
    while from < classes.len() {
        let same = classes[from..]
            .iter()
            .take_while(|&&class| class == classes[from])
            .count();
        if same >= depths.fan_in {
            return Some(from..from + same);
        }
        from += same;
    }
    if sizes.len() <= depths.most {
        return None;
    }
    // Sizes that alternate between classes never make enough of a kind.
    let window = |from: usize| sizes[from..from + depths.fan_in].iter().sum::<u64>();
    (0..=sizes.len() - depths.fan_in)
        .min_by_key(|&from| window(from))
        .map(|from| from..from + depths.fan_in)
}

fn class(bytes: u64) -> u32 {
    (bytes / CLASS_BYTES_MIN)
        .checked_ilog(CLASS_FACTOR)
        .map_or(0, |class| class + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Depths = Depths::of(TableKind::Values);

    #[test]
    fn eight_neighbours_of_a_class_are_merged() {
        assert_eq!(choose(&[1 << 20; 7], VALUES), None);
        assert_eq!(choose(&[1 << 20; 8], VALUES), Some(0..8));
        let mut sizes = vec![100, 1 << 30];
        sizes.extend([1 << 20; 8]);
        sizes.push(1 << 32);
        assert_eq!(choose(&sizes, VALUES), Some(2..10));
    }

    #[test]
    fn sizes_that_alternate_are_merged_where_they_are_least() {
        let sizes: Vec<u64> = (0..17)
            .map(|i| if i % 2 == 0 { 1 << 20 } else { 1 << 28 })
            .collect();
        assert_eq!(choose(&sizes[..16], VALUES), None);
        assert_eq!(
            choose(&sizes, VALUES).map(|runs| runs.len()),
            Some(VALUES.fan_in)
        );
    }
}
