//! Values too long for an arena: a list of full parts that can be shared, and a growing tail.

use std::sync::Arc;

use super::chunk::Chunk;
use crate::cold::PART_BYTES_MAX;

/// A value of more than [`super::bucket::INLINE_BYTES_MAX`] bytes.
///
/// Full parts never change again, so a reader takes them by reference count; only the tail, at most
/// one part long, is copied for it.
#[derive(Debug, Default)]
pub(crate) struct Large {
    full: Vec<Arc<Chunk>>,
    tail: Option<Chunk>,
}

impl Large {
    /// The value `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut large = Self::default();
        large.append(bytes);
        large
    }

    /// The same value: full parts are shared, the tail is copied.
    pub(crate) fn share(&self) -> Self {
        let mut shared = Self {
            full: self.full.clone(),
            tail: None,
        };
        shared.append(self.tail());
        shared
    }

    /// Adds to the end.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = PART_BYTES_MAX - self.tail().len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let mut tail = self.tail_with_room(now.len());
            tail.push(now);
            bytes = later;
            if tail.len() == PART_BYTES_MAX {
                self.full.push(Arc::new(tail));
            } else {
                self.tail = Some(tail);
            }
        }
    }

    /// The value's length.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * PART_BYTES_MAX + self.tail().len()
    }

    /// The RAM that the value takes.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.full.len() * (PART_BYTES_MAX + size_of::<Chunk>() + 16)
            + self.full.capacity() * size_of::<Arc<Chunk>>()
            + self.tail.as_ref().map_or(0, Chunk::capacity)
    }

    /// The value's parts in order; none is empty, and each has at most a part's length.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let tail = (!self.tail().is_empty()).then(|| self.tail());
        self.full.iter().map(|part| part.bytes()).chain(tail)
    }

    /// The part at `index`, if there is one.
    pub(crate) fn part(&self, index: usize) -> Option<&[u8]> {
        match self.full.get(index) {
            Some(part) => Some(part.bytes()),
            None if index == self.full.len() && !self.tail().is_empty() => Some(self.tail()),
            None => None,
        }
    }

    fn tail(&self) -> &[u8] {
        self.tail.as_ref().map_or(&[], Chunk::bytes)
    }

    /// Takes the tail out, with room for `bytes` more. A first tail is made to measure, since most
    /// values never grow; one that does grows by halves, so that a list that grows slowly wastes
    /// at most a third.
    fn tail_with_room(&mut self, bytes: usize) -> Chunk {
        match self.tail.take() {
            None => Chunk::with_capacity(bytes.min(PART_BYTES_MAX)),
            Some(tail) if tail.capacity() >= tail.len() + bytes => tail,
            Some(old) => {
                let wanted = old.len() + bytes;
                let mut tail = Chunk::with_capacity((wanted + wanted / 2).min(PART_BYTES_MAX));
                tail.push(old.bytes());
                tail
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of 4,000 bytes used to take 6,000: memory held a third less than it could.
    #[test]
    fn a_value_takes_what_it_is_long_and_a_list_little_more() {
        let value = Large::new(&[1; 4000]);
        assert!(
            value.footprint_bytes() <= 4100,
            "{}",
            value.footprint_bytes()
        );
        let mut list = Large::new(&[1; 4000]);
        for _ in 0..1000 {
            list.append(&[2; 10]);
        }
        assert!(list.footprint_bytes() <= list.len() / 2 * 3 + 100);
        let bytes: Vec<u8> = list.parts().flatten().copied().collect();
        assert_eq!((bytes.len(), bytes[3999], bytes[4000]), (14_000, 1, 2));
    }
}
