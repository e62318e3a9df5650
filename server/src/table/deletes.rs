//! Deletes that are only in RAM: spilled where they would free far more disk than they take.
//!
//! A table may be smaller in RAM than the limit and large on disk; without this, deleting most of it
//! would free nothing until RAM runs short. They leave alone, and so need next to no disk: of one
//! that is full they are what makes room.

use std::sync::Arc;

use super::{Spilled, State, Table, TableError, due::Patience, merge::Need};
use crate::{
    cold::{Purpose, Run, RunId},
    hot::{State as EntryState, Sweep},
    key_hash::{KeyHash, KeyHasher},
    ranges::Ranges,
};

/// The places of the hot map that are looked at, evenly spread.
const LOOKS: u64 = 4;
/// About what a record takes beyond its key, with its share of filter and index.
const RECORD_BYTES: u64 = 16;
/// Entries that each look takes in; the lock is held meanwhile.
const LOOK_ENTRIES: usize = 512;

impl Table {
    /// Spills hot entries if that would free much; says whether it did.
    pub(crate) fn spill_deletes(&self, need: Need) -> Result<bool, TableError> {
        if !self.deletes_would_free_much(need) {
            return Ok(false);
        }
        // IMPORTANT: no more than what there is now, or writes that go on would keep merges waiting.
        let mut left_bytes = self.hot_use().bytes;
        let step_bytes = self.shared.steps.spill_bytes;
        let mut any = false;
        let goes_on = || {
            let deep = self.runs_deepest() >= self.depths().stall && need == Need::Order;
            !deep && !self.shared.budget.is_stopping()
        };
        while left_bytes > 0 && goes_on() {
            if self.spill_for(Purpose::Deletes, step_bytes, Sweep::Deletes)? == Spilled::Nothing {
                break;
            }
            any = true;
            left_bytes = left_bytes.saturating_sub(step_bytes);
            if need == Need::Space {
                // Merges make room for the next step.
                break;
            }
        }
        Ok(any)
    }

    fn deletes_would_free_much(&self, need: Need) -> bool {
        let state = self.state.lock();
        let settled = state.is_settled();
        let looked_at = LookedAt {
            version: state.hot.version(),
            need,
            newest: state.cold.runs().last().map(|run| run.id()),
        };
        if state.closed || (!settled && need == Need::Order) {
            return false;
        }
        if *self.looked_at.lock() == Some(looked_at) {
            return false;
        }
        let cold = Arc::clone(&state.cold);
        let sample = Sample::take(&state, &self.shared.hasher);
        drop(state);
        let runs = cold.runs();
        let bytes: u64 = runs.iter().map(|run| run.bytes()).sum();
        let keys: u64 = runs.iter().map(|run| run.keys()).sum();
        let freed_bytes = sample.would_free(&cold, bytes / keys.max(1));
        let patience = Patience::of(need, settled);
        let free_much = freed_bytes > 0 && freed_bytes >= bytes / patience.garbage_share;
        // What is worth it now is looked at again until it is done.
        *self.looked_at.lock() = (!free_much).then_some(looked_at);
        free_much
    }
}

/// What a look at the deletes in RAM depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LookedAt {
    version: u32,
    need: Need,
    newest: Option<RunId>,
}

/// Some of the deletes in RAM.
#[derive(Debug)]
struct Sample {
    deletes: Vec<KeyHash>,
    key_bytes: u64,
    /// The entries in RAM for one that was looked at.
    scale: f64,
}

impl Sample {
    fn take(state: &State, hasher: &KeyHasher) -> Self {
        let (mut deletes, mut entries, mut key_bytes) = (Vec::new(), 0u64, 0);
        for look in 0..LOOKS {
            let from = look * (u64::MAX / LOOKS);
            state.hot.visit(from, LOOK_ENTRIES, |entry| {
                entries += 1;
                if entry.header.state == EntryState::Tombstone {
                    deletes.push(hasher.hash(entry.key));
                    key_bytes += entry.key.len() as u64;
                }
            });
        }
        Self {
            deletes,
            key_bytes,
            scale: state.hot.len() as f64 / entries.max(1) as f64,
        }
    }

    /// About how many bytes of runs the deletes in RAM hide beyond what they take, where a record
    /// has so many.
    fn would_free(&self, cold: &Ranges<Arc<Run>>, record_bytes: u64) -> u64 {
        // Deletes of keys that nobody has hide nothing.
        let hides = |hash: &&KeyHash| {
            let runs = &cold.at(hash.place).runs;
            runs.iter()
                .any(|run| run.may_contain(**hash).unwrap_or(false))
        };
        let hidden_bytes = self.deletes.iter().filter(hides).count() as u64 * record_bytes;
        let own_bytes = self.key_bytes + self.deletes.len() as u64 * RECORD_BYTES;
        (hidden_bytes.saturating_sub(own_bytes) as f64 * self.scale) as u64
    }
}
