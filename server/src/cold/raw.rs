//! The parts of a run read without their checksums, for tests that hold them against arbitrary
//! bytes: a checksum would keep nearly all of these from them.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{
    column::take_entry,
    format::{ENTRY_BYTES, Footer, Section},
    leaf::Leaf,
    record::decode_record,
};
use crate::key_hash::KeyHash;

/// Reads `bytes` as a footer, as a block of records, as one of a hash column, and as a directory
/// with a leaf after it; that it returns is the point.
pub(crate) fn read(bytes: &[u8]) {
    std::hint::black_box(Footer::parse(bytes));
    let mut at = 0;
    while let Some(record) = decode_record(bytes, at) {
        let key = bytes.get(record.key_start..record.key_end);
        let part = bytes.get(record.key_end..record.part_end);
        debug_assert!(
            key.is_some() && part.is_some(),
            "a record lies in its block"
        );
        if record.part_end <= at {
            break;
        }
        at = record.part_end;
    }
    let (mut rest, mut place) = (bytes, 0);
    while let Some((hash, _)) = take_entry(&mut rest, place) {
        place = hash.place;
    }
    let Some(section) = Section::at(bytes, 0) else {
        return;
    };
    let Some(leaf) = bytes
        .get(ENTRY_BYTES..)
        .and_then(|payload| Leaf::new(payload, &section))
    else {
        return;
    };
    std::hint::black_box((leaf.is_sound(&section), section.leaf_start()));
    let hash = KeyHash {
        place: section.first_place,
        check: section.keys,
    };
    let block = leaf.locate(section.first_place);
    std::hint::black_box((
        leaf.may_contain(hash),
        leaf.block(block),
        leaf.column_block(block),
        leaf.first_place(usize::MAX),
    ));
}
