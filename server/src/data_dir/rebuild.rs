//! A manifest made anew from what runs say of themselves, and what the log says of tables that have none.
//!
//! Of the runs of a table that overlap at a place, one that was made of others stands for all whose age lies in
//! its own; the rest lie there by age, newest first. A run that belongs to a time before its table was last
//! emptied says so, and goes.

use std::collections::{BTreeMap, BTreeSet};

use rhash_protocol::TableId;

use super::{edit::TableState, manifest::State, note::Named};
use crate::{
    cold::RunId,
    log::Lsn,
    ranges::{Range, Ranges},
};

/// A run of a named table, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct NotedRun {
    pub(crate) id: RunId,
    pub(crate) table: TableId,
    pub(crate) note: Named,
}

/// What the log says that the runs do not.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// The number before that of the first record, if there is a log.
    pub(crate) before: Option<Lsn>,
    /// The highest number of a table in it, whether that is still there or not.
    pub(crate) last_table: TableId,
    /// Tables that it tells of.
    pub(crate) tables: BTreeMap<TableId, TableState>,
}

/// What the manifest must have said, as far as runs and log tell.
pub(crate) fn rebuild(runs: &[NotedRun], logged: &Logged) -> State {
    let mut by_table: BTreeMap<TableId, Vec<&NotedRun>> = BTreeMap::new();
    for run in runs {
        by_table.entry(run.table).or_default().push(run);
    }
    let mut state = State {
        checkpoint: logged.before.unwrap_or(0),
        logs: logged.before.is_some(),
        next_table: 1,
        ..State::default()
    };
    for (&id, table) in &logged.tables {
        state.tables.insert(id, table.bare());
    }
    for (id, runs) in by_table {
        let emptied = state.tables.get(&id).map_or(0, |table| table.emptied);
        if let Some(table) = table_of(runs, emptied) {
            state.tables.insert(id, table);
        }
    }
    keep_last_of_name(&mut state.tables);
    let told = runs.iter().map(|run| run.note.checkpoint).max();
    state.checkpoint = state.checkpoint.max(told.unwrap_or(0));
    if !state.logs {
        // IMPORTANT: what is logged from now on must have higher numbers than what the runs say of a log that
        // is gone, or a replay would take it for written down.
        state.checkpoint = state.last_told();
    }
    for table in state.tables.values_mut() {
        table.marks.forget(state.checkpoint);
    }
    let last_of_runs = runs.iter().map(|run| run.table).max().unwrap_or(0);
    state.next_table = logged.last_table.max(last_of_runs).saturating_add(1);
    state
}

/// A table by its runs; none if all are of a time before it was emptied.
fn table_of(mut runs: Vec<&NotedRun>, emptied: Lsn) -> Option<TableState> {
    let emptied_last = runs.iter().map(|run| run.note.table.emptied).max();
    let emptied = emptied.max(emptied_last?);
    runs.retain(|run| run.note.table.emptied == emptied);
    let newest = runs.iter().max_by_key(|run| run.id)?;
    let mut table = newest.note.table.bare();
    for run in &runs {
        table.marks.raise_within(&run.note.table.marks, 0, u64::MAX);
    }
    table.ranges = ranges_of(&runs);
    Some(table)
}

fn ranges_of(runs: &[&NotedRun]) -> Ranges<RunId> {
    let made = |run: &&&NotedRun| !run.note.is_spill(run.id);
    let mut firsts = BTreeSet::from([0]);
    for run in runs.iter().filter(made) {
        firsts.insert(run.note.first);
        firsts.extend(run.note.last.checked_add(1));
    }
    let firsts: Vec<u64> = firsts.into_iter().collect();
    let lasts = firsts.iter().skip(1).map(|next| next - 1);
    let ranges = firsts.iter().zip(lasts.chain([u64::MAX]));
    let ranges = ranges.map(|(&first, last)| Range {
        first,
        runs: runs_at(runs, first, last),
    });
    Ranges::from_parts(ranges.collect()).unwrap_or_else(Ranges::new)
}

/// The runs of a range that no run ends or begins to stand for others in, newest first.
fn runs_at(runs: &[&NotedRun], first: u64, last: u64) -> Vec<RunId> {
    let here = |run: &&&NotedRun| run.note.first <= last && run.note.last >= first;
    let here: Vec<&NotedRun> = runs.iter().filter(here).copied().collect();
    let stands_for = |made: &NotedRun, run: &NotedRun| {
        made.id > run.id
            && made.note.oldest <= run.note.oldest
            && made.note.newest >= run.note.newest
    };
    let mut left: Vec<&NotedRun> = here
        .iter()
        .filter(|run| !here.iter().any(|made| stands_for(made, run)))
        .copied()
        .collect();
    left.sort_unstable_by_key(|run| std::cmp::Reverse((run.note.newest, run.id)));
    left.into_iter().map(|run| run.id).collect()
}

/// Of tables that had one name after the other, the last one has it.
fn keep_last_of_name(tables: &mut BTreeMap<TableId, TableState>) {
    let last: BTreeMap<String, TableId> = tables
        .iter()
        .map(|(&id, table)| (table.name.clone(), id))
        .collect();
    tables.retain(|id, table| last.get(&table.name) == Some(id));
}

#[cfg(test)]
mod tests {
    use rhash_protocol::TableKind;

    use super::*;
    use crate::data_dir::Marks;

    const END: u64 = u64::MAX;

    fn table(emptied: Lsn) -> TableState {
        TableState {
            name: "t".to_owned(),
            kind: TableKind::Values,
            codec: "bytes".to_owned(),
            ranges: Ranges::new(),
            marks: Marks::default(),
            emptied,
            durability: None,
            maker: None,
        }
    }

    fn run(id: RunId, places: (u64, u64), ages: (RunId, RunId)) -> NotedRun {
        NotedRun {
            id,
            table: 1,
            note: Named {
                table: table(0),
                checkpoint: 0,
                first: places.0,
                last: places.1,
                oldest: ages.0,
                newest: ages.1,
            },
        }
    }

    fn at(state: &State, place: u64) -> &[RunId] {
        &state.tables[&1].ranges.at(place).runs
    }

    #[test]
    fn a_merge_stands_for_its_inputs_where_it_was_made() {
        // 1, 2, 3 were spilled; 1 and 2 were merged below 100 to 4, and 2 and 3 above it to 5.
        let runs = [
            run(1, (0, END), (1, 1)),
            run(2, (0, END), (2, 2)),
            run(3, (0, END), (3, 3)),
            run(4, (0, 99), (1, 2)),
            run(5, (100, END), (2, 3)),
            run(6, (50, 60), (6, 6)),
        ];
        let state = rebuild(&runs, &Logged::default());
        assert_eq!(at(&state, 55), [6, 3, 4]);
        assert_eq!(at(&state, 99), [6, 3, 4], "ranges end where merges do");
        assert_eq!(at(&state, 100), [5, 1]);
        assert_eq!(state.next_table, 2);
    }

    #[test]
    fn what_was_merged_again_stands_for_all() {
        let runs = [
            run(1, (0, END), (1, 1)),
            run(9, (0, END), (1, 5)),
            run(7, (0, END), (7, 7)),
            run(12, (0, END), (1, 7)),
            run(11, (0, END), (11, 11)),
        ];
        assert_eq!(at(&rebuild(&runs, &Logged::default()), 0), [11, 12]);
    }

    #[test]
    fn runs_from_before_a_clear_are_left_out() {
        let mut runs = [run(1, (0, END), (1, 1)), run(2, (0, END), (2, 2))];
        runs[1].note.table.emptied = 40;
        let state = rebuild(&runs, &Logged::default());
        assert_eq!(at(&state, 0), [2]);
        assert_eq!(state.tables[&1].emptied, 40);
        let logged = Logged {
            before: Some(0),
            last_table: 3,
            tables: BTreeMap::from([(1, table(41)), (3, table(0))]),
        };
        let state = rebuild(&runs, &logged);
        assert!(state.tables.contains_key(&3), "the last of its name");
        assert!(!state.tables.contains_key(&1));
    }

    #[test]
    fn a_log_that_is_gone_leaves_its_numbers_behind() {
        let mut runs = [run(1, (0, END), (1, 1))];
        runs[0].note.table.marks.raise(&crate::data_dir::Mark {
            first: 0,
            last: 9,
            lsn: 500,
        });
        let state = rebuild(&runs, &Logged::default());
        assert_eq!((state.checkpoint, state.logs), (500, false));
        assert_eq!(state.tables[&1].marks, Marks::default());
        let logged = Logged {
            before: Some(300),
            ..Logged::default()
        };
        let state = rebuild(&runs, &logged);
        assert_eq!((state.checkpoint, state.logs), (300, true));
        assert_eq!(state.tables[&1].marks.at(9), 500);
    }
}
