//! What a table writes into its runs, so that they say by themselves where they belong.

use std::{ops::RangeInclusive, sync::Arc};

use rhash_protocol::packed::Malformed;

use super::Table;
use crate::{
    cold::{ColdError, Run, RunId},
    data_dir::{
        Marks,
        manifest::TableState,
        note::{Named, Note},
    },
    hot::Frozen,
    log::{Lsn, Record},
};

impl Table {
    /// What a run says that pieces of the hot map become.
    pub(super) fn note_of_spill(&self, id: RunId, pieces: &[Arc<Frozen>]) -> Vec<u8> {
        let Some((mut table, checkpoint)) = self.noted() else {
            return Note::Temporary.to_bytes();
        };
        let mut marks = Marks::default();
        for mark in pieces.iter().filter_map(|piece| piece.mark()) {
            marks.raise(&mark);
        }
        table.marks = marks;
        let named = Named {
            table,
            checkpoint,
            first: pieces.first().map_or(0, |piece| piece.first()),
            last: pieces.last().map_or(u64::MAX, |piece| piece.last()),
            oldest: id,
            newest: id,
        };
        Note::Named(Box::new(named)).to_bytes()
    }

    /// What a run says that these runs become, for these places.
    ///
    /// # Errors
    /// Any of reading what they say themselves.
    pub(super) fn note_of_merge(
        &self,
        inputs: &[Arc<Run>],
        places: &RangeInclusive<u64>,
    ) -> Result<Vec<u8>, ColdError> {
        let Some((table, checkpoint)) = self.noted() else {
            return Ok(Note::Temporary.to_bytes());
        };
        let mut noted = Vec::with_capacity(inputs.len());
        for run in inputs {
            noted.push((run.id(), read_note(run)?));
        }
        let places = (*places.start(), *places.end());
        let named = Named::of_merged(table, checkpoint, places, &noted);
        Ok(Note::Named(Box::new(named)).to_bytes())
    }

    /// Says in the log what the manifest says of the table since it was emptied: a checkpoint that began a moment
    /// before may have told of it as it was, and cuts what says more.
    pub(super) fn tell_of_change(&self) {
        let (Some(_), Some(log)) = (&self.name, self.shared.log.get()) else {
            return;
        };
        let table = self.id;
        // The manifest is what tells of it; a log that failed is told of by the next write.
        drop(match self.noted() {
            Some((state, _)) => {
                let state = &state.to_bytes();
                log.append(&Record::Table { table, state })
            }
            None => log.append(&Record::Emptied {
                table,
                close: true,
                by: None,
            }),
        });
    }

    fn noted(&self) -> Option<(TableState, Lsn)> {
        self.name.as_ref()?;
        self.shared.noted_table(self.id)
    }
}

/// What a run of a named table says; nothing, if its writer knew no notes.
pub(crate) fn read_note(run: &Run) -> Result<Option<Named>, ColdError> {
    match Note::read(&run.note()?) {
        Ok(Some(Note::Named(named))) => Ok(Some(*named)),
        Ok(Some(Note::Temporary) | None) => Ok(None),
        Err(Malformed(what)) => Err(ColdError::Damaged {
            what,
            run: run.id(),
            offset: 0,
        }),
    }
}
