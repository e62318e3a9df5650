//! Checkpoints of a table: all that is dirty is written to runs, and stays in RAM if it can.

use std::sync::Arc;

use super::{Table, TableError};
use crate::{
    cold::{ColdStore, Purpose},
    hot::{Frozen, Sweep},
    log::Lsn,
    shared::cold_error,
};

/// What one step of a checkpoint is to write.
struct Step {
    pieces: Vec<Arc<Frozen>>,
    /// Where the next step begins; none after the last one.
    next: Option<u64>,
}

impl Table {
    /// Writes to runs all that the log has said of the table after the record `since` and up to now.
    ///
    /// # Errors
    /// Any of spilling; what was written is so, and the next checkpoint goes on from there.
    pub(crate) fn checkpoint(&self, since: Lsn) -> Result<(), TableError> {
        let Some(store) = &self.shared.cold else {
            return Ok(());
        };
        if !self.is_behind(since) {
            return Ok(());
        }
        let mut next = Some(0);
        while let Some(place) = next {
            let step = self.take_out_from(store, place)?;
            if !step.pieces.is_empty() {
                self.write_out(store, self.purpose(), &step.pieces)?;
            }
            next = step.next;
        }
        Ok(())
    }

    /// Whether something was logged after a record, or may be about to say so in the manifest.
    fn is_behind(&self, since: Lsn) -> bool {
        // IMPORTANT: a clear that has been logged holds this until the manifest says so, and only then
        // may the log be cut.
        let _structure = self.structure.lock();
        let state = self.state.lock();
        !state.closed && (state.lsn > since || self.log().is_none())
    }

    /// Takes out what is dirty from a place on. What is in transit goes first: after the last step nothing
    /// is left of what was dirty before the first.
    fn take_out_from(&self, store: &ColdStore, place: u64) -> Result<Step, TableError> {
        let bytes_target = self.shared.steps.spill_bytes;
        let (bytes, in_transit) = self.next_spill_bytes(bytes_target);
        let has_room = in_transit
            || self.purpose() != Purpose::Spill
            || store
                .has_room_to_spill(bytes as u64)
                .map_err(|error| cold_error(&error))?;
        if !has_room {
            return Err(cold_error(&store.disk_full()));
        }
        let _structure = self.structure.lock();
        let mut state = self.state.lock();
        if state.closed {
            return Ok(Step {
                pieces: Vec::new(),
                next: None,
            });
        }
        let mut next = Some(place);
        if state.transit.is_empty() {
            state.hot.set_logged();
            // The round of the spills is not that of checkpoints.
            let hand = state.hot.hand();
            state.hot.set_hand(place);
            self.sweep(&mut state, bytes_target, Sweep::Checkpoint);
            next = Some(state.hot.hand()).filter(|hand| *hand > 0);
            state.hot.set_hand(hand);
        }
        let pieces = state.transit.iter().rev().cloned().collect();
        Ok(Step { pieces, next })
    }
}
