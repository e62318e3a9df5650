//! The filter of a section: a blocked Bloom filter that touches one cache line a probe.
//!
//! It is made from place and check together, so that it also tells keys of one place apart.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::key_hash::KeyHash;

/// The bytes of one line of a filter.
pub(super) const LINE_BYTES: usize = 64;

/// Bits that a filter has for each key.
const BITS_PER_KEY: usize = 10;

/// Bits that a key sets, all in one line.
const PROBES: u32 = 6;

/// Mixes place and check into the 64 bits that the filter is made from.
#[inline]
pub(super) fn filter_hash(hash: KeyHash) -> u64 {
    let mut mixed = hash.place ^ u64::from(hash.check).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 32
}

/// The lines that a filter of so many keys has.
pub(super) fn lines_for(keys: usize) -> usize {
    keys.saturating_mul(BITS_PER_KEY)
        .div_ceil(LINE_BYTES.saturating_mul(8))
        .max(1)
}

/// Which line a hash belongs to.
#[inline]
pub(super) fn line_of(hash: u64, lines: usize) -> usize {
    ((hash >> 32).wrapping_mul(lines as u64) >> 32) as usize
}

/// The bits that a hash sets in its line, as positions of 9 bits.
#[inline]
fn positions(hash: u64) -> impl Iterator<Item = usize> {
    let spread = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (0..PROBES).map(move |probe| (spread >> probe.wrapping_mul(9).wrapping_add(10)) as usize & 511)
}

/// Appends the filter of `hashes` to `leaf`.
pub(super) fn push_filter(leaf: &mut Vec<u8>, hashes: &[u64]) {
    let lines = lines_for(hashes.len());
    let start = leaf.len();
    leaf.resize(start.saturating_add(lines.saturating_mul(LINE_BYTES)), 0);
    let Some(filter) = leaf.get_mut(start..) else {
        return;
    };
    for &hash in hashes {
        let line = filter
            .chunks_exact_mut(LINE_BYTES)
            .nth(line_of(hash, lines));
        let Some(line) = line else { continue };
        for position in positions(hash) {
            if let Some(byte) = line.get_mut(position >> 3) {
                *byte |= 1 << (position & 7);
            }
        }
    }
}

/// A line of a filter, which alone tells of a hash.
pub(super) type Line = [u8; LINE_BYTES];

/// The line of a filter that tells of `hash`; none if there is none, which tells nothing.
#[inline]
pub(super) fn line(filter: &[u8], hash: u64) -> Option<&Line> {
    let lines = filter.len() / LINE_BYTES;
    let start = line_of(hash, lines).wrapping_mul(LINE_BYTES);
    filter.get(start..)?.first_chunk()
}

/// Whether what `hash` was made from may be among what the line's filter was made from.
#[inline]
pub(super) fn is_in(line: &Line, hash: u64) -> bool {
    positions(hash).all(|position| {
        line.get(position >> 3)
            .is_none_or(|byte| byte >> (position & 7) & 1 == 1)
    })
}

/// Whether what `hash` was made from may be in the filter; false is certain.
#[inline]
pub(super) fn probe(filter: &[u8], hash: u64) -> bool {
    line(filter, hash).is_none_or(|line| is_in(line, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        let key_hash = crate::key_hash::KeyHasher::new(&[3; 16]).hash(&number.to_le_bytes());
        filter_hash(key_hash)
    }

    #[test]
    fn what_is_there_is_found_and_little_else() {
        let hashes: Vec<u64> = (0..20_000).map(hash).collect();
        let mut filter = Vec::new();
        push_filter(&mut filter, &hashes);
        assert!(filter.len() * 8 <= 20_000 * 10 + 512);
        assert!(hashes.iter().all(|&hash| probe(&filter, hash)));
        let wrong = (1_000_000..1_100_000)
            .filter(|&number| probe(&filter, hash(number)))
            .count();
        assert!(wrong < 2_500, "{wrong} of 100000 absent keys pass");
    }

    #[test]
    fn equal_places_are_told_apart_by_their_checks() {
        let of = |check| filter_hash(KeyHash { place: 0, check });
        let spread = |number: u32| number.wrapping_mul(0x85eb_ca6b);
        let hashes: Vec<u64> = (0..5_000).map(|number| of(spread(number))).collect();
        let mut filter = Vec::new();
        push_filter(&mut filter, &hashes);
        let wrong = (5_000..55_000)
            .filter(|&number| probe(&filter, of(spread(number))))
            .count();
        assert!(wrong < 1_500, "{wrong} of 50000 absent keys pass");
    }
}
