//! A run that is gone costs its own entries, and nothing else, now and after later starts.

use std::{fs, path::Path, sync::Arc};

use rhash_protocol::{Op, TableKind};

use super::support::{
    get, get_one, open, open_logged, open_table, tiny, try_open_logged, wait, write,
};
use crate::{
    hot::Sweep,
    log::Durability,
    store::{Store, Tiny},
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

/// So many that the hot map has several buckets, of which a spill takes some.
const LISTS: u16 = 12_000;
const BATCH: usize = 400;
const ROUNDS: u8 = 3;
/// What a round appends to each list.
const ROUND_BYTES: usize = 40;

fn open_lists(dir: &Path, entries_bytes: usize) -> (Arc<Store>, Arc<Table>) {
    let tiny = Tiny {
        entries_bytes,
        ..tiny(64)
    };
    let store = open_logged(dir, tiny, Durability::EverySec);
    let table = open_table(&store, "lists", TableKind::Lists);
    (store, table)
}

/// Crashes twice, the first time with so much RAM for the replay; returns what that spilled.
fn crash_twice(entries_bytes: usize) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let mut open = open_lists(dir.path(), 1 << 30);
    let keys: Vec<[u8; 2]> = (0..LISTS).map(u16::to_le_bytes).collect();
    for round in 0..ROUNDS {
        let bytes = &[round; ROUND_BYTES];
        for batch in keys.chunks(BATCH) {
            let appends: Vec<_> = batch.iter().map(|key| Op::Append { key, bytes }).collect();
            write(&open.1, &appends).expect("appends");
        }
    }
    open.1.spill(40_000, Sweep::All).expect("a spill");
    assert!(open.1.has_unspilled(), "only a part was spilled");
    let log = open.0.log().expect("a log");
    log.wait_acked(log.last()).expect("it is written");
    let rounds: Vec<u8> = (0..ROUNDS).flat_map(|round| [round; ROUND_BYTES]).collect();
    let mut spilled = 0;
    for entries_bytes in [entries_bytes, 1 << 30] {
        open.0.log().expect("a log").abandon();
        drop(open);
        open = open_lists(dir.path(), entries_bytes);
        spilled += open.0.stats().spilled_entries;
        for batch in keys.chunks(BATCH) {
            let batch: Vec<&[u8]> = batch.iter().map(<[u8; 2]>::as_slice).collect();
            for list in get(&open.1, &batch).expect("lists") {
                let list = list.expect("a list");
                assert!(
                    list == rounds,
                    "a list has {} of {} bytes",
                    list.len(),
                    rounds.len()
                );
            }
        }
    }
    spilled
}

/// Part of a table was spilled late; a start then ran out of RAM over older records, and its spill lowered the mark
/// of that part, so that the start after it appended to it once more what the late run had.
#[test]
fn a_replay_that_spills_makes_no_later_one_apply_anything_twice() {
    let spilled: u64 = (1..4).map(|mib| crash_twice(mib << 20)).sum();
    assert!(spilled > 0, "no replay ran out of RAM");
}

/// A manifest that had lost the record of a new table was taken for one with a torn tail, and what the log said of the
/// table for that of one which was closed later: the table was gone without a word.
#[test]
fn a_manifest_that_lost_a_table_which_the_log_knows_is_no_torn_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || try_open_logged(dir.path(), tiny(64), Durability::EverySec);
    let store = open().expect("a store");
    let manifest = dir.path().join("MANIFEST");
    let before = fs::read(&manifest).expect("a manifest");
    let table = open_table(&store, "late", TableKind::Values);
    let put = Op::Put {
        key: b"key",
        value: b"value",
    };
    write(&table, &[put]).expect("a put");
    let log = store.log().expect("a log");
    log.wait_acked(log.last()).expect("it is written");
    log.abandon();
    drop((table, store));
    let whole = fs::read(&manifest).expect("a manifest");
    fs::write(&manifest, &before).expect("a cut manifest");
    let error = open().expect_err("a table is lost");
    assert!(error.to_string().contains("MANIFEST"), "{error}");
    fs::write(&manifest, &whole).expect("a manifest");
    let store = open().expect("a store");
    let table = open_table(&store, "late", TableKind::Values);
    assert_eq!(get_one(&table, b"key"), Some(b"value".to_vec()));
}

/// A log that had lost its end was taken for a torn one, though runs had later writes than it: lists lost their middle,
/// and what was deleted came back in part.
#[test]
fn a_log_without_writes_that_runs_have_is_no_torn_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || try_open_logged(dir.path(), tiny(64), Durability::EverySec);
    let store = open().expect("a store");
    let table = open_table(&store, "lists", TableKind::Lists);
    let append = |bytes: &[u8]| {
        let op = Op::Append { key: b"key", bytes };
        write(&table, &[op]).expect("an append");
        let log = store.log().expect("a log");
        log.wait_acked(log.last()).expect("it is written");
    };
    let log_file = || {
        let mut files: Vec<_> = fs::read_dir(dir.path().join("log"))
            .expect("a log")
            .map(|entry| entry.expect("a segment").path())
            .collect();
        files.sort();
        files.pop().expect("a segment")
    };
    append(b"1");
    let whole = fs::read(log_file()).expect("a segment").len();
    append(b"2");
    while table.has_unspilled() {
        table.spill(usize::MAX, Sweep::All).expect("a spill");
    }
    let path = log_file();
    let bytes = fs::read(&path).expect("a segment");
    store.log().expect("a log").abandon();
    drop((table, store));
    for length in [whole, whole + 1, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("a cut segment");
        let error = open().expect_err("runs have more");
        assert!(error.to_string().contains(".log"), "{error}");
        let left = fs::read(&path).expect("a segment").len();
        assert_eq!(left, length, "it is as it was");
    }
    fs::write(&path, &bytes).expect("a segment");
    let store = open().expect("a store");
    let table = open_table(&store, "lists", TableKind::Lists);
    assert_eq!(get_one(&table, b"key"), Some(b"12".to_vec()));
}
