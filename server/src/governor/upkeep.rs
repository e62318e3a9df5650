//! Upkeep: the thread that keeps runs few and gives disk back.
//!
//! It merges what is due, the tables with the most runs first, spills deletes that would free more than they take, has
//! sled give back what it holds for nothing, and sees when the disk limit is reached: then every
//! byte is looked for, and writes are refused only when none is left to find.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use rhash_protocol::{ErrorCode, WireError};

use super::RETRY_AFTER;
use crate::{
    background,
    cold::ColdStore,
    shared::{Shared, cold_error},
    store::Tables,
    table::{MergeDone, Need, Table},
};

/// Works until the budget stops it.
pub(crate) fn upkeep(shared: &Shared, tables: &Tables) {
    let Some(cold) = &shared.cold else {
        return;
    };
    background::step_back();
    while !shared.budget.is_stopping() {
        let need = look(shared, cold);
        let done = by_depth(tables)
            .iter()
            .any(|table| !shared.budget.is_stopping() && tend(shared, table, need));
        if done || gave_back(shared, cold, need) {
            shared.no_space_to_gain.store(false, Relaxed);
            continue;
        }
        shared.no_space_to_gain.store(need == Need::Space, Relaxed);
        shared.merge_wanted.wait(RETRY_AFTER);
    }
}

/// How often the disk limit was reached.
pub(super) fn limit_refusals(shared: &Shared) -> u64 {
    shared.cold.as_ref().map_or(0, ColdStore::limit_refusals)
}

/// Whether a spill that failed may find room soon, because merges may give some back: it failed for
/// the limit, which was reached so often before it, and not for a disk that others have filled.
pub(super) fn may_gain_space(shared: &Shared, error: &WireError, refusals_before: u64) -> bool {
    let may = error.code == ErrorCode::DiskFull
        && limit_refusals(shared) > refusals_before
        && !shared.no_space_to_gain.load(Relaxed);
    if may {
        shared.merge_wanted.ring();
    }
    may
}

/// Has sled give disk back; says whether it did.
fn gave_back(shared: &Shared, cold: &ColdStore, need: Need) -> bool {
    match cold.give_back(need == Need::Space) {
        Ok(0) => false,
        Ok(bytes) => {
            tracing::info!(bytes, "sled gave disk back");
            true
        }
        Err(error) => {
            tell(shared, "sled cannot give disk back", cold_error(&error));
            false
        }
    }
}

/// Whether the disk limit is reached.
fn look(shared: &Shared, cold: &ColdStore) -> Need {
    if let Err(error) = cold.look_for_room() {
        tell(shared, "disk cannot be measured", cold_error(&error));
    }
    if cold.is_crowded() {
        return Need::Space;
    }
    shared.no_space_to_gain.store(false, Relaxed);
    Need::Order
}

/// The tables, those with the most runs first.
fn by_depth(tables: &Tables) -> Vec<Arc<Table>> {
    let mut by_depth: Vec<(usize, Arc<Table>)> = tables
        .all()
        .into_iter()
        .map(|table| (table.runs_deepest(), table))
        .collect();
    by_depth.retain(|(depth, _)| *depth > 0);
    by_depth.sort_unstable_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    by_depth.into_iter().map(|(_, table)| table).collect()
}

/// Does one thing for a table, if there is one to do.
fn tend(shared: &Shared, table: &Table, need: Need) -> bool {
    match table.merge_one(need) {
        Ok(MergeDone::Nothing | MergeDone::NoRoom) => {}
        Ok(MergeDone::Some) => {
            *shared.merge_trouble.lock() = None;
            shared.merge_done.ring();
            return true;
        }
        Err(error) => tell(shared, "merge failed", error),
    }
    match table.spill_deletes(need) {
        Ok(spilled) => spilled,
        Err(error) => {
            tell(shared, "spill of deletes failed", error);
            false
        }
    }
}

/// Keeps a trouble for those who wait for merges, and logs it if it is not the one before.
fn tell(shared: &Shared, what: &'static str, error: WireError) {
    let mut trouble = shared.merge_trouble.lock();
    if trouble
        .as_ref()
        .is_none_or(|before| before.code != error.code)
    {
        tracing::error!(error = %error.text, "{what}");
    }
    *trouble = Some(error);
    drop(trouble);
    shared.merge_done.ring();
}
