//! The second stage of an index run: numbers the documents, cuts them into terms and gathers
//! their postings until there is enough to send.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender},
};

use super::{
    combiner::Combiner, figures::Figures, lengths::Lengths, reader::Piece, record::DocumentRecord,
    tokens::Tokens,
};

/// What a record takes of memory beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// What is sent at once. The records and the lengths go first, so that no posting is ever stored
/// of a document that is not.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) combiner: Combiner,
    /// Records of documents by their numbers.
    pub(crate) records: Vec<(u32, Vec<u8>)>,
    /// Blocks of lengths by their numbers.
    pub(crate) lengths: Vec<(u32, Vec<u8>)>,
    /// The documents of the index once this load is stored, the last perhaps in part.
    pub(crate) documents: u64,
    /// How many of them are there whole.
    pub(crate) documents_whole: u64,
    /// The terms of all of them.
    pub(crate) terms: u64,
}

/// Where a run goes on, and how much it may hold.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) documents: u32,
    pub(crate) terms: u64,
    pub(crate) lengths: Lengths,
    /// The directory that relative paths start from.
    pub(crate) directory: PathBuf,
    /// A load is sent when it takes this much memory.
    pub(crate) load_bytes: usize,
}

/// Why gathering ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The next stage is gone; it knows why.
    NobodyListens,
    /// The numbers of documents are used up.
    TooManyDocuments,
}

/// The document that is being read.
#[derive(Debug, Clone, Copy)]
struct Current {
    number: u32,
    length: u32,
}

/// Gathers postings from pieces of text.
#[derive(Debug)]
pub(crate) struct Gatherer<'a> {
    tokens: Tokens,
    combiner: Combiner,
    records: Vec<(u32, Vec<u8>)>,
    record_bytes: usize,
    lengths: Lengths,
    documents: u32,
    documents_whole: u32,
    terms: u64,
    current: Option<Current>,
    /// Something was taken since the last load.
    changed: bool,
    directory: PathBuf,
    load_bytes: usize,
    figures: &'a Figures,
}

impl<'a> Gatherer<'a> {
    pub(crate) fn new(start: Start, figures: &'a Figures) -> Self {
        Self {
            tokens: Tokens::new(),
            combiner: Combiner::new(),
            records: Vec::new(),
            record_bytes: 0,
            lengths: start.lengths,
            documents: start.documents,
            documents_whole: start.documents,
            terms: start.terms,
            current: None,
            changed: false,
            directory: start.directory,
            load_bytes: start.load_bytes,
            figures,
        }
    }

    /// Takes pieces until there are no more, and passes on loads. `spare` gives back combiners
    /// that were sent, so that two are enough for the whole run.
    ///
    /// # Errors
    /// Why it ended before the pieces did.
    pub(crate) fn run(
        mut self,
        pieces: &Receiver<Piece>,
        loads: &SyncSender<Load>,
        spare: &Receiver<Combiner>,
    ) -> Result<(), Ended> {
        for piece in pieces {
            self.take(piece)?;
            if self.bytes() >= self.load_bytes {
                let combiner = spare.recv().map_err(|_gone| Ended::NobodyListens)?;
                loads
                    .send(self.load(combiner))
                    .map_err(|_gone| Ended::NobodyListens)?;
            }
        }
        if !self.changed {
            return Ok(());
        }
        loads
            .send(self.load(Combiner::new()))
            .map_err(|_gone| Ended::NobodyListens)
    }

    fn bytes(&self) -> usize {
        self.combiner.bytes() + self.record_bytes + self.lengths.bytes()
    }

    fn take(&mut self, piece: Piece) -> Result<(), Ended> {
        if let Some(path) = piece.begins {
            self.begin(&DocumentRecord::new(&path, &self.directory))?;
        }
        let Some(mut current) = self.current else {
            return Ok(());
        };
        self.changed = true;
        let mut terms = 0u32;
        let mut count = |term: &[u8]| {
            self.combiner.add(term);
            terms += 1;
        };
        self.tokens.feed(&piece.text, &mut count);
        if piece.ends {
            self.tokens.end(&mut count);
        }
        current.length = current.length.saturating_add(terms);
        self.terms += u64::from(terms);
        self.lengths.set(current.number, current.length);
        self.current = Some(current);
        if piece.ends {
            self.documents_whole = self.documents;
            self.current = None;
        }
        Figures::add(&self.figures.bytes, piece.text.len() as u64);
        Figures::add(&self.figures.terms, u64::from(terms));
        Ok(())
    }

    fn begin(&mut self, record: &DocumentRecord) -> Result<(), Ended> {
        let number = self.documents;
        self.documents = number.checked_add(1).ok_or(Ended::TooManyDocuments)?;
        self.combiner.begin_document(number);
        self.current = Some(Current { number, length: 0 });
        let record = record.encode();
        self.record_bytes += record.len() + RECORD_OVERHEAD_BYTES;
        self.records.push((number, record));
        Figures::add(&self.figures.documents, 1);
        Ok(())
    }

    /// Hands over what was gathered and goes on with an empty combiner.
    fn load(&mut self, mut combiner: Combiner) -> Load {
        if let Some(current) = self.current {
            combiner.begin_document(current.number);
        }
        self.record_bytes = 0;
        self.changed = false;
        Load {
            combiner: std::mem::replace(&mut self.combiner, combiner),
            records: std::mem::take(&mut self.records),
            lengths: self.lengths.take_blocks(),
            documents: u64::from(self.documents),
            documents_whole: u64::from(self.documents_whole),
            terms: self.terms,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::mpsc, thread};

    use super::*;
    use crate::index::{lengths::read_block, postings::Postings, tokens::terms_of};

    /// What an index holds after some loads.
    #[derive(Debug, Default, PartialEq)]
    struct Stored {
        lists: BTreeMap<Vec<u8>, Vec<u8>>,
        records: BTreeMap<u32, Vec<u8>>,
        lengths: BTreeMap<u32, Vec<u8>>,
        loads: usize,
    }

    fn piece(path: Option<&str>, text: &str, ends: bool) -> Piece {
        Piece {
            begins: path.map(PathBuf::from),
            text: text.to_owned(),
            ends,
        }
    }

    fn gather(pieces: Vec<Piece>, load_bytes: usize) -> Stored {
        let figures = Figures::default();
        let start = Start {
            documents: 0,
            terms: 0,
            lengths: Lengths::default(),
            directory: "/here".into(),
            load_bytes,
        };
        let gatherer = Gatherer::new(start, &figures);
        let (piece_sender, piece_receiver) = mpsc::sync_channel(1);
        let (load_sender, load_receiver) = mpsc::sync_channel::<Load>(0);
        let (spare_sender, spare_receiver) = mpsc::sync_channel(2);
        let mut stored = Stored::default();
        spare_sender.send(Combiner::new()).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                pieces
                    .into_iter()
                    .for_each(|piece| piece_sender.send(piece).unwrap())
            });
            scope.spawn(move || {
                gatherer
                    .run(&piece_receiver, &load_sender, &spare_receiver)
                    .unwrap()
            });
            let mut block = Vec::new();
            for mut load in load_receiver {
                for index in 0..load.combiner.len() {
                    let term = load.combiner.block(index, &mut block).to_vec();
                    stored
                        .lists
                        .entry(term)
                        .or_default()
                        .extend_from_slice(&block);
                }
                stored.records.extend(load.records);
                stored.lengths.extend(load.lengths);
                stored.loads += 1;
                load.combiner.clear();
                let _ended = spare_sender.send(load.combiner);
            }
        });
        stored
    }

    #[test]
    fn loads_of_any_size_store_the_same_postings() {
        let seed = 7;
        let mut random = fastrand::Rng::with_seed(seed);
        let texts: Vec<Vec<String>> = (0..60)
            .map(|_| {
                let mut part = || {
                    (0..200)
                        .map(|_| format!("t{} ", random.u32(0..300)))
                        .collect()
                };
                (0..3).map(|_| part()).collect()
            })
            .collect();
        let pieces = || {
            let document = |(number, parts): (usize, &Vec<String>)| {
                let path = format!("file{number}");
                let mut pieces: Vec<Piece> =
                    parts.iter().map(|part| piece(None, part, false)).collect();
                pieces[0].begins = Some(path.into());
                pieces[2].ends = true;
                pieces
            };
            texts
                .iter()
                .enumerate()
                .flat_map(document)
                .collect::<Vec<_>>()
        };
        let mut expected: BTreeMap<String, BTreeMap<u32, u32>> = BTreeMap::new();
        for (number, parts) in texts.iter().enumerate() {
            for term in terms_of(&parts.concat()) {
                *expected
                    .entry(term)
                    .or_default()
                    .entry(number as u32)
                    .or_default() += 1;
            }
        }
        for load_bytes in [1, 30_000, usize::MAX] {
            let stored = gather(pieces(), load_bytes);
            assert_eq!(stored.loads == 1, load_bytes == usize::MAX, "seed {seed}");
            for (term, postings) in &expected {
                let read: BTreeMap<u32, u32> = Postings::new(&stored.lists[term.as_bytes()])
                    .map(Result::unwrap)
                    .map(|posting| (posting.document, posting.frequency))
                    .collect();
                assert_eq!(
                    &read, postings,
                    "seed {seed}, {term}, loads of {load_bytes}"
                );
            }
            assert_eq!(stored.lists.len(), expected.len());
            assert_eq!(read_block(&stored.lengths[&0]), [600; 60]);
            assert_eq!(stored.records.len(), 60);
        }
    }

    #[test]
    fn a_word_cut_by_two_pieces_is_one() {
        let pieces = vec![
            piece(Some("a"), "un", false),
            piece(None, "cut", true),
            piece(Some("b"), "", true),
        ];
        let stored = gather(pieces, 1);
        assert_eq!(stored.lists.keys().collect::<Vec<_>>(), [b"uncut"]);
        assert_eq!(stored.records.len(), 2);
        assert_eq!(read_block(&stored.lengths[&0]), [1, 0]);
    }
}
