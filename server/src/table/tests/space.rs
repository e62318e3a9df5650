//! What is overwritten, deleted or folded gives its disk back.

use std::{sync::Arc, time::Instant};

use rhash_protocol::{Op, TableKind};

use super::support::{get_one, open, open_table, tiny, wait, write};
use crate::{
    hot::Sweep,
    table::{MergeDone, Need, Table},
};

const KEYS: u32 = 3000;
const VALUE_BYTES: usize = 200;

fn key(number: u32) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

fn put_all(table: &Arc<Table>, round: u8) {
    for number in 0..KEYS {
        let op = Op::Put {
            key: &key(number),
            value: &[round; VALUE_BYTES],
        };
        write(table, &[op]).expect("a put");
        if number % 97 == 0 {
            table.spill(8 * 1024, Sweep::All).expect("a spill");
        }
    }
    spill_all(table);
}

fn spill_all(table: &Arc<Table>) {
    while table.has_unspilled() {
        table.spill(8 * 1024, Sweep::All).expect("a spill");
    }
}

/// Merges as the merging thread does until the table's runs take no more than `bytes_max`.
fn merge_down_to(table: &Arc<Table>, bytes_max: u64) {
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let done = table.merge_one(Need::Order).expect("a merge");
        let bytes = table.info().cold_bytes;
        if done == MergeDone::Nothing && bytes <= bytes_max {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{bytes} bytes in {} runs, where {bytes_max} are allowed",
            table.info().cold_runs
        );
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

/// One and a half times what so many entries have in keys and values.
fn bytes_max(entries: u32) -> u64 {
    u64::from(entries) * (16 + VALUE_BYTES as u64) * 3 / 2
}

#[test]
fn a_table_overwritten_three_times_takes_half_more_than_its_data_at_most() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    for round in 0..4 {
        put_all(&table, round);
    }
    merge_down_to(&table, bytes_max(KEYS));
    assert_eq!(get_one(&table, &key(77)), Some(vec![3; VALUE_BYTES]));
    assert_eq!(wait(table.len()).expect("a count"), u64::from(KEYS));
}

#[test]
fn a_table_of_which_most_is_deleted_gives_the_disk_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    put_all(&table, 1);
    for number in 0..KEYS {
        if number % 4 != 0 {
            write(&table, &[Op::Discard { key: &key(number) }]).expect("a discard");
        }
    }
    spill_all(&table);
    merge_down_to(&table, bytes_max(KEYS / 4));
    assert_eq!(wait(table.len()).expect("a count"), u64::from(KEYS / 4));
    assert_eq!(get_one(&table, &key(40)), Some(vec![1; VALUE_BYTES]));
    assert_eq!(get_one(&table, &key(41)), None);
}

/// Deletes stayed in RAM for as long as they fitted there, and the disk stayed full of what they hide.
#[test]
fn deletes_that_fit_ram_free_the_disk_once_a_table_rests() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    put_all(&table, 1);
    merge_down_to(&table, bytes_max(KEYS));
    for number in 0..KEYS {
        if number % 20 != 0 {
            write(&table, &[Op::Discard { key: &key(number) }]).expect("a discard");
        }
    }
    assert!(table.spill_deletes(Need::Space).expect("a spill"));
    while table.spill_deletes(Need::Space).expect("a spill") {
        while table.merge_one(Need::Space).expect("a merge") == MergeDone::Some {}
    }
    merge_down_to(&table, bytes_max(KEYS / 10));
    // What frees little stays in RAM.
    write(&table, &[Op::Discard { key: &key(20) }]).expect("a discard");
    assert!(!table.spill_deletes(Need::Order).expect("no spill"));
}

/// Estimates were kept in RAM alone, and a start began without any.
#[test]
fn garbage_from_before_a_start_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    put_all(&table, 1);
    put_all(&table, 2);
    drop(table);
    store.stop().expect("a clean stop");
    drop(store);
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    assert!(table.info().cold_bytes > bytes_max(KEYS));
    merge_down_to(&table, bytes_max(KEYS));
}

#[test]
fn numbers_that_were_added_up_are_folded() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Counters);
    for _ in 0..5 {
        for number in 0..KEYS {
            let op = Op::Add {
                key: &key(number),
                delta: 3,
            };
            write(&table, &[op]).expect("an add");
        }
        spill_all(&table);
    }
    let before = table.info().cold_bytes;
    merge_down_to(&table, before / 3);
    assert_eq!(get_one(&table, &key(5)), Some(15i64.to_le_bytes().to_vec()));
}

/// A run from before a split was kept whole until each range had come to merge it for other reasons.
#[test]
fn a_run_that_one_of_several_ranges_needs_is_let_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    put_all(&table, 1);
    while table.merge_one(Need::Order).expect("a merge") == MergeDone::Some {}
    let ranges = table.state.lock().cold.len();
    assert!(ranges > 1, "the table was split");
    merge_down_to(&table, bytes_max(KEYS));
    // All of the oldest range's data is written anew, so others hold on to dead bytes.
    assert_eq!(table.merge_all().expect("a merge"), MergeDone::Some);
    merge_down_to(&table, bytes_max(KEYS));
    assert_eq!(wait(table.len()).expect("a count"), u64::from(KEYS));
}

/// A run that lay in one half alone was kept by the other as well, which never had a reason to merge it.
#[test]
fn a_split_leaves_runs_where_they_have_something() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    put_all(&table, 1);
    while table.merge_one(Need::Order).expect("a merge") == MergeDone::Some {}
    let cold = Arc::clone(&table.state.lock().cold);
    assert!(cold.len() > 1, "the table was split");
    for (index, range) in cold.iter().enumerate() {
        for run in &range.runs {
            assert!(run.last_place() >= range.first && run.first_place() <= cold.last_of(index));
        }
    }
    drop(cold);
    drop(table);
    store.stop().expect("a clean stop");
    drop(store);
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    assert_eq!(wait(table.len()).expect("a count"), u64::from(KEYS));
}

/// An estimate that is wrong must not have a range merged again and again.
#[test]
fn merges_for_garbage_come_to_an_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(5));
    for kind in [TableKind::Values, TableKind::Lists] {
        let table = open_table(&store, kind.name(), kind);
        for round in 0..3 {
            for number in 0..KEYS / 10 {
                let op = Op::Put {
                    key: &key(number),
                    value: &vec![round; number as usize],
                };
                write(&table, &[op]).expect("a put");
            }
            spill_all(&table);
        }
        let mut merges = 0;
        while table.merge_one(Need::Space).expect("a merge") == MergeDone::Some {
            merges += 1;
            assert!(merges < 1000, "still merging");
        }
    }
}
