//! A cursor over the keys of a run that knows only their hashes: for counting.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use super::{
    column::take_entry,
    cursor::RunCursor,
    error::ColdError,
    format::unseal,
    record::{RecordKind, RecordSource},
    run::Run,
};
use crate::key_hash::KeyHash;

/// What is read at once of a run that has no hash column: of each run of a range there is so much.
pub const READ_AHEAD_BYTES: usize = 16 * 1024;

/// Goes over the keys of a run, by place and then by key: a hash, and the kind of its first record.
#[derive(Debug)]
pub struct HashCursor {
    source: Source,
    head: Option<(KeyHash, RecordKind)>,
}

#[derive(Debug)]
enum Source {
    Column(ColumnCursor),
    Records(Box<RunCursor>, Vec<u8>),
}

impl HashCursor {
    pub(super) fn new(run: Arc<Run>, from_place: u64, to_place: u64) -> Result<Self, ColdError> {
        let source = if run.has_hash_column() {
            Source::Column(ColumnCursor::new(run, from_place, to_place)?)
        } else {
            let cursor = run.cursor(from_place, to_place, READ_AHEAD_BYTES)?;
            Source::Records(Box::new(cursor), Vec::new())
        };
        let mut cursor = Self { source, head: None };
        cursor.advance()?;
        while cursor.head.is_some_and(|(hash, _)| hash.place < from_place) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// The key that the cursor stands at: its hash, and the kind of its first record.
    #[inline]
    pub fn head(&self) -> Option<(KeyHash, RecordKind)> {
        self.head
    }

    /// Goes to the next key. After the last one, or after an error, there is no head.
    ///
    /// # Errors
    /// Any of reading the run.
    #[inline]
    pub fn advance(&mut self) -> Result<(), ColdError> {
        self.head = None;
        self.head = match &mut self.source {
            Source::Column(column) => column.next()?,
            Source::Records(records, key) => next_key(records, key)?,
        };
        Ok(())
    }
}

/// The key that `records` stands at; then goes to the first record of another one.
fn next_key(
    records: &mut RunCursor,
    key: &mut Vec<u8>,
) -> Result<Option<(KeyHash, RecordKind)>, ColdError> {
    let Some(first) = records.head() else {
        return Ok(None);
    };
    let found = (first.hash, first.kind);
    key.clear();
    key.extend_from_slice(first.key);
    loop {
        records.advance()?;
        let same = records
            .head()
            .is_some_and(|record| record.hash == found.0 && record.key == *key);
        if !same {
            return Ok(Some(found));
        }
    }
}

#[derive(Debug)]
struct ColumnCursor {
    run: Arc<Run>,
    to_place: u64,
    section: usize,
    next_block: usize,
    buffer: Vec<u8>,
    /// Where in `buffer` the block's entries end, and where the next one begins.
    block_end: usize,
    next: usize,
    last_place: u64,
}

impl ColumnCursor {
    fn new(run: Arc<Run>, from_place: u64, to_place: u64) -> Result<Self, ColdError> {
        let section = run.locate_section(from_place)?.0;
        let buffer = Vec::new();
        Ok(Self {
            run,
            to_place,
            section,
            next_block: 0,
            buffer,
            block_end: 0,
            next: 0,
            last_place: 0,
        })
    }

    #[inline]
    fn next(&mut self) -> Result<Option<(KeyHash, RecordKind)>, ColdError> {
        if self.next >= self.block_end && !self.read_block()? {
            return Ok(None);
        }
        let entries = self.buffer.get(..self.block_end).unwrap_or_default();
        let mut rest = entries.get(self.next..).unwrap_or_default();
        let Some((hash, kind)) = take_entry(&mut rest, self.last_place) else {
            return Err(self.damaged());
        };
        self.next = self.block_end.saturating_sub(rest.len());
        self.last_place = hash.place;
        if hash.place > self.to_place {
            self.end();
            return Ok(None);
        }
        Ok(Some((hash, kind)))
    }

    /// Reads the block after the current one; false if there is none, or none that is wanted.
    fn read_block(&mut self) -> Result<bool, ColdError> {
        while self.section < self.run.sections() {
            let (section, leaf) = self.run.leaf(self.section)?;
            if section.first_place > self.to_place {
                break;
            }
            let Some(block) = leaf.column_block(self.next_block) else {
                self.section = self.section.saturating_add(1);
                self.next_block = 0;
                continue;
            };
            let offset = section.offset.saturating_add(u64::from(block.start));
            self.block_end = 0;
            self.run.read(&mut self.buffer, offset, block.len())?;
            let payload = unseal(&self.buffer, self.run.id(), offset);
            let damaged = || self.run.damaged("a block of the hash column", offset);
            self.block_end = payload
                .filter(|payload| !payload.is_empty())
                .ok_or_else(damaged)?
                .len();
            self.next = 0;
            self.last_place = 0;
            self.next_block = self.next_block.saturating_add(1);
            return Ok(true);
        }
        self.end();
        Ok(false)
    }

    fn end(&mut self) {
        self.section = self.run.sections();
        self.next = self.block_end;
    }

    fn damaged(&self) -> ColdError {
        let offset = self
            .run
            .section(self.section)
            .map_or(0, |section| section.offset);
        self.run.damaged("an entry of the hash column", offset)
    }
}
