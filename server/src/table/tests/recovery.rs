//! A run that is gone costs its own entries, and nothing else, now and after later starts.

use std::{fs, path::Path, sync::Arc};

use rhash_protocol::{Op, TableKind};

use super::support::{get_one, open, open_table, tiny, wait, write};
use crate::{
    hot::Sweep,
    store::Store,
    table::{MergeDone, Table},
};

/// Puts 50 values of so many bytes, and spills them as one run.
fn spill_round(table: &Arc<Table>, round: u8) {
    for number in 0..50u8 {
        // Every round overwrites half of the one before.
        let key = [round / 2, number, round % 2 * (number % 2)];
        write(
            table,
            &[Op::Put {
                key: &key,
                value: &[round; 100],
            }],
        )
        .expect("a put");
    }
    while table.has_unspilled() {
        table.spill(usize::MAX, Sweep::All).expect("a spill");
    }
}

fn restart(store: Arc<Store>, dir: &Path) -> Arc<Store> {
    store.stop().expect("a clean stop");
    drop(store);
    open(Some(dir), tiny(64))
}

/// The newest run's number stayed in the manifest, was given to another table's run, and that was
/// then taken for the lost one; and merges around a lost run were not found in the manifest, so
/// that their output was removed as a leftover.
#[test]
fn a_lost_run_costs_its_own_entries_alone() {
    for lost in [0, 2, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(Some(dir.path()), tiny(64));
        let table = open_table(&store, "a", TableKind::Values);
        for round in 0..5 {
            spill_round(&table, round);
        }
        let mut numbers: Vec<_> = table.runs().iter().map(|run| run.id()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers.len(), 5);
        drop(table);
        store.stop().expect("a clean stop");
        drop(store);
        let file = dir.path().join(format!("runs/{:016x}.run", numbers[lost]));
        fs::remove_file(file).expect("the run has a file");

        let store = open(Some(dir.path()), tiny(64));
        let table = open_table(&store, "a", TableKind::Values);
        assert_eq!(table.runs().len(), 4);
        let count = wait(table.len()).expect("a count");
        let other = open_table(&store, "b", TableKind::Values);
        spill_round(&other, 200);
        assert!(
            !numbers.contains(&other.runs()[0].id()),
            "no number is given twice"
        );
        assert_eq!(table.merge_all().expect("a merge"), MergeDone::Some);
        drop((table, other));

        let store = restart(store, dir.path());
        let table = open_table(&store, "a", TableKind::Values);
        assert_eq!(
            table.runs().len(),
            1,
            "the merged run is there, lost was {lost}"
        );
        assert_eq!(wait(table.len()).expect("a count"), count);
        assert_eq!(
            get_one(&table, &[100, 1, 0]),
            None,
            "the other table's entries are not here"
        );
        let other = open_table(&store, "b", TableKind::Values);
        assert_eq!(wait(other.len()).expect("a count"), 50);
    }
}
