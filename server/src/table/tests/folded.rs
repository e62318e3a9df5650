//! A list whose newest part is in RAM and whose older parts are on disk: it comes to RAM as a whole for
//! being read again, if it is short and nothing has changed meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use rhash_protocol::{Op, TableKind};

use super::support::{get_one, open, open_table, tiny, write};
use crate::{
    hot::Sweep,
    store::Store,
    table::{Table, hooks::Point},
};

const KEY: &[u8] = b"list";

fn append(table: &Arc<Table>, bytes: &[u8]) {
    write(table, &[Op::Append { key: KEY, bytes }]).expect("an append");
}

fn spill(table: &Table) {
    table.spill(usize::MAX, Sweep::All).expect("a spill");
}

/// Three parts of so many bytes: two on disk, in two runs, and one in RAM.
fn list_in_parts(store: &Store, part_bytes: usize) -> (Arc<Table>, Vec<u8>) {
    let table = open_table(store, "lists", TableKind::Lists);
    let mut whole = Vec::new();
    for part in 0..3u8 {
        append(&table, &vec![part; part_bytes]);
        whole.extend(vec![part; part_bytes]);
        if part < 2 {
            spill(&table);
        }
    }
    (table, whole)
}

fn cold_reads(store: &Store) -> u64 {
    store.stats().cold_reads
}

#[test]
fn a_list_that_is_read_again_is_served_from_ram() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let (table, mut whole) = list_in_parts(&store, 100);
    // The first reading leaves a mark, the second one finds it.
    for _ in 0..2 {
        let before = cold_reads(&store);
        assert_eq!(get_one(&table, KEY), Some(whole.clone()));
        assert!(cold_reads(&store) > before);
    }
    let before = cold_reads(&store);
    assert_eq!(get_one(&table, KEY), Some(whole.clone()));
    append(&table, b"and more");
    whole.extend_from_slice(b"and more");
    assert_eq!(get_one(&table, KEY), Some(whole.clone()));
    assert_eq!(cold_reads(&store), before);
    assert_eq!(store.stats().promoted_entries, 1);
    // It says more than the disk does, so it is spilled as a whole, and hides what lies below.
    spill(&table);
    assert_eq!(table.info().hot_entries, 0);
    let before = cold_reads(&store);
    assert_eq!(get_one(&table, KEY), Some(whole));
    assert_eq!(cold_reads(&store), before + 1);
}

#[test]
fn a_long_list_is_not_written_again_for_being_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let (table, whole) = list_in_parts(&store, 3000);
    for _ in 0..4 {
        assert_eq!(get_one(&table, KEY), Some(whole.clone()));
    }
    assert_eq!(store.stats().promoted_entries, 0);
    let spilled_before = store.stats().spilled_bytes;
    spill(&table);
    let spilled = store.stats().spilled_bytes - spilled_before;
    assert!(spilled < 6000, "the part alone: {spilled}");
}

#[test]
fn what_was_appended_while_a_list_was_read_is_not_lost() {
    for with_spill in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(Some(dir.path()), tiny(64));
        let (table, mut whole) = list_in_parts(&store, 100);
        assert_eq!(get_one(&table, KEY), Some(whole.clone()));
        let meanwhile = Arc::clone(&table);
        let once = AtomicBool::new(true);
        store.hooks().set(move |point| {
            if point == Point::BatchLooked && once.swap(false, Relaxed) {
                append(&meanwhile, b"meanwhile");
                if with_spill {
                    spill(&meanwhile);
                }
            }
        });
        // It was looked up before, so it is what it was then.
        assert_eq!(get_one(&table, KEY), Some(whole.clone()));
        assert_eq!(store.stats().promoted_entries, 0);
        whole.extend_from_slice(b"meanwhile");
        for _ in 0..3 {
            assert_eq!(get_one(&table, KEY), Some(whole.clone()));
        }
        spill(&table);
        assert_eq!(get_one(&table, KEY), Some(whole));
    }
}

#[test]
fn a_counter_that_is_read_again_is_served_from_ram() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "counters", TableKind::Counters);
    for delta in [5, 7] {
        write(&table, &[Op::Add { key: KEY, delta }]).expect("an add");
        spill(&table);
    }
    let add = |delta| write(&table, &[Op::Add { key: KEY, delta }]).expect("an add");
    add(1);
    let sum = |sum: i64| Some(sum.to_le_bytes().to_vec());
    assert_eq!(get_one(&table, KEY), sum(13));
    assert_eq!(get_one(&table, KEY), sum(13));
    let before = cold_reads(&store);
    add(2);
    assert_eq!(get_one(&table, KEY), sum(15));
    assert_eq!(cold_reads(&store), before);
    spill(&table);
    assert_eq!(get_one(&table, KEY), sum(15));
}
