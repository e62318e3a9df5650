//! Gathers the postings of many documents by term, so that each term is appended to once.
//!
//! A table of open addressing finds a term's entry. The entry itself holds the posting of the
//! document that is being read, whose frequency may still grow; postings of documents before it
//! are already encoded, in a chain of chunks that double in size. So a term that occurs in one
//! document takes no chunk at all, and counting a term once more touches its entry only.
//! Everything lies in four vectors that are emptied and used again after each flush.

use std::hash::{BuildHasher, RandomState};

use super::postings::{POSTING_BYTES_MAX, Posting, begin_block, encode};

/// The bytes of the first chunk of a chain; each further one is twice as long, up to the maximum.
const CHUNK_BYTES_MIN: usize = 16;
const CHUNK_BYTES_MAX: usize = 512;
/// The end of every chunk says where the next one begins.
const LINK_BYTES: usize = 4;
/// The slots of an empty table.
const SLOTS_MIN: usize = 1 << 10;
/// Marks a slot without an entry.
const NO_ENTRY: u32 = u32::MAX;

/// Where to look for a term.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    /// An index into `entries`, or `NO_ENTRY`.
    entry: u32,
}

const EMPTY: Slot = Slot {
    hash: 0,
    entry: NO_ENTRY,
};

/// A term and its postings.
#[derive(Debug)]
struct Entry {
    /// Where the term begins in `terms`.
    term_at: u32,
    term_bytes: u16,
    /// The length of the chunk that is written to, and its bytes still free.
    chunk_bytes: u16,
    room: u16,
    /// The posting that may still grow.
    document: u32,
    frequency: u32,
    /// The postings that are in the chain, and the last document among them.
    count: u32,
    before: u32,
    /// The chain: where it begins, where it goes on, and its bytes without the links.
    chain_at: u32,
    write_at: u32,
    chain_bytes: u32,
}

/// Postings by term, in memory.
#[derive(Debug)]
pub(crate) struct Combiner {
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    terms: Vec<u8>,
    chunks: Vec<u8>,
    document: u32,
    postings: u64,
    seed: u64,
}

impl Combiner {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![EMPTY; SLOTS_MIN],
            entries: Vec::new(),
            terms: Vec::new(),
            chunks: Vec::new(),
            document: 0,
            postings: 0,
            // A corpus cannot be made so that all its terms share a slot.
            seed: RandomState::new().hash_one(0),
        }
    }

    /// Says which document the terms to come belong to. Numbers never fall between flushes.
    pub(crate) fn begin_document(&mut self, number: u32) {
        self.document = number;
    }

    /// Counts one occurrence of a term in the document.
    #[inline]
    pub(crate) fn add(&mut self, term: &[u8]) {
        let hash = hash_term(term, self.seed);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.entry == NO_ENTRY {
                return self.add_entry(term, hash, at);
            }
            if slot.hash == hash && self.holds(slot.entry, term) {
                return self.count(slot.entry);
            }
            at = (at + 1) & mask;
        }
    }

    /// The memory in use; the vectors may hold up to twice as much.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
            + self.entries.len() * size_of::<Entry>()
            + self.terms.len()
            + self.chunks.len()
    }

    /// The postings held.
    pub(crate) fn postings(&self) -> u64 {
        self.postings
    }

    /// The terms held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Copies the block of one term, by its index below `len`, into `block`, and returns the term.
    pub(crate) fn block(&self, index: usize, block: &mut Vec<u8>) -> &[u8] {
        let entry = &self.entries[index];
        block.clear();
        begin_block(entry.count + 1, block);
        self.copy_chain(entry, block);
        let mut encoded = [0; POSTING_BYTES_MAX];
        let posting = Posting {
            document: entry.document,
            frequency: entry.frequency,
        };
        let length = encode(posting, entry.before, &mut encoded);
        block.extend_from_slice(&encoded[..length]);
        self.term(entry)
    }

    /// Empties the table and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.entries.clear();
        self.terms.clear();
        self.chunks.clear();
        self.postings = 0;
    }

    fn term(&self, entry: &Entry) -> &[u8] {
        let at = entry.term_at as usize;
        &self.terms[at..at + usize::from(entry.term_bytes)]
    }

    #[inline]
    fn holds(&self, entry: u32, term: &[u8]) -> bool {
        self.term(&self.entries[entry as usize]) == term
    }

    fn add_entry(&mut self, term: &[u8], hash: u32, slot: usize) {
        self.slots[slot] = Slot {
            hash,
            entry: self.entries.len() as u32,
        };
        self.entries.push(Entry {
            term_at: self.terms.len() as u32,
            term_bytes: term.len() as u16,
            chunk_bytes: 0,
            room: 0,
            document: self.document,
            frequency: 1,
            count: 0,
            before: 0,
            chain_at: 0,
            write_at: 0,
            chain_bytes: 0,
        });
        self.terms.extend_from_slice(term);
        self.postings += 1;
        if self.entries.len() * 2 > self.slots.len() {
            self.grow();
        }
    }

    #[inline]
    fn count(&mut self, entry: u32) {
        let entry = &mut self.entries[entry as usize];
        if entry.document == self.document {
            entry.frequency = entry.frequency.saturating_add(1);
            return;
        }
        let posting = Posting {
            document: entry.document,
            frequency: entry.frequency,
        };
        let mut encoded = [0; POSTING_BYTES_MAX];
        let length = encode(posting, entry.before, &mut encoded);
        write_chain(entry, &mut self.chunks, &encoded[..length]);
        entry.count += 1;
        entry.before = entry.document;
        entry.document = self.document;
        entry.frequency = 1;
        self.postings += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; mask + 1]);
        for slot in old.into_iter().filter(|slot| slot.entry != NO_ENTRY) {
            let mut at = slot.hash as usize & mask;
            while self.slots[at].entry != NO_ENTRY {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
    }

    fn copy_chain(&self, entry: &Entry, block: &mut Vec<u8>) {
        let mut at = entry.chain_at as usize;
        let mut left = entry.chain_bytes as usize;
        let mut chunk_bytes = CHUNK_BYTES_MIN;
        while left > 0 {
            let data_bytes = chunk_bytes - LINK_BYTES;
            let taken = left.min(data_bytes);
            block.extend_from_slice(&self.chunks[at..at + taken]);
            left -= taken;
            if left > 0 {
                at = read_link(&self.chunks[at + data_bytes..]);
                chunk_bytes = longer(chunk_bytes);
            }
        }
    }
}

/// Appends bytes to the chain of an entry, in new chunks where they do not fit the last.
fn write_chain(entry: &mut Entry, chunks: &mut Vec<u8>, mut bytes: &[u8]) {
    if entry.chunk_bytes == 0 {
        entry.chain_at = begin_chunk(entry, chunks, CHUNK_BYTES_MIN);
    }
    entry.chain_bytes += bytes.len() as u32;
    loop {
        let at = entry.write_at as usize;
        let taken = bytes.len().min(usize::from(entry.room));
        chunks[at..at + taken].copy_from_slice(&bytes[..taken]);
        entry.write_at += taken as u32;
        entry.room -= taken as u16;
        bytes = &bytes[taken..];
        if bytes.is_empty() {
            return;
        }
        let link_at = entry.write_at as usize;
        let chunk_at = begin_chunk(entry, chunks, longer(usize::from(entry.chunk_bytes)));
        chunks[link_at..link_at + LINK_BYTES].copy_from_slice(&chunk_at.to_le_bytes());
    }
}

/// Adds a chunk for an entry to write to, and returns where it begins.
fn begin_chunk(entry: &mut Entry, chunks: &mut Vec<u8>, chunk_bytes: usize) -> u32 {
    entry.write_at = chunks.len() as u32;
    entry.chunk_bytes = chunk_bytes as u16;
    entry.room = (chunk_bytes - LINK_BYTES) as u16;
    chunks.resize(chunks.len() + chunk_bytes, 0);
    entry.write_at
}

fn longer(chunk_bytes: usize) -> usize {
    (chunk_bytes * 2).min(CHUNK_BYTES_MAX)
}

fn read_link(bytes: &[u8]) -> usize {
    bytes
        .first_chunk()
        .map_or(0, |link| u32::from_le_bytes(*link) as usize)
}

const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

/// A keyed hash of a short run of bytes, by multiplying and folding eight or sixteen at a time.
#[inline]
fn hash_term(term: &[u8], seed: u64) -> u32 {
    let mut state = seed ^ (term.len() as u64).wrapping_mul(PRIME);
    let mut rest = term;
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        state = fold(state ^ u64::from_le_bytes(*head), PRIME);
        rest = tail;
    }
    let mut last = 0;
    for &byte in rest {
        last = last << 8 | u64::from(byte);
    }
    let hash = fold(state ^ last, PRIME ^ seed);
    (hash >> 32) as u32 ^ hash as u32
}

#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left).wrapping_mul(u128::from(right));
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::index::postings::Postings;

    type Lists = BTreeMap<Vec<u8>, Vec<(u32, u32)>>;

    fn lists(combiner: &Combiner) -> Lists {
        let mut block = Vec::new();
        let read = |index| {
            let term = combiner.block(index, &mut block).to_vec();
            let postings = Postings::new(&block).map(Result::unwrap);
            (
                term,
                postings
                    .map(|posting| (posting.document, posting.frequency))
                    .collect(),
            )
        };
        (0..combiner.len()).map(read).collect()
    }

    #[test]
    fn terms_keep_documents_and_frequencies() {
        let mut combiner = Combiner::new();
        combiner.begin_document(4);
        combiner.add(b"one");
        combiner.add(b"two");
        combiner.add(b"one");
        combiner.begin_document(9);
        combiner.add(b"one");
        let expected = [
            (b"one".to_vec(), vec![(4, 2), (9, 1)]),
            (b"two".to_vec(), vec![(4, 1)]),
        ];
        assert_eq!(lists(&combiner), Lists::from(expected));
        assert_eq!(combiner.postings(), 3);
        combiner.clear();
        assert_eq!((combiner.len(), combiner.postings()), (0, 0));
        combiner.add(b"two");
        assert_eq!(
            lists(&combiner),
            Lists::from([(b"two".to_vec(), vec![(9, 1)])])
        );
    }

    #[test]
    fn a_long_chain_reads_back() {
        let mut combiner = Combiner::new();
        let mut expected = Vec::new();
        for step in 0..5000u32 {
            let document = step * 37;
            combiner.begin_document(document);
            for _ in 0..=step % 3 {
                combiner.add(b"term");
            }
            expected.push((document, step % 3 + 1));
        }
        assert_eq!(
            lists(&combiner),
            Lists::from([(b"term".to_vec(), expected)])
        );
    }

    #[test]
    fn many_terms_grow_the_table() {
        let mut combiner = Combiner::new();
        for number in 0..20_000u32 {
            combiner.begin_document(number / 100);
            combiner.add(format!("term{number}").as_bytes());
        }
        assert_eq!(combiner.len(), 20_000);
        assert_eq!(combiner.postings(), 20_000);
        assert_eq!(lists(&combiner)[&b"term19999"[..]], [(199, 1)]);
    }

    proptest! {
        #[test]
        fn random_documents_match_a_map(
            documents in prop::collection::vec(
                (1u32..300, prop::collection::vec("[ab]{2,4}|[a-c]{60,64}", 0..30)), 0..60),
        ) {
            let mut combiner = Combiner::new();
            let mut model = Lists::new();
            let mut number = 0;
            for (gap, terms) in &documents {
                number += gap;
                combiner.begin_document(number);
                for term in terms {
                    combiner.add(term.as_bytes());
                    let list = model.entry(term.clone().into_bytes()).or_default();
                    match list.last_mut() {
                        Some(last) if last.0 == number => last.1 += 1,
                        _ => list.push((number, 1)),
                    }
                }
            }
            prop_assert_eq!(lists(&combiner), model);
        }
    }
}
