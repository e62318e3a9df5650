//! Which keys were read of late, roughly, in fixed memory.
//!
//! A key that is read for the first time leaves a mark, one that finds its mark is worth RAM. One
//! pass over a large table so promotes nothing: its marks are overwritten before it comes again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::key_hash::KeyHash;

/// Of the memory limit, marks take this part.
const LIMIT_SHARE: u64 = 256;
/// Between these, and always a power of two, are the marks.
const MARKS_MIN: usize = 16 * 1024;
const MARKS_MAX: usize = 16 * 1024 * 1024;

/// A key's mark is in one of so many slots, so that keys that share them do not push each other out
/// again and again.
const SET: usize = 4;

/// Marks of keys that were read.
#[derive(Debug)]
pub(crate) struct Readings {
    marks: Box<[AtomicU32]>,
}

impl Readings {
    /// No marks; room for as many as a server with this memory limit may have.
    pub(crate) fn new(mem_limit_bytes: u64) -> Self {
        let share = mem_limit_bytes / LIMIT_SHARE / size_of::<AtomicU32>() as u64;
        let marks = usize::try_from(share)
            .unwrap_or(MARKS_MAX)
            .clamp(MARKS_MIN, MARKS_MAX);
        Self {
            marks: (0..1 << marks.ilog2()).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Leaves the mark of a key of a table; says whether it was there.
    pub(crate) fn mark(&self, table: u64, hash: KeyHash) -> bool {
        let place = hash.place ^ table.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = place as usize & (self.marks.len() / SET - 1);
        let set = &self.marks[set * SET..(set + 1) * SET];
        let mark = hash.check | 1;
        if set.iter().any(|other| other.load(Relaxed) == mark) {
            return true;
        }
        // First in, first out. Two threads may lose a mark between them, which costs one read.
        let mut moved = mark;
        for slot in set {
            moved = slot.swap(moved, Relaxed);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_reading_finds_the_mark_of_the_first() {
        let readings = Readings::new(24 << 20);
        let hash = KeyHash {
            place: 77,
            check: 8,
        };
        assert!(!readings.mark(1, hash));
        assert!(readings.mark(1, hash));
        assert!(!readings.mark(2, hash));
    }

    #[test]
    fn keys_that_share_slots_do_not_push_each_other_out() {
        let readings = Readings::new(24 << 20);
        let hash = |check| KeyHash { place: 5, check };
        for check in [2, 4, 6, 8] {
            assert!(!readings.mark(1, hash(check)));
        }
        assert!(
            [2, 4, 6, 8]
                .iter()
                .all(|&check| readings.mark(1, hash(check)))
        );
        assert!(
            !readings.mark(1, hash(10)),
            "the fifth pushes out the oldest"
        );
        assert!(!readings.mark(1, hash(2)));
        assert!(readings.mark(1, hash(8)));
    }

    #[test]
    fn one_pass_over_many_keys_leaves_no_mark_of_those_before() {
        let readings = Readings::new(24 << 20);
        let hash = |number: u64| KeyHash {
            place: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            check: number as u32 * 2,
        };
        let marked = |numbers: std::ops::Range<u64>| {
            numbers
                .filter(|&number| readings.mark(1, hash(number)))
                .count()
        };
        assert_eq!(marked(0..1000), 0);
        assert_eq!(marked(1000..200_000), 0);
        assert!(marked(0..1000) < 10);
    }
}
