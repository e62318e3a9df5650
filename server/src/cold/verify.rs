//! A run read from one end to the other: for what is damaged in it, and for what is sound.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{ops::RangeInclusive, sync::Arc};

use super::{
    column::take_entry,
    error::ColdError,
    format::{Section, block_records, unseal},
    leaf::Leaf,
    record::{Record, Tag, decode_record},
    run::Run,
};
use crate::key_hash::KeyHash;

/// A piece of a run that is not as it was written.
#[derive(Debug)]
pub struct BadPiece {
    /// What is wrong, and where.
    pub error: ColdError,
    /// The places whose records are lost with it; none if all records can be read without it.
    pub lost: Option<RangeInclusive<u64>>,
    /// Whether the records before it may go on in it.
    pub continues: bool,
}

/// Is told of all that a run has, front to back.
pub trait RunVisitor {
    /// So many bytes were read.
    fn read(&mut self, bytes: u64);

    /// A sound block begins; `continues` says whether it begins with the place that the one before ended with.
    fn block(&mut self, continues: bool);

    /// A record of the block.
    ///
    /// # Errors
    /// What ends the visit.
    fn record(&mut self, record: &Record<'_>) -> Result<(), ColdError>;

    /// A piece is damaged.
    ///
    /// # Errors
    /// What ends the visit.
    fn damaged(&mut self, piece: BadPiece) -> Result<(), ColdError>;
}

impl Run {
    /// Reads the run whole, and tells of what is sound and what is not.
    ///
    /// # Errors
    /// What the visitor ends it with, or what may be gone another time, as an error of the disk that says
    /// nothing of what lies there.
    pub fn visit(self: &Arc<Self>, visitor: &mut dyn RunVisitor) -> Result<(), ColdError> {
        let whole = self.first_place()..=self.last_place();
        if let Err(error) = self.note() {
            visitor.damaged(bad(error, None, false)?)?;
        }
        for number in 0..self.sections() {
            let section = match self.section(number) {
                Ok(section) => section,
                // Without the directory nobody knows where a block begins.
                Err(error) => return visitor.damaged(bad(error, Some(whole), false)?),
            };
            let next = self.section(number.saturating_add(1));
            let last = next.map_or(self.last_place(), |next| next.first_place);
            match self.leaf(number) {
                Ok((_, leaf)) => {
                    self.visit_blocks(&section, &leaf, last, visitor)?;
                    self.visit_column(&section, &leaf, visitor)?;
                }
                Err(error) => {
                    let lost = section.first_place..=last;
                    visitor.damaged(bad(error, Some(lost), section.continues)?)?;
                }
            }
            visitor.read(u64::from(section.leaf_bytes));
        }
        Ok(())
    }

    fn visit_blocks(
        &self,
        section: &Section,
        leaf: &Leaf<'_>,
        section_last: u64,
        visitor: &mut dyn RunVisitor,
    ) -> Result<(), ColdError> {
        let mut buffer = Vec::new();
        let mut number = 0;
        while let Some(first) = leaf.first_place(number) {
            let last = leaf.first_place(number.saturating_add(1));
            let lost = first..=last.unwrap_or(section_last);
            let continues = leaf.continues(number) || (number == 0 && section.continues);
            let Some(block) = leaf.block(number) else {
                let error = self.damaged("the index is short", section.offset);
                return visitor.damaged(bad(error, Some(first..=section_last), continues)?);
            };
            let offset = section.offset.saturating_add(u64::from(block.start));
            let read = self.read(&mut buffer, offset, block.len());
            visitor.read(block.len() as u64);
            let records = read.and_then(|()| {
                self.check_block(&buffer, offset, first)
                    .ok_or_else(|| self.damaged("a block", offset))
            });
            match records {
                Ok(records) => {
                    visitor.block(continues);
                    self.visit_records(records, visitor)?;
                }
                Err(error) => visitor.damaged(bad(error, Some(lost), continues)?)?,
            }
            number = number.saturating_add(1);
        }
        Ok(())
    }

    /// The records of a block, if it has the right checksum, and they are records, in order from a place on.
    fn check_block<'a>(&self, block: &'a [u8], offset: u64, first_place: u64) -> Option<&'a [u8]> {
        let records = block_records(block, self.id(), offset)?;
        let (mut at, mut place, mut any) = (0, first_place, false);
        while at < records.len() {
            let record = decode_record(records, at)?;
            at = record.part_end;
            if record.tag == Tag::Continues {
                // The first one of a block has its key.
                any.then_some(())?;
                continue;
            }
            let hash = self.hash_of(records.get(record.key_start..record.key_end)?);
            let in_order = hash.place >= place && (any || hash.place == first_place);
            in_order.then_some(())?;
            (place, any) = (hash.place, true);
        }
        any.then_some(records)
    }

    fn visit_records(&self, records: &[u8], visitor: &mut dyn RunVisitor) -> Result<(), ColdError> {
        let (mut at, mut key, mut hash) = (0, 0..0, KeyHash { place: 0, check: 0 });
        while let Some(record) = decode_record(records, at) {
            at = record.part_end;
            if record.tag != Tag::Continues {
                key = record.key_start..record.key_end;
                hash = self.hash_of(records.get(key.clone()).unwrap_or_default());
            }
            visitor.record(&Record {
                hash,
                kind: record.tag.kind(),
                key: records.get(key.clone()).unwrap_or_default(),
                part: records
                    .get(record.key_end..record.part_end)
                    .unwrap_or_default(),
            })?;
        }
        Ok(())
    }

    fn visit_column(
        &self,
        section: &Section,
        leaf: &Leaf<'_>,
        visitor: &mut dyn RunVisitor,
    ) -> Result<(), ColdError> {
        let mut buffer = Vec::new();
        let mut number = 0;
        while let Some(block) = leaf.column_block(number) {
            let offset = section.offset.saturating_add(u64::from(block.start));
            let read = self.read(&mut buffer, offset, block.len());
            visitor.read(block.len() as u64);
            let is_sound = unseal(&buffer, self.id(), offset).is_some_and(are_entries);
            let damage = match read {
                Ok(()) if is_sound => None,
                Ok(()) => Some(self.damaged("a block of the hash column", offset)),
                Err(error) => Some(error),
            };
            if let Some(error) = damage {
                visitor.damaged(bad(error, None, false)?)?;
            }
            number = number.saturating_add(1);
        }
        Ok(())
    }

    fn hash_of(&self, key: &[u8]) -> KeyHash {
        self.shared().hasher.hash(key)
    }
}

/// Whether bytes are entries of a hash column, and nothing else.
fn are_entries(mut bytes: &[u8]) -> bool {
    let mut place = 0;
    while !bytes.is_empty() {
        match take_entry(&mut bytes, place) {
            Some((hash, _)) => place = hash.place,
            None => return false,
        }
    }
    true
}

/// A damaged piece; an error that says nothing of what lies there ends the visit.
fn bad(
    error: ColdError,
    lost: Option<RangeInclusive<u64>>,
    continues: bool,
) -> Result<BadPiece, ColdError> {
    match error {
        ColdError::Damaged { .. }
        | ColdError::Missing { .. }
        | ColdError::Format { .. }
        | ColdError::OtherSecret { .. } => Ok(BadPiece {
            error,
            lost,
            continues,
        }),
        error => Err(error),
    }
}
