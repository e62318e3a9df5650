//! A finished run, open for reading; one reader for every home.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{
    cursor::RunCursor,
    error::ColdError,
    format::{CRC_BYTES, ENTRY_BYTES, FOOTER_BYTES, Footer, RunSummary, Section, unseal},
    hashes::HashCursor,
    home::{Home, RunBytes},
    leaf::Leaf,
    lost::{Lost, NoBytes},
    store::{RunId, Shared},
};
use crate::key_hash::KeyHash;

/// The most that a cursor reads ahead.
pub const READ_AHEAD_BYTES_MAX: usize = 1 << 20;

/// A run, open for reading. Nothing ever changes it.
#[derive(Debug)]
pub struct Run {
    footer: Footer,
    pub(super) bytes: Box<dyn RunBytes>,
    index: Index,
    home: Arc<dyn Home>,
    shared: Arc<Shared>,
    remove_on_drop: AtomicBool,
}

/// Where leaves and directory are, once verified. Piece `n` is the leaf of section `n`, the
/// directory comes after them.
#[derive(Debug)]
enum Index {
    /// In the map of the run's bytes; a bit for each piece says that it was verified.
    Mapped(Box<[AtomicU64]>),
    /// In RAM, read when first needed.
    Owned(Box<[OnceLock<Box<[u8]>>]>),
    /// Nowhere, for this reason.
    Lost(Lost),
}

/// Where the bit of a piece is.
#[inline]
fn verified_bit(verified: &[AtomicU64], number: usize) -> Option<(&AtomicU64, u64)> {
    Some((verified.get(number / 64)?, 1 << (number % 64)))
}

impl Index {
    fn new(sections: u32, mapped: bool) -> Self {
        let pieces = (sections as usize).saturating_add(1);
        if mapped {
            Self::Mapped(
                (0..pieces.div_ceil(64))
                    .map(|_| AtomicU64::new(0))
                    .collect(),
            )
        } else {
            Self::Owned((0..pieces).map(|_| OnceLock::new()).collect())
        }
    }
}

impl Run {
    pub(super) fn new(
        home: Arc<dyn Home>,
        shared: Arc<Shared>,
        bytes: Box<dyn RunBytes>,
        footer: Footer,
    ) -> Self {
        home.live_bytes().fetch_add(bytes.len(), Ordering::Relaxed);
        let index = Index::new(footer.sections, bytes.mapped().is_some());
        Self {
            footer,
            bytes,
            index,
            home,
            shared,
            remove_on_drop: AtomicBool::new(false),
        }
    }

    /// Opens a run by its footer.
    pub(super) fn open(
        home: Arc<dyn Home>,
        shared: Arc<Shared>,
        id: RunId,
    ) -> Result<Self, ColdError> {
        let bytes = home.open(id)?;
        let footer = read_footer(&*bytes, id)?;
        if footer.hasher_mark != shared.hasher_mark() {
            return Err(ColdError::OtherSecret { run: id });
        }
        Ok(Self::new(home, shared, bytes, footer))
    }

    /// A run that cannot be opened, in the place of the one that should be there: whatever is asked of it is
    /// answered with why, since what it had is neither known nor absent.
    pub(super) fn lost(
        home: Arc<dyn Home>,
        shared: Arc<Shared>,
        id: RunId,
        table: u64,
        why: Lost,
    ) -> Self {
        let footer = Footer {
            summary: RunSummary {
                id,
                table,
                records: 0,
                keys: 0,
                tombstones: 0,
                payload_bytes: 0,
                first_place: 0,
                last_place: u64::MAX,
                has_hash_column: true,
            },
            hasher_mark: shared.hasher_mark(),
            // As if it had one, so that nobody takes it for empty.
            sections: 1,
            directory_offset: 0,
            note_bytes: 0,
        };
        let mut run = Self::new(home, shared, Box::new(NoBytes(id, why)), footer);
        run.index = Index::Lost(why);
        run
    }

    /// Why nothing of the run can be read, if so.
    pub fn lost_error(&self) -> Option<ColdError> {
        match self.index {
            Index::Lost(why) => Some(why.error(self.id())),
            _ => None,
        }
    }

    /// The run's id.
    pub fn id(&self) -> RunId {
        self.footer.summary.id
    }

    /// The table that the run belongs to.
    pub fn table(&self) -> u64 {
        self.footer.summary.table
    }

    /// The disk that it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len()
    }

    /// Its records.
    pub fn records(&self) -> u64 {
        self.footer.summary.records
    }

    /// Its keys.
    pub fn keys(&self) -> u64 {
        self.footer.summary.keys
    }

    /// Its tombstones.
    pub fn tombstones(&self) -> u64 {
        self.footer.summary.tombstones
    }

    /// The place of its first record.
    pub fn first_place(&self) -> u64 {
        self.footer.summary.first_place
    }

    /// The place of its last record.
    pub fn last_place(&self) -> u64 {
        self.footer.summary.last_place
    }

    /// Whether its keys can be counted without reading values.
    pub fn has_hash_column(&self) -> bool {
        self.footer.summary.has_hash_column
    }

    /// What its owner wrote into it (see `RunWriter::set_note`); nothing, if it did not.
    ///
    /// # Errors
    /// Any of reading; the note is damaged.
    pub fn note(&self) -> Result<Vec<u8>, ColdError> {
        read_note(&*self.bytes, &self.footer)
    }

    /// All that the run says about itself.
    pub fn summary(&self) -> &RunSummary {
        &self.footer.summary
    }

    /// Lets the run's bytes go when the last one who reads it is done.
    pub fn remove_on_drop(&self) {
        self.remove_on_drop.store(true, Ordering::Release);
    }

    /// Brings the run to stable storage; for runs in sled, `ColdStore::sync` does.
    ///
    /// # Errors
    /// Any of the file system.
    pub fn sync(&self) -> Result<(), ColdError> {
        self.bytes.sync()
    }

    /// Brings the run to stable storage, wherever it is, so that a start finds it.
    ///
    /// # Errors
    /// Any of the file system, and of sled.
    pub fn sync_named(&self) -> Result<(), ColdError> {
        self.bytes.sync()?;
        self.home.sync()
    }

    /// The RAM that the run takes by itself, what is mapped not counted.
    pub fn memory_bytes(&self) -> usize {
        let index = match &self.index {
            Index::Mapped(verified) => size_of_val(&**verified),
            Index::Owned(pieces) => pieces.iter().fold(size_of_val(&**pieces), |sum, piece| {
                sum.saturating_add(piece.get().map_or(0, |bytes| bytes.len()))
            }),
            Index::Lost(_) => 0,
        };
        index.saturating_add(size_of::<Self>())
    }

    /// About how many bytes the records of these places take: those of the sections that they are in.
    ///
    /// # Errors
    /// Any of reading the directory.
    pub fn bytes_between(&self, from_place: u64, to_place: u64) -> Result<u64, ColdError> {
        let from = self.locate_section(from_place)?.0;
        let mut bytes = 0u64;
        let mut number = self.sections_before(to_place)?;
        // Sections that begin with `to_place` itself count as well.
        while number < self.sections() && self.section(number)?.first_place == to_place {
            number = number.saturating_add(1);
        }
        if from < number {
            let end = match number < self.sections() {
                true => self.section(number)?.offset,
                false => self.footer.directory_offset,
            };
            bytes = end.saturating_sub(self.section(from)?.offset);
        }
        Ok(bytes)
    }

    /// About which part of the run lies in these places, which are hashes, so that they lie evenly.
    pub fn share_between(&self, from_place: u64, to_place: u64) -> f64 {
        let (first, last) = (self.first_place(), self.last_place());
        let (from, to) = (from_place.max(first), to_place.min(last));
        if from > to {
            return 0.0;
        }
        let part = to.saturating_sub(from) as f64 + 1.0;
        let whole = last.saturating_sub(first) as f64 + 1.0;
        part / whole
    }

    /// Whether the run may have the key with this hash; false is certain. Reads no block.
    ///
    /// # Errors
    /// Any of reading directory and leaves.
    #[inline]
    pub fn may_contain(&self, hash: KeyHash) -> Result<bool, ColdError> {
        let mut next = self.first_section_of(hash.place)?;
        while let Some(number) = next {
            let (_, leaf) = self.leaf(number)?;
            if leaf.may_contain(hash) {
                return Ok(true);
            }
            next = self.next_section_of(number, hash.place)?;
        }
        Ok(false)
    }

    /// A cursor at the first record of `key`; none if the run has no such key. The cursor goes on
    /// over the records of the same place.
    ///
    /// # Errors
    /// Any of reading the run.
    pub fn seek_key(
        self: &Arc<Self>,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<Option<RunCursor>, ColdError> {
        let mut next = self.first_section_of(hash.place)?;
        let mut cursor = None;
        while let Some(number) = next {
            let (section, leaf) = self.leaf(number)?;
            if leaf.may_contain(hash) {
                let cursor =
                    cursor.get_or_insert_with(|| RunCursor::at_place(Arc::clone(self), hash.place));
                let mut block = leaf.locate(hash.place);
                while leaf
                    .first_place(block)
                    .is_some_and(|first| first <= hash.place)
                {
                    if cursor.seek_in_block(number, &section, &leaf, block, hash, key)? {
                        break;
                    }
                    block = block.saturating_add(1);
                }
                if cursor.found() {
                    break;
                }
            }
            next = self.next_section_of(number, hash.place)?;
        }
        Ok(cursor.filter(RunCursor::found))
    }

    /// A cursor over the records of these places, both inclusive, that reads up to
    /// `read_ahead_bytes` of blocks at once.
    ///
    /// # Errors
    /// Any of reading the run.
    pub fn cursor(
        self: &Arc<Self>,
        from_place: u64,
        to_place: u64,
        read_ahead_bytes: usize,
    ) -> Result<RunCursor, ColdError> {
        let read_ahead_bytes = read_ahead_bytes.min(READ_AHEAD_BYTES_MAX);
        RunCursor::new(Arc::clone(self), from_place, to_place, read_ahead_bytes)
    }

    /// A cursor over the keys of these places, both inclusive, that knows only their hashes.
    ///
    /// # Errors
    /// Any of reading the run.
    pub fn hashes(
        self: &Arc<Self>,
        from_place: u64,
        to_place: u64,
    ) -> Result<HashCursor, ColdError> {
        HashCursor::new(Arc::clone(self), from_place, to_place)
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn sections(&self) -> usize {
        self.footer.sections as usize
    }

    /// Section `number`, as the directory knows it.
    #[inline]
    pub(super) fn section(&self, number: usize) -> Result<Section, ColdError> {
        Section::at(self.directory()?, number)
            .ok_or_else(|| self.damaged("the directory is short", self.footer.directory_offset))
    }

    /// Section `number` and its leaf.
    #[inline]
    pub(super) fn leaf(&self, number: usize) -> Result<(Section, Leaf<'_>), ColdError> {
        let section = self.section(number)?;
        let start = section.leaf_start().unwrap_or(u64::MAX);
        let verify = |payload: &[u8]| {
            Leaf::new(payload, &section).is_some_and(|leaf| leaf.is_sound(&section))
        };
        let payload = self.piece(number, start, section.leaf_bytes as usize, verify)?;
        let leaf = Leaf::new(payload, &section);
        Ok((
            section,
            leaf.ok_or_else(|| self.damaged("a leaf's lengths", start))?,
        ))
    }

    /// The section in which the records of `place` begin if there are any, or else one in or before
    /// which none of them are; and whether it begins at or before `place`.
    pub(super) fn locate_section(&self, place: u64) -> Result<(usize, bool), ColdError> {
        let after = self.sections_before(place)?;
        if after < self.sections() {
            let section = self.section(after)?;
            if section.first_place == place && !section.continues {
                return Ok((after, true));
            }
        }
        Ok((after.saturating_sub(1), after > 0))
    }

    /// Fills `buffer` with `bytes` bytes that begin at `offset`; counts as one read if it is done.
    pub(super) fn read(
        &self,
        buffer: &mut Vec<u8>,
        offset: u64,
        bytes: usize,
    ) -> Result<(), ColdError> {
        let end = offset.checked_add(bytes as u64);
        if end.is_none_or(|end| end > self.footer.directory_offset) {
            return Err(self.damaged("a block beyond the end", offset));
        }
        // What is there already need not be zeroed again.
        buffer.resize(bytes, 0);
        self.bytes.read_exact_at(buffer, offset)?;
        self.shared.count_read();
        Ok(())
    }

    pub(super) fn damaged(&self, what: &'static str, offset: u64) -> ColdError {
        ColdError::Damaged {
            what,
            run: self.id(),
            offset,
        }
    }

    /// How many sections begin before `place`.
    #[inline]
    fn sections_before(&self, place: u64) -> Result<usize, ColdError> {
        let directory = self.directory()?;
        let (mut low, mut high) = (0, self.sections());
        while low < high {
            let middle = low.midpoint(high);
            let first = Section::first_place_at(directory, middle).unwrap_or(u64::MAX);
            if first < place {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    #[inline]
    pub(super) fn first_section_of(&self, place: u64) -> Result<Option<usize>, ColdError> {
        if self.sections() == 0 || place < self.first_place() || place > self.last_place() {
            return Ok(None);
        }
        let (number, begins_before) = self.locate_section(place)?;
        Ok(begins_before.then_some(number))
    }

    #[inline]
    pub(super) fn next_section_of(
        &self,
        number: usize,
        place: u64,
    ) -> Result<Option<usize>, ColdError> {
        let next = number.saturating_add(1);
        if next >= self.sections() {
            return Ok(None);
        }
        Ok((self.section(next)?.first_place == place).then_some(next))
    }

    #[inline]
    pub(super) fn directory(&self) -> Result<&[u8], ColdError> {
        let bytes = self
            .sections()
            .saturating_mul(ENTRY_BYTES)
            .saturating_add(CRC_BYTES);
        self.piece(self.sections(), self.footer.directory_offset, bytes, |_| {
            true
        })
    }

    /// A piece of the index without its checksum, verified when it is first touched.
    #[inline]
    fn piece(
        &self,
        number: usize,
        offset: u64,
        bytes: usize,
        verify: impl Fn(&[u8]) -> bool,
    ) -> Result<&[u8], ColdError> {
        let short = || self.damaged("a short index", offset);
        let payload_bytes = bytes.checked_sub(CRC_BYTES).ok_or_else(short)?;
        match &self.index {
            Index::Mapped(verified) => {
                let (word, bit) = verified_bit(verified, number).ok_or_else(short)?;
                // Relaxed: the bytes do not change, so nothing is published with the bit.
                if word.load(Ordering::Relaxed) & bit == 0 {
                    self.read_piece(offset, bytes, verify)?;
                    word.fetch_or(bit, Ordering::Relaxed);
                }
                let map = self.bytes.mapped().ok_or_else(short)?;
                let start = usize::try_from(offset).ok();
                let payload = start.and_then(|start| map.get(start..)?.get(..payload_bytes));
                payload.ok_or_else(short)
            }
            Index::Owned(pieces) => {
                let piece = pieces.get(number).ok_or_else(short)?;
                if let Some(bytes) = piece.get() {
                    return Ok(bytes);
                }
                let mut read = self.read_piece(offset, bytes, verify)?;
                read.truncate(payload_bytes);
                Ok(piece.get_or_init(|| read.into_boxed_slice()))
            }
            Index::Lost(why) => Err(why.error(self.id())),
        }
    }

    #[cold]
    fn read_piece(
        &self,
        offset: u64,
        bytes: usize,
        verify: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, ColdError> {
        let end = offset.checked_add(bytes as u64);
        if end.is_none_or(|end| end > self.bytes()) {
            return Err(self.damaged("an index beyond the end", offset));
        }
        let mut piece = vec![0; bytes];
        self.bytes.read_exact_at(&mut piece, offset)?;
        match unseal(&piece, self.id(), offset) {
            Some(payload) if verify(payload) => Ok(piece),
            Some(_) => Err(self.damaged("the index does not fit the run", offset)),
            None => Err(self.damaged("the index's checksum", offset)),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.home
            .live_bytes()
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
        if !self.remove_on_drop.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.home.remove(self.id()) {
            tracing::warn!(run = self.id(), %error, "a run that is not needed stays behind");
        }
    }
}

/// Reads the note of a run.
pub(super) fn read_note(bytes: &dyn RunBytes, footer: &Footer) -> Result<Vec<u8>, ColdError> {
    let (run, note_bytes) = (footer.summary.id, footer.note_bytes as usize);
    let offset = footer
        .directory_offset
        .saturating_sub(u64::from(footer.note_bytes));
    let mut note = vec![0; note_bytes];
    if note.is_empty() {
        return Ok(note);
    }
    bytes.read_exact_at(&mut note, offset)?;
    let payload_bytes = unseal(&note, run, offset).map(<[u8]>::len);
    note.truncate(payload_bytes.ok_or(ColdError::Damaged {
        what: "the note's checksum",
        run,
        offset,
    })?);
    Ok(note)
}

/// Reads the footer that ends a run.
pub(super) fn read_footer(bytes: &dyn RunBytes, id: RunId) -> Result<Footer, ColdError> {
    let offset = bytes
        .len()
        .checked_sub(FOOTER_BYTES as u64)
        .ok_or(ColdError::Damaged {
            what: "shorter than a footer",
            run: id,
            offset: 0,
        })?;
    let mut footer = [0; FOOTER_BYTES];
    bytes.read_exact_at(&mut footer, offset)?;
    Footer::decode(&footer, id, offset)
}
