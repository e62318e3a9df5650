//! One key of a run, looked up without a cursor: for values that lie whole in one record, as short
//! ones do.
//!
//! A get of a short value asks the filters of all runs of its range and reads one block. A cursor
//! and a fold, which own the run, a buffer and the key, would cost it as much as that. And filters
//! are so large that each probe is a miss of the processor's caches: so the lines of several runs are
//! fetched first, at the same time, and looked at then.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{
    error::ColdError,
    filter::{self, filter_hash},
    format::{ENTRY_BYTES, Section, block_records},
    leaf::Leaf,
    record::{RecordKind, Tag, decode_record},
    run::Run,
};
use crate::key_hash::KeyHash;

/// Of so many looks one says that the directory is in use.
const LOOKS_FOR_A_DIRECTORY: u64 = 8;

/// What will tell whether a run may have a key.
#[derive(Debug, Clone, Copy)]
pub enum Glance<'a> {
    /// The key's place is not among those of the run.
    Outside,
    /// This line of a filter, which is on its way into the processor's caches.
    Line(&'a [u8; filter::LINE_BYTES], u64),
    /// Nothing but a look into the run.
    Unclear,
}

impl Glance<'_> {
    /// Whether the run may have the key; false is certain.
    #[inline]
    pub fn may_contain(&self) -> bool {
        match self {
            Self::Outside => false,
            Self::Line(line, filter_hash) => filter::is_in(line, *filter_hash),
            Self::Unclear => true,
        }
    }
}

/// What a look into a run gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole<'a> {
    /// The run says nothing of the key.
    Nothing,
    /// It has the whole value.
    Value(&'a [u8]),
    /// It has a tombstone, and nothing that came after it.
    Deleted,
    /// It takes a cursor to know.
    Unclear,
}

impl Run {
    /// Begins to ask the run's filters for a hash. Give it several runs before the first answer is
    /// looked at, so that their misses overlap.
    #[inline]
    pub fn glance(&self, hash: KeyHash) -> Glance<'_> {
        match self.filter_line(hash) {
            Ok(glance) => glance,
            // IMPORTANT: what cannot be read matters only if no newer run decides: then the look into
            // the run meets the error.
            Err(_met_again) => Glance::Unclear,
        }
    }

    /// Begins to fetch from the disk what of the index a look for this hash needs, if that is not in RAM; does not wait.
    /// Meant for several runs, and several keys, before the first of them is looked at: so the disk
    /// works for all at once, where each page that is missing would else be waited for by itself.
    pub fn begin_to_fetch(&self, hash: KeyHash) {
        let Ok(Some(number)) = self.first_section_of(hash.place) else {
            return;
        };
        // The leaf whole, since one long read costs hardly more than a short one, and others will want the rest. What
        // cannot be read is met again by the look itself.
        if let Ok(section) = self.section(number)
            && let Some(start) = section.leaf_start()
        {
            self.bytes
                .begin_to_fetch(start, section.leaf_bytes as usize);
        }
    }

    /// Tells the system that what of the index a look for this hash reads is in use: the filter, and if the look came to
    /// a block, what led there. The system does not learn it from the map: Linux disregards how often pages are read through
    /// a map that it was told to expect random reads of (since 6.3), and takes them away like blocks that are
    /// read once.
    pub fn note_use(&self, hash: KeyHash, came_to_block: bool) {
        let Some(map) = self.bytes.mapped() else {
            return;
        };
        let note = |used: &[u8]| {
            if let Some(offset) = used.as_ptr().addr().checked_sub(map.as_ptr().addr()) {
                self.bytes.note_use(offset as u64);
            }
        };
        // What cannot be read is met again by the look itself.
        let Ok(Some(number)) = self.first_section_of(hash.place) else {
            return;
        };
        let (Ok((_, leaf)), Ok(directory)) = (self.leaf(number), self.directory()) else {
            return;
        };
        if let Some(line) = leaf.filter_line(filter_hash(hash)) {
            note(line);
        }
        if came_to_block {
            note(leaf.places_from(leaf.locate(hash.place)));
        }
        // A page of the directory is of use to a hundred leaves.
        if hash.place.is_multiple_of(LOOKS_FOR_A_DIRECTORY)
            && let Some(entry) = directory.get(number.saturating_mul(ENTRY_BYTES)..)
        {
            note(entry);
        }
    }

    fn filter_line(&self, hash: KeyHash) -> Result<Glance<'_>, ColdError> {
        let Some((_, leaf)) = self.only_section_of(hash.place)? else {
            return Ok(match self.first_section_of(hash.place)? {
                Some(_several) => Glance::Unclear,
                None => Glance::Outside,
            });
        };
        let filter_hash = filter_hash(hash);
        let Some(line) = leaf.filter_line(filter_hash) else {
            return Ok(Glance::Unclear);
        };
        let [first, ..] = line;
        std::hint::black_box(*first);
        Ok(Glance::Line(line, filter_hash))
    }

    /// What the run says of a key whose value, if it has one, lies in one record; the block that it
    /// lies in is read into `block`.
    ///
    /// # Errors
    /// Any of reading the run.
    pub fn look_whole<'b>(
        &self,
        hash: KeyHash,
        key: &[u8],
        block: &'b mut Vec<u8>,
    ) -> Result<Whole<'b>, ColdError> {
        let Some((section, leaf)) = self.only_section_of(hash.place)? else {
            return Ok(match self.first_section_of(hash.place)? {
                Some(_several) => Whole::Unclear,
                None => Whole::Nothing,
            });
        };
        if !leaf.may_contain(hash) {
            return Ok(Whole::Nothing);
        }
        let number = leaf.locate(hash.place);
        let begins_by = |number: usize| {
            let first = leaf.first_place(number);
            first.is_some_and(|first| first <= hash.place)
        };
        if !begins_by(number) {
            return Ok(Whole::Nothing);
        }
        // Records of the place go on in the next block.
        if begins_by(number.saturating_add(1)) {
            return Ok(Whole::Unclear);
        }
        let damaged = |what| self.damaged(what, section.offset);
        let place = leaf.block(number);
        let place = place.ok_or_else(|| damaged("the index is short"))?;
        let offset = section.offset.saturating_add(u64::from(place.start));
        self.read(block, offset, place.len())?;
        let records = block_records(block, self.id(), offset);
        let records = records.filter(|records| !records.is_empty());
        let records = records.ok_or_else(|| self.damaged("a block's checksum", offset))?;
        whole_in(records, key).ok_or_else(|| damaged("a record"))
    }

    /// The section in which all records of `place` are if there are any; none if there is none, or if
    /// there are several.
    #[inline]
    fn only_section_of(&self, place: u64) -> Result<Option<(Section, Leaf<'_>)>, ColdError> {
        match self.first_section_of(place)? {
            Some(number) if self.next_section_of(number, place)?.is_none() => {
                self.leaf(number).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// What the records of a block say of a key, if none of another block does; none if they are no records.
#[inline]
fn whole_in<'a>(records: &'a [u8], key: &[u8]) -> Option<Whole<'a>> {
    let mut at = 0;
    while at < records.len() {
        let record = decode_record(records, at)?;
        at = record.part_end;
        let Tag::Of(kind) = record.tag else { continue };
        if records.get(record.key_start..record.key_end)? != key {
            continue;
        }
        let goes_on = at < records.len() && decode_record(records, at)?.tag == Tag::Continues;
        return Some(match kind {
            _ if goes_on => Whole::Unclear,
            RecordKind::Base => Whole::Value(records.get(record.key_end..record.part_end)?),
            RecordKind::Tombstone => Whole::Deleted,
            RecordKind::Fragment => Whole::Unclear,
        });
    }
    Some(Whole::Nothing)
}
