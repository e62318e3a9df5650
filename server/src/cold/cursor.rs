//! A cursor over the records of a run.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{ops::Range, sync::Arc};

use super::{
    error::ColdError,
    format::{Section, block_records},
    leaf::Leaf,
    record::{Record, RecordKind, RecordSource, Tag, decode_record},
    run::Run,
};
use crate::key_hash::KeyHash;

/// What a cursor that follows a long value from a seek reads at once, at most.
const SEEK_READ_AHEAD_BYTES_MAX: usize = 128 * 1024;

/// Goes over the records of a run in order.
#[derive(Debug)]
pub struct RunCursor {
    run: Arc<Run>,
    to_place: u64,
    read_ahead_bytes: usize,
    /// Whether the read-ahead grows as the cursor goes on.
    grows: bool,
    section: usize,
    /// The block that comes after the current one, in `section`.
    next_block: usize,
    /// Where in the section the buffered blocks begin and end.
    buffered: Range<u32>,
    buffer: Vec<u8>,
    /// Where in `buffer` the current block's records end.
    block_end: usize,
    /// Where in `buffer` the next record begins.
    next: usize,
    hash: KeyHash,
    kind: RecordKind,
    key: Range<usize>,
    part: Range<usize>,
    /// Whether there is a head.
    live: bool,
}

impl RunCursor {
    pub(super) fn new(
        run: Arc<Run>,
        from_place: u64,
        to_place: u64,
        read_ahead_bytes: usize,
    ) -> Result<Self, ColdError> {
        let mut cursor = Self {
            read_ahead_bytes,
            grows: false,
            ..Self::at_place(run, to_place)
        };
        if cursor.run.sections() == 0
            || from_place > cursor.run.last_place()
            || to_place < cursor.run.first_place()
        {
            cursor.section = cursor.run.sections();
            return Ok(cursor);
        }
        cursor.section = cursor.run.locate_section(from_place)?.0;
        cursor.next_block = cursor.run.leaf(cursor.section)?.1.locate(from_place);
        cursor.advance()?;
        while cursor.live && cursor.hash.place < from_place {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// A cursor that stands nowhere yet and will end after `place`.
    pub(super) fn at_place(run: Arc<Run>, place: u64) -> Self {
        Self {
            run,
            to_place: place,
            read_ahead_bytes: 0,
            grows: true,
            section: 0,
            next_block: 0,
            buffered: 0..0,
            buffer: Vec::new(),
            block_end: 0,
            next: 0,
            hash: KeyHash { place: 0, check: 0 },
            kind: RecordKind::Base,
            key: 0..0,
            part: 0..0,
            live: false,
        }
    }

    /// Whether the cursor stands at a record.
    pub(super) fn found(&self) -> bool {
        self.live
    }

    /// The run that the cursor is over.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Goes to the first record of `key` if it is in this block.
    pub(super) fn seek_in_block(
        &mut self,
        number: usize,
        section: &Section,
        leaf: &Leaf<'_>,
        block: usize,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<bool, ColdError> {
        let run = Arc::clone(&self.run);
        if self.section != number {
            // What is buffered lies where it does in the section that it is of.
            self.section = number;
            self.buffered = 0..0;
        }
        self.next_block = block;
        self.enter_block(&run, section, leaf)?;
        let block = self.buffer.get(..self.block_end).unwrap_or_default();
        let mut at = self.next;
        while at < block.len() {
            let record =
                decode_record(block, at).ok_or_else(|| run.damaged("a record", section.offset))?;
            at = record.part_end;
            if record.tag != Tag::Continues
                && record.key_end.wrapping_sub(record.key_start) == key.len()
                && block.get(record.key_start..record.key_end) == Some(key)
            {
                self.hash = hash;
                self.kind = record.tag.kind();
                self.key = record.key_start..record.key_end;
                self.part = record.key_end..record.part_end;
                self.next = at;
                self.live = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step(&mut self) -> Result<(), ColdError> {
        if self.next >= self.block_end && !self.next_block()? {
            self.live = false;
            return Ok(());
        }
        let block = self.buffer.get(..self.block_end).unwrap_or_default();
        let Some(record) = decode_record(block, self.next) else {
            return Err(self.damaged("a record"));
        };
        self.kind = record.tag.kind();
        self.part = record.key_end..record.part_end;
        self.next = record.part_end;
        if record.tag == Tag::Continues {
            return if self.live {
                Ok(())
            } else {
                Err(self.damaged("a part without a key"))
            };
        }
        self.key = record.key_start..record.key_end;
        let key = block.get(self.key.clone()).unwrap_or_default();
        self.hash = self.run.shared().hasher.hash(key);
        self.live = self.hash.place <= self.to_place;
        if !self.live {
            self.section = self.run.sections();
            self.next = self.block_end;
        }
        Ok(())
    }

    /// Enters the block after the current one; false if there is none, or none that is wanted.
    fn next_block(&mut self) -> Result<bool, ColdError> {
        let run = Arc::clone(&self.run);
        loop {
            if self.section >= run.sections() {
                return Ok(false);
            }
            let (section, leaf) = run.leaf(self.section)?;
            match leaf.first_place(self.next_block) {
                Some(first) if first > self.to_place => {
                    self.section = run.sections();
                    return Ok(false);
                }
                Some(_) => {
                    self.enter_block(&run, &section, &leaf)?;
                    return Ok(true);
                }
                None => {
                    self.section = self.section.saturating_add(1);
                    self.next_block = 0;
                    self.buffered = 0..0;
                }
            }
        }
    }

    /// Makes `next_block` of `section` the current block, from the buffer or from the run.
    fn enter_block(
        &mut self,
        run: &Run,
        section: &Section,
        leaf: &Leaf<'_>,
    ) -> Result<(), ColdError> {
        let damaged = |what| run.damaged(what, section.offset);
        let block = leaf
            .block(self.next_block)
            .ok_or_else(|| damaged("the index is short"))?;
        if block.start < self.buffered.start || block.end > self.buffered.end {
            self.fill(run, section, leaf, &block)?;
        }
        let offset = section.offset.saturating_add(u64::from(block.start));
        let start = block.start.saturating_sub(self.buffered.start) as usize;
        let end = block.end.saturating_sub(self.buffered.start) as usize;
        let piece = self
            .buffer
            .get(start..end)
            .ok_or_else(|| damaged("a block's length"))?;
        let records = block_records(piece, run.id(), offset).filter(|records| !records.is_empty());
        let Some(records) = records else {
            return Err(run.damaged("a block's checksum", offset));
        };
        self.next = start;
        self.block_end = start.saturating_add(records.len());
        self.next_block = self.next_block.saturating_add(1);
        Ok(())
    }

    /// Reads the block, and as many after it as the read-ahead holds and places want.
    fn fill(
        &mut self,
        run: &Run,
        section: &Section,
        leaf: &Leaf<'_>,
        block: &Range<u32>,
    ) -> Result<(), ColdError> {
        let mut end = block.end;
        let mut number = self.next_block.saturating_add(1);
        while let Some(more) = leaf.block(number) {
            let bytes = more.end.saturating_sub(block.start) as usize;
            if bytes > self.read_ahead_bytes
                || leaf
                    .first_place(number)
                    .is_none_or(|first| first > self.to_place)
            {
                break;
            }
            end = more.end;
            number = number.saturating_add(1);
        }
        self.buffered = 0..0;
        let bytes = end.saturating_sub(block.start) as usize;
        run.read(
            &mut self.buffer,
            section.offset.saturating_add(u64::from(block.start)),
            bytes,
        )?;
        self.buffered = block.start..end;
        if self.grows {
            let doubled = self.read_ahead_bytes.max(bytes).saturating_mul(2);
            self.read_ahead_bytes = doubled.min(SEEK_READ_AHEAD_BYTES_MAX);
        }
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> ColdError {
        let section = self.run.section(self.section);
        let start = section.map_or(0, |section| section.offset);
        self.run
            .damaged(what, start.saturating_add(u64::from(self.buffered.start)))
    }
}

impl RecordSource for RunCursor {
    #[inline]
    fn head(&self) -> Option<Record<'_>> {
        if !self.live {
            return None;
        }
        Some(Record {
            hash: self.hash,
            kind: self.kind,
            key: self.buffer.get(self.key.clone())?,
            part: self.buffer.get(self.part.clone())?,
        })
    }

    #[inline]
    fn advance(&mut self) -> Result<(), ColdError> {
        let stepped = self.step();
        if stepped.is_err() {
            self.live = false;
            self.next = self.block_end;
            self.section = self.run.sections();
        }
        stepped
    }
}
