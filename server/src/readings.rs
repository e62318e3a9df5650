//! Which keys were read of late, roughly, in fixed memory.
//!
//! A key that is read for the first time leaves a mark, one that finds its mark is worth RAM. One
//! pass over a large table so promotes nothing: its marks are overwritten before it comes again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::key_hash::KeyHash;

/// A power of two; the marks take 4 bytes each.
const MARKS: usize = 16 * 1024;

/// Marks of keys that were read.
#[derive(Debug)]
pub(crate) struct Readings {
    marks: Box<[AtomicU32]>,
}

impl Readings {
    /// No marks.
    pub(crate) fn new() -> Self {
        Self {
            marks: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Leaves the mark of a key of a table; says whether it was there.
    pub(crate) fn mark(&self, table: u64, hash: KeyHash) -> bool {
        let slot = (hash.place ^ table.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as usize % MARKS;
        let mark = hash.check | 1;
        self.marks[slot].swap(mark, Relaxed) == mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_reading_finds_the_mark_of_the_first() {
        let readings = Readings::new();
        let hash = KeyHash {
            place: 77,
            check: 8,
        };
        assert!(!readings.mark(1, hash));
        assert!(readings.mark(1, hash));
        assert!(!readings.mark(2, hash));
    }
}
