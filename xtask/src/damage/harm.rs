//! What is done to a file: a flipped bit, a cut, zeros, two pages in each other's place, an older copy of the
//! file, or no file at all.

use std::fmt;

use fastrand::Rng;

/// A page of the page cache, and of a disk.
const PAGE: usize = 4096;

/// One damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// One bit is another.
    Flip { offset: usize, bit: u32 },
    /// The file ends early.
    Cut { bytes: usize },
    /// A part of it was never written.
    Zero { offset: usize, bytes: usize },
    /// Two parts have changed places.
    Swap {
        first: usize,
        second: usize,
        bytes: usize,
    },
    /// It is as it was in the copy of this number.
    Older(usize),
    /// It is gone.
    Delete,
}

impl Harm {
    /// Draws a damage to a file of so many bytes, of which there are so many older copies.
    pub(super) fn draw(rng: &mut Rng, bytes: usize, older: usize) -> Self {
        match rng.usize(..100) {
            percent if bytes == 0 || percent < 6 => Self::Delete,
            6..14 if older > 0 => Self::Older(rng.usize(..older)),
            14..34 => Self::Cut {
                bytes: Self::cut_at(rng, bytes),
            },
            34..46 => {
                let offset = rng.usize(..bytes);
                let most = (bytes - offset).min(1 << rng.usize(0..=16));
                Self::Zero {
                    offset,
                    bytes: rng.usize(1..=most),
                }
            }
            46..54 if bytes >= 2 => Self::swap(rng, bytes),
            _ => Self::Flip {
                offset: rng.usize(..bytes),
                bit: rng.u32(..8),
            },
        }
    }

    /// Where a file is cut: anywhere, or by little.
    fn cut_at(rng: &mut Rng, bytes: usize) -> usize {
        match rng.usize(..3) {
            0 => bytes - rng.usize(1..=bytes.min(64)),
            1 => rng.usize(..bytes) / PAGE * PAGE,
            _ => rng.usize(..bytes),
        }
    }

    fn swap(rng: &mut Rng, bytes: usize) -> Self {
        let size = if bytes >= 2 * PAGE { PAGE } else { bytes / 2 };
        let pages = bytes / size;
        let first = rng.usize(..pages);
        let second = (first + rng.usize(1..pages)) % pages;
        Self::Swap {
            first: first * size,
            second: second * size,
            bytes: size,
        }
    }

    /// What becomes of a file; none if there is none.
    pub(super) fn apply(self, original: &[u8], older: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut damaged = original.to_vec();
        match self {
            Self::Flip { offset, bit } => damaged[offset] ^= 1 << bit,
            Self::Cut { bytes } => damaged.truncate(bytes),
            Self::Zero { offset, bytes } => damaged[offset..offset + bytes].fill(0),
            Self::Swap {
                first,
                second,
                bytes,
            } => {
                let (low, high) = (first.min(second), first.max(second));
                let (before, after) = damaged.split_at_mut(high);
                before[low..low + bytes].swap_with_slice(&mut after[..bytes]);
            }
            Self::Older(number) => damaged.clone_from(&older[number]),
            Self::Delete => return None,
        }
        Some(damaged)
    }

    /// Whether the bytes were changed where they are: then a message must name this file, since nothing
    /// else can be wrong.
    pub(super) fn is_in_place(self) -> bool {
        matches!(
            self,
            Self::Flip { .. } | Self::Zero { .. } | Self::Swap { .. }
        )
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { offset, bit } => write!(out, "bit {bit} of byte {offset} flipped"),
            Self::Cut { bytes } => write!(out, "cut to {bytes} bytes"),
            Self::Zero { offset, bytes } => write!(out, "{bytes} bytes zeroed from {offset} on"),
            Self::Swap {
                first,
                second,
                bytes,
            } => write!(out, "{bytes} bytes at {first} and {second} swapped"),
            Self::Older(number) => write!(out, "replaced by its older copy {number}"),
            Self::Delete => out.write_str("deleted"),
        }
    }
}

/// The first byte in which two contents differ, or at which one ends; none if they are equal.
pub(super) fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let differs = one.iter().zip(other).position(|(one, other)| one != other);
    let shorter = one.len().min(other.len());
    differs.or((one.len() != other.len()).then_some(shorter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damage_fits_its_file_and_says_what_it_is() {
        let mut rng = Rng::with_seed(3);
        for bytes in [0usize, 1, 2, 3, 100, 5000, 8192, 100_000] {
            let original: Vec<u8> = (0..bytes).map(|_| rng.u8(1..)).collect();
            let older = vec![vec![7; 9]];
            for _ in 0..300 {
                let harm = Harm::draw(&mut rng, bytes, 1);
                let damaged = harm.apply(&original, &older);
                match harm {
                    Harm::Flip { offset, .. } => {
                        let damaged = damaged.unwrap();
                        assert_eq!(first_difference(&original, &damaged), Some(offset));
                    }
                    Harm::Cut { bytes: left } => {
                        assert_eq!(damaged.unwrap(), &original[..left]);
                        assert!(left < bytes);
                    }
                    Harm::Zero { offset, bytes } => {
                        assert_eq!(damaged.unwrap()[offset..offset + bytes], vec![0; bytes]);
                    }
                    Harm::Swap { bytes, .. } => {
                        assert!(bytes > 0 && damaged.unwrap().len() == original.len());
                    }
                    Harm::Older(_) => assert_eq!(damaged.unwrap(), older[0]),
                    Harm::Delete => assert_eq!(damaged, None),
                }
                assert!(!harm.to_string().is_empty());
            }
        }
    }

    #[test]
    fn what_is_swapped_twice_is_as_before() {
        let original: Vec<u8> = (0..20_000u32).map(|at| (at / 7) as u8).collect();
        let mut rng = Rng::with_seed(4);
        for _ in 0..100 {
            let harm = Harm::swap(&mut rng, original.len());
            let once = harm.apply(&original, &[]).unwrap();
            assert_eq!(harm.apply(&once, &[]).unwrap(), original, "{harm}");
        }
    }

    #[test]
    fn contents_differ_where_the_first_ends() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
        assert_eq!(first_difference(b"abc", b"ab"), Some(2));
        assert_eq!(first_difference(b"abc", b"aXcd"), Some(1));
    }
}
