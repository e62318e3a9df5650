//! Postings as bytes: which documents hold a term, and how often.
//!
//! The value of a term is a sequence of blocks, each appended by one flush and readable by itself:
//! a varint count, and then for each posting a varint of the document number, less the one before
//! it in the block, doubled, plus 1 if the frequency is 1; if it is not, a varint of the frequency
//! less 2 follows. Most postings take two bytes or fewer.
//!
//! Document numbers never fall along a list. Where the number that ends a block also begins the
//! next, the two are parts of one document that was flushed halfway; [`Postings`] joins them.

use crate::index::varint;

/// One document that holds a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posting {
    pub(crate) document: u32,
    pub(crate) frequency: u32,
}

/// The bytes are not what an indexer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a posting list is damaged")]
pub(crate) struct BadPostings;

/// The longest encoding of one posting: 5 bytes for a doubled 32-bit number, 5 for a frequency.
pub(crate) const POSTING_BYTES_MAX: usize = 10;

/// Encodes a posting into `bytes`, after one of document `before` (0 at the start of a block), and
/// says how many bytes it took.
#[inline]
pub(crate) fn encode(posting: Posting, before: u32, bytes: &mut [u8; POSTING_BYTES_MAX]) -> usize {
    let delta = u64::from(posting.document.wrapping_sub(before));
    if posting.frequency == 1 {
        return varint::put(delta << 1 | 1, bytes, 0);
    }
    let length = varint::put(delta << 1, bytes, 0);
    varint::put(u64::from(posting.frequency.wrapping_sub(2)), bytes, length)
}

/// Writes the start of a block of so many postings.
#[inline]
pub(crate) fn begin_block(count: u32, block: &mut Vec<u8>) {
    varint::push(block, u64::from(count));
}

/// The postings of a term in the order of their documents, each document once.
#[derive(Debug, Clone)]
pub(crate) struct Postings<'a> {
    bytes: &'a [u8],
    left_in_block: u64,
    before: u32,
    next: Option<Posting>,
    failed: bool,
}

impl<'a> Postings<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            left_in_block: 0,
            before: 0,
            next: None,
            failed: false,
        }
    }

    /// Reads one posting as it was encoded; none at the end of the list.
    fn read(&mut self) -> Result<Option<Posting>, BadPostings> {
        if self.left_in_block == 0 {
            if self.bytes.is_empty() {
                return Ok(None);
            }
            self.left_in_block = self.read_number()?;
            self.before = 0;
            if self.left_in_block == 0 {
                return Err(BadPostings);
            }
        }
        self.left_in_block -= 1;
        let head = self.read_number()?;
        let delta = u32::try_from(head >> 1).map_err(|_too_large| BadPostings)?;
        let document = self.before.checked_add(delta).ok_or(BadPostings)?;
        let frequency = if head & 1 == 1 {
            1
        } else {
            let more = u32::try_from(self.read_number()?).map_err(|_too_large| BadPostings)?;
            more.checked_add(2).ok_or(BadPostings)?
        };
        self.before = document;
        Ok(Some(Posting {
            document,
            frequency,
        }))
    }

    #[inline]
    fn read_number(&mut self) -> Result<u64, BadPostings> {
        varint::take(&mut self.bytes).ok_or(BadPostings)
    }

    /// The next document with all its parts joined.
    fn advance(&mut self) -> Result<Option<Posting>, BadPostings> {
        let first = match self.next.take() {
            Some(posting) => Some(posting),
            None => self.read()?,
        };
        let Some(mut posting) = first else {
            return Ok(None);
        };
        while let Some(after) = self.read()? {
            if after.document < posting.document {
                return Err(BadPostings);
            }
            if after.document > posting.document {
                self.next = Some(after);
                break;
            }
            posting.frequency = posting.frequency.saturating_add(after.frequency);
        }
        Ok(Some(posting))
    }
}

impl Iterator for Postings<'_> {
    type Item = Result<Posting, BadPostings>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let posting = self.advance();
        self.failed = posting.is_err();
        posting.transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(postings: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin_block(postings.len() as u32, &mut bytes);
        let mut before = 0;
        for &(document, frequency) in postings {
            let mut encoded = [0; POSTING_BYTES_MAX];
            let length = encode(
                Posting {
                    document,
                    frequency,
                },
                before,
                &mut encoded,
            );
            bytes.extend_from_slice(&encoded[..length]);
            before = document;
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(u32, u32)>, BadPostings> {
        Postings::new(bytes)
            .map(|posting| posting.map(|posting| (posting.document, posting.frequency)))
            .collect()
    }

    #[test]
    fn a_block_has_these_bytes() {
        assert_eq!(
            block(&[(3, 1), (4, 2), (200, 7)]),
            [3, 7, 2, 0, 0x88, 0x03, 5]
        );
        assert_eq!(block(&[(0, 1)]), [1, 1]);
    }

    #[test]
    fn the_extremes_go_through() {
        let extremes = [(0, u32::MAX), (u32::MAX, u32::MAX)];
        assert_eq!(read(&block(&extremes)).unwrap(), extremes);
    }

    #[test]
    fn a_document_in_two_blocks_is_one() {
        let bytes = [
            block(&[(1, 1), (7, 2)]),
            block(&[(7, 3)]),
            block(&[(7, 1), (9, 1)]),
        ]
        .concat();
        assert_eq!(read(&bytes).unwrap(), [(1, 1), (7, 6), (9, 1)]);
    }

    #[test]
    fn documents_that_fall_are_damage() {
        let bytes = [block(&[(5, 1)]), block(&[(4, 1)])].concat();
        assert_eq!(read(&bytes), Err(BadPostings));
        assert_eq!(read(&[0]), Err(BadPostings));
        assert_eq!(read(&[2, 1]), Err(BadPostings));
    }

    proptest! {
        #[test]
        fn blocks_read_back(
            gaps in prop::collection::vec((1u32..100_000, 1u32..400), 0..80),
            every in 1usize..20,
        ) {
            let mut document = 0;
            let postings: Vec<(u32, u32)> = gaps
                .iter()
                .map(|&(gap, frequency)| {
                    document += gap;
                    (document, frequency)
                })
                .collect();
            let bytes: Vec<u8> = postings.chunks(every).flat_map(block).collect();
            prop_assert_eq!(read(&bytes).unwrap(), postings);
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            // Damage may read as postings; it must not panic or go on for ever.
            let read = Postings::new(&bytes).count();
            prop_assert!(read <= bytes.len() + 1);
        }
    }
}
