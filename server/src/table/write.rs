//! Writes: blind ones go straight to the hot map, conditional ones look first.
//!
//! A batch is checked before any of it is applied, and applied under one hold of the lock, so it is
//! there in order and whole or not at all. Conditional operations whose keys lie below the hot map
//! are looked up without the lock; what was found is brought into the hot map, and then the batch
//! is applied there, if the keys have not changed meanwhile. If they have, they are looked up again.

use std::sync::Arc;

use parking_lot::MutexGuard;
use rhash_protocol::{ErrorCode, Op, Ops, Outcome, packed::push_outcome};

use super::{
    Answer, PackedReply, State, Table, TableError, busy_error,
    check::{Checked, bad_request},
    full_error,
    lookup::{Found, Hot, Lookup},
};
use crate::hot::{ArenaFull, CleanBase, Dirt, Origin, WARMED_AT_ONCE, counter_value};

/// What the outcomes of several operations together may have in bytes; a single one may have more.
const OUTCOMES_BYTES_MAX: usize = 1 << 20;
/// A conditional batch whose keys keep changing is given up after so many looks.
const LOOKS_MAX: usize = 64;

impl Table {
    /// Applies a batch in order, all or nothing, and answers with the outcomes of its conditional
    /// operations.
    pub fn write(self: &Arc<Self>, ops: Ops<'_>) -> Answer<PackedReply> {
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
                return self.write_on_pool(ops, checked);
            }
            return Answer::Ready(self.apply(ops, &checked, state));
        }
        let state = self.state.lock();
        Answer::Ready(self.apply(ops, &checked, state))
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

    fn write_on_pool(self: &Arc<Self>, ops: Ops<'_>, checked: Checked) -> Answer<PackedReply> {
        let count = ops.count() as u32;
        let bytes = ops.bytes().to_vec();
        self.on_pool(move |table| table.write_conditional(Ops::new(count, &bytes), &checked))
    }

    /// Looks for what the hot map does not know, until it knows all that the batch needs.
    fn write_conditional(
        self: &Arc<Self>,
        ops: Ops<'_>,
        checked: &Checked,
    ) -> Result<PackedReply, TableError> {
        for _ in 0..LOOKS_MAX {
            let (looks, state) = self.look_for_all(ops, checked)?;
            if looks.is_empty() {
                return self.apply(ops, checked, state);
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
                    return self.apply(ops, checked, state);
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

    /// Applies a checked batch whose conditional keys the hot map knows.
    fn apply(
        &self,
        ops: Ops<'_>,
        checked: &Checked,
        mut state: MutexGuard<'_, State>,
    ) -> Result<PackedReply, TableError> {
        if state.closed {
            return Err(self.closed_error());
        }
        let bytes_before = state.hot.footprint_bytes();
        if checked.conditional {
            check_outcomes(ops, outcomes_bytes(&state, ops, checked))?;
        }
        // A conditional operation finds in RAM what was brought in for it, or was there.
        let clean_base = if checked.conditional {
            CleanBase::Stays
        } else {
            CleanBase::MayGo
        };
        let mut reply = PackedReply::default();
        let mut result = Ok(());
        let mut op_iter = ops.iter();
        'batch: for places in checked.places.chunks(WARMED_AT_ONCE) {
            state.hot.warm(places.iter().copied());
            for (&place, op) in places.iter().zip(&mut op_iter) {
                // The batch was read through before, so each operation is sound.
                let Ok(op) = op else { break 'batch };
                result = apply_op(&mut state, place, &op, clean_base, &mut reply);
                if result.is_err() {
                    break 'batch;
                }
            }
        }
        self.shared
            .budget
            .settle(bytes_before, state.hot.footprint_bytes());
        match result {
            Ok(()) => Ok(reply),
            Err(ArenaFull) => Err(full_error()),
        }
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

/// Applies one operation to the hot map.
fn apply_op(
    state: &mut State,
    place: u64,
    op: &Op<'_>,
    clean_base: CleanBase,
    reply: &mut PackedReply,
) -> Result<(), ArenaFull> {
    match *op {
        Op::Put { key, value } => state.hot.put(place, key, value),
        Op::Append { key, bytes } => state.hot.append(place, key, bytes, clean_base),
        Op::Add { key, delta } => state.hot.add(place, key, delta),
        Op::Discard { key } => discard(state, place, key),
        Op::PutIfAbsent { key, value } => {
            if push_current(state, place, key, reply) {
                Ok(())
            } else {
                state.hot.put(place, key, value)
            }
        }
        Op::Replace { key, value } => {
            if push_current(state, place, key, reply) {
                state.hot.put(place, key, value)
            } else {
                Ok(())
            }
        }
        Op::Remove { key } => {
            if push_current(state, place, key, reply) {
                discard(state, place, key)
            } else {
                Ok(())
            }
        }
        Op::CompareAndSwap { key, expected, new } => {
            let current = current_value(state, place, key);
            if current.as_deref() != expected {
                push_value(reply, current.as_deref());
                return Ok(());
            }
            push_outcome(&mut reply.bytes, &Outcome::Swapped);
            reply.count += 1;
            match new {
                Some(new) => state.hot.put(place, key, new),
                None if expected.is_some() => discard(state, place, key),
                None => Ok(()),
            }
        }
        Op::AddAndGet { key, delta } => {
            let current = current_value(state, place, key);
            let sum = current
                .map_or(0, |bytes| counter_value(&bytes))
                .wrapping_add(delta);
            push_value(reply, Some(&sum.to_le_bytes()));
            state.hot.put(place, key, &sum.to_le_bytes())
        }
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
