//! Where the interval of a spill ends: with a range, where that is near.
//!
//! A run that reaches from one range into the next is one run more in both, and its file stays
//! until both have merged it. So intervals of about a range's hot entries take just these, ranges
//! that have more are cut into equal parts, and of ranges that have less several go together.

use std::sync::Arc;

use super::State;
use crate::{cold::Run, ranges::Ranges};

/// An interval takes at most this part more than it aims at, as a divisor.
const MORE_SHARE: usize = 4;

/// The most that an interval takes, unless its first bucket has more by itself.
pub(super) fn bytes_max(bytes_target: usize) -> usize {
    bytes_target.saturating_add(bytes_target / MORE_SHARE)
}

/// The interval that a spill aims at.
#[derive(Debug)]
pub(super) struct Interval {
    cold: Arc<Ranges<Arc<Run>>>,
    bytes_target: usize,
    /// Hot entries have about so many bytes a place, since places are hashes.
    bytes_a_place: f64,
}

impl Interval {
    /// An interval of about `bytes_target` bytes of the table's hot entries as they are now.
    pub(super) fn of(state: &State, bytes_target: usize) -> Self {
        Self {
            cold: Arc::clone(&state.cold),
            bytes_target,
            bytes_a_place: state.hot.footprint_bytes() as f64 / u64::MAX as f64,
        }
    }

    /// How far one step may go from `hand` on.
    pub(super) fn last_of_step(&self, hand: u64) -> u64 {
        self.cold.last_of(self.cold.index_of(hand))
    }

    /// Whether the interval ends before `hand`, with so many bytes in it.
    pub(super) fn is_enough(&self, bytes: usize, hand: u64) -> bool {
        if bytes == 0 || bytes >= bytes_max(self.bytes_target) {
            return bytes > 0;
        }
        let (first, last) = (self.cold.at(hand).first, self.last_of_step(hand));
        let (bytes, target) = (bytes as f64, self.bytes_target as f64);
        let whole = self.bytes_between(first, last);
        if hand == first {
            // The next range as well, if that brings it nearer to the target.
            return bytes + whole.min(target) / 2.0 >= target;
        }
        let part = whole / (whole / target).round().max(1.0);
        bytes >= part.min(target) && self.bytes_between(hand, last) >= part / 2.0
    }

    /// Whether what the next step goes over at least is not too much for the interval.
    pub(super) fn has_room(&self, bytes: usize, next_bytes: usize) -> bool {
        bytes == 0 || bytes.saturating_add(next_bytes) <= bytes_max(self.bytes_target)
    }

    fn bytes_between(&self, first: u64, last: u64) -> f64 {
        (last - first) as f64 * self.bytes_a_place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interval over four ranges that have `whole` bytes each.
    fn interval(bytes_target: usize, whole: usize) -> Interval {
        let mut cold = Ranges::new();
        for at in [1 << 62, 2 << 62, 3 << 62] {
            cold.split(at);
        }
        Interval {
            cold: Arc::new(cold),
            bytes_target,
            bytes_a_place: whole as f64 * 4.0 / u64::MAX as f64,
        }
    }

    #[test]
    fn an_interval_ends_with_a_range_that_has_about_its_bytes() {
        for whole in [70, 100, 120] {
            let interval = interval(100, whole);
            assert!(!interval.is_enough(0, 1 << 62), "it has something");
            assert!(!interval.is_enough(60, 1 << 61), "{whole}");
            assert!(interval.is_enough(whole, 1 << 62), "{whole}");
        }
        assert_eq!(interval(100, 100).last_of_step(5), (1 << 62) - 1);
    }

    #[test]
    fn a_range_that_has_more_is_cut_into_equal_parts() {
        let interval = interval(100, 180);
        assert!(!interval.is_enough(80, 1 << 60));
        assert!(interval.is_enough(90, 1 << 61));
        assert!(
            !interval.is_enough(95, (1 << 62) - (1 << 58)),
            "little is left"
        );
        assert!(
            interval.is_enough(125, (1 << 62) - (1 << 58)),
            "but a bound is one"
        );
    }

    #[test]
    fn ranges_that_have_less_go_together() {
        let interval = interval(100, 30);
        assert!(!interval.is_enough(30, 1 << 62));
        assert!(!interval.is_enough(60, 2 << 62));
        assert!(interval.is_enough(90, 3 << 62));
    }

    #[test]
    fn all_is_taken_where_all_is_asked_for() {
        let interval = interval(usize::MAX, 100);
        assert!(!interval.is_enough(400, 0));
    }
}
