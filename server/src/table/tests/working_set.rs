//! What is read stays in RAM, whatever is loaded, scanned or read once meanwhile.
//!
//! The governor's steps are taken by hand here, after every batch, so that each run is the same.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use rhash_protocol::{Op, TableKind};

use super::support::{get, open, open_table, scan, tiny, write};
use crate::{
    hot::Sweep,
    store::{Store, Tiny},
    table::{Spilled, Table, hooks::Point},
};

/// What entries may take; the tables below have many times as much.
const ENTRIES_BYTES: usize = 2 << 20;
/// A working set of 1,000 entries takes a twelfth of that.
const WORKING_SET: u32 = 1000;
const BATCH: u32 = 500;

fn small_store(dir: &std::path::Path) -> Arc<Store> {
    open(
        Some(dir),
        Tiny {
            entries_bytes: ENTRIES_BYTES,
            spill_bytes: ENTRIES_BYTES / 32,
            range_bytes: 64 << 20,
            ..tiny(64)
        },
    )
}

fn keys(numbers: std::ops::Range<u32>) -> Vec<[u8; 4]> {
    numbers.map(u32::to_be_bytes).collect()
}

fn load(store: &Store, table: &Arc<Table>, numbers: std::ops::Range<u32>) {
    for batch in keys(numbers).chunks(BATCH as usize) {
        let ops: Vec<Op<'_>> = batch
            .iter()
            .map(|key| Op::Put {
                key,
                value: &[7; 100],
            })
            .collect();
        write(table, &ops).expect("a write");
        store.relieve_now();
    }
}

/// Gets all; returns how many blocks were read for that.
fn read(store: &Store, table: &Arc<Table>, numbers: std::ops::Range<u32>) -> u64 {
    let before = store.stats().cold_reads;
    for batch in keys(numbers).chunks(BATCH as usize) {
        let batch: Vec<&[u8]> = batch.iter().map(<[u8; 4]>::as_slice).collect();
        let values = get(table, &batch).expect("a get");
        assert!(values.iter().all(Option::is_some));
        store.relieve_now();
    }
    store.stats().cold_reads - before
}

/// A table many times as large as RAM, of which the first entries are in use.
fn table_in_use(store: &Store) -> Arc<Table> {
    let table = open_table(store, "large", TableKind::Values);
    load(store, &table, 0..100_000);
    // The first reading leaves marks, the second one promotes.
    for _ in 0..3 {
        read(store, &table, 0..WORKING_SET);
    }
    assert_eq!(read(store, &table, 0..WORKING_SET), 0, "it is hot");
    table
}

#[test]
fn a_get_of_every_cold_key_leaves_the_working_set_hot() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = small_store(dir.path());
    let table = table_in_use(&store);
    let promoted_before = store.stats().promoted_entries;
    assert!(
        read(&store, &table, WORKING_SET..100_000) > 50_000,
        "most were cold"
    );
    assert_eq!(store.stats().promoted_entries, promoted_before);
    assert_eq!(read(&store, &table, 0..WORKING_SET), 0);
}

#[test]
fn a_scan_leaves_the_working_set_hot() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = small_store(dir.path());
    let table = table_in_use(&store);
    assert_eq!(scan(&table, 1000).len(), 100_000);
    store.relieve_now();
    assert_eq!(read(&store, &table, 0..WORKING_SET), 0);
}

#[test]
fn a_bulk_load_leaves_the_working_set_hot() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = small_store(dir.path());
    let table = table_in_use(&store);
    load(&store, &table, 100_000..300_000);
    assert_eq!(read(&store, &table, 0..WORKING_SET), 0);
    assert!(
        read(&store, &table, 100_000..101_000) > 900,
        "what is only written leaves"
    );
}

#[test]
fn a_working_set_that_is_read_no_more_makes_room_for_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = small_store(dir.path());
    let table = table_in_use(&store);
    for first in (10_000..60_000).step_by(5000) {
        // A batch that is read while a merge ends brings nothing to RAM, so that a read or two may be for nothing.
        for _ in 0..6 {
            read(&store, &table, first..first + 5000);
        }
        let cold = read(&store, &table, first..first + 5000);
        assert!(cold < 500, "{cold} of 5000 are cold");
    }
    assert!(read(&store, &table, 0..WORKING_SET) > 900);
}

#[test]
fn a_bulk_load_into_one_table_leaves_small_and_used_ones_hot() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = small_store(dir.path());
    let small = open_table(&store, "small", TableKind::Values);
    load(&store, &small, 0..500);
    let used = open_table(&store, "used", TableKind::Values);
    load(&store, &used, 0..5000);
    assert_eq!(read(&store, &used, 0..5000), 0);
    let bulk = open_table(&store, "bulk", TableKind::Values);
    load(&store, &bulk, 0..200_000);
    let hot = |table: &Table| table.info().hot_entries;
    assert_eq!(hot(&small), 500, "never read, but small");
    assert_eq!(hot(&used), 5000, "a third of RAM, but read");
    assert!(hot(&bulk) > 2000, "it has what is left: {}", hot(&bulk));
}

#[test]
fn tables_of_equal_use_have_equal_shares() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = small_store(dir.path());
    let tables: Vec<Arc<Table>> = ["first", "second", "third"]
        .iter()
        .map(|name| open_table(&store, name, TableKind::Values))
        .collect();
    for table in &tables {
        load(&store, table, 0..20_000);
    }
    // Each would like to have a third more than all of RAM, and all are read in turn.
    for _ in 0..6 {
        for first in (0..20_000).step_by(BATCH as usize) {
            for table in &tables {
                read(&store, table, first..first + BATCH);
            }
        }
    }
    let shares: Vec<u64> = tables
        .iter()
        .map(|table| table.info().hot_entries)
        .collect();
    println!("{shares:?}");
    let (least, most) = (shares.iter().min(), shares.iter().max());
    assert!(
        least
            .zip(most)
            .is_some_and(|(least, most)| *most < 5 * *least),
        "{shares:?}"
    );
}

/// Puts entries and reads those that `is_read` names, all in RAM.
fn hot_table(store: &Store, entries: u32, is_read: impl Fn(&u32) -> bool) -> Arc<Table> {
    let table = open_table(store, "hot", TableKind::Values);
    put(&table, 0..entries, &[7; 100]);
    let read: Vec<[u8; 4]> = (0..entries).filter(is_read).map(u32::to_be_bytes).collect();
    for batch in read.chunks(BATCH as usize) {
        let batch: Vec<&[u8]> = batch.iter().map(<[u8; 4]>::as_slice).collect();
        assert!(
            get(&table, &batch)
                .expect("a get")
                .iter()
                .all(Option::is_some)
        );
    }
    table
}

fn put(table: &Arc<Table>, numbers: std::ops::Range<u32>, value: &[u8]) {
    for batch in keys(numbers).chunks(BATCH as usize) {
        let ops: Vec<Op<'_>> = batch.iter().map(|key| Op::Put { key, value }).collect();
        write(table, &ops).expect("a write");
    }
}

/// To free its target where two of three entries are in use, a sweep copied twice as much, and all of that
/// came on top of what entries may take.
#[test]
fn a_sweep_of_a_table_in_use_takes_less_rather_than_much_more_ram() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = hot_table(&store, 60_000, |number| number % 3 > 0);
    let target = 1 << 20;
    let before = table.info().hot_bytes;
    let most = Arc::new(AtomicU64::new(0));
    let (seen, swept) = (Arc::clone(&most), Arc::clone(&table));
    store.hooks().set(move |point| {
        if point == Point::SpillFrozen {
            seen.fetch_max(swept.info().hot_bytes, Relaxed);
        }
    });
    let spilled = table.spill(target, Sweep::Spare).expect("a spill");
    assert_eq!(spilled, Spilled::Some);
    let grown = most.load(Relaxed).saturating_sub(before);
    assert!(grown > 0, "something was copied");
    assert!(grown < target as u64, "{grown} of {target}");
    assert!(table.info().hot_bytes < before - 200_000, "it freed some");
    assert_eq!(table.info().hot_entries, 60_000 - spilled_entries(&store));
}

fn spilled_entries(store: &Store) -> u64 {
    store.stats().spilled_entries
}

/// Buckets that kept all their entries were written anew without their garbage, which counted as if there
/// was nothing left to free.
#[test]
fn a_sweep_that_frees_garbage_alone_has_done_something() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = hot_table(&store, 20_000, |_| true);
    put(&table, 0..8000, &[7; 101]);
    let before = table.info();
    let spilled = table.spill(1 << 20, Sweep::Spare).expect("a sweep");
    assert_eq!(spilled, Spilled::Some);
    let after = table.info();
    assert_eq!(after.hot_entries, before.hot_entries);
    assert!(after.hot_bytes < before.hot_bytes - 200_000, "{after:?}");
    assert_eq!(spilled_entries(&store), 0);
    // Then there is nothing more.
    while table.spill(1 << 20, Sweep::Spare).expect("a sweep") == Spilled::Some {}
    assert_eq!(table.info().hot_entries, before.hot_entries);
}
