//! The postings of an inverted index, document by document, and what must be in it at the end.

use std::{collections::HashMap, panic::resume_unwind, thread};

use super::{Zipf, mix, words::push_word};

/// The bytes of a posting: the document's number and how often the term is in it, little-endian.
pub const POSTING_BYTES: usize = 8;

/// The bits of a packed posting that say which term it is; the rest count.
const TERM_BITS: u32 = 22;
const TERM_MASK: u32 = (1 << TERM_BITS) - 1;
const OCCURRENCES_MAX: u32 = (1 << (32 - TERM_BITS)) - 1;

/// Documents that one thread draws at a time.
const BLOCK_DOCUMENTS: usize = 1000;

/// How many postings, of which terms.
#[derive(Debug, Clone, Copy)]
pub struct PostingsShape {
    /// At least so many postings, to the end of a thousand documents.
    pub postings: usize,
    /// Words that exist, 4 million at most; rare ones may not occur.
    pub vocabulary: u32,
    /// The mean length of a document; lengths are spread from half to one and a half of it.
    pub words_per_document: u32,
    /// How much more often frequent words occur (Zipf's exponent).
    pub exponent: f64,
}

impl PostingsShape {
    /// Like the HTML and source text of a Rust toolchain: some 240 terms a document, and some
    /// 700,000 different ones among 30 M postings.
    pub fn text_like(postings: usize) -> Self {
        Self {
            postings,
            vocabulary: 1_000_000,
            words_per_document: 870,
            exponent: 1.3,
        }
    }
}

/// The postings of many documents.
#[derive(Debug)]
pub struct Postings {
    words: Vec<u8>,
    word_ends: Vec<u32>,
    packed: Vec<u32>,
    document_ends: Vec<u32>,
}

impl Postings {
    /// Draws documents.
    pub fn draw(seed: u64, shape: &PostingsShape) -> Self {
        let mut drawn = Self {
            words: Vec::new(),
            word_ends: Vec::new(),
            packed: Vec::with_capacity(shape.postings + shape.words_per_document as usize * 2),
            document_ends: Vec::new(),
        };
        let vocabulary = shape.vocabulary.min(TERM_MASK + 1);
        for number in 0..vocabulary {
            push_word(number, &mut drawn.words);
            drawn.word_ends.push(drawn.words.len() as u32);
        }
        let zipf = Zipf::new(vocabulary.into(), shape.exponent);
        let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
        let mut block = 0;
        while drawn.packed.len() < shape.postings {
            // Blocks have seeds of their own, so that threads change nothing about what is drawn.
            let blocks: Vec<Block> = thread::scope(|scope| {
                let draw = |block| scope.spawn(move || Block::draw(seed, block, shape, zipf));
                let drawing: Vec<_> = (block..block + threads).map(draw).collect();
                let drawn = drawing.into_iter().map(|block| block.join());
                drawn
                    .map(|block| block.unwrap_or_else(|panic| resume_unwind(panic)))
                    .collect()
            });
            for block in blocks {
                if drawn.packed.len() < shape.postings {
                    let begin = drawn.packed.len() as u32;
                    drawn.packed.extend(block.packed);
                    let ends = block.document_ends.iter().map(|end| begin + end);
                    drawn.document_ends.extend(ends);
                }
            }
            block += threads;
        }
        drawn
    }

    /// How many postings there are.
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.document_ends.len()
    }

    /// The bytes of all postings.
    pub fn bytes(&self) -> u64 {
        (self.packed.len() * POSTING_BYTES) as u64
    }

    /// A term by its number.
    pub fn term(&self, number: u32) -> &[u8] {
        let end = |index: usize| self.word_ends[index] as usize;
        let begin = match number {
            0 => 0,
            number => end(number as usize - 1),
        };
        &self.words[begin..end(number as usize)]
    }

    /// Goes through all postings as an indexer would, and hands over a batch whenever
    /// `postings_per_batch` are combined, and the last one.
    ///
    /// `exchange` takes a batch and gives back an empty one.
    ///
    /// # Errors
    /// Those of `exchange`.
    pub fn combine<'a, E>(
        &'a self,
        postings_per_batch: usize,
        mut exchange: impl FnMut(Batch<'a>) -> Result<Batch<'a>, E>,
    ) -> Result<(), E> {
        let mut batch = Batch::default();
        let mut begin = 0;
        for (document, &end) in self.document_ends.iter().enumerate() {
            for &packed in &self.packed[begin..end as usize] {
                let posting = posting(document as u32, packed);
                batch.push(self.term(packed & TERM_MASK), posting);
            }
            begin = end as usize;
            if batch.postings >= postings_per_batch {
                batch = exchange(batch)?;
            }
        }
        if batch.postings > 0 {
            exchange(batch)?;
        }
        Ok(())
    }

    /// What must be in the index.
    pub fn truth(&self) -> Truth {
        let mut terms = vec![Expected::default(); self.word_ends.len()];
        let mut begin = 0;
        for (document, &end) in self.document_ends.iter().enumerate() {
            for &packed in &self.packed[begin..end as usize] {
                let expected = &mut terms[(packed & TERM_MASK) as usize];
                expected.count += 1;
                expected.hash = step(expected.hash, posting(document as u32, packed));
            }
            begin = end as usize;
        }
        let mut present: Vec<u32> = (0..terms.len() as u32)
            .filter(|&term| terms[term as usize].count > 0)
            .collect();
        fastrand::Rng::with_seed(7).shuffle(&mut present);
        Truth { terms, present }
    }
}

/// Some documents.
#[derive(Debug, Default)]
struct Block {
    packed: Vec<u32>,
    document_ends: Vec<u32>,
}

impl Block {
    fn draw(seed: u64, block: u64, shape: &PostingsShape, zipf: Zipf) -> Self {
        let mut drawn = Self::default();
        let mut random = fastrand::Rng::with_seed(mix(seed ^ mix(block)));
        let mut document = Vec::new();
        for _ in 0..BLOCK_DOCUMENTS {
            let mean = shape.words_per_document;
            let words = random.u32(mean / 2..=mean + mean / 2);
            document.clear();
            document.extend((0..words).map(|_| zipf.draw(&mut random) as u32 - 1));
            document.sort_unstable();
            for same in document.chunk_by(|one, other| one == other) {
                let count = (same.len() as u32).min(OCCURRENCES_MAX);
                drawn.packed.push(same[0] | (count << TERM_BITS));
            }
            drawn.document_ends.push(drawn.packed.len() as u32);
        }
        drawn
    }
}

fn posting(document: u32, packed: u32) -> [u8; POSTING_BYTES] {
    let occurrences = packed >> TERM_BITS;
    (u64::from(document) | (u64::from(occurrences) << 32)).to_le_bytes()
}

fn step(hash: u64, posting: [u8; POSTING_BYTES]) -> u64 {
    mix(hash ^ u64::from_le_bytes(posting))
}

/// Postings by term, combined by a client until they are worth sending.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    slots: HashMap<&'a [u8], u32>,
    terms: Vec<&'a [u8]>,
    /// As many as terms, and behind them some that are empty and keep their memory.
    lists: Vec<Vec<u8>>,
    postings: usize,
}

impl<'a> Batch<'a> {
    fn push(&mut self, term: &'a [u8], posting: [u8; POSTING_BYTES]) {
        let next = self.terms.len() as u32;
        let slot = *self.slots.entry(term).or_insert(next);
        if slot == next {
            self.terms.push(term);
            if self.lists.len() < self.terms.len() {
                self.lists.push(Vec::new());
            }
        }
        self.lists[slot as usize].extend_from_slice(&posting);
        self.postings += 1;
    }

    /// The terms and what is to be appended to each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &[u8])> {
        let lists = self.lists.iter().map(Vec::as_slice);
        self.terms.iter().copied().zip(lists)
    }

    /// How many terms there are.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// How many postings there are.
    pub fn postings(&self) -> usize {
        self.postings
    }

    /// Empties it; its memory stays.
    pub fn clear(&mut self) {
        for list in self.lists.iter_mut().take(self.terms.len()) {
            list.clear();
        }
        self.slots.clear();
        self.terms.clear();
        self.postings = 0;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    count: u32,
    hash: u64,
}

/// What an index must hold: the length of each list, and a checksum over its postings in order.
#[derive(Debug)]
pub struct Truth {
    terms: Vec<Expected>,
    present: Vec<u32>,
}

impl Truth {
    /// The numbers of all terms that occur, in an order drawn by lot.
    pub fn terms(&self) -> &[u32] {
        &self.present
    }

    /// Whether this is the list of a term.
    pub fn holds(&self, term: u32, list: &[u8]) -> bool {
        let expected = self.terms[term as usize];
        let (postings, rest) = list.as_chunks::<POSTING_BYTES>();
        let hash = postings
            .iter()
            .fold(0, |hash, &posting| step(hash, posting));
        rest.is_empty() && postings.len() == expected.count as usize && hash == expected.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> PostingsShape {
        PostingsShape {
            postings: 60_000,
            vocabulary: 5_000,
            words_per_document: 100,
            exponent: 1.0,
        }
    }

    #[test]
    fn batches_hold_what_the_truth_says() {
        let postings = Postings::draw(5, &shape());
        let truth = postings.truth();
        let mut index: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let mut batches = 0;
        postings
            .combine(3_000, |mut batch| {
                assert!(batch.len() <= batch.postings());
                for (term, list) in batch.iter() {
                    index
                        .entry(term.to_vec())
                        .or_default()
                        .extend_from_slice(list);
                }
                batch.clear();
                batches += 1;
                Ok::<_, ()>(batch)
            })
            .unwrap();
        assert!(batches >= 19);
        assert_eq!(index.len(), truth.terms().len());
        let mut bytes = 0;
        for &term in truth.terms() {
            let list = &index[postings.term(term)];
            assert!(truth.holds(term, list));
            assert!(!truth.holds(term, &list[POSTING_BYTES..]));
            bytes += list.len() as u64;
        }
        assert_eq!(bytes, postings.bytes());
    }

    #[test]
    fn a_seed_gives_the_same_postings() {
        let (one, again) = (Postings::draw(5, &shape()), Postings::draw(5, &shape()));
        assert_eq!(one.packed, again.packed);
        assert_ne!(one.packed, Postings::draw(6, &shape()).packed);
    }
}
