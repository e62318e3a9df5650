//! Relief: which tables give RAM when entries take too much.
//!
//! Entries that were read of late are in *use*. As long as all that is in use takes no more than its
//! share, only what is not gives: the table that has most of it first. So a bulk load pays for its own
//! room, and a table that is read stays hot, as does one that is small. When more is in use than
//! that, use ages in the largest table first: in the end tables of equal use have equal shares.

use std::{cmp::Reverse, sync::Arc, time::Instant};

use super::{Budget, LOOK_EVERY, Merges, Steering, upkeep};
use crate::{
    counters::Waiting,
    hot::Sweep,
    shared::Shared,
    store::Tables,
    table::{HotUse, MergeDone, Need, Spilled, Table},
};

/// Entries in use keep at most this part of what entries may take; what is written needs the rest.
const USED_SHARE: usize = 2;

/// A table, and how much it has to give.
struct Giver {
    bytes: usize,
    table: Arc<Table>,
}

/// What a look over all tables came to.
enum Look {
    /// Some RAM was freed.
    Freed,
    /// No table has anything to give.
    Nothing,
    /// The disk failed.
    Failed,
}

/// Spills until entries are under the low mark, if they are over the high one; says whether the
/// disk took all that it was given.
pub(super) fn relieve(shared: &Shared, tables: &Tables, steering: &mut Steering<'_>) -> bool {
    let budget = &shared.budget;
    budget.set_at_floor(false);
    if !budget.wants_relief() && budget.trouble().is_none() {
        return true;
    }
    while budget.tracked_bytes() > budget.low_mark() && !budget.is_stopping() {
        let all: Vec<(HotUse, Arc<Table>)> = tables
            .all()
            .into_iter()
            .filter(|table| !table.is_stuck())
            .map(|table| (table.hot_use(), table))
            .collect();
        let sweep = sweep_for(budget, &all);
        let mut look = spill_some(shared, givers(&all, sweep), sweep, steering);
        if matches!(look, Look::Nothing) && sweep == Sweep::Spare {
            look = spill_some(shared, givers(&all, Sweep::Age), Sweep::Age, steering);
        }
        match look {
            Look::Freed => budget.set_at_floor(false),
            Look::Nothing => {
                budget.set_at_floor(true);
                break;
            }
            Look::Failed => return false,
        }
    }
    budget.set_trouble(None);
    true
}

/// Whether what is in use may stay as it is.
fn sweep_for(budget: &Budget, all: &[(HotUse, Arc<Table>)]) -> Sweep {
    let used_bytes: usize = all.iter().map(|(hot, _)| hot.used_bytes).sum();
    if used_bytes > budget.entries_bytes_max() / USED_SHARE {
        Sweep::Age
    } else {
        Sweep::Spare
    }
}

/// All tables, those that have most to give first.
fn givers(all: &[(HotUse, Arc<Table>)], sweep: Sweep) -> Vec<Giver> {
    let mut givers: Vec<Giver> = all
        .iter()
        .map(|(hot, table)| Giver {
            bytes: match sweep {
                Sweep::Spare => hot.bytes.saturating_sub(hot.used_bytes),
                _ => hot.bytes,
            },
            table: Arc::clone(table),
        })
        .collect();
    givers.sort_unstable_by_key(|giver| Reverse(giver.bytes));
    givers
}

/// Spills one step's worth: of one large table, or of many small ones.
fn spill_some(
    shared: &Shared,
    givers: Vec<Giver>,
    sweep: Sweep,
    steering: &mut Steering<'_>,
) -> Look {
    let budget = &shared.budget;
    let tracked_before = budget.tracked_bytes();
    let least_bytes = givers.first().map_or(0, |giver| giver.bytes / 2);
    let (mut freed, mut any) = (0, false);
    for giver in givers {
        let enough = any && (freed >= shared.steps.spill_bytes || giver.bytes < least_bytes);
        if enough || budget.is_stopping() {
            break;
        }
        wait_for_merges(shared, &giver.table, steering);
        steering.look();
        let meanwhile = || steering.look();
        let refusals = upkeep::limit_refusals(shared);
        match giver
            .table
            .spill_behind(shared.steps.spill_bytes, sweep, meanwhile)
        {
            Ok(spilled) => {
                any |= spilled == Spilled::Some;
                budget.set_trouble(None);
            }
            Err(error) if upkeep::may_gain_space(shared, &error, refusals) => {
                // Writers wait for it rather than being refused.
                budget.set_trouble(None);
                return Look::Failed;
            }
            Err(error) => {
                let before = budget.trouble();
                if before.is_none_or(|before| before.code != error.code) {
                    let table = giver.table.id();
                    tracing::error!(table, error = %error.text, "spill failed");
                }
                budget.set_trouble(Some(error));
                return Look::Failed;
            }
        }
        freed = tracked_before.saturating_sub(budget.tracked_bytes());
    }
    if any { Look::Freed } else { Look::Nothing }
}

/// Holds spills back while a table has too many runs to be read quickly.
fn wait_for_merges(shared: &Shared, table: &Table, steering: &mut Steering<'_>) {
    let must_wait = || {
        table.runs_deepest() >= table.depths().stall
            && !shared.budget.is_stopping()
            && !table.is_closed()
            && shared.merge_trouble.lock().is_none()
    };
    if !must_wait() {
        return;
    }
    if steering.merges == Merges::Here {
        // What fails, or finds nothing to merge, is looked after once the threads run.
        while must_wait() && matches!(table.merge_one(Need::Order), Ok(MergeDone::Some)) {}
        return;
    }
    let began = Instant::now();
    let _waiting = Waiting::among(&shared.waits_for_merges);
    while must_wait() {
        shared.merge_wanted.ring();
        shared.merge_done.wait(LOOK_EVERY);
        steering.look();
    }
    shared.counters.merge_stalls.note(began.elapsed());
}
