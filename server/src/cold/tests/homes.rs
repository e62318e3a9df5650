//! What is particular to one home: which runs it gets, and what it finds after a crash.

use std::sync::atomic::Ordering;

use super::*;
use crate::cold::{
    home::Home,
    sled_home::{Moved, SledHome},
};

fn options() -> ColdOptions {
    ColdOptions::new(hasher(64))
}

pub(super) fn one_record(part_bytes: usize) -> Owned {
    let key = b"key".to_vec();
    let hash = hasher(64).hash(&key);
    Owned {
        hash,
        kind: RecordKind::Base,
        key,
        part: vec![1; part_bytes],
    }
}

pub(super) fn write_expecting(
    store: &ColdStore,
    bytes_expected: u64,
    part_bytes: usize,
) -> Arc<Run> {
    let mut writer = store.begin(1, bytes_expected).unwrap();
    writer.push(&one_record(part_bytes).borrow()).unwrap();
    writer.finish(true).unwrap()
}

#[test]
fn small_runs_go_to_sled_until_it_is_full_and_large_ones_to_files() {
    let dir = tempfile::tempdir().unwrap();
    let options = ColdOptions {
        sled_bytes_max: 50_000,
        ..options()
    };
    let store = ColdStore::open(dir.path(), options.clone()).unwrap();
    let files = || std::fs::read_dir(dir.path().join("runs")).unwrap().count();
    let large = write_expecting(&store, 1 << 20, 100);
    assert_eq!((files(), store.sled_bytes()), (1, 0));
    assert!(
        !dir.path().join("sled").exists(),
        "sled is opened when it is needed"
    );

    let small = write_expecting(&store, 30_000, 30_000);
    assert_eq!((files(), store.sled_bytes()), (1, small.bytes()));
    assert!(store.disk_bytes().unwrap() > small.bytes());
    let beyond = write_expecting(&store, 30_000, 30_000);
    assert_eq!((files(), store.sled_bytes()), (2, small.bytes()));

    store.sync().unwrap();
    let ids = [&large, &small, &beyond].map(|run| run.id());
    let expected = [100, 30_000, 30_000];
    drop((large, small, beyond, store));
    let store = ColdStore::open(dir.path(), options).unwrap();
    for (id, part_bytes) in ids.into_iter().zip(expected) {
        let run = store.open_run(id).unwrap();
        assert!(all_of(&run, 0) == [one_record(part_bytes)]);
        run.remove_on_drop();
    }
    assert_eq!((files(), store.sled_bytes()), (0, 0));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn ids_go_on_after_the_greatest_that_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = ColdStore::open(dir.path(), options()).unwrap();
    let in_file = write_expecting(&store, u64::MAX, 10).id();
    let in_sled = write_expecting(&store, 10, 10).id();
    assert_eq!((in_file, in_sled), (1, 2));
    drop(store);
    let store = ColdStore::open(dir.path(), options()).unwrap();
    assert_eq!(write_expecting(&store, u64::MAX, 10).id(), 3);
    drop(store);
    let later = ColdOptions {
        next_run: 100,
        ..options()
    };
    let store = ColdStore::open(dir.path(), later).unwrap();
    assert_eq!(write_expecting(&store, u64::MAX, 10).id(), 100);
}

#[test]
fn what_a_crash_left_is_removed_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let sled_only = ColdOptions {
        small_run_bytes: u64::MAX,
        ..options()
    };
    let store = ColdStore::open(dir.path(), sled_only.clone()).unwrap();
    let finished = write_expecting(&store, 10, 10).id();
    let mut writer = store.begin(1, 10).unwrap();
    for number in 0..2000u32 {
        let key = number.to_be_bytes();
        let hash = KeyHash {
            place: u64::from(number),
            check: 0,
        };
        let record = Record {
            hash,
            kind: RecordKind::Base,
            key: &key,
            part: &[9; 50],
        };
        writer.push(&record).unwrap();
    }
    // A crash drops nothing.
    let unfinished = writer.id();
    std::mem::forget(writer);
    store.sync().unwrap();
    std::fs::write(dir.path().join("runs/00000000000000aa.new"), b"torn").unwrap();
    std::fs::write(dir.path().join("runs/00000000000000ab.run"), b"torn").unwrap();
    std::fs::write(
        dir.path().join("sled/snap.0000000000000001.generating"),
        b"torn",
    )
    .unwrap();
    // The forgotten writer holds sled open, so a copy of the directory is what is opened.
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir.path(), copy.path());
    let store = ColdStore::open(copy.path(), sled_only).unwrap();
    let found = store.list().unwrap();
    let ids: Vec<_> = found
        .iter()
        .map(|run| (run.id, run.summary.is_ok()))
        .collect();
    assert_eq!(ids, [(finished, true), (unfinished, false), (0xab, false)]);
    store.remove(unfinished).unwrap();
    store.remove(0xab).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(all_of(&store.open_run(finished).unwrap(), 0) == [one_record(10)]);
    assert!(!copy.path().join("runs/00000000000000aa.new").exists());
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Records of this many short keys, with parts of so many bytes.
fn numbered(fixture: &Fixture, keys: u32, part_bytes: usize) -> Vec<Owned> {
    let record = |number: u32| {
        let key = number.to_le_bytes().to_vec();
        Owned {
            hash: fixture.options.hasher.hash(&key),
            kind: RecordKind::Base,
            key,
            part: vec![7; part_bytes],
        }
    };
    let mut records: Vec<Owned> = (0..keys).map(record).collect();
    records.sort_by_key(|record| record.hash.place);
    records
}

#[test]
fn leaves_of_files_lie_in_rows() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    let records = numbered(&fixture, 300_000, 4);
    let run = fixture.write(&records);
    let mut rows: Vec<usize> = Vec::new();
    let mut row_end = 0;
    for number in 0..run.sections() {
        let section = run.section(number).unwrap();
        let start = section.leaf_start().unwrap();
        assert_eq!(start % 64, 0);
        let bytes = u64::from(section.leaf_bytes);
        match rows.last_mut() {
            Some(row) if start < row_end + 64 => *row += 1,
            _ => rows.push(1),
        }
        row_end = start + bytes;
    }
    assert!(rows.len() > 1, "{rows:?}");
    assert!(rows[0] > 2, "{rows:?}");
    assert_eq!(rows.iter().sum::<usize>(), run.sections());
    assert!(all_of(&run, 1 << 16) == records);
}

#[test]
fn blocks_of_small_records_lie_in_one_page_each() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    let records = numbered(&fixture, 20_000, 100);
    let run = fixture.write(&records);
    assert!(run.sections() > 1);
    let mut blocks = 0;
    for number in 0..run.sections() {
        let (section, leaf) = run.leaf(number).unwrap();
        for block in (0..).map_while(|block| leaf.block(block)) {
            let start = section.offset + u64::from(block.start);
            let end = section.offset + u64::from(block.end);
            assert_eq!(start / 4096, (end - 1) / 4096, "{start}..{end}");
            blocks += 1;
        }
    }
    assert!(blocks > 500, "{blocks} blocks");
    assert!(all_of(&run, 1 << 16) == records);
}

pub(super) fn sled_home(dir: &std::path::Path) -> Arc<SledHome> {
    Arc::new(SledHome::open(dir, 64 << 10, false).unwrap())
}

pub(super) fn store_on(home: &Arc<SledHome>) -> ColdStore {
    ColdStore::with_home(options(), Arc::clone(home) as Arc<dyn Home>)
}

/// The directories of sled in a data directory.
pub(super) fn sled_dirs(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("sled"))
        .collect();
    names.sort();
    names
}

/// sled's files only grew: what small tables had once taken was never given back.
#[test]
fn sled_gives_back_what_runs_took_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let home = sled_home(dir.path());
    let store = store_on(&home);
    let kept = write_expecting(&store, 10, 40_000);
    for _ in 0..2 {
        let runs: Vec<_> = (0..150)
            .map(|_| write_expecting(&store, 10, 60_000))
            .collect();
        assert_eq!(store.give_back(false).unwrap(), 0, "most of it is live");
        let disk_bytes = store.disk_bytes().unwrap();
        runs.iter().for_each(|run| run.remove_on_drop());
        drop(runs);
        let given_back = store.give_back(false).unwrap();
        assert!(given_back > 5 << 20, "{given_back} of {disk_bytes}");
        assert!(store.disk_bytes().unwrap() < 4 << 20);
        assert_eq!(
            store.give_back(false).unwrap(),
            0,
            "it is given back already"
        );
        assert!(all_of(&kept, 0) == [one_record(40_000)]);
    }
    assert_eq!(sled_dirs(dir.path()), ["sled-2"]);
}

// After an error sled takes no more changes; and where a sync had failed the next one succeeded, and what the first one
// had not brought to the disk was lost in a power cut.
#[test]
fn after_an_error_what_sled_holds_is_written_anew_before_the_next_change() {
    let dir = tempfile::tempdir().unwrap();
    let home = sled_home(dir.path());
    let store = store_on(&home);
    let before = write_expecting(&store, 10, 40_000);
    home.doubt();
    assert!(all_of(&before, 0) == [one_record(40_000)], "reads go on");
    assert_eq!(sled_dirs(dir.path()), ["sled"]);
    let after = write_expecting(&store, 10, 5000);
    assert_eq!(sled_dirs(dir.path()), ["sled-1"]);
    assert!(all_of(&before, 0) == [one_record(40_000)]);
    assert!(all_of(&after, 0) == [one_record(5000)]);
}

#[test]
fn reads_and_writes_go_on_while_sled_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let home = sled_home(dir.path());
    let store = store_on(&home);
    let runs: Vec<_> = (1..20)
        .map(|n| write_expecting(&store, 10, n * 1000))
        .collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (number, run) in runs.iter().enumerate() {
                    assert!(all_of(run, 0) == [one_record((number + 1) * 1000)]);
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let run = write_expecting(&store, 10, 5000);
                assert!(all_of(&run, 0) == [one_record(5000)]);
                run.remove_on_drop();
            }
        });
        for _ in 0..5 {
            home.move_on(&|_| Ok(())).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.list().unwrap().len(), runs.len());
}

/// A crash at any point of a move leaves what the start finds whole, and one directory.
#[test]
fn a_move_that_a_crash_ends_is_done_or_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let home = sled_home(dir.path());
    let store = store_on(&home);
    let run = write_expecting(&store, 10, 40_000);
    write_expecting(&store, 10, 60_000).remove_on_drop();
    for point in [
        Moved::Copied,
        Moved::Synced,
        Moved::Complete,
        Moved::Swapped,
    ] {
        let crashed = tempfile::tempdir().unwrap();
        let copied = home.move_on(&|reached| {
            if reached == point {
                copy_all(dir.path(), crashed.path());
            }
            Ok(())
        });
        copied.unwrap();
        let found = store_on(&sled_home(crashed.path()));
        let ids: Vec<_> = found.list().unwrap().iter().map(|run| run.id).collect();
        assert!(ids.contains(&run.id()), "{point:?}");
        let found = found.open_run(run.id()).unwrap();
        assert!(all_of(&found, 0) == [one_record(40_000)], "{point:?}");
        assert_eq!(sled_dirs(crashed.path()).len(), 1, "{point:?}");
    }
}

#[test]
fn a_move_that_fails_leaves_all_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let home = sled_home(dir.path());
    let store = store_on(&home);
    let run = write_expecting(&store, 10, 40_000);
    for point in [Moved::Copied, Moved::Synced] {
        let moved = home.move_on(&|reached| match reached == point {
            true => Err(ColdError::Cancelled),
            false => Ok(()),
        });
        assert!(matches!(moved, Err(ColdError::Cancelled)));
        assert_eq!(sled_dirs(dir.path()), ["sled"]);
        assert!(all_of(&run, 0) == [one_record(40_000)]);
    }
    drop((run, store, home));
    let store = store_on(&sled_home(dir.path()));
    assert_eq!(store.list().unwrap().len(), 1);
}
