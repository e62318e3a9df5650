//! How a read of many keys is cut into requests that overlap: while the server reads for one, the next is
//! on its way, and the answer to the one before is taken apart. So both ends of a connection are busy, and so
//! is a disk, which would rest while the last answer travels and the next question comes.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Keys that a piece has at least: of fewer, the request would cost more than is won. A read of fewer
/// than twice as many is one piece.
const PIECE_KEYS: usize = 48;

/// The same where answers take long, so that a request costs little beside them.
const PIECE_KEYS_SLOW: usize = 24;

/// Answers take long that take so much for each key: from RAM, or from a page cache, they take less than half.
const SLOW_NS: u32 = 10_000;

/// After so many pieces they become twice as long, up to the longest.
const PIECES_OF_A_LENGTH: usize = 4;
const PIECE_KEYS_MAX: usize = 4096;

/// Pieces that are asked for before the first of them is taken.
pub const PIECES_UNDER_WAY_MAX: usize = 4;

/// How long the pieces of a read are.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    keys: usize,
    begun: usize,
}

impl Pieces {
    /// For so many keys, if that is known, at this pace.
    pub(super) fn of(keys: Option<usize>, pace: &Pace) -> Self {
        let least = match pace.is_slow() {
            true => PIECE_KEYS_SLOW,
            false => PIECE_KEYS,
        };
        // Equal pieces: a short one at the end would cost as much as the others.
        let equal = keys.map_or(least, |keys| keys.div_ceil((keys / least).max(1)));
        Self {
            keys: equal.max(1),
            begun: 0,
        }
    }

    /// As long as pieces become: for a caller who overlaps reads by himself.
    pub(super) fn longest() -> Self {
        Self {
            keys: PIECE_KEYS_MAX,
            begun: 0,
        }
    }

    /// How many keys the next one has.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// One has begun.
    pub fn next(&mut self) {
        self.begun += 1;
        if self.begun.is_multiple_of(PIECES_OF_A_LENGTH) {
            self.keys = (self.keys * 2).min(PIECE_KEYS_MAX);
        }
    }
}

/// How long answers took of late, for each key.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Of the last ones more than of those before.
    key_ns: AtomicU32,
}

impl Pace {
    /// So many keys were answered in this time.
    pub(super) fn note(&self, keys: usize, time: Duration) {
        let key_ns = time.as_nanos() / keys.max(1) as u128;
        let key_ns = u32::try_from(key_ns).unwrap_or(u32::MAX);
        // Two at the same time may count as one: this is an estimate.
        let before = self.key_ns.load(Relaxed);
        self.key_ns.store(before / 4 * 3 + key_ns / 4, Relaxed);
    }

    fn is_slow(&self) -> bool {
        self.key_ns.load(Relaxed) >= SLOW_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(keys: usize) -> Vec<usize> {
        lengths_at(keys, &Pace::default())
    }

    fn lengths_at(keys: usize, pace: &Pace) -> Vec<usize> {
        let (mut pieces, mut left, mut lengths) = (Pieces::of(Some(keys), pace), keys, Vec::new());
        while left > 0 {
            let length = pieces.keys().min(left);
            lengths.push(length);
            left -= length;
            pieces.next();
        }
        lengths
    }

    #[test]
    fn few_keys_are_one_piece_and_more_are_equal_ones() {
        assert_eq!(lengths(1), [1]);
        assert_eq!(lengths(95), [95]);
        assert_eq!(lengths(96), [48, 48]);
        assert_eq!(lengths(100), [50, 50]);
        assert_eq!(lengths(150), [50, 50, 50]);
    }

    #[test]
    fn pieces_are_shorter_while_answers_take_long() {
        let pace = Pace::default();
        for _ in 0..20 {
            pace.note(50, Duration::from_millis(1));
        }
        assert_eq!(lengths_at(100, &pace), [25, 25, 25, 25]);
        assert_eq!(lengths_at(47, &pace), [47]);
        pace.note(50, Duration::from_micros(100));
        assert_eq!(lengths_at(100, &pace), [25; 4], "one alone says little");
        for _ in 0..20 {
            pace.note(50, Duration::from_micros(100));
        }
        assert_eq!(lengths_at(100, &pace), [50, 50]);
    }

    #[test]
    fn many_keys_come_in_pieces_that_grow_up_to_the_longest() {
        let lengths = lengths(100_000);
        assert_eq!(lengths.iter().sum::<usize>(), 100_000);
        assert!(lengths.len() < 60, "{lengths:?}");
        assert_eq!(lengths.iter().max(), Some(&PIECE_KEYS_MAX));
    }
}
