//! Merges runs that are neighbours in age into one, in one pass and in bounded memory.

use std::{ops::RangeInclusive, sync::Arc};

use rhash_protocol::TableKind;

use super::{
    disk::Claim,
    error::ColdError,
    fold::{BoxedSource, Fold, FoldedKey},
    record::{PART_BYTES_MAX, Record, RecordKind},
    run::Run,
    store::ColdStore,
    writer::RunWriter,
};

/// Bytes of keys and parts between two calls of the progress function.
const PROGRESS_BYTES: u64 = 256 * 1024;

/// What shall be merged, and how.
#[derive(Debug, Clone)]
pub struct MergePlan {
    /// The table that the runs belong to.
    pub table: u64,
    /// What its entries are.
    pub kind: TableKind,
    /// The places that the new run covers; what the inputs have elsewhere is left to others.
    pub places: RangeInclusive<u64>,
    /// Whether no older run of the table has any of these places: then nothing is left below to
    /// delete or to append to.
    pub includes_oldest: bool,
    /// The room on disk to take for the new run, by what it will come to; it takes more as it grows.
    pub claim: Claim,
    /// Whether the new run shall be on stable storage when the merge ends.
    pub sync: bool,
    /// What is read of each input at once.
    pub read_ahead_bytes: usize,
    /// The new run's note.
    pub note: Vec<u8>,
    /// Whether a run without records shall say so where nothing is left: else what others still keep of
    /// the inputs would say once more, to a reader of notes, what was deleted.
    pub says_nothing_is_left: bool,
}

impl ColdStore {
    /// Merges runs, newest first, into a new one; none if nothing is left of them. The inputs stay
    /// as they are. `goes_on` is told the bytes of each step and ends the merge by saying false.
    ///
    /// # Errors
    /// Any of reading and writing runs; [`ColdError::Cancelled`]. No trace of the new run is left.
    pub fn merge(
        &self,
        inputs: &[Arc<Run>],
        plan: &MergePlan,
        goes_on: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Arc<Run>>, ColdError> {
        let (from, to) = (*plan.places.start(), *plan.places.end());
        let mut sources: Vec<BoxedSource> = Vec::with_capacity(inputs.len());
        let mut bytes_expected = 0u64;
        for input in inputs {
            bytes_expected = bytes_expected.saturating_add(input.bytes_between(from, to)?);
            sources.push(Box::new(input.cursor(from, to, plan.read_ahead_bytes)?));
        }
        let mut merge = Merge {
            fold: Fold::new(sources, plan.kind),
            key: Vec::new(),
            part: Vec::new(),
            step_bytes: 0,
        };
        // There is none until there is something to write.
        let mut writer: Option<RunWriter> = None;
        while let Some(folded) = merge.fold.next_key()? {
            if merge.step_bytes >= PROGRESS_BYTES && !goes_on(std::mem::take(&mut merge.step_bytes))
            {
                return Err(ColdError::Cancelled);
            }
            if folded.deleted && plan.includes_oldest {
                merge.step_bytes += merge.fold.key().len() as u64;
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => {
                    let begun = self.begin_for(plan.claim, plan.table, bytes_expected)?;
                    let begun = none.insert(begun);
                    begun.set_note(plan.note.clone());
                    begun
                }
            };
            merge.write_key(writer, folded, plan, goes_on)?;
        }
        let _ = goes_on(merge.step_bytes);
        if writer.is_none() && plan.says_nothing_is_left {
            let mut begun = self.begin_for(plan.claim, plan.table, 0)?;
            begun.set_note(plan.note.clone());
            begun.cover(from, to);
            writer = Some(begun);
        }
        writer.map(|writer| writer.finish(plan.sync)).transpose()
    }
}

/// A merge under way.
struct Merge {
    fold: Fold,
    key: Vec<u8>,
    /// Small parts are gathered here into larger ones.
    part: Vec<u8>,
    step_bytes: u64,
}

impl Merge {
    fn write_key(
        &mut self,
        writer: &mut RunWriter,
        folded: FoldedKey,
        plan: &MergePlan,
        goes_on: &dyn Fn(u64) -> bool,
    ) -> Result<(), ColdError> {
        let mut kind = match folded {
            FoldedKey { deleted: true, .. } => RecordKind::Tombstone,
            FoldedKey { based: false, .. } if !plan.includes_oldest => RecordKind::Fragment,
            _ => RecordKind::Base,
        };
        self.key.clear();
        self.key.extend_from_slice(self.fold.key());
        self.part.clear();
        let mut written = false;
        while let Some(mut rest) = self.fold.next_part()? {
            self.step_bytes += rest.len() as u64;
            // Long values report progress between their parts as well.
            if self.step_bytes >= PROGRESS_BYTES && !goes_on(std::mem::take(&mut self.step_bytes)) {
                return Err(ColdError::Cancelled);
            }
            while self.part.len() + rest.len() > PART_BYTES_MAX {
                let (head, tail) = rest.split_at(PART_BYTES_MAX - self.part.len());
                self.part.extend_from_slice(head);
                rest = tail;
                let record = Record {
                    hash: folded.hash,
                    kind,
                    key: &self.key,
                    part: &self.part,
                };
                writer.push(&record)?;
                (kind, written) = (RecordKind::Fragment, true);
                self.part.clear();
            }
            self.part.extend_from_slice(rest);
        }
        self.step_bytes += self.key.len() as u64;
        // A key stays even if all its parts are empty.
        if !written || !self.part.is_empty() {
            writer.push(&Record {
                hash: folded.hash,
                kind,
                key: &self.key,
                part: &self.part,
            })?;
        }
        Ok(())
    }
}
