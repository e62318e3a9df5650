//! Records: what a run is a sequence of, and how they lie in a block.
//!
//! In a block a record is a varint of its key's length and its tag, a varint of its part's length,
//! the key, the part. A further part of the key before it in the same block leaves the key out.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use rhash_protocol::limits;

use crate::key_hash::KeyHash;

use super::error::ColdError;

/// The longest part of a value that one record holds; a longer value goes on in fragments.
pub const PART_BYTES_MAX: usize = 64 * 1024;

/// The longest key.
pub const KEY_BYTES_MAX: usize = limits::KEY_BYTES_MAX;

/// What a record does to its key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Begins a value, whatever was there.
    Base,
    /// Goes on: bytes to append, or for a counter a number to add.
    Fragment,
    /// Ends the value that was there.
    Tombstone,
}

/// One record, borrowed from where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The hash of `key`.
    pub hash: KeyHash,
    /// What the record does.
    pub kind: RecordKind,
    /// The key.
    pub key: &'a [u8],
    /// The bytes of the value that the record brings; empty for a tombstone.
    pub part: &'a [u8],
}

/// Records in order: by place, then key, then age.
pub trait RecordSource {
    /// The record that the source stands at; none after the last one.
    fn head(&self) -> Option<Record<'_>>;

    /// Goes to the next record. After the last one, or after an error, there is no head.
    ///
    /// # Errors
    /// Any of reading the source.
    fn advance(&mut self) -> Result<(), ColdError>;
}

/// How a record is tagged in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// A record with its key.
    Of(RecordKind),
    /// One more fragment of the key before it.
    Continues,
}

impl Tag {
    fn bits(self) -> usize {
        match self {
            Self::Of(kind) => kind_bits(kind) as usize,
            Self::Continues => 3,
        }
    }

    pub(super) fn kind(self) -> RecordKind {
        match self {
            Self::Of(kind) => kind,
            Self::Continues => RecordKind::Fragment,
        }
    }
}

/// A kind as two bits.
pub(super) fn kind_bits(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Base => 0,
        RecordKind::Fragment => 1,
        RecordKind::Tombstone => 2,
    }
}

/// The kind that `kind_bits` made the low two bits of `bits` from.
pub(super) fn kind_of_bits(bits: u8) -> Option<RecordKind> {
    match bits & 3 {
        0 => Some(RecordKind::Base),
        1 => Some(RecordKind::Fragment),
        2 => Some(RecordKind::Tombstone),
        _ => None,
    }
}

/// Where a record's key and part lie in the bytes that it was decoded from.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawRecord {
    pub(super) tag: Tag,
    pub(super) key_start: usize,
    pub(super) key_end: usize,
    pub(super) part_end: usize,
}

/// The most bytes that a record adds to its key and part.
pub(super) const RECORD_OVERHEAD_MAX: usize = 6;

/// Appends a record to a block. Key and part are within their limits.
#[inline]
pub(super) fn push_record(block: &mut Vec<u8>, tag: Tag, key: &[u8], part: &[u8]) {
    let key = if tag == Tag::Continues { &[] } else { key };
    push_varint(block, key.len() << 2 | tag.bits());
    push_varint(block, part.len());
    block.extend_from_slice(key);
    block.extend_from_slice(part);
}

/// Decodes the record at `at` in a block's bytes; none if what is there is not a record.
#[inline]
pub(super) fn decode_record(block: &[u8], at: usize) -> Option<RawRecord> {
    let mut rest = block.get(at..)?;
    let head = take_varint(&mut rest)?;
    let part_bytes = take_varint(&mut rest)?;
    let key_bytes = head >> 2;
    let tag = match kind_of_bits(head as u8) {
        Some(kind) => Tag::Of(kind),
        None if key_bytes == 0 => Tag::Continues,
        None => return None,
    };
    let key_start = block.len().checked_sub(rest.len())?;
    let key_end = key_start.checked_add(key_bytes)?;
    let part_end = key_end.checked_add(part_bytes)?;
    (part_end <= block.len()).then_some(RawRecord {
        tag,
        key_start,
        key_end,
        part_end,
    })
}

fn push_varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a varint of at most three bytes, which is what lengths within their limits need.
#[inline]
fn take_varint(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0usize;
    for shift in [0u32, 7, 14] {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Checks that a record fits its limits.
pub(super) fn check_lengths(key: &[u8], part: &[u8]) -> Result<(), ColdError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(ColdError::TooLong {
            what: "key",
            bytes: key.len(),
            limit: KEY_BYTES_MAX,
        });
    }
    if part.len() > PART_BYTES_MAX {
        return Err(ColdError::TooLong {
            what: "part",
            bytes: part.len(),
            limit: PART_BYTES_MAX,
        });
    }
    Ok(())
}
