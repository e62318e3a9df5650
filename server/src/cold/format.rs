//! The parts of a run that are not records: sealed pieces, the directory's entries, the footer.
//!
//! A run is written front to back: sections, the directory, the footer. A section is its blocks of
//! records, then the blocks of its hash column (if the run has one). Behind each few sections lie their leaves in
//! a row, each after padding (in files). The owner's note, if there is one, lies between the last leaf and the
//! directory. In files a section begins with a page, and blocks are padded to end with one where that takes
//! little, since a read that touches two pages costs a third more than one. All numbers are little-endian.
//! Every piece but the padding ends with a CRC-32C over its bytes, the run's id and the piece's offset, so that a
//! piece in the wrong place is noticed.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{error::ColdError, store::RunId};

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// The last bytes of every run, whatever its format; the format number stands before them.
const MAGIC: [u8; 8] = *b"rhashrun";

/// The bytes of a checksum.
pub(super) const CRC_BYTES: usize = 4;

/// What ends a block of records: how much padding goes before, and the checksum.
pub(super) const BLOCK_END_BYTES: usize = 2 + CRC_BYTES;

/// The bytes of the footer.
pub(super) const FOOTER_BYTES: usize = 160;

/// The bytes of one directory entry.
pub(super) const ENTRY_BYTES: usize = 40;

/// The longest note that an owner may leave in a run, checksum included.
pub(super) const NOTE_BYTES_MAX: u32 = 16 << 20;

/// Set beside an offset or a count for a block that begins with the place that the one before it
/// ended with.
pub(super) const CONTINUES: u32 = 1 << 31;

/// The longest block: one record of the longest key and part, and a block's target besides.
pub(super) const BLOCK_BYTES_MAX: u32 = 160 * 1024;

fn checksum(payload: &[u8], run: RunId, offset: u64) -> u32 {
    let crc = crc32c::crc32c(payload);
    let crc = crc32c::crc32c_append(crc, &run.to_le_bytes());
    crc32c::crc32c_append(crc, &offset.to_le_bytes())
}

/// Ends a piece that will lie at `offset` with its checksum.
pub(super) fn seal(piece: &mut Vec<u8>, run: RunId, offset: u64) {
    let crc = checksum(piece, run, offset);
    piece.extend_from_slice(&crc.to_le_bytes());
}

/// The bytes of a sealed piece without its checksum; none if it does not fit.
#[inline]
pub(super) fn unseal(piece: &[u8], run: RunId, offset: u64) -> Option<&[u8]> {
    let (payload, crc) = piece.split_last_chunk::<CRC_BYTES>()?;
    (u32::from_le_bytes(*crc) == checksum(payload, run, offset)).then_some(payload)
}

/// Ends a block of records with zeros, how many they are, and its checksum.
pub(super) fn end_block(block: &mut Vec<u8>, padding: usize, run: RunId, offset: u64) {
    let padding = padding.min(usize::from(u16::MAX));
    block.resize(block.len().saturating_add(padding), 0);
    block.extend_from_slice(&(padding as u16).to_le_bytes());
    seal(block, run, offset);
}

/// The records of a block; none if its checksum does not fit.
#[inline]
pub(super) fn block_records(piece: &[u8], run: RunId, offset: u64) -> Option<&[u8]> {
    let (padded, padding) = unseal(piece, run, offset)?.split_last_chunk::<2>()?;
    let padding = usize::from(u16::from_le_bytes(*padding));
    padded.get(..padded.len().checked_sub(padding)?)
}

/// The `u32` at `at`.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|number| u32::from_le_bytes(*number))
}

/// The `u64` at `at`.
#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|number| u64::from_le_bytes(*number))
}

/// A section, as the directory knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    /// The place of its first record.
    pub(super) first_place: u64,
    /// Where it begins in the run.
    pub(super) offset: u64,
    /// How far behind the section's begin its leaf lies.
    pub(super) leaf_offset: u32,
    /// The leaf's length, checksum included.
    pub(super) leaf_bytes: u32,
    /// Lines of its filter.
    pub(super) filter_lines: u32,
    /// Blocks of records.
    pub(super) blocks: u32,
    /// Blocks of its hash column.
    pub(super) column_blocks: u32,
    /// Keys whose first record is here.
    pub(super) keys: u32,
    /// Whether it begins with the place that the section before it ended with.
    pub(super) continues: bool,
}

impl Section {
    pub(super) fn push(&self, directory: &mut Vec<u8>) {
        let blocks = if self.continues {
            self.blocks | CONTINUES
        } else {
            self.blocks
        };
        directory.extend_from_slice(&self.first_place.to_le_bytes());
        directory.extend_from_slice(&self.offset.to_le_bytes());
        let rest = [self.leaf_offset, self.leaf_bytes, self.filter_lines, blocks];
        for number in rest.into_iter().chain([self.column_blocks, self.keys]) {
            directory.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Entry `number` of a directory.
    #[inline]
    pub(super) fn at(directory: &[u8], number: usize) -> Option<Self> {
        let start = number.checked_mul(ENTRY_BYTES)?;
        let entry = directory.get(start..)?.first_chunk::<ENTRY_BYTES>()?;
        let blocks = u32_at(entry, 28)?;
        Some(Self {
            first_place: u64_at(entry, 0)?,
            offset: u64_at(entry, 8)?,
            leaf_offset: u32_at(entry, 16)?,
            leaf_bytes: u32_at(entry, 20)?,
            filter_lines: u32_at(entry, 24)?,
            blocks: blocks & !CONTINUES,
            column_blocks: u32_at(entry, 32)?,
            keys: u32_at(entry, 36)?,
            continues: blocks & CONTINUES != 0,
        })
    }

    /// The first place of entry `number` of a directory.
    #[inline]
    pub(super) fn first_place_at(directory: &[u8], number: usize) -> Option<u64> {
        u64_at(directory, number.checked_mul(ENTRY_BYTES)?)
    }

    /// Where the leaf begins in the run.
    pub(super) fn leaf_start(&self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.leaf_offset))
    }
}

/// What a run says about itself at its end: all that a manifest needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSummary {
    /// The run's id.
    pub id: RunId,
    /// The table that it belongs to.
    pub table: u64,
    /// Its records.
    pub records: u64,
    /// Its keys.
    pub keys: u64,
    /// Its tombstones.
    pub tombstones: u64,
    /// The bytes of its keys and parts.
    pub payload_bytes: u64,
    /// The place of its first record.
    pub first_place: u64,
    /// The place of its last record.
    pub last_place: u64,
    /// Whether its keys can be counted without reading values.
    pub has_hash_column: bool,
}

/// The footer: the summary, and where note and directory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) summary: RunSummary,
    /// Tells one secret of the key hash from another.
    pub(super) hasher_mark: u32,
    /// Sections, and so entries of the directory.
    pub(super) sections: u32,
    /// Where the directory begins.
    pub(super) directory_offset: u64,
    /// The bytes of the note that ends there, checksum included; 0 for none.
    pub(super) note_bytes: u32,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        let summary = &self.summary;
        let numbers = [
            summary.id,
            summary.table,
            summary.records,
            summary.keys,
            summary.tombstones,
            summary.payload_bytes,
            summary.first_place,
            summary.last_place,
            self.directory_offset,
        ];
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let column = u32::from(summary.has_hash_column);
        for number in [self.sections, self.hasher_mark, column, self.note_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let tail = CRC_BYTES.saturating_add(4).saturating_add(MAGIC.len());
        bytes.resize(FOOTER_BYTES.saturating_sub(tail), 0);
        // The footer's checksum leaves its offset out: a run's length is what finds it.
        seal(&mut bytes, summary.id, 0);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes
    }

    /// Reads the footer that ends run `run`; `offset` is where it begins.
    pub(super) fn decode(
        bytes: &[u8; FOOTER_BYTES],
        run: RunId,
        offset: u64,
    ) -> Result<Self, ColdError> {
        let damaged = |what| ColdError::Damaged { what, run, offset };
        let (rest, magic) = bytes.split_last_chunk::<8>().ok_or(damaged("no footer"))?;
        if *magic != MAGIC {
            return Err(damaged("no footer"));
        }
        let (rest, format) = rest.split_last_chunk::<4>().ok_or(damaged("no footer"))?;
        let format = u32::from_le_bytes(*format);
        if format != FORMAT {
            return Err(ColdError::Format {
                run,
                found: format,
                supported: FORMAT,
            });
        }
        let payload = unseal(rest, run, 0).ok_or(damaged("the footer's checksum"))?;
        let footer = Self::parse(payload).ok_or(damaged("a short footer"))?;
        let directory = u64::from(footer.sections)
            .checked_mul(ENTRY_BYTES as u64)
            .and_then(|bytes| bytes.checked_add(CRC_BYTES as u64))
            .and_then(|bytes| bytes.checked_add(footer.directory_offset));
        if footer.summary.id != run || directory != Some(offset) {
            return Err(damaged("a footer of another run"));
        }
        let note_bytes = footer.note_bytes;
        if note_bytes > NOTE_BYTES_MAX || u64::from(note_bytes) > footer.directory_offset {
            return Err(damaged("the length of the note"));
        }
        Ok(footer)
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        Some(Self {
            summary: RunSummary {
                id: u64_at(payload, 0)?,
                table: u64_at(payload, 8)?,
                records: u64_at(payload, 16)?,
                keys: u64_at(payload, 24)?,
                tombstones: u64_at(payload, 32)?,
                payload_bytes: u64_at(payload, 40)?,
                first_place: u64_at(payload, 48)?,
                last_place: u64_at(payload, 56)?,
                has_hash_column: u32_at(payload, 80)? != 0,
            },
            directory_offset: u64_at(payload, 64)?,
            sections: u32_at(payload, 72)?,
            hasher_mark: u32_at(payload, 76)?,
            note_bytes: u32_at(payload, 84)?,
        })
    }
}
