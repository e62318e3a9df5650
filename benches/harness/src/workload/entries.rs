//! Entries of 16 + 100 bytes.

use super::mix;

/// The bytes of a key.
pub const KEY_BYTES: usize = 16;
/// The bytes of a value.
pub const VALUE_BYTES: usize = 100;

/// Random bytes that values are cut from.
const POOL_BYTES: usize = 1 << 20;

/// Entries by number, without storing any. Keys are hexadecimal, for the text protocols among the
/// peers; those of different numbers differ. Values do not compress.
#[derive(Debug)]
pub struct Entries {
    seed: u64,
    pool: Vec<u8>,
}

impl Entries {
    /// The entries of this seed.
    pub fn new(seed: u64) -> Self {
        let mut pool = vec![0; POOL_BYTES + VALUE_BYTES];
        fastrand::Rng::with_seed(seed).fill(&mut pool);
        Self { seed, pool }
    }

    /// The key of an entry.
    pub fn key(&self, number: u64) -> [u8; KEY_BYTES] {
        let hash = mix(number ^ self.seed.rotate_left(40));
        let mut key = [0; KEY_BYTES];
        for (position, digit) in key.iter_mut().enumerate() {
            let nibble = (hash >> (4 * (KEY_BYTES - 1 - position))) & 15;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        key
    }

    /// The value of an entry, as the first write sets it.
    pub fn value(&self, number: u64) -> &[u8] {
        self.value_of_version(number, 0)
    }

    /// The value that a later write sets.
    pub fn value_of_version(&self, number: u64, version: u64) -> &[u8] {
        let hash = mix(mix(number).wrapping_add(version).wrapping_add(self.seed));
        let begin = hash as usize % POOL_BYTES;
        &self.pool[begin..begin + VALUE_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_entries_and_another_one_others() {
        let (one, again, other) = (Entries::new(1), Entries::new(1), Entries::new(2));
        assert_eq!(one.key(77), again.key(77));
        assert_eq!(one.value(77), again.value(77));
        assert_ne!(one.key(77), other.key(77));
        assert_ne!(one.value(77), one.value_of_version(77, 1));
    }

    #[test]
    fn keys_differ() {
        let entries = Entries::new(9);
        let keys: HashSet<_> = (0..100_000).map(|number| entries.key(number)).collect();
        assert_eq!(keys.len(), 100_000);
    }
}
