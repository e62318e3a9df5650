//! Spills: an interval of hot entries becomes a run.
//!
//! The interval leaves the hot map piece by piece, each under a short hold of the lock. Pieces are
//! immutable and stay readable in transit; the run of all is written without the lock; then, under
//! it, the run takes their place. A spill that fails leaves the pieces in transit, where they are
//! read and tried again.
//!
//! Of a table that has a log a sweep leaves nothing dirty behind (see `hot/sweep`), so each piece has a mark: the
//! last record that was applied when it was taken out. Sweeps of deletes alone, and of what is
//! clean, have none, and need none: a replay then meets runs that say of some keys that they were deleted, and
//! applies to them all that the log has, from before the delete on. The delete is among it, and makes
//! no difference of what was there; what comes after it is applied once.

use std::{sync::Arc, thread, time::Instant};

use parking_lot::MutexGuard;
use rhash_protocol::ErrorCode;

use super::{
    Table, TableError,
    interval::{self, Interval},
};
use crate::{
    background,
    cold::{Claim, ColdError, ColdStore, Purpose, RecordSource, Run},
    counters::count,
    data_dir::{Mark, manifest::Edit},
    governor::{Bell, LOOK_EVERY},
    hot::{Frozen, FrozenSource, Sweep},
    log::{Log, Lsn},
    ranges::Ranges,
    shared::cold_error,
};

/// A sweep looks at so many bytes of entries at a time: others wait for the lock no longer than that
/// takes.
const STEP_BYTES: usize = 1 << 20;

/// Writing a run calls nothing deep.
const STACK_BYTES: usize = 512 * 1024;

/// What a spill came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spilled {
    /// RAM was freed.
    Some,
    /// There was nothing to spill.
    Nothing,
}

/// A sweep that keeps much of what it passes copies that, and both copies are there until its run is
/// written. It ends early once copies take this part of what it is to free.
const COPIES_SHARE: usize = 2;
/// A sweep that took nothing out has done something if it freed this part of what it was to free.
const FREED_SHARE: usize = 16;

/// What came of taking an interval out.
#[derive(Debug)]
pub(super) enum Taken {
    /// The pieces of an interval in transit, in order.
    Out(Vec<Arc<Frozen>>),
    /// Nothing was to leave, but RAM was freed.
    Freed,
    /// Nothing was to leave.
    Nothing,
}

/// A run as it was written.
struct Written {
    run: Option<Arc<Run>>,
    records: u64,
}

impl Table {
    /// Spills about `bytes_target` bytes of hot entries, or what an earlier spill left in transit.
    pub(crate) fn spill(&self, bytes_target: usize, sweep: Sweep) -> Result<Spilled, TableError> {
        self.spill_for(self.purpose(), bytes_target, sweep)
    }

    /// Spills about `bytes_target` bytes of hot entries, as far as there is disk for this purpose.
    pub(super) fn spill_for(
        &self,
        purpose: Purpose,
        bytes_target: usize,
        sweep: Sweep,
    ) -> Result<Spilled, TableError> {
        let Some(store) = &self.shared.cold else {
            return Ok(Spilled::Nothing);
        };
        match self.take_out_for(store, purpose, bytes_target, sweep)? {
            Taken::Out(pieces) => self.write_out(store, purpose, &pieces),
            Taken::Freed => Ok(Spilled::Some),
            Taken::Nothing => Ok(Spilled::Nothing),
        }
    }

    /// Takes out what there is disk for. Where there is none, entries stay in the hot map, since in transit
    /// they would be in the way of deletes, for which there is more; but what is clean needs none.
    ///
    /// # Errors
    /// [`ErrorCode::DiskFull`], if there is room for nothing.
    fn take_out_for(
        &self,
        store: &ColdStore,
        purpose: Purpose,
        bytes_target: usize,
        sweep: Sweep,
    ) -> Result<Taken, TableError> {
        let (bytes, in_transit) = self.next_spill_bytes(bytes_target);
        let has_room = purpose != Purpose::Spill
            || store
                .has_room_to_spill(bytes as u64)
                .map_err(|error| cold_error(&error))?;
        if has_room || in_transit {
            return Ok(self.take_out(bytes_target, sweep));
        }
        match self.take_out(bytes_target, Sweep::Clean) {
            Taken::Nothing => Err(cold_error(&store.disk_full())),
            taken => Ok(taken),
        }
    }

    /// The most that the next spill may take out, and whether that is in transit already.
    pub(super) fn next_spill_bytes(&self, bytes_target: usize) -> (usize, bool) {
        let state = self.state.lock();
        if state.transit.is_empty() {
            let bytes = interval::bytes_max(bytes_target).max(state.hot.next_bytes());
            return (bytes, false);
        }
        let bytes = state.transit.iter().map(|piece| piece.run_bytes()).sum();
        (bytes, true)
    }

    /// Like [`Table::spill`], but writes in the background, and calls `meanwhile` every now and then.
    pub(crate) fn spill_behind(
        &self,
        bytes_target: usize,
        sweep: Sweep,
        mut meanwhile: impl FnMut(),
    ) -> Result<Spilled, TableError> {
        let Some(store) = &self.shared.cold else {
            return Ok(Spilled::Nothing);
        };
        let taken = self.take_out_for(store, self.purpose(), bytes_target, sweep)?;
        let pieces = match taken {
            Taken::Out(pieces) => pieces,
            Taken::Freed => return Ok(Spilled::Some),
            Taken::Nothing => return Ok(Spilled::Nothing),
        };
        let written = Bell::default();
        thread::scope(|scope| {
            let write = || {
                background::step_back();
                let result = self.write_out(store, self.purpose(), &pieces);
                written.ring();
                result
            };
            let writing = thread::Builder::new()
                .name("spill".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, write)
                .map_err(|error| no_thread(&error))?;
            loop {
                // A thread that has rung may not have ended yet: that is waited for below, and not
                // looked for again. One that panicked does not ring.
                let done = written.wait(LOOK_EVERY) || writing.is_finished();
                meanwhile();
                if done {
                    break;
                }
            }
            writing.join().unwrap_or_else(|_panic| Err(panicked()))
        })
    }

    /// A stop keeps what named tables have, whatever the disk limit.
    pub(super) fn purpose(&self) -> Purpose {
        if self.shared.budget.is_stopping() {
            Purpose::Keep
        } else {
            Purpose::Spill
        }
    }

    pub(super) fn write_out(
        &self,
        store: &ColdStore,
        purpose: Purpose,
        pieces: &[Arc<Frozen>],
    ) -> Result<Spilled, TableError> {
        #[cfg(test)]
        self.shared.hooks.reached(super::hooks::Point::SpillFrozen);
        // Rather than after a run was written in vain.
        self.check_lasting(pieces)?;
        let written = self
            .write_run(store, purpose, pieces)
            .map_err(|error| cold_error(&error))?;
        if let Some(run) = &written.run
            && let Err(error) = self.make_lasting(run, pieces)
        {
            run.remove_on_drop();
            return Err(error);
        }
        #[cfg(test)]
        self.shared.hooks.reached(super::hooks::Point::SpillWritten);
        self.take_in(pieces, written)
    }

    /// Brings a run to stable storage before the manifest says that it stands for records of the log, and
    /// the log up to the last of these. Where there is a log, the manifest lasts, so the runs of tables that
    /// are not logged are brought there, too: none that it names shall be torn.
    ///
    /// # Errors
    /// What [`Self::check_lasting`] says; the disk failed.
    fn make_lasting(&self, run: &Run, pieces: &[Arc<Frozen>]) -> Result<(), TableError> {
        let lsn = last_record(pieces);
        let is_named_for_good = self.name.is_some() && self.shared.log.get().is_some();
        if lsn > 0 || is_named_for_good {
            run.sync_named().map_err(|error| cold_error(&error))?;
        }
        self.check_lasting(pieces)?;
        match self.log() {
            // IMPORTANT: a write that is in the run may be in the log's buffer only. If that were lost, part of
            // a batch would survive, or a delete that nobody was told of.
            Some(log) => log.sync_through(lsn),
            // It is not logged; or it is replayed, and was synced before that.
            None => Ok(()),
        }
    }

    /// Whether the log lets pieces become a run.
    ///
    /// # Errors
    /// The log failed: what is in RAM may have been refused, even if it has nothing new to be logged.
    /// `DiskFull` if there is no room to write down what they hold.
    fn check_lasting(&self, pieces: &[Arc<Frozen>]) -> Result<(), TableError> {
        let Some(log) = self.log() else {
            return Ok(());
        };
        let blocked = log
            .failure()
            .or_else(|| log.stuck_before(last_record(pieces)));
        blocked.map_or(Ok(()), Err)
    }

    /// Whether an interval is in transit, or hot entries are there.
    pub(crate) fn has_unspilled(&self) -> bool {
        let state = self.state.lock();
        !state.transit.is_empty() || state.hot.len() > 0
    }

    /// The pieces in transit, or new ones.
    pub(super) fn take_out(&self, bytes_target: usize, sweep: Sweep) -> Taken {
        // No clear comes between two pieces of an interval.
        let _structure = self.structure.lock();
        let mut state = self.state.lock();
        // IMPORTANT: what is in transit goes first, or its run would lie above a newer one's.
        let mut freed_bytes = 0;
        if !state.closed && state.transit.is_empty() {
            freed_bytes = self.sweep(&mut state, bytes_target, sweep);
        }
        let pieces: Vec<_> = state.transit.iter().rev().cloned().collect();
        if !pieces.is_empty() {
            Taken::Out(pieces)
        } else if freed_bytes > bytes_target / FREED_SHARE {
            Taken::Freed
        } else {
            Taken::Nothing
        }
    }

    /// Moves about `bytes_target` bytes of entries to transit, from where the last sweep ended, or less if
    /// much is kept. Returns what was freed at once.
    pub(super) fn sweep(
        &self,
        state: &mut MutexGuard<'_, super::State>,
        bytes_target: usize,
        sweep: Sweep,
    ) -> usize {
        let _swept = FailsInPanic(self.log());
        let interval = Interval::of(state, bytes_target);
        let step_bytes = STEP_BYTES.min(bytes_target / COPIES_SHARE).max(1);
        let (mut bytes, mut freed_bytes, mut copies_bytes, mut rounds) = (0, 0, 0, 0);
        while !interval.is_enough(bytes + freed_bytes, state.hot.hand())
            && interval.has_room(bytes, state.hot.next_bytes())
            && copies_bytes < bytes_target / COPIES_SHARE
        {
            let bytes_before = state.ram_bytes();
            let last = interval.last_of_step(state.hot.hand());
            let swept = state.hot.sweep(step_bytes, last, sweep);
            freed_bytes += swept.freed_bytes;
            if let Some(mut frozen) = swept.frozen {
                frozen.set_lsn(state.lsn, sweep);
                bytes += frozen.live_bytes();
                copies_bytes += frozen.footprint_bytes().saturating_sub(frozen.live_bytes());
                state.transit.insert(0, Arc::new(frozen));
                state.epoch += 1;
            }
            self.shared.budget.settle(bytes_before, state.ram_bytes());
            if swept.ends {
                // An interval does not wrap round; a hand near the end may have found nothing.
                rounds += 1;
                if !state.transit.is_empty() || rounds == 2 || sweep == Sweep::Checkpoint {
                    break;
                }
            }
            MutexGuard::bump(state);
        }
        freed_bytes
    }

    fn write_run(
        &self,
        store: &ColdStore,
        purpose: Purpose,
        pieces: &[Arc<Frozen>],
    ) -> Result<Written, ColdError> {
        let mut written = Written {
            run: None,
            records: 0,
        };
        let sources = pieces
            .iter()
            .map(|piece| FrozenSource::dirty(Arc::clone(piece), self.shared.hasher.clone()));
        let bytes = pieces.iter().map(|piece| piece.run_bytes() as u64).sum();
        let mut writer = None;
        for mut source in sources {
            while let Some(record) = source.head() {
                if writer.is_none() {
                    let claim = Claim { purpose, bytes };
                    let mut begun = store.begin_for(claim, self.id, bytes)?;
                    begun.set_note(self.note_of_spill(begun.id(), pieces));
                    writer = Some(begun);
                }
                if let Some(writer) = &mut writer {
                    writer.push(&record)?;
                }
                written.records += 1;
                source.advance()?;
            }
        }
        written.run = writer.map(|writer| writer.finish(false)).transpose()?;
        Ok(written)
    }

    /// Puts the run in the place of the pieces.
    fn take_in(&self, pieces: &[Arc<Frozen>], written: Written) -> Result<Spilled, TableError> {
        let (Some(oldest), Some(newest)) = (pieces.first(), pieces.last()) else {
            return Ok(Spilled::Nothing);
        };
        let _structure = self.structure.lock();
        // They come and go together.
        if !self
            .state
            .lock()
            .transit
            .iter()
            .any(|piece| Arc::ptr_eq(piece, newest))
        {
            // The table was cleared or closed meanwhile: nobody shall see the run.
            if let Some(run) = written.run {
                run.remove_on_drop();
            }
            return Ok(Spilled::Some);
        }
        let (first, last) = (oldest.first(), newest.last());
        if let (Some(run), Some(_)) = (&written.run, &self.name) {
            let edit = Edit::Spilled {
                id: self.id,
                run: run.id(),
                first,
                last,
                marks: marks_of(pieces),
            };
            if let Err(error) = self.shared.record(edit) {
                run.remove_on_drop();
                return Err(error);
            }
        }
        let mut state = self.state.lock();
        let bytes_before = state.ram_bytes();
        if let Some(run) = &written.run {
            let mut cold = Ranges::clone(&state.cold);
            cold.add(run, first, last);
            state.cold = Arc::new(cold);
            count(&self.shared.counters.spilled_entries, written.records);
            count(&self.shared.counters.spilled_bytes, run.bytes());
        }
        state.spilled_at = Some(Instant::now());
        // IMPORTANT: the run is among the cold ones before the pieces leave RAM.
        let left = std::mem::take(&mut state.transit);
        state.epoch += 1;
        self.shared.budget.settle(bytes_before, state.ram_bytes());
        drop(state);
        // The caller frees the pieces, outside of the lock.
        drop(left);
        self.shared.spilled.note();
        self.shared.merge_wanted.ring();
        Ok(Spilled::Some)
    }
}

/// Has the log fail if a sweep panics. What it took out, or said to be clean, is then in the log alone, which must
/// not be cut any more; the next start finds it there.
struct FailsInPanic<'a>(Option<&'a Log>);

impl Drop for FailsInPanic<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.0
            && thread::panicking()
        {
            log.fail("a spill failed inside the server");
        }
    }
}

/// What the manifest says of the log with a run of these. Deletes alone have no mark; but without the writes before them
/// in the log, a replay would put what it has above deletes that came after.
fn marks_of(pieces: &[Arc<Frozen>]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = pieces.iter().filter_map(|piece| piece.mark()).collect();
    let through = last_record(pieces);
    if through > 0 && marks.iter().all(|mark| mark.lsn < through) {
        marks.push(Mark::of_no_place(through));
    }
    marks
}

/// The last record of the log that may be in pieces; 0 for none.
fn last_record(pieces: &[Arc<Frozen>]) -> Lsn {
    pieces.iter().map(|piece| piece.lsn()).max().unwrap_or(0)
}

fn no_thread(error: &std::io::Error) -> TableError {
    TableError {
        code: ErrorCode::Storage,
        text: format!("cannot start a thread that spills: {error}"),
    }
}

fn panicked() -> TableError {
    TableError {
        code: ErrorCode::Storage,
        text: "a spill failed inside the server; its log says more".to_owned(),
    }
}
