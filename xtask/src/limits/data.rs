//! Keys, values and terms that follow from a seed, so that nothing need be kept to check answers.

use rhash_client::{BytesCodec, List, RemoteHash};

/// A table of byte strings.
pub(super) type Values = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;
/// A table of lists of bytes.
pub(super) type Lists = RemoteHash<Vec<u8>, List<u8>, BytesCodec>;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// A number that looks random (splitmix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key with this number.
pub(crate) fn key(seed: u64, number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(seed ^ number).to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

/// Fills `out` with the bytes that a content has from `offset` on. Each content is endless.
pub(super) fn fill(content: u64, offset: u64, out: &mut [u8]) {
    let mut word = offset / 8;
    let mut skip = (offset % 8) as usize;
    let mut rest = out;
    while !rest.is_empty() {
        let bytes = mix(content.wrapping_add(word)).to_le_bytes();
        let count = rest.len().min(8 - skip);
        let (now, after) = rest.split_at_mut(count);
        now.copy_from_slice(&bytes[skip..skip + count]);
        (rest, skip, word) = (after, 0, word + 1);
    }
}

/// The first `bytes` bytes of a content.
pub(crate) fn content(content: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    fill(content, 0, &mut out);
    out
}

/// Whether `found` is what the content has from `offset` on.
pub(super) fn is_content(content: u64, offset: u64, found: &[u8]) -> bool {
    let mut expected = [0; 4096];
    let mut at = offset;
    found.chunks(expected.len()).all(|part| {
        let expected = &mut expected[..part.len()];
        fill(content, at, expected);
        at += part.len() as u64;
        expected == part
    })
}

/// A rank below `ranks` by Zipf's law with exponent 1: the first is the most frequent.
pub(super) fn zipf(random: u64, ranks: u64) -> u64 {
    let uniform = (random >> 11) as f64 / (1u64 << 53) as f64;
    let rank = ((ranks as f64 + 1.0).ln() * uniform).exp() as u64;
    rank.clamp(1, ranks) - 1
}

/// Answers that were checked.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) asked: u64,
    pub(super) wrong: u64,
    /// The first that was wrong.
    pub(super) example: Option<String>,
}

impl Tally {
    /// Takes one answer into account; `what` says which one it was.
    pub(super) fn note(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        self.asked += 1;
        if !is_right {
            self.wrong += 1;
            self.example.get_or_insert_with(what);
        }
    }

    /// Takes those of another.
    pub(super) fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.wrong += other.wrong;
        self.example = self.example.take().or(other.example);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_the_same_wherever_it_is_cut() {
        let whole = content(7, 10_000);
        for (offset, bytes) in [(0, 10_000), (3, 11), (8, 8), (4095, 5000), (9999, 1)] {
            assert!(is_content(7, offset as u64, &whole[offset..offset + bytes]));
            assert!(!is_content(
                7,
                offset as u64 + 1,
                &whole[offset..offset + bytes]
            ));
        }
        assert!(is_content(7, 5, &[]));
    }

    #[test]
    fn low_ranks_are_frequent_and_all_are_in_bounds() {
        let mut counts = vec![0u32; 1000];
        for number in 0..100_000 {
            counts[zipf(mix(number), 1000) as usize] += 1;
        }
        assert!(counts[0] > 5 * counts[9] && counts[0] < 10 * counts[9]);
        assert!(counts.iter().all(|&count| count > 0));
        assert_eq!((zipf(0, 5), zipf(u64::MAX, 5)), (0, 4));
    }

    #[test]
    fn the_first_wrong_answer_is_kept() {
        let mut tally = Tally::default();
        tally.note(true, || "a".to_owned());
        tally.note(false, || "b".to_owned());
        tally.note(false, || "c".to_owned());
        assert_eq!(
            (tally.asked, tally.wrong, tally.example.as_deref()),
            (3, 2, Some("b"))
        );
    }
}
