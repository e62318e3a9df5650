//! Writes: blind ones go straight to the hot map, conditional ones look first.
//!
//! A batch is checked before any of it is applied, and applied under one hold of the lock, so it is
//! there in order and whole or not at all. Conditional operations whose keys lie below the hot map
//! are looked up without the lock; what was found is brought into the hot map, and then the batch
//! is applied there, if the keys have not changed meanwhile. If they have, they are looked up again.
//!
//! Writes to tables that have a log are logged as they are applied: blind ones as they came,
//! conditional ones as what they came to, so that a replay decides nothing.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::MutexGuard;
use rhash_protocol::{
    ErrorCode, Op, Ops, Outcome,
    packed::{push_op, push_outcome},
};

use super::{
    Answer, Asker, PackedReply, State, Table, TableError, WriteReply, busy_error,
    check::{Checked, bad_request},
    full_error,
    lookup::{Found, Hot, Lookup},
};
use crate::{
    data_dir::Marks,
    governor::KeptRoom,
    hot::{ArenaFull, CleanBase, Dirt, Origin, WARMED_AT_ONCE, counter_value},
    log::{Log, Lsn, OwnedReply, Record},
};

/// What the outcomes of several operations together may have in bytes; a single one may have more.
const OUTCOMES_BYTES_MAX: usize = 1 << 20;
/// What an outcome takes beyond the value that was there: its kind and length, and the sum of an addition.
const OUTCOME_BYTES: usize = 20;
/// A conditional batch whose keys keep changing is given up after so many looks.
const LOOKS_MAX: usize = 64;

impl Table {
    /// Applies a batch in order, all or nothing, and answers with the outcomes of its conditional
    /// operations.
    pub fn write(self: &Arc<Self>, ops: Ops<'_>) -> Answer<WriteReply> {
        self.write_by(ops, None)
    }

    /// Applies a batch as [`write`](Self::write) does, for a request that may be sent again.
    pub(crate) fn write_by(
        self: &Arc<Self>,
        ops: Ops<'_>,
        asker: Option<Asker>,
    ) -> Answer<WriteReply> {
        let checked = match self.check(ops) {
            Ok(checked) => checked,
            Err(error) => return Answer::Ready(Err(error)),
        };
        if self.shared.cold.is_none()
            && checked.bytes > 0
            && let Err(error) = self.check_room(checked.bytes)
        {
            return Answer::Ready(Err(error));
        }
        if checked.conditional {
            let (looks, state) = match self.look_for_all(ops, &checked) {
                Ok(looked) => looked,
                Err(error) => return Answer::Ready(Err(error)),
            };
            if !looks.is_empty() {
                drop(state);
                return self.write_on_pool(ops, asker, checked);
            }
            return Answer::Ready(self.apply(ops, asker, &checked, state));
        }
        let state = self.state.lock();
        Answer::Ready(self.apply(ops, asker, &checked, state))
    }

    /// In a server without a cold tier, whether the batch fits.
    fn check_room(&self, bytes: usize) -> Result<(), TableError> {
        let budget = &self.shared.budget;
        let (used, limit) = (budget.entries_bytes(), budget.entries_bytes_max());
        if used + bytes <= limit {
            return Ok(());
        }
        Err(TableError {
            code: ErrorCode::OutOfMemory,
            text: format!(
                "a batch of up to {bytes} bytes does not fit: entries take {used} of {limit} bytes; \
                 close tables, give a larger --mem-limit, or start without --memory-only"
            ),
        })
    }

    fn write_on_pool(
        self: &Arc<Self>,
        ops: Ops<'_>,
        asker: Option<Asker>,
        checked: Checked,
    ) -> Answer<WriteReply> {
        let count = ops.count() as u32;
        let bytes = ops.bytes().to_vec();
        self.on_pool(move |table| table.write_conditional(Ops::new(count, &bytes), asker, &checked))
    }

    /// Looks for what the hot map does not know, until it knows all that the batch needs.
    fn write_conditional(
        self: &Arc<Self>,
        ops: Ops<'_>,
        asker: Option<Asker>,
        checked: &Checked,
    ) -> Result<WriteReply, TableError> {
        for _ in 0..LOOKS_MAX {
            let (looks, state) = self.look_for_all(ops, checked)?;
            if looks.is_empty() {
                return self.apply(ops, asker, checked, state);
            }
            drop(state);
            let mut found = Vec::with_capacity(looks.len());
            let mut found_bytes = 0;
            for look in looks {
                let value = self.read(&look, self.shared.value_bytes_max)?;
                if let Found::Value(bytes) = &value {
                    found_bytes += bytes.len();
                    check_outcomes(ops, found_bytes)?;
                }
                if let Found::Longer(bytes) = value {
                    return Err(self.too_long_error(bytes));
                }
                found.push((look, value));
            }
            #[cfg(test)]
            self.shared
                .hooks
                .reached(super::hooks::Point::ConditionalLooked);
            let mut state = self.state.lock();
            if state.closed {
                return Err(self.closed_error());
            }
            if found.iter().all(|(look, _)| state.is_current(look)) {
                self.bring_in(&mut state, &found)?;
                // Another key of the batch may have lost its clean base to an append meanwhile.
                if !any_below(&state, ops, checked) {
                    return self.apply(ops, asker, checked, state);
                }
            }
        }
        Err(busy_error())
    }

    /// What the batch's conditional operations need that the hot map does not have.
    fn look_for_all(
        &self,
        ops: Ops<'_>,
        checked: &Checked,
    ) -> Result<(Vec<Lookup>, MutexGuard<'_, State>), TableError> {
        let state = self.state.lock();
        if state.closed {
            return Err(self.closed_error());
        }
        let mut looks = Vec::new();
        for (op, &place) in ops.iter().zip(&checked.places) {
            let op = op.map_err(|malformed| bad_request(malformed.to_string()))?;
            if op.is_conditional() && matches!(state.look(place, op.key()), Hot::Below) {
                looks.push(state.lookup(self.shared.hasher.hash(op.key()), op.key()));
            }
        }
        Ok((looks, state))
    }

    /// Brings what was found below into the hot map, so that the batch meets it there.
    fn bring_in(
        &self,
        state: &mut MutexGuard<'_, State>,
        found: &[(Lookup, Found)],
    ) -> Result<(), TableError> {
        let bytes_before = state.hot.footprint_bytes();
        let mut result = Ok(());
        for (look, found) in found {
            let value = match found {
                Found::Value(value) => Some(value.as_slice()),
                Found::Absent | Found::Longer(_) => None,
            };
            // What was looked up over a fragment is not what the cold tier says.
            let dirt = if look.was_cold() {
                Dirt::Clean
            } else {
                Dirt::Dirty
            };
            let place = look.hash.place;
            let promoted = state
                .hot
                .promote(place, &look.key, value, dirt, Origin::Write);
            result = result.and(promoted);
        }
        self.shared
            .budget
            .settle(bytes_before, state.hot.footprint_bytes());
        result.map_err(|ArenaFull| full_error())
    }

    /// Applies a checked batch whose conditional keys the hot map knows, and logs it.
    fn apply(
        &self,
        ops: Ops<'_>,
        asker: Option<Asker>,
        checked: &Checked,
        mut state: MutexGuard<'_, State>,
    ) -> Result<WriteReply, TableError> {
        if state.closed {
            return Err(self.closed_error());
        }
        let log = self.log();
        if let Some(error) = log.and_then(Log::failure) {
            return Err(error);
        }
        let room = checked
            .conditional
            .then(|| self.room_for_outcomes(&state, ops, checked, asker))
            .transpose()?;
        let bytes_before = state.hot.footprint_bytes();
        let mut reply = PackedReply::default();
        let mut effects = PackedReply::default();
        let applied = if checked.conditional {
            let effects = log.map(|_| &mut effects);
            apply_conditional(&mut state, ops, checked, &mut reply, effects)
        } else {
            apply_blind(&mut state, ops, checked)
        };
        self.shared
            .budget
            .settle(bytes_before, state.hot.footprint_bytes());
        applied.map_err(|ArenaFull| full_error())?;
        let mut reply = WriteReply {
            count: reply.count,
            bytes: room.map_or_else(Bytes::new, |room| {
                reply.bytes.shrink_to_fit();
                self.shared.budget.keep(room, Bytes::from(reply.bytes))
            }),
            lsn: 0,
        };
        if let Some(log) = log {
            let blind = (ops.count() as u32, ops.bytes());
            let (count, bytes) = if checked.conditional {
                (effects.count, effects.bytes.as_slice())
            } else {
                blind
            };
            // IMPORTANT: under the same hold of the lock, so that the log has the table's writes in the
            // order in which they were applied.
            let record = Record::Batch {
                table: self.id,
                by: asker.map(|asker| asker.by),
                count,
                ops: bytes,
                reply: OwnedReply::Written(reply.count, reply.bytes.clone()),
            };
            let lsn = log.append_at(self.durability(), &record)?;
            state.logged(lsn);
            reply.lsn = lsn;
        }
        Ok(reply)
    }

    /// Takes room for the outcomes of a batch, as things are: before anything is applied, since they must
    /// then be kept.
    fn room_for_outcomes(
        &self,
        state: &State,
        ops: Ops<'_>,
        checked: &Checked,
        asker: Option<Asker>,
    ) -> Result<KeptRoom, TableError> {
        let bytes = outcomes_bytes(state, ops, checked);
        check_outcomes(ops, bytes)?;
        let session_bytes = asker.map_or(0, |asker| asker.kept_bytes);
        let account = self.shared.budget.kept();
        account.take(bytes + ops.count() * OUTCOME_BYTES, session_bytes)
    }

    /// Applies what the log says was written, where the runs do not say it already.
    ///
    /// # Errors
    /// [`full_error`], if spilling does not make room.
    pub(crate) fn replay(&self, lsn: Lsn, ops: Ops<'_>, marks: &Marks) -> Result<(), TableError> {
        ops.check()
            .map_err(|malformed| bad_request(malformed.to_string()))?;
        let mut state = self.state.lock();
        for op in ops.iter() {
            let op = op.map_err(|malformed| bad_request(malformed.to_string()))?;
            let place = self.shared.hasher.hash(op.key()).place;
            if marks.at(place) >= lsn {
                continue;
            }
            let bytes_before = state.hot.footprint_bytes();
            let applied = apply_op(&mut state, place, &op, CleanBase::MayGo);
            self.shared
                .budget
                .settle(bytes_before, state.hot.footprint_bytes());
            applied.map_err(|ArenaFull| full_error())?;
        }
        state.logged(lsn);
        Ok(())
    }

    fn too_long_error(&self, bytes: u64) -> TableError {
        TableError {
            code: ErrorCode::ValueTooLarge,
            text: format!(
                "the value that is there has at least {bytes} bytes, and this operation returns at most \
                 {}; read it as a stream, and discard it",
                self.shared.value_bytes_max
            ),
        }
    }
}

/// At most how many bytes of values the batch's outcomes would have, as things are.
fn outcomes_bytes(state: &State, ops: Ops<'_>, checked: &Checked) -> usize {
    let lengths = ops
        .iter()
        .zip(&checked.places)
        .map(|(op, &place)| match op {
            Ok(op) if op.is_conditional() => match state.look(place, op.key()) {
                Hot::Value(value) => value.len(),
                Hot::Absent | Hot::Below => 0,
            },
            _ => 0,
        });
    lengths.sum()
}

/// Refuses a batch of several operations whose outcomes would be too long together.
fn check_outcomes(ops: Ops<'_>, bytes: usize) -> Result<(), TableError> {
    if ops.count() == 1 || bytes <= OUTCOMES_BYTES_MAX {
        return Ok(());
    }
    Err(TableError {
        code: ErrorCode::ValueTooLarge,
        text: format!(
            "the values that {} operations return have {bytes} bytes, the limit for several \
             together is {OUTCOMES_BYTES_MAX}; send fewer at a time, or one by one",
            ops.count()
        ),
    })
}

/// Whether a conditional operation of the batch needs what the hot map does not have.
fn any_below(state: &State, ops: Ops<'_>, checked: &Checked) -> bool {
    ops.iter().zip(&checked.places).any(|(op, &place)| {
        op.is_ok_and(|op| op.is_conditional() && matches!(state.look(place, op.key()), Hot::Below))
    })
}

/// Applies a batch of blind operations.
fn apply_blind(state: &mut State, ops: Ops<'_>, checked: &Checked) -> Result<(), ArenaFull> {
    let mut op_iter = ops.iter();
    for places in checked.places.chunks(WARMED_AT_ONCE) {
        state.hot.warm(places.iter().copied());
        for (&place, op) in places.iter().zip(&mut op_iter) {
            // The batch was read through before, so each operation is sound.
            let Ok(op) = op else { return Ok(()) };
            apply_op(state, place, &op, CleanBase::MayGo)?;
        }
    }
    Ok(())
}

/// Applies a batch, and pushes what its conditional operations came to as outcomes, and, if asked for, what
/// all of it came to as blind operations.
fn apply_conditional(
    state: &mut State,
    ops: Ops<'_>,
    checked: &Checked,
    reply: &mut PackedReply,
    mut effects: Option<&mut PackedReply>,
) -> Result<(), ArenaFull> {
    for (&place, op) in checked.places.iter().zip(ops.iter()) {
        let Ok(op) = op else { return Ok(()) };
        let mut sum = [0; 8];
        let Some(effect) = decide(state, place, &op, reply, &mut sum) else {
            continue;
        };
        // A conditional operation finds in RAM what was brought in for it, or was there.
        apply_op(state, place, &effect, CleanBase::Stays)?;
        if let Some(effects) = &mut effects {
            push_op(&mut effects.bytes, &effect);
            effects.count += 1;
        }
    }
    Ok(())
}

/// What an operation comes to as a blind one; none if it changes nothing. Pushes its outcome, if it has one.
fn decide<'a>(
    state: &State,
    place: u64,
    op: &Op<'a>,
    reply: &mut PackedReply,
    sum: &'a mut [u8; 8],
) -> Option<Op<'a>> {
    match *op {
        Op::Put { .. } | Op::Append { .. } | Op::Add { .. } | Op::Discard { .. } => Some(*op),
        Op::PutIfAbsent { key, value } => {
            let there = push_current(state, place, key, reply);
            (!there).then_some(Op::Put { key, value })
        }
        Op::Replace { key, value } => {
            let there = push_current(state, place, key, reply);
            there.then_some(Op::Put { key, value })
        }
        Op::Remove { key } => {
            let there = push_current(state, place, key, reply);
            there.then_some(Op::Discard { key })
        }
        Op::CompareAndSwap { key, expected, new } => {
            let current = current_value(state, place, key);
            if current.as_deref() != expected {
                push_value(reply, current.as_deref());
                return None;
            }
            push_outcome(&mut reply.bytes, &Outcome::Swapped);
            reply.count += 1;
            match new {
                Some(value) => Some(Op::Put { key, value }),
                None => expected.is_some().then_some(Op::Discard { key }),
            }
        }
        Op::AddAndGet { key, delta } => {
            let current = current_value(state, place, key);
            let before = current.map_or(0, |bytes| counter_value(&bytes));
            *sum = before.wrapping_add(delta).to_le_bytes();
            push_value(reply, Some(sum));
            Some(Op::Put { key, value: sum })
        }
    }
}

/// Applies a blind operation to the hot map.
#[inline]
fn apply_op(
    state: &mut State,
    place: u64,
    op: &Op<'_>,
    clean_base: CleanBase,
) -> Result<(), ArenaFull> {
    match *op {
        Op::Put { key, value } => state.hot.put(place, key, value),
        Op::Append { key, bytes } => state.hot.append(place, key, bytes, clean_base),
        Op::Add { key, delta } => state.hot.add(place, key, delta),
        Op::Discard { key } => discard(state, place, key),
        // These come here as what they were decided to be.
        Op::PutIfAbsent { .. }
        | Op::Replace { .. }
        | Op::Remove { .. }
        | Op::CompareAndSwap { .. }
        | Op::AddAndGet { .. } => Ok(()),
    }
}

/// Removes an entry: by a tombstone where something may lie below, else by forgetting it.
fn discard(state: &mut State, place: u64, key: &[u8]) -> Result<(), ArenaFull> {
    if state.nothing_below(place) {
        state.hot.forget(place, key);
        Ok(())
    } else {
        state.hot.bury(place, key)
    }
}

/// Pushes what is there as an outcome; says whether anything is.
fn push_current(state: &State, place: u64, key: &[u8], reply: &mut PackedReply) -> bool {
    let current = current_value(state, place, key);
    push_value(reply, current.as_deref());
    current.is_some()
}

fn push_value(reply: &mut PackedReply, value: Option<&[u8]>) {
    let outcome = value.map_or(Outcome::Absent, Outcome::Value);
    push_outcome(&mut reply.bytes, &outcome);
    reply.count += 1;
}

/// What is there, which the hot map knows.
fn current_value(state: &State, place: u64, key: &[u8]) -> Option<Vec<u8>> {
    match state.look(place, key) {
        Hot::Value(value) => {
            let mut bytes = Vec::with_capacity(value.len());
            value.copy_to(&mut bytes);
            Some(bytes)
        }
        Hot::Absent | Hot::Below => None,
    }
}
