//! What was on stable storage stays there, whatever fails of what is to take its place.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use rhash_protocol::{Op, TableKind};

use super::support::{get_one, open_logged, open_table, tiny, try_open_logged, write};
use crate::{hot::Sweep, log::Durability, store::Store, table::Table};

const ROUNDS: u8 = 3;
const KEYS: u8 = 50;

fn open(dir: &Path, durability: Durability) -> (Arc<Store>, Arc<Table>) {
    let store = open_logged(dir, tiny(64), durability);
    let table = open_table(&store, "t", TableKind::Values);
    (store, table)
}

/// Puts a run for each round.
fn put_runs(table: &Arc<Table>) {
    for round in 0..ROUNDS {
        for key in 0..KEYS {
            let key = &[round, key];
            let value = &[key[1]; 100];
            write(table, &[Op::Put { key, value }]).expect("a put");
        }
        table.spill(usize::MAX, Sweep::All).expect("a spill");
    }
    assert_eq!(table.runs().len(), usize::from(ROUNDS));
}

fn check(table: &Arc<Table>, what: &str) {
    for round in 0..ROUNDS {
        for key in 0..KEYS {
            let value = get_one(table, &[round, key]);
            assert!(value.is_some_and(|value| value == [key; 100]), "{what}");
        }
    }
}

/// The output was removed, which the manifest named, and at the next start the inputs, which it did not.
#[test]
fn a_merge_whose_manifest_may_not_be_on_disk_leaves_both_runs_until_a_start() {
    for durability in [Durability::None, Durability::EverySec] {
        for survives in [false, true] {
            let what = format!("{durability:?}, the edit survives: {survives}");
            let dir = tempfile::tempdir().expect("a directory");
            let (store, table) = open(dir.path(), durability);
            put_runs(&table);
            // Without a log this is what a client's sync does.
            store.checkpoint().expect("a checkpoint");
            let path = dir.path().join("MANIFEST");
            let before = fs::read(&path).expect("a manifest");
            let manifest = table.shared.manifest.as_ref().expect("a manifest");
            manifest.lock().fail_sync();
            table.merge_all().expect_err("the disk failed");
            check(&table, &what);
            let failed = store.log().is_some_and(|log| log.failure().is_some());
            assert_eq!(failed, durability != Durability::None, "{what}");
            drop((table, store));
            if !survives {
                fs::write(&path, &before).expect("a manifest");
            }
            let (_store, table) = open(dir.path(), durability);
            check(&table, &what);
            let runs = if survives { 1 } else { usize::from(ROUNDS) };
            assert_eq!(table.runs().len(), runs, "{what}");
        }
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        files.insert(path.display().to_string(), bytes);
    }
    files
}

/// A manifest that lost edits no longer names the runs of these, and the log no longer says what is in them.
#[test]
fn a_start_that_the_log_refuses_removes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, table) = open(dir.path(), Durability::EverySec);
    let path = dir.path().join("MANIFEST");
    let old = fs::read(&path).expect("a manifest");
    put_runs(&table);
    store.checkpoint().expect("a checkpoint");
    drop((table, store));
    let whole = fs::read(&path).expect("a manifest");
    fs::write(&path, &old).expect("a manifest");
    let before = files(&dir.path().join("runs"));
    assert!(!before.is_empty());
    try_open_logged(dir.path(), tiny(64), Durability::EverySec).expect_err("the log begins later");
    assert!(before == files(&dir.path().join("runs")));
    assert_eq!(fs::read(&path).expect("a manifest"), old);
    fs::write(&path, &whole).expect("a manifest");
    let (_store, table) = open(dir.path(), Durability::EverySec);
    check(&table, "the manifest is back");
}
