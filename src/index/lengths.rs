//! How many terms each document has, in blocks of many documents.
//!
//! Ranking needs the length of every document that holds a word, which may be all of them, and
//! reading them one by one would cost a read each. So the table of lengths has the number of a
//! block as its key (4 bytes, the greatest first) and 4 bytes a document, the least first, as its
//! value. A block is put whole, again and again while it fills.

use rhash_client::BytesCodec;
use rhash_client::blocking::RemoteHash;

use crate::failure::{Failure, Outcome};

/// The documents of one block.
pub(crate) const BLOCK_DOCUMENTS: u32 = 4096;
/// The blocks that one request asks for.
const BLOCKS_PER_READ: usize = 64;
/// The bytes of one length.
const LENGTH_BYTES: usize = 4;

/// The table of lengths.
pub(crate) type LengthsTable = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;

/// The lengths that were not yet written for good: all from the start of a block on.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    /// The document of the first length; begins a block.
    first: u32,
    lengths: Vec<u32>,
}

impl Lengths {
    /// Goes on after so many documents, with what the table says of their last block.
    pub(crate) fn after(documents: u32, last_block: &[u8]) -> Self {
        let first = documents - documents % BLOCK_DOCUMENTS;
        let mut lengths = read_block(last_block);
        lengths.resize((documents - first) as usize, 0);
        Self { first, lengths }
    }

    /// Sets the length of a document.
    pub(crate) fn set(&mut self, document: u32, length: u32) {
        let at = document.saturating_sub(self.first) as usize;
        if at >= self.lengths.len() {
            self.lengths.resize(at + 1, 0);
        }
        self.lengths[at] = length;
    }

    /// The memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.lengths.len() * LENGTH_BYTES
    }

    /// The blocks to write, each with its number; what may still change is kept.
    pub(crate) fn take_blocks(&mut self) -> Vec<(u32, Vec<u8>)> {
        let blocks = self
            .lengths
            .chunks(BLOCK_DOCUMENTS as usize)
            .zip(self.first / BLOCK_DOCUMENTS..);
        let blocks = blocks
            .map(|(block, number)| (number, write_block(block)))
            .collect();
        // The last document may be one that is still being read, so its block stays.
        let settled =
            self.lengths.len().saturating_sub(1) as u32 / BLOCK_DOCUMENTS * BLOCK_DOCUMENTS;
        self.lengths.drain(..settled as usize);
        self.first += settled;
        blocks
    }
}

/// The lengths of a corpus, read as they are needed.
#[derive(Debug)]
pub(crate) struct LengthColumn<'a> {
    table: &'a LengthsTable,
    blocks: Vec<Option<Vec<u32>>>,
}

impl<'a> LengthColumn<'a> {
    pub(crate) fn new(table: &'a LengthsTable, documents: u32) -> Self {
        let blocks = documents.div_ceil(BLOCK_DOCUMENTS) as usize;
        Self {
            table,
            blocks: vec![None; blocks],
        }
    }

    /// Reads the blocks of these documents, as far as they were not read before.
    ///
    /// # Errors
    /// Those of the table.
    pub(crate) fn fetch(&mut self, documents: impl Iterator<Item = u32>) -> Outcome {
        let mut wanted = vec![false; self.blocks.len()];
        for document in documents {
            if let Some(wanted) = wanted.get_mut((document / BLOCK_DOCUMENTS) as usize) {
                *wanted = true;
            }
        }
        let missing = |(number, wanted): (usize, bool)| {
            (wanted && self.blocks[number].is_none()).then_some(number)
        };
        let missing: Vec<usize> = wanted.into_iter().enumerate().filter_map(missing).collect();
        for numbers in missing.chunks(BLOCKS_PER_READ) {
            let keys = numbers
                .iter()
                .map(|number| (*number as u32).to_be_bytes().to_vec());
            for (number, block) in numbers.iter().zip(self.table.get_many(keys)?) {
                let block =
                    block.ok_or_else(|| Failure::plain("lengths of documents are missing"))?;
                self.blocks[*number] = Some(read_block(&block));
            }
        }
        Ok(())
    }

    /// The length of a document whose block was read.
    #[inline]
    pub(crate) fn length(&self, document: u32) -> u32 {
        let block = self.blocks.get((document / BLOCK_DOCUMENTS) as usize);
        let at = (document % BLOCK_DOCUMENTS) as usize;
        block
            .and_then(|block| block.as_ref()?.get(at))
            .copied()
            .unwrap_or(0)
    }
}

/// Reads the lengths of a block.
pub(crate) fn read_block(block: &[u8]) -> Vec<u32> {
    let (lengths, _rest) = block.as_chunks::<LENGTH_BYTES>();
    lengths
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .collect()
}

fn write_block(lengths: &[u32]) -> Vec<u8> {
    lengths
        .iter()
        .flat_map(|length| length.to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What a table would hold after all these blocks were put, one after the other.
    fn put(table: &mut BTreeMap<u32, Vec<u8>>, lengths: &mut Lengths) {
        table.extend(lengths.take_blocks());
    }

    fn whole(table: &BTreeMap<u32, Vec<u8>>) -> Vec<u32> {
        table.values().flat_map(|block| read_block(block)).collect()
    }

    #[test]
    fn blocks_hold_every_length_whenever_they_are_taken() {
        let all: Vec<u32> = (0..BLOCK_DOCUMENTS * 2 + 7)
            .map(|number| number * 3)
            .collect();
        for every in [1, 1000, 4096, 5000, 100_000] {
            let mut table = BTreeMap::new();
            let mut lengths = Lengths::default();
            for (number, length) in all.iter().enumerate() {
                if number % every == 0 {
                    // A document that is still being read is written as far as it is known.
                    lengths.set(number as u32, 1);
                    put(&mut table, &mut lengths);
                }
                lengths.set(number as u32, *length);
            }
            put(&mut table, &mut lengths);
            assert!(whole(&table) == all, "taken every {every}");
            assert!(lengths.bytes() <= (BLOCK_DOCUMENTS as usize) * 4);
        }
    }

    #[test]
    fn numbering_goes_on_within_a_block() {
        let mut table = BTreeMap::new();
        let mut lengths = Lengths::default();
        (0..5000).for_each(|number| lengths.set(number, number));
        put(&mut table, &mut lengths);
        let mut lengths = Lengths::after(5000, &table[&1]);
        (5000..9000).for_each(|number| lengths.set(number, number));
        put(&mut table, &mut lengths);
        assert!(whole(&table) == (0..9000).collect::<Vec<_>>());
        // A table that lags behind the documents gives zeros rather than other documents' lengths.
        let mut lengths = Lengths::after(3, &[1, 0, 0, 0]);
        lengths.set(3, 9);
        assert_eq!(read_block(&lengths.take_blocks()[0].1), [1, 0, 0, 9]);
    }
}
