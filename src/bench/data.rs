//! What is written and asked for. Keys and values follow from a number, so that every answer can
//! be checked without keeping what was written, and random draws follow from the seed.

/// The length of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// The bytes of a posting: the number of a document.
pub(crate) const POSTING_BYTES: usize = 8;

/// Spreads ranks over entries, so that the popular ones are not those that were written first. A
/// prime, so that with any number of entries that it does not divide no two ranks meet.
const SPREAD: u128 = 2_654_435_761;

/// Mixes the bits of a number; no two numbers give the same (the last steps of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The key of an entry: half of it looks random, half of it is the entry's number.
pub(crate) fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let (random, plain) = key.split_at_mut(KEY_BYTES / 2);
    random.copy_from_slice(&mix(!number).to_le_bytes());
    plain.copy_from_slice(&number.to_le_bytes());
    key
}

/// The entry whose key this is.
pub(crate) fn number_of(bytes: &[u8]) -> Option<u64> {
    let plain = bytes.get(KEY_BYTES / 2..)?.try_into().ok()?;
    let number = u64::from_le_bytes(plain);
    (key(number) == *bytes).then_some(number)
}

/// The key of a list.
pub(crate) fn term(number: u64) -> [u8; 8] {
    mix(number).to_le_bytes()
}

/// Puts the value of an entry into `value`; it does not compress.
pub(crate) fn fill_value(number: u64, value: &mut [u8]) {
    for (part, word) in value.chunks_mut(8).zip(words(number)) {
        part.copy_from_slice(&word[..part.len()]);
    }
}

/// Whether these bytes are the value of an entry.
pub(crate) fn is_value(number: u64, value: &[u8], value_bytes: usize) -> bool {
    value.len() == value_bytes
        && value
            .chunks(8)
            .zip(words(number))
            .all(|(part, word)| *part == word[..part.len()])
}

fn words(number: u64) -> impl Iterator<Item = [u8; 8]> {
    let start = mix(number).wrapping_add(number);
    (1..).map(move |at: u64| mix(start.wrapping_add(at)).to_le_bytes())
}

/// Which entry is asked for next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Draw {
    /// Each as likely as any other.
    Uniform,
    /// Few often, most hardly ever.
    Zipf(Zipf),
}

impl Draw {
    /// Draws one of so many entries.
    pub(crate) fn entry(&self, entries: u64, random: &mut fastrand::Rng) -> u64 {
        match self {
            Self::Uniform => random.u64(0..entries),
            Self::Zipf(zipf) => {
                let rank = u128::from(zipf.rank(random));
                // Less than `entries`, which is 64 bits.
                (rank * SPREAD % u128::from(entries)) as u64
            }
        }
    }
}

/// Draws ranks by Zipf's law in its continuous form: that of rank `r`, counted from 1, is drawn as
/// often as the area under `x^-exponent` from `r` to `r + 1` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zipf {
    ranks: u64,
    /// One less the exponent.
    rest: f64,
    /// How far the power of `rest` goes from the first rank to the last.
    span: f64,
}

/// Nearer than this to 1, an exponent is 1: the general form divides by the difference.
const EXPONENT_SLACK: f64 = 1e-6;

impl Zipf {
    /// Draws from so many ranks, at least one.
    pub(crate) fn new(ranks: u64, exponent: f64) -> Self {
        let ranks = ranks.max(1);
        let rest = 1.0 - exponent;
        let end = ranks as f64 + 1.0;
        let (rest, span) = if rest.abs() < EXPONENT_SLACK {
            (0.0, end.ln())
        } else {
            (rest, end.powf(rest) - 1.0)
        };
        Self { ranks, rest, span }
    }

    /// A rank, counted from 0.
    pub(crate) fn rank(&self, random: &mut fastrand::Rng) -> u64 {
        let area = random.f64() * self.span;
        let at = if self.rest == 0.0 {
            area.exp()
        } else {
            (1.0 + area).powf(1.0 / self.rest)
        };
        (at as u64).clamp(1, self.ranks) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_their_numbers_and_nothing_else_does() {
        for number in [0, 1, 77, u64::MAX] {
            assert_eq!(number_of(&key(number)), Some(number));
            let mut damaged = key(number);
            damaged[3] ^= 1;
            assert_eq!(number_of(&damaged), None);
        }
        assert_eq!(number_of(b"short"), None);
    }

    #[test]
    fn values_are_recognised_to_the_last_byte() {
        for length in [0, 1, 7, 8, 9, 100] {
            let mut value = vec![0; length];
            fill_value(5, &mut value);
            assert!(is_value(5, &value, length));
            assert!(!is_value(5, &value, length + 1));
            if let Some(last) = value.last_mut() {
                *last ^= 1;
                assert!(!is_value(5, &value, length));
            }
        }
    }

    #[test]
    fn ranks_follow_the_law() {
        let mut random = fastrand::Rng::with_seed(7);
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let zipf = Zipf::new(1000, exponent);
            let mut counts = vec![0u32; 1000];
            for _ in 0..200_000 {
                counts[zipf.rank(&mut random) as usize] += 1;
            }
            let area = |from: f64, to: f64| {
                let steps = 2000;
                let step = (to - from) / f64::from(steps);
                (0..steps)
                    .map(|at| (from + (f64::from(at) + 0.5) * step).powf(-exponent) * step)
                    .sum::<f64>()
            };
            let all = area(1.0, 10.0) + area(10.0, 100.0) + area(100.0, 1001.0);
            for (ranks, expected) in [
                (0..1, area(1.0, 2.0)),
                (1..10, area(2.0, 11.0)),
                (500..1000, area(501.0, 1001.0)),
            ] {
                let drawn = f64::from(counts[ranks.clone()].iter().sum::<u32>());
                let expected = expected / all * 200_000.0;
                let slack = 5.0 * expected.sqrt();
                assert!(
                    (drawn - expected).abs() < slack,
                    "exponent {exponent}, ranks {ranks:?}: {drawn}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn popular_entries_lie_anywhere_and_no_two_ranks_meet() {
        let entries = 997u64;
        let mut seen = vec![false; entries as usize];
        for rank in 0..u128::from(entries) {
            let entry = (rank * SPREAD % u128::from(entries)) as usize;
            assert!(!std::mem::replace(&mut seen[entry], true));
        }
    }
}
