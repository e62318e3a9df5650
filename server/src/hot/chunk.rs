//! Memory for entries, in pieces that are written front to back.

use crate::mapped::Anonymous;

/// A chunk of at least this size has a map of its own.
pub(crate) const MAPPED_BYTES_MIN: usize = 8 * 1024;

/// A piece of memory, filled up to a length.
#[derive(Debug)]
pub(crate) struct Chunk {
    memory: Memory,
    length: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Box<[u8]>),
    Mapped(Anonymous),
}

impl Chunk {
    /// An empty chunk that can hold `bytes`.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mapped = if bytes >= MAPPED_BYTES_MIN {
            Anonymous::new(bytes)
        } else {
            None
        };
        let memory = match mapped {
            Some(map) => Memory::Mapped(map),
            None => Memory::Heap(vec![0; bytes].into_boxed_slice()),
        };
        Self { memory, length: 0 }
    }

    /// How much it can hold.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.memory().len()
    }

    /// How much it holds.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// What it holds.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory()[..self.length]
    }

    /// What it holds, to be changed.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let memory = match &mut self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(map) => map.bytes_mut(),
        };
        &mut memory[..self.length]
    }

    /// Adds to the end; there must be room.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let start = self.length;
        self.length += bytes.len();
        self.bytes_mut()[start..].copy_from_slice(bytes);
    }

    /// Adds bytes of any content to the end; there must be room.
    #[inline]
    pub(crate) fn skip(&mut self, bytes: usize) {
        debug_assert!(self.length + bytes <= self.capacity());
        self.length += bytes;
    }

    #[inline]
    fn memory(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(map) => map.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_what_was_pushed_wherever_their_memory_comes_from() {
        for capacity in [64, MAPPED_BYTES_MIN, 3 * MAPPED_BYTES_MIN + 5] {
            let mut chunk = Chunk::with_capacity(capacity);
            chunk.push(b"front");
            chunk.skip(3);
            chunk.push(&vec![7; capacity - 8]);
            assert_eq!((chunk.len(), chunk.capacity()), (capacity, capacity));
            assert_eq!(chunk.bytes()[..8], *b"front\0\0\0");
            assert!(chunk.bytes()[8..].iter().all(|&byte| byte == 7));
        }
    }
}
