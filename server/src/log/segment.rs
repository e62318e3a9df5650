//! A segment: a header, then records that follow each other's numbers.
//!
//! ```text
//! magic 8 bytes   "rhash-lg"
//! format u32
//! mark u32        of the data directory's secret, so that a segment of another one is seen
//! first u64       the number of the first record
//! crc32c u32      of all before it
//! ```
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{io, sync::Arc};

use super::{
    Lsn,
    files::LogFile,
    record::{FIXED_BYTES, HEAD_BYTES, Head, read_numbers},
};

const MAGIC: &[u8; 8] = b"rhash-lg";
/// The format of segments and records.
pub(crate) const LOG_FORMAT: u32 = 1;
pub(super) const HEADER_BYTES: usize = 28;
/// What is read at a time.
const READ_BYTES: usize = 256 << 10;
/// The length of a record, its head included, that is told by its first bytes.
const PEEK_BYTES: usize = HEAD_BYTES + FIXED_BYTES;

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// It is short, or its checksum is wrong.
    Torn,
    /// It is of another format.
    Format(u32),
    /// It is of another data directory, or has another file's name.
    Foreign,
}

/// A segment's header.
pub(super) fn header(mark: u32, first: Lsn) -> [u8; HEADER_BYTES] {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&LOG_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&mark.to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.try_into().unwrap_or([0; HEADER_BYTES])
}

/// Whether a segment begins as it should.
pub(super) fn check_header(bytes: &[u8], mark: u32, first: Lsn) -> Result<(), BadHeader> {
    let (body, crc) = bytes
        .get(..HEADER_BYTES)
        .and_then(|bytes| bytes.split_last_chunk::<4>())
        .ok_or(BadHeader::Torn)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || !body.starts_with(MAGIC) {
        return Err(BadHeader::Torn);
    }
    if body
        == header(mark, first)
            .get(..HEADER_BYTES.saturating_sub(4))
            .unwrap_or(&[])
    {
        return Ok(());
    }
    let format = body.get(8..).and_then(|rest| rest.first_chunk::<4>());
    match format.map(|format| u32::from_le_bytes(*format)) {
        Some(LOG_FORMAT) | None => Err(BadHeader::Foreign),
        Some(format) => Err(BadHeader::Format(format)),
    }
}

/// Reads a segment front to back, in bounded memory but for a record that is longer.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: Arc<dyn LogFile>,
    bytes: u64,
    /// Where the next record begins.
    offset: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffer_at: u64,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// A record's body, with the right number and checksum.
    Body(&'a [u8]),
    /// The end, after a whole record.
    End,
    /// Bytes that are not the next record.
    Bad,
}

impl SegmentReader {
    /// A reader of a whole file.
    pub(super) fn new(file: Arc<dyn LogFile>) -> io::Result<Self> {
        Ok(Self {
            bytes: file.bytes()?,
            file,
            offset: 0,
            buffer: Vec::new(),
            buffer_at: 0,
        })
    }

    /// How long the file is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the next record begins, or the bytes that are none.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The header, or what is there of it.
    pub(super) fn header(&mut self) -> io::Result<&[u8]> {
        let length = self.bytes.min(HEADER_BYTES as u64);
        self.offset = length;
        self.at(0, length as usize)
    }

    /// The next record, if it has the number `expected`.
    pub(super) fn next(&mut self, expected: Lsn) -> io::Result<Next<'_>> {
        let left = self.bytes.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Next::End);
        }
        let offset = self.offset;
        let Some(length) = self.length_at(offset, |lsn| lsn == expected)? else {
            return Ok(Next::Bad);
        };
        let record = self.at(offset, length)?;
        let Some(body_bytes) = body_of(record).map(<[u8]>::len) else {
            return Ok(Next::Bad);
        };
        self.offset = offset.saturating_add(length as u64);
        let body_at = length.saturating_sub(body_bytes);
        // It was read just before.
        Ok(self
            .at(offset, length)?
            .get(body_at..)
            .map_or(Next::Bad, Next::Body))
    }

    /// Whether a record behind the bad bytes says that the record `missing` was on stable storage when
    /// it was made.
    pub(super) fn later_says_synced(&mut self, missing: Lsn) -> io::Result<bool> {
        let mut offset = self.offset;
        // Each takes a byte at least.
        let last = missing.saturating_add(self.bytes.saturating_sub(offset));
        while offset.saturating_add(PEEK_BYTES as u64) <= self.bytes {
            let plausible = |lsn| lsn > missing && lsn <= last;
            let Some(length) = self.length_at(offset, plausible)? else {
                offset = offset.saturating_add(1);
                continue;
            };
            let numbers = body_of(self.at(offset, length)?).and_then(read_numbers);
            match numbers {
                Some((lsn, unsynced)) if lsn.saturating_sub(u64::from(unsynced)) >= missing => {
                    return Ok(true);
                }
                Some(_) => offset = offset.saturating_add(length as u64),
                None => offset = offset.saturating_add(1),
            }
        }
        Ok(false)
    }

    /// Goes on with the next record behind the bad bytes, if there is one; returns its number.
    pub(super) fn resume(&mut self, missing: Lsn) -> io::Result<Option<Lsn>> {
        let mut offset = self.offset;
        // Each takes a byte at least.
        let last = missing.saturating_add(self.bytes.saturating_sub(offset));
        while offset.saturating_add(PEEK_BYTES as u64) <= self.bytes {
            let plausible = |lsn| lsn > missing && lsn <= last;
            if let Some(length) = self.length_at(offset, plausible)?
                && let Some((lsn, _)) = body_of(self.at(offset, length)?).and_then(read_numbers)
            {
                self.offset = offset;
                return Ok(Some(lsn));
            }
            offset = offset.saturating_add(1);
        }
        Ok(None)
    }

    /// How long a record at `offset` says that it is, if it can be one and its number may be its own.
    fn length_at(
        &mut self,
        offset: u64,
        plausible: impl Fn(Lsn) -> bool,
    ) -> io::Result<Option<usize>> {
        let left = self.bytes.saturating_sub(offset);
        if left < PEEK_BYTES as u64 {
            return Ok(None);
        }
        let peek = self.at(offset, PEEK_BYTES)?;
        let Some((head, body)) = peek.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let body_bytes = Head::read(*head).body_bytes;
        let length = body_bytes.saturating_add(HEAD_BYTES as u64);
        let fits = body_bytes >= FIXED_BYTES as u64 && length <= left;
        let is_one = read_numbers(body).is_some_and(|(lsn, _)| plausible(lsn));
        Ok((fits && is_one).then_some(length as usize))
    }

    /// Bytes of the file, as many of these as there are.
    fn at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let end = offset.saturating_add(length as u64);
        let buffer_end = self.buffer_at.saturating_add(self.buffer.len() as u64);
        if offset < self.buffer_at || end > buffer_end {
            let wanted = length.max(READ_BYTES);
            self.buffer.clear();
            self.buffer.shrink_to(wanted);
            self.buffer.resize(wanted, 0);
            let read = self.file.read_at(&mut self.buffer, offset)?;
            self.buffer.truncate(read);
            self.buffer_at = offset;
        }
        let from = offset.saturating_sub(self.buffer_at) as usize;
        let to = from.saturating_add(length).min(self.buffer.len());
        Ok(self.buffer.get(from..to).unwrap_or(&[]))
    }
}

/// A record's body, if its checksum is right.
fn body_of(record: &[u8]) -> Option<&[u8]> {
    let (head, body) = record.split_first_chunk::<HEAD_BYTES>()?;
    Head::read(*head).is_of(body).then_some(body)
}
