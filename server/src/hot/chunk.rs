//! Memory for entries, in pieces that are written front to back.

use crate::pages::{PIECE_BYTES_MIN, Piece};

/// A chunk of at least this size has pages of its own, and what it can hold is rounded up to them.
pub(crate) const PAGED_BYTES_MIN: usize = PIECE_BYTES_MIN;

/// A piece of memory, filled up to a length.
#[derive(Debug)]
pub(crate) struct Chunk {
    memory: Memory,
    length: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Box<[u8]>),
    Paged(Piece),
}

impl Chunk {
    /// An empty chunk that can hold at least `bytes`.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let piece = if bytes >= PAGED_BYTES_MIN {
            Piece::new(bytes)
        } else {
            None
        };
        let memory = match piece {
            Some(piece) => Memory::Paged(piece),
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
            Memory::Paged(piece) => piece.bytes_mut(),
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
            Memory::Paged(piece) => piece.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_what_was_pushed_wherever_their_memory_comes_from() {
        for capacity in [64, PAGED_BYTES_MIN, 3 * PAGED_BYTES_MIN + 5, 100_000] {
            let mut chunk = Chunk::with_capacity(capacity);
            chunk.push(b"front");
            chunk.skip(3);
            chunk.push(&vec![7; capacity - 8]);
            assert_eq!(chunk.len(), capacity);
            assert!((capacity..capacity + 4096).contains(&chunk.capacity()));
            assert_eq!(chunk.bytes()[..5], *b"front");
            assert!(chunk.bytes()[8..].iter().all(|&byte| byte == 7));
        }
    }
}
