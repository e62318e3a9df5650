//! The hash column: for each key its place, its check and the kind of its first record, so that
//! keys can be counted without reading values.
//!
//! An entry is a byte (kind, and the length of the step), the step from the place before it in as
//! few bytes as hold it, and the check. Each block counts its first step from place 0.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::key_hash::KeyHash;

use super::record::{RecordKind, kind_bits, kind_of_bits};

/// The bytes at which a block of the column is closed.
const COLUMN_BLOCK_BYTES: usize = 8 * 1024;

/// Gathers the column of the section being written.
#[derive(Debug, Default)]
pub(super) struct ColumnBuilder {
    bytes: Vec<u8>,
    /// Where each block begins in `bytes`.
    starts: Vec<usize>,
    last_place: u64,
}

impl ColumnBuilder {
    #[inline]
    pub(super) fn push(&mut self, hash: KeyHash, kind: RecordKind) {
        let used = self
            .starts
            .last()
            .map(|start| self.bytes.len().saturating_sub(*start));
        if used.is_none_or(|used| used >= COLUMN_BLOCK_BYTES) {
            self.starts.push(self.bytes.len());
            self.last_place = 0;
        }
        let step = hash.place.wrapping_sub(self.last_place);
        self.last_place = hash.place;
        let step_bytes = 8u32.saturating_sub(step.leading_zeros() / 8);
        self.bytes.push(kind_bits(kind) | (step_bytes as u8) << 2);
        let little = step.to_le_bytes();
        self.bytes
            .extend_from_slice(little.get(..step_bytes as usize).unwrap_or(&little));
        self.bytes.extend_from_slice(&hash.check.to_le_bytes());
    }

    /// The bytes of the whole column.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The blocks, without checksums.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self
            .starts
            .iter()
            .skip(1)
            .chain(std::iter::once(&usize::MAX));
        self.starts.iter().zip(ends).map(|(&start, &end)| {
            self.bytes
                .get(start..end.min(self.bytes.len()))
                .unwrap_or_default()
        })
    }

    /// Forgets the section, and keeps the buffers.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }
}

/// Takes the entry at the front of a block's bytes; none if what is there is not an entry.
#[inline]
pub(super) fn take_entry(rest: &mut &[u8], last_place: u64) -> Option<(KeyHash, RecordKind)> {
    let (&head, tail) = rest.split_first()?;
    let kind = kind_of_bits(head)?;
    let (step, tail) = tail.split_at_checked(usize::from(head >> 2))?;
    let mut little = [0u8; 8];
    little.get_mut(..step.len())?.copy_from_slice(step);
    let (check, tail) = tail.split_first_chunk::<4>()?;
    *rest = tail;
    let place = last_place.checked_add(u64::from_le_bytes(little))?;
    Some((
        KeyHash {
            place,
            check: u32::from_le_bytes(*check),
        },
        kind,
    ))
}
