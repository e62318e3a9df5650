//! Writes a run front to back, in memory that does not grow with it.

use std::sync::Arc;

use super::{
    column::ColumnBuilder,
    disk::Room,
    error::ColdError,
    filter::{LINE_BYTES, filter_hash},
    format::{BLOCK_END_BYTES, CONTINUES, CRC_BYTES, Footer, RunSummary, Section, end_block, seal},
    home::{Home, RunSink, Shape},
    leaf::LeafBuilder,
    record::{RECORD_OVERHEAD_MAX, Record, RecordKind, Tag, check_lengths, push_record},
    run::Run,
    store::{RunId, Shared},
};
use crate::key_hash::KeyHash;

/// Keys after which a section ends, so that what is gathered for its leaf stays small.
const SECTION_KEYS_MAX: usize = 32 * 1024;

/// The share of a run's data that its hash column may have; above it, reading blocks is as cheap.
const COLUMN_SHARE: usize = 8;

/// The page size that blocks and leaves in files are placed by.
const PAGE_BYTES: u64 = 4096;

/// Leaves are written together once they have so many bytes. Whoever touches a page of a map has the kernel map the pages
/// of its neighbourhood (64 KiB on Linux) as well, if they are in RAM: those around leaves shall be leaves.
const LEAVES_BYTES: usize = 128 * 1024;

/// No leaf lies farther behind the begin of its section than this and its section.
const LEAVES_SPAN_BYTES: u64 = 64 << 20;

/// The share of a block that may be padding, so that the next one begins with a page.
const PADDING_SHARE: usize = 16;

/// Writes one run. Dropped before [`finish`](Self::finish), it leaves no trace.
#[derive(Debug)]
pub struct RunWriter {
    sink: Box<dyn RunSink>,
    home: Arc<dyn Home>,
    shared: Arc<Shared>,
    shape: Shape,
    summary: RunSummary,
    /// Where the next piece will lie.
    offset: u64,
    /// The block being filled, and how long it may get.
    block: Vec<u8>,
    block_room: usize,
    /// The section being filled; its blocks are written already.
    section_offset: u64,
    section_continues: bool,
    section_keys: u32,
    leaf: LeafBuilder,
    column: ColumnBuilder,
    /// The sections whose leaves are not written yet, and the leaves without their checksums.
    leaves: Vec<(Section, Vec<u8>)>,
    leaves_bytes: usize,
    /// Whether the run has a hash column; the first section decides.
    has_column: Option<bool>,
    directory: Vec<u8>,
    sections: u32,
    last_key: Vec<u8>,
    last_hash: KeyHash,
    /// What the owner wants to find in it.
    note: Vec<u8>,
    /// Held until the finished run is counted.
    room: Option<Room>,
}

impl RunWriter {
    pub(super) fn new(
        home: Arc<dyn Home>,
        shared: Arc<Shared>,
        id: RunId,
        table: u64,
    ) -> Result<Self, ColdError> {
        let summary = RunSummary {
            id,
            table,
            records: 0,
            keys: 0,
            tombstones: 0,
            payload_bytes: 0,
            first_place: 0,
            last_place: 0,
            has_hash_column: false,
        };
        Ok(Self {
            sink: home.create(id)?,
            shape: home.shape(),
            home,
            shared,
            summary,
            offset: 0,
            block: Vec::new(),
            block_room: 0,
            section_offset: 0,
            section_continues: false,
            section_keys: 0,
            leaf: LeafBuilder::default(),
            column: ColumnBuilder::default(),
            leaves: Vec::new(),
            leaves_bytes: 0,
            has_column: None,
            directory: Vec::new(),
            sections: 0,
            last_key: Vec::new(),
            last_hash: KeyHash { place: 0, check: 0 },
            note: Vec::new(),
            room: None,
        })
    }

    /// Holds the room on disk that was taken for the run.
    pub(super) fn hold(&mut self, room: Room) {
        self.room = Some(room);
    }

    /// The id that the run will have.
    pub fn id(&self) -> RunId {
        self.summary.id
    }

    /// The bytes written and gathered so far.
    pub fn bytes(&self) -> u64 {
        self.offset + (self.block.len() + self.leaves_bytes) as u64
    }

    /// Sets what the run's owner wants to find in it again (see [`Run::note`]).
    pub fn set_note(&mut self, note: Vec<u8>) {
        self.note = note;
    }

    /// Lets a run that no record is pushed to say of these places that nothing is there.
    pub(super) fn cover(&mut self, first_place: u64, last_place: u64) {
        self.summary.first_place = first_place;
        self.last_hash.place = last_place;
    }

    /// Appends a record. Records come by place, then key, then age; of one key, only the first
    /// may be a base or a tombstone. The order is checked in debug builds.
    ///
    /// # Errors
    /// [`ColdError::TooLong`] for a key or part over its limit; any of writing.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), ColdError> {
        check_lengths(record.key, record.part)?;
        let begun = self.summary.records > 0;
        let same_place = begun && record.hash.place == self.last_hash.place;
        let same_key = same_place
            && record.kind == RecordKind::Fragment
            && record.hash == self.last_hash
            && record.key == self.last_key;
        debug_assert!(
            !begun
                || same_key
                || (self.last_hash.place, &*self.last_key) < (record.hash.place, record.key),
            "records are pushed in order"
        );
        let need = record.key.len() + record.part.len() + RECORD_OVERHEAD_MAX + BLOCK_END_BYTES;
        if !self.block.is_empty() && self.block.len() + need > self.block_room {
            self.end_block(self.padding())?;
        }
        let tag = if same_key && !self.block.is_empty() {
            Tag::Continues
        } else {
            Tag::Of(record.kind)
        };
        if self.block.is_empty() {
            self.begin_block(record.hash.place, same_place)?;
        }
        if !same_key {
            self.count_key(record);
        }
        push_record(&mut self.block, tag, record.key, record.part);
        self.summary.records += 1;
        self.summary.payload_bytes += (record.key.len() + record.part.len()) as u64;
        Ok(())
    }

    /// Ends the run, on stable storage if `sync`, and opens it. Runs that are not synced here are
    /// by [`Run::sync`] and `ColdStore::sync`.
    ///
    /// # Errors
    /// Any of writing; nothing of the run is left then.
    pub fn finish(mut self, sync: bool) -> Result<Arc<Run>, ColdError> {
        self.end_block(0)?;
        self.end_section()?;
        self.write_leaves()?;
        let mut note = std::mem::take(&mut self.note);
        if !note.is_empty() {
            seal(&mut note, self.summary.id, self.offset);
            self.append(&note)?;
        }
        let directory_offset = self.offset;
        let mut directory = std::mem::take(&mut self.directory);
        seal(&mut directory, self.summary.id, self.offset);
        self.append(&directory)?;
        self.summary.last_place = self.last_hash.place;
        self.summary.has_hash_column = self.has_column.unwrap_or(true);
        let footer = Footer {
            summary: self.summary,
            hasher_mark: self.shared.hasher_mark(),
            sections: self.sections,
            directory_offset,
            note_bytes: note.len() as u32,
        };
        self.append(&footer.encode())?;
        let bytes = self.sink.finish(sync)?;
        Ok(Arc::new(Run::new(self.home, self.shared, bytes, footer)))
    }

    fn begin_block(&mut self, place: u64, continues: bool) -> Result<(), ColdError> {
        self.block_room = self.shape.block_bytes;
        if self.shape.aligned {
            if self.leaf.places.is_empty() {
                self.skip_to(self.offset.next_multiple_of(PAGE_BYTES))?;
            }
            // To the end of this page, or the next one's if that is too little for a block.
            let rest = (PAGE_BYTES - self.offset % PAGE_BYTES) as usize;
            self.block_room = match rest {
                rest if rest < self.shape.block_bytes / 2 => rest + PAGE_BYTES as usize,
                rest => rest,
            };
        }
        if self.leaf.places.is_empty() {
            self.section_offset = self.offset;
            self.section_continues = continues;
        }
        if self.summary.records == 0 {
            self.summary.first_place = place;
        }
        let flag = if continues { CONTINUES } else { 0 };
        self.leaf.places.push(place);
        self.leaf
            .offsets
            .push((self.offset - self.section_offset) as u32 | flag);
        Ok(())
    }

    /// What the block needs to end with its page, if that is little. A block of records that do not
    /// fill pages well goes without, and so may touch a page more when it is read.
    fn padding(&self) -> usize {
        let left = self
            .block_room
            .saturating_sub(self.block.len() + BLOCK_END_BYTES);
        if self.shape.aligned && left <= self.shape.block_bytes / PADDING_SHARE {
            left
        } else {
            0
        }
    }

    #[inline]
    fn count_key(&mut self, record: &Record<'_>) {
        self.summary.keys += 1;
        self.section_keys += 1;
        if record.kind == RecordKind::Tombstone {
            self.summary.tombstones += 1;
        }
        self.leaf.hashes.push(filter_hash(record.hash));
        if self.has_column != Some(false) {
            self.column.push(record.hash, record.kind);
        }
        self.last_hash = record.hash;
        self.last_key.clear();
        self.last_key.extend_from_slice(record.key);
    }

    fn end_block(&mut self, padding: usize) -> Result<(), ColdError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut block = std::mem::take(&mut self.block);
        end_block(&mut block, padding, self.summary.id, self.offset);
        self.append(&block)?;
        block.clear();
        self.block = block;
        let full = self.offset - self.section_offset >= self.shape.section_bytes
            || self.leaf.hashes.len() >= SECTION_KEYS_MAX;
        if full { self.end_section() } else { Ok(()) }
    }

    fn end_section(&mut self) -> Result<(), ColdError> {
        let Some(&first_place) = self.leaf.places.first() else {
            return Ok(());
        };
        let data_bytes = (self.offset - self.section_offset) as u32;
        self.leaf.offsets.push(data_bytes);
        let column_small = self.column.bytes() * COLUMN_SHARE <= data_bytes as usize;
        let column_blocks = if *self.has_column.get_or_insert(column_small) {
            self.write_column()?
        } else {
            0
        };

        let mut leaf = Vec::new();
        let filter_lines = self.leaf.push(&mut leaf);
        self.leaves_bytes += leaf.len() + CRC_BYTES;
        let section = Section {
            first_place,
            offset: self.section_offset,
            // Known when it is written.
            leaf_offset: 0,
            leaf_bytes: (leaf.len() + CRC_BYTES) as u32,
            filter_lines,
            blocks: self.leaf.places.len() as u32,
            column_blocks,
            keys: self.section_keys,
            continues: self.section_continues,
        };
        self.leaves.push((section, leaf));
        self.leaf.clear();
        self.column.clear();
        self.section_keys = 0;
        let spanned = |(first, _): &(Section, _)| self.offset - first.offset;
        let span_bytes = self.leaves.first().map_or(0, spanned);
        if self.leaves_bytes >= LEAVES_BYTES || span_bytes >= LEAVES_SPAN_BYTES {
            self.write_leaves()?;
        }
        Ok(())
    }

    /// Writes the leaves that were gathered, in a row.
    fn write_leaves(&mut self) -> Result<(), ColdError> {
        if self.leaves.is_empty() {
            return Ok(());
        }
        if self.shape.aligned {
            self.pad(self.leaves_bytes as u64)?;
        }
        for (mut section, mut leaf) in std::mem::take(&mut self.leaves) {
            if self.shape.aligned {
                self.skip_to(self.offset.next_multiple_of(LINE_BYTES as u64))?;
            }
            seal(&mut leaf, self.summary.id, self.offset);
            section.leaf_offset = (self.offset - section.offset) as u32;
            section.push(&mut self.directory);
            self.sections += 1;
            self.append(&leaf)?;
        }
        self.leaves_bytes = 0;
        Ok(())
    }

    /// Writes the hash column's blocks and returns how many there are.
    fn write_column(&mut self) -> Result<u32, ColdError> {
        let column = std::mem::take(&mut self.column);
        let mut blocks = 0;
        let mut piece = Vec::new();
        for block in column.blocks() {
            self.leaf
                .columns
                .push((self.offset - self.section_offset) as u32);
            piece.clear();
            piece.extend_from_slice(block);
            seal(&mut piece, self.summary.id, self.offset);
            self.append(&piece)?;
            blocks += 1;
        }
        if blocks > 0 {
            self.leaf
                .columns
                .push((self.offset - self.section_offset) as u32);
        }
        self.column = column;
        Ok(blocks)
    }

    /// Skips to the next line, or the next page if a row of leaves would touch one page more than it must.
    fn pad(&mut self, row_bytes: u64) -> Result<(), ColdError> {
        let line_end = self.offset.next_multiple_of(LINE_BYTES as u64);
        let touched = (line_end % PAGE_BYTES + row_bytes).div_ceil(PAGE_BYTES);
        let start = if touched > row_bytes.div_ceil(PAGE_BYTES) {
            self.offset.next_multiple_of(PAGE_BYTES)
        } else {
            line_end
        };
        self.skip_to(start)
    }

    /// Writes zeros up to an offset that is less than a page away.
    fn skip_to(&mut self, offset: u64) -> Result<(), ColdError> {
        const ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];
        self.append(&ZEROS[..(offset - self.offset) as usize])
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), ColdError> {
        let end = self.offset + piece.len() as u64;
        if let Some(room) = &mut self.room {
            room.hold(end)?;
        }
        self.sink.append(piece)?;
        self.offset = end;
        Ok(())
    }
}
