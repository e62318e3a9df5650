//! Where a key belongs: a keyed hash that nobody without the data directory's secret can aim at.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// A key's place in the order of a table, and a check that tells keys of one place apart.
///
/// Entries are ordered by `place`, then by key. `check` comes from the same 128-bit hash; two keys
/// that agree in both are taken for one only where keys are counted without being read
/// (at a billion keys, the odds of one wrong count are about one in 10^11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash {
    /// The order, and the part of a table that the key lives in.
    pub place: u64,
    /// More bits of the same hash.
    pub check: u32,
}

/// Hashes keys under the secret of a data directory.
#[derive(Clone)]
pub struct KeyHasher {
    seed: SipHasher13,
    place_mask: u64,
}

impl KeyHasher {
    /// A hasher under `secret`.
    pub fn new(secret: &[u8; 16]) -> Self {
        Self {
            seed: SipHasher13::new_with_key(secret),
            place_mask: u64::MAX,
        }
    }

    /// Keeps only the first `bits` of each place, so that tests meet collisions everywhere.
    #[must_use]
    pub fn with_place_bits(mut self, bits: u32) -> Self {
        self.place_mask = u64::MAX
            .checked_shl(64u32.saturating_sub(bits))
            .unwrap_or(0);
        self
    }

    /// The hash of `key`.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.seed;
        hasher.write(key);
        let hash = hasher.finish128();
        KeyHash {
            place: hash.h1 & self.place_mask,
            check: hash.h2 as u32,
        }
    }
}

impl std::fmt::Debug for KeyHasher {
    // The secret stays out of logs.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "KeyHasher(secret)")
    }
}
