//! How a read of many keys is cut into requests that overlap: while the server reads for one, the next is
//! on its way, and the answer to the one before is taken apart. So both ends of a connection are busy, and so
//! is a disk, which would rest while the last answer travels and the next question comes.

/// Keys that a piece has at least: of fewer, the request would cost more than is won. A read of fewer
/// than twice as many is one piece.
const PIECE_KEYS: usize = 48;

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
    /// For so many keys, if that is known.
    pub fn of(keys: Option<usize>) -> Self {
        // Equal pieces: a short one at the end would cost as much as the others.
        let equal = keys.map_or(PIECE_KEYS, |keys| keys.div_ceil((keys / PIECE_KEYS).max(1)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(keys: usize) -> Vec<usize> {
        let (mut pieces, mut left, mut lengths) = (Pieces::of(Some(keys)), keys, Vec::new());
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
    fn many_keys_come_in_pieces_that_grow_up_to_the_longest() {
        let lengths = lengths(100_000);
        assert_eq!(lengths.iter().sum::<usize>(), 100_000);
        assert!(lengths.len() < 60, "{lengths:?}");
        assert_eq!(lengths.iter().max(), Some(&PIECE_KEYS_MAX));
    }
}
