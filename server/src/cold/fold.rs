//! Folds records of several sources, newest first, into the value that each key has.

use std::cmp::Ordering;

use rhash_protocol::TableKind;

use super::{
    error::ColdError,
    record::{RecordKind, RecordSource},
};
use crate::key_hash::KeyHash;

/// What a key's records come to, its parts aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldedKey {
    /// The key's hash.
    pub hash: KeyHash,
    /// Whether a base or a tombstone was met, so that no older source matters.
    pub based: bool,
    /// Whether the newest thing that was said of the key is that it is gone.
    pub deleted: bool,
}

/// A source of records that a fold owns.
pub type BoxedSource = Box<dyn RecordSource + Send>;

/// Goes over the keys of several sources in order, and over the parts of each one's value.
pub struct Fold {
    kind: TableKind,
    /// Newest first; a source without a head is dropped.
    sources: Vec<BoxedSource>,
    /// The place of each source's head.
    places: Vec<u64>,
    hash: KeyHash,
    key: Vec<u8>,
    /// The sources that have the current key, newest first.
    group: Vec<usize>,
    /// How many of `group` still have parts to give; the last of them gives next.
    left: usize,
    /// Whether the head of the source that gives was given already.
    given: bool,
    /// A counter's value, once it is summed up.
    sum: [u8; 8],
}

impl std::fmt::Debug for Fold {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Fold({} sources left)", self.sources.len())
    }
}

impl Fold {
    /// A fold over sources, newest first.
    pub fn new(mut sources: Vec<BoxedSource>, kind: TableKind) -> Self {
        sources.retain(|source| source.head().is_some());
        let place = |source: &BoxedSource| source.head().map_or(u64::MAX, |head| head.hash.place);
        Self {
            kind,
            places: sources.iter().map(place).collect(),
            sources,
            hash: KeyHash { place: 0, check: 0 },
            key: Vec::new(),
            group: Vec::new(),
            left: 0,
            given: false,
            sum: [0; 8],
        }
    }

    /// The current key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Goes to the next key, whether or not all parts of this one were taken.
    ///
    /// # Errors
    /// Any of reading the sources; the fold is of no use after that.
    pub fn next_key(&mut self) -> Result<Option<FoldedKey>, ColdError> {
        self.leave_key()?;
        if !self.gather() {
            return Ok(None);
        }
        self.given = false;
        self.left = self.group.len();
        let mut deleted = false;
        let mut based = false;
        for position in 0..self.group.len() {
            let index = self.group[position];
            let kind = self.sources[index].head().map(|head| head.kind);
            if kind == Some(RecordKind::Fragment) {
                continue;
            }
            based = true;
            self.left = position + 1;
            if kind == Some(RecordKind::Tombstone) {
                self.sources[index].advance()?;
                if !self.is_at_key(index) {
                    self.left = position;
                }
                deleted = self.left == 0;
            }
            break;
        }
        Ok(Some(FoldedKey {
            hash: self.hash,
            based,
            deleted,
        }))
    }

    /// The next part of the current key's value, oldest first; a counter is one part of 8 bytes.
    /// A part may be empty, a value is all of them together.
    ///
    /// # Errors
    /// Any of reading the sources; [`ColdError::NotACounter`].
    pub fn next_part(&mut self) -> Result<Option<&[u8]>, ColdError> {
        if self.kind == TableKind::Counters {
            return self.sum_up();
        }
        Ok(self
            .next_record()?
            .map(|index| part_of(&self.sources[index])))
    }

    /// The source whose head is the next record that counts.
    #[inline]
    fn next_record(&mut self) -> Result<Option<usize>, ColdError> {
        while self.left > 0 {
            let index = self.group[self.left - 1];
            // A source that has given nothing yet stands at the key, or it would not count as left.
            if std::mem::take(&mut self.given) {
                self.sources[index].advance()?;
                if !self.is_at_key(index) {
                    self.left -= 1;
                    continue;
                }
            }
            self.given = true;
            return Ok(Some(index));
        }
        Ok(None)
    }

    fn sum_up(&mut self) -> Result<Option<&[u8]>, ColdError> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut sum = 0i64;
        while let Some(index) = self.next_record()? {
            let part = part_of(&self.sources[index]);
            let ([number], []) = part.as_chunks::<8>() else {
                return Err(ColdError::NotACounter { bytes: part.len() });
            };
            sum = sum.wrapping_add(i64::from_le_bytes(*number));
        }
        self.sum = sum.to_le_bytes();
        Ok(Some(&self.sum))
    }

    /// Finds the least key and the sources that have it; false if no source has any.
    fn gather(&mut self) -> bool {
        let Some(least) = self.places.iter().copied().min() else {
            return false;
        };
        self.group.clear();
        for (number, places) in self.places.chunks(64).enumerate() {
            // Which source is next is anybody's guess, so it is found without a branch for each.
            let mut found = places.iter().enumerate().fold(0u64, |bits, (bit, place)| {
                bits | u64::from(*place == least) << bit
            });
            while found != 0 {
                let index = number * 64 + found.trailing_zeros() as usize;
                found &= found - 1;
                let order = self.group.first().map_or(Ordering::Equal, |&first| {
                    key_of(&self.sources[index]).cmp(key_of(&self.sources[first]))
                });
                if order == Ordering::Less {
                    self.group.clear();
                }
                if order != Ordering::Greater {
                    self.group.push(index);
                }
            }
        }
        let first = self.group.first();
        let Some(head) = first.and_then(|&first| self.sources[first].head()) else {
            return false;
        };
        self.hash = head.hash;
        self.key.clear();
        self.key.extend_from_slice(head.key);
        true
    }

    /// Takes all sources that have the current key beyond it.
    fn leave_key(&mut self) -> Result<(), ColdError> {
        self.left = 0;
        self.given = false;
        while let Some(index) = self.group.pop() {
            loop {
                match self.sources[index].head() {
                    Some(head) if head.hash.place == self.hash.place && head.key == self.key => {}
                    Some(head) => {
                        self.places[index] = head.hash.place;
                        break;
                    }
                    // The group is emptied from its end, so indexes still in it do not move.
                    None => {
                        self.places.remove(index);
                        drop(self.sources.remove(index));
                        break;
                    }
                }
                self.sources[index].advance()?;
            }
        }
        Ok(())
    }

    #[inline]
    fn is_at_key(&self, index: usize) -> bool {
        self.sources[index]
            .head()
            .is_some_and(|head| head.hash.place == self.hash.place && head.key == self.key)
    }
}

fn key_of(source: &BoxedSource) -> &[u8] {
    source.head().map_or(&[], |head| head.key)
}

fn part_of(source: &BoxedSource) -> &[u8] {
    source.head().map_or(&[], |head| head.part)
}
