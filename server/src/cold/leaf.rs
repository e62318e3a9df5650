//! A section's leaf: its filter and the sparse index of its blocks, read where they lie.
//!
//! In order: the filter's lines, the first place of each block, the offset of each block and of the
//! end of the last one, and, if there is a hash column, the same offsets for its blocks.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Range;

use crate::key_hash::KeyHash;

use super::{
    filter,
    format::{BLOCK_BYTES_MAX, CONTINUES, Section, u32_at, u64_at},
};

/// A leaf whose checksum and lengths are right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaf<'a> {
    filter: &'a [u8],
    places: &'a [u8],
    offsets: &'a [u8],
    columns: &'a [u8],
}

impl<'a> Leaf<'a> {
    /// Splits the bytes of a leaf, without its checksum, as its section says.
    #[inline]
    pub(super) fn new(payload: &'a [u8], section: &Section) -> Option<Self> {
        let blocks = section.blocks as usize;
        let lines = section.filter_lines as usize;
        let (filter, rest) = payload.split_at_checked(lines.checked_mul(filter::LINE_BYTES)?)?;
        let (places, rest) = rest.split_at_checked(blocks.checked_mul(8)?)?;
        let (offsets, columns) = rest.split_at_checked(blocks.checked_add(1)?.checked_mul(4)?)?;
        let column_offsets = match section.column_blocks as usize {
            0 => 0,
            blocks => blocks.checked_add(1)?,
        };
        let fits = lines > 0 && blocks > 0 && columns.len() == column_offsets.checked_mul(4)?;
        fits.then_some(Self {
            filter,
            places,
            offsets,
            columns,
        })
    }

    /// Whether all offsets rise in steps that a block may have, up to the leaf.
    pub(super) fn is_sound(&self, section: &Section) -> bool {
        let rises = |offsets: &[u8], mut last: u32| -> Option<u32> {
            let (numbers, []) = offsets.as_chunks::<4>() else {
                return None;
            };
            for (number, offset) in numbers.iter().enumerate() {
                let offset = u32::from_le_bytes(*offset) & !CONTINUES;
                let step = offset.checked_sub(last)?;
                if step > BLOCK_BYTES_MAX || (number > 0 && step == 0) {
                    return None;
                }
                last = offset;
            }
            Some(last)
        };
        let end = rises(self.offsets, 0).and_then(|end| rises(self.columns, end));
        end.is_some_and(|end| end <= section.leaf_offset)
    }

    /// Whether the section may hold the key with this hash.
    #[inline]
    pub(super) fn may_contain(&self, hash: KeyHash) -> bool {
        filter::probe(self.filter, filter::filter_hash(hash))
    }

    /// The line of the filter that tells whether the section may hold the key with this hash.
    #[inline]
    pub(super) fn filter_line(&self, filter_hash: u64) -> Option<&'a filter::Line> {
        filter::line(self.filter, filter_hash)
    }

    /// The first place of block `number`.
    #[inline]
    pub(super) fn first_place(&self, number: usize) -> Option<u64> {
        u64_at(self.places, number.checked_mul(8)?)
    }

    /// The bytes that say where block `number` and the later ones begin.
    pub(super) fn places_from(&self, number: usize) -> &'a [u8] {
        let at = number.checked_mul(8);
        at.and_then(|at| self.places.get(at..)).unwrap_or_default()
    }

    /// Where block `number` lies in the section.
    #[inline]
    pub(super) fn block(&self, number: usize) -> Option<Range<u32>> {
        let at = number.checked_mul(4)?;
        let start = u32_at(self.offsets, at)? & !CONTINUES;
        let end = u32_at(self.offsets, at.checked_add(4)?)? & !CONTINUES;
        (start < end).then_some(start..end)
    }

    /// Where block `number` of the hash column lies in the section.
    pub(super) fn column_block(&self, number: usize) -> Option<Range<u32>> {
        let at = number.checked_mul(4)?;
        let start = u32_at(self.columns, at)?;
        let end = u32_at(self.columns, at.checked_add(4)?)?;
        (start < end).then_some(start..end)
    }

    /// Whether block `number` begins with the place that the one before it ended with.
    pub(super) fn continues(&self, number: usize) -> bool {
        number
            .checked_mul(4)
            .and_then(|at| u32_at(self.offsets, at))
            .is_some_and(|offset| offset & CONTINUES != 0)
    }

    /// The block in which the records of `place` begin, if the section has any, or else one in or
    /// before which none of them are.
    #[inline]
    pub(super) fn locate(&self, place: u64) -> usize {
        let (places, _) = self.places.as_chunks::<8>();
        let after = places.partition_point(|first| u64::from_le_bytes(*first) < place);
        let begins_there = places
            .get(after)
            .is_some_and(|first| u64::from_le_bytes(*first) == place)
            && !self.continues(after);
        if begins_there {
            after
        } else {
            after.saturating_sub(1)
        }
    }
}

/// Gathers what the leaf of the section being written will hold.
#[derive(Debug, Default)]
pub(super) struct LeafBuilder {
    /// The filter hash of each key.
    pub(super) hashes: Vec<u64>,
    /// The first place of each block.
    pub(super) places: Vec<u64>,
    /// The offset of each block, and last the end of them.
    pub(super) offsets: Vec<u32>,
    /// The offset of each block of the hash column, and last the end of them.
    pub(super) columns: Vec<u32>,
}

impl LeafBuilder {
    /// Appends the leaf, without its checksum; returns the lines of its filter.
    pub(super) fn push(&self, leaf: &mut Vec<u8>) -> u32 {
        filter::push_filter(leaf, &self.hashes);
        for place in &self.places {
            leaf.extend_from_slice(&place.to_le_bytes());
        }
        for offset in self.offsets.iter().chain(&self.columns) {
            leaf.extend_from_slice(&offset.to_le_bytes());
        }
        filter::lines_for(self.hashes.len()) as u32
    }

    /// Forgets the section, and keeps the buffers.
    pub(super) fn clear(&mut self) {
        self.hashes.clear();
        self.places.clear();
        self.offsets.clear();
        self.columns.clear();
    }
}
