//! Values too long for an arena: a list of full parts that can be shared, and a growing tail.

use std::sync::Arc;

use crate::cold::PART_BYTES_MAX;

/// A value of more than [`super::INLINE_BYTES_MAX`] bytes.
///
/// Full parts never change again, so a reader takes them by reference count; only the tail, at most
/// one part long, is copied for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Large {
    full: Vec<Arc<[u8]>>,
    tail: Vec<u8>,
}

impl Large {
    /// The value `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut large = Self::default();
        large.append(bytes);
        large
    }

    /// Adds to the end.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = PART_BYTES_MAX - self.tail.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.reserve(now.len());
            self.tail.extend_from_slice(now);
            bytes = later;
            if self.tail.len() == PART_BYTES_MAX {
                self.full.push(Arc::from(self.tail.as_slice()));
                self.tail.clear();
            }
        }
    }

    /// The value's length.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * PART_BYTES_MAX + self.tail.len()
    }

    /// The RAM that the value takes.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.full.len() * (PART_BYTES_MAX + 16)
            + self.full.capacity() * size_of::<Arc<[u8]>>()
            + self.tail.capacity()
    }

    /// The value's parts in order; none is empty, and each has at most a part's length.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let tail = (!self.tail.is_empty()).then_some(self.tail.as_slice());
        self.full.iter().map(|part| &**part).chain(tail)
    }

    /// The part at `index`, if there is one.
    pub(crate) fn part(&self, index: usize) -> Option<&[u8]> {
        match self.full.get(index) {
            Some(part) => Some(part),
            None if index == self.full.len() && !self.tail.is_empty() => Some(&self.tail),
            None => None,
        }
    }

    /// Grows the tail by halves, so that a list that grows slowly wastes at most a third.
    fn reserve(&mut self, bytes: usize) {
        let wanted = self.tail.len() + bytes;
        if wanted > self.tail.capacity() {
            let roomy = (wanted + wanted / 2).min(PART_BYTES_MAX);
            self.tail.reserve_exact(roomy - self.tail.len());
        }
    }
}
