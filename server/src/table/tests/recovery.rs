//! What a start finds that a server did not leave so: runs, manifests and logs that are gone or damaged.

use std::{fs, path::Path, sync::Arc};

use rhash_protocol::{ErrorCode, Op, TableKind};

use super::support::{
    assert_sound, check_dir, get, get_one, open, open_logged, open_table, repair_dir, tiny,
    try_open_logged, wait, write,
};
use crate::{
    hot::Sweep,
    log::Durability,
    store::{Store, Tiny},
    table::Table,
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

/// The value that [`spill_round`] left for a key, and the round that it is of.
fn expected(key: [u8; 3], rounds: u8) -> Option<u8> {
    let wrote =
        |round: &u8| (0..50).any(|number| [round / 2, number, round % 2 * (number % 2)] == key);
    (0..rounds).rev().find(wrote)
}

/// The runs of a table that was spilled so many times, the oldest first; the store is stopped.
fn five_runs(dir: &Path) -> Vec<u64> {
    let store = open(Some(dir), tiny(64));
    let table = open_table(&store, "a", TableKind::Values);
    for round in 0..5 {
        spill_round(&table, round);
    }
    let mut numbers: Vec<_> = table.runs().iter().map(|run| run.id()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers.len(), 5);
    drop(table);
    store.stop().expect("a clean stop");
    numbers
}

fn keys() -> impl Iterator<Item = [u8; 3]> {
    let firsts = 0..3u8;
    firsts.flat_map(|first| (0..50).flat_map(move |number| [0, 1].map(|odd| [first, number, odd])))
}

fn run_file(dir: &Path, run: u64) -> std::path::PathBuf {
    dir.join(format!("runs/{run:016x}.run"))
}

/// A run that was gone was left out: gets then said that its keys were not there, or gave older values.
#[test]
fn what_a_lost_run_may_have_had_is_an_error_and_never_absent() {
    for lost in [0, 2, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let numbers = five_runs(dir.path());
        let file = run_file(dir.path(), numbers[lost]);
        if lost == 2 {
            let bytes = fs::read(&file).expect("the run has a file");
            fs::write(&file, &bytes[..bytes.len() - 1]).expect("it is cut");
        } else {
            fs::remove_file(&file).expect("the run has a file");
        }
        let store = open(Some(dir.path()), tiny(64));
        let table = open_table(&store, "a", TableKind::Values);
        assert_eq!(table.runs().len(), 5);
        for key in keys() {
            let round = expected(key, 5);
            match get(&table, &[&key]) {
                Ok(values) => {
                    assert_eq!(values[0], round.map(|round| vec![round; 100]), "{key:?}");
                    assert!(
                        round.is_some_and(|round| usize::from(round) > lost),
                        "{key:?} is decided above what is lost"
                    );
                }
                Err(error) => {
                    assert_eq!(error.code, ErrorCode::Damaged, "{}", error.text);
                    assert!(round.is_none_or(|round| usize::from(round) <= lost));
                }
            }
        }
        assert!(
            wait(table.len()).is_err(),
            "nobody knows how many there are"
        );
        assert!(table.merge_all().is_err());
        let other = open_table(&store, "b", TableKind::Values);
        spill_round(&other, 200);
        assert!(
            !numbers.contains(&other.runs()[0].id()),
            "no number is given twice"
        );
        store.close_table(table.id()).expect("a close");
        drop((table, other));
        let store = restart(store, dir.path());
        let other = open_table(&store, "b", TableKind::Values);
        assert_eq!(wait(other.len()).expect("a count"), 50);
        drop(other);
        drop(store);
        assert_sound(dir.path(), tiny(64));
    }
}

/// Which keys may differ after a repair: those whose newest record was in the run.
fn check_repaired(dir: &Path, hit: usize) {
    let store = open(Some(dir), tiny(64));
    let table = open_table(&store, "a", TableKind::Values);
    let mut lost = 0;
    for key in keys() {
        let round = expected(key, 5);
        let value = get_one(&table, &key);
        if value == round.map(|round| vec![round; 100]) {
            continue;
        }
        assert_eq!(round.map(usize::from), Some(hit), "{key:?} was elsewhere");
        let older = value.is_none_or(|value| value[..] == [value[0]; 100] && value[0] < hit as u8);
        assert!(older, "{key:?} is as it was before, or gone");
        lost += 1;
    }
    println!("run {hit}: {lost} keys are as before");
    assert!(lost > 0 && lost < 50, "some of the run was kept");
    assert_eq!(table.runs().len(), 5);
    assert!(wait(table.len()).is_ok());
}

#[test]
fn a_repair_keeps_what_is_sound_in_a_damaged_run() {
    for hit in [0, 2, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let numbers = five_runs(dir.path());
        assert_sound(dir.path(), tiny(64));
        let file = run_file(dir.path(), numbers[hit]);
        let mut bytes = fs::read(&file).expect("the run has a file");
        bytes[50] ^= 4;
        fs::write(&file, bytes).expect("it is written");

        let report = check_dir(dir.path(), tiny(64));
        let [damage] = &report.damage[..] else {
            panic!("{:#?}", report.damage);
        };
        assert_eq!(damage.place, file.display().to_string());
        assert_eq!(
            (damage.offset, damage.table.as_deref()),
            (Some(0), Some("a"))
        );

        let repaired = repair_dir(dir.path(), Durability::None);
        assert_eq!((repaired.runs_rewritten, repaired.runs_dropped), (1, 0));
        assert_eq!(repaired.dropped, report.damage);
        let aside = repaired.set_aside.expect("the file is kept");
        assert!(aside.join(file.file_name().expect("a name")).is_file());
        assert_sound(dir.path(), tiny(64));
        check_repaired(dir.path(), hit);
        let again = repair_dir(dir.path(), Durability::None);
        assert_eq!(again.dropped, []);
        // The run that was written anew says where it belongs as the old one did.
        fs::remove_file(dir.path().join("MANIFEST")).expect("there is one");
        check_repaired(dir.path(), hit);
    }
}

#[test]
fn a_damaged_manifest_is_refused_by_name_and_repaired_from_the_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    five_runs(dir.path());
    let path = dir.path().join("MANIFEST");
    let mut bytes = fs::read(&path).expect("a manifest");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("it is written");
    let refused = try_open_logged(dir.path(), tiny(64), Durability::None);
    let text = refused.map(drop).expect_err("it is damaged").to_string();
    assert!(text.contains("MANIFEST"), "{text}");
    assert!(!check_dir(dir.path(), tiny(64)).is_sound());

    let repaired = repair_dir(dir.path(), Durability::None);
    assert!(repaired.manifest_rebuilt && repaired.runs_dropped == 0);
    assert_sound(dir.path(), tiny(64));
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "a", TableKind::Values);
    for key in keys() {
        let round = expected(key, 5);
        assert_eq!(get_one(&table, &key), round.map(|round| vec![round; 100]));
    }
}

/// A start without a manifest takes what runs say; one that says nothing keeps it from guessing.
#[test]
fn a_manifest_is_not_made_anew_where_a_run_does_not_say_where_it_belongs() {
    let dir = tempfile::tempdir().expect("a directory");
    let numbers = five_runs(dir.path());
    fs::remove_file(dir.path().join("MANIFEST")).expect("there is one");
    let file = run_file(dir.path(), numbers[1]);
    let bytes = fs::read(&file).expect("the run has a file");
    fs::write(&file, &bytes[..bytes.len() - 1]).expect("it is cut");
    let refused = try_open_logged(dir.path(), tiny(64), Durability::None);
    let text = refused.map(drop).expect_err("it cannot know").to_string();
    assert!(text.contains(&file.display().to_string()), "{text}");
    let repaired = repair_dir(dir.path(), Durability::None);
    assert!(repaired.manifest_rebuilt && repaired.runs_dropped == 1);
    let store = open(Some(dir.path()), tiny(64));
    assert_eq!(open_table(&store, "a", TableKind::Values).runs().len(), 4);
}

#[test]
fn a_repair_of_the_log_keeps_what_is_behind_the_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || open_logged(dir.path(), tiny(64), Durability::Always);
    let store = open();
    let table = open_table(&store, "a", TableKind::Values);
    let log = store.log().expect("a log");
    for number in 0..100u8 {
        write(&table, &[put(&[number], &[number; 30])]).expect("a put");
        // Each record then says that those before it were on stable storage.
        log.wait_acked(log.last()).expect("it is written");
    }
    log.abandon();
    drop(table);
    drop(store);
    let segments = fs::read_dir(dir.path().join("log")).expect("a log");
    let mut segments: Vec<_> = segments
        .map(|entry| entry.expect("an entry").path())
        .collect();
    segments.sort();
    let mut bytes = fs::read(&segments[0]).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segments[0], bytes).expect("it is written");

    let refused = try_open_logged(dir.path(), tiny(64), Durability::Always);
    let text = refused.map(drop).expect_err("it is damaged").to_string();
    assert!(text.contains(&segments[0].display().to_string()), "{text}");
    let report = check_dir(dir.path(), tiny(64));
    assert_eq!(report.damage.len(), 1, "{:#?}", report.damage);
    assert!(report.damage[0].offset.is_some());

    let repaired = repair_dir(dir.path(), Durability::Always);
    assert!(repaired.log_rewritten);
    assert_eq!(repaired.dropped, report.damage);
    assert_sound(dir.path(), tiny(64));
    let store = open();
    let table = open_table(&store, "a", TableKind::Values);
    let there = (0..100u8).filter(|number| {
        let value = get_one(&table, &[*number]);
        assert!(
            value
                .as_ref()
                .is_none_or(|value| value[..] == [*number; 30])
        );
        value.is_some()
    });
    assert_eq!(there.count(), 99, "one record was damaged");
    write(&table, &[put(b"new", b"value")]).expect("a put");
    let log = store.log().expect("a log");
    log.wait_acked(log.last()).expect("it is written");
    log.abandon();
    drop(table);
    drop(store);
    let store = open();
    let table = open_table(&store, "a", TableKind::Values);
    assert_eq!(get_one(&table, b"new"), Some(b"value".to_vec()));
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Op<'a> {
    Op::Put { key, value }
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
    let is_there = || {
        let store = open().expect("a store");
        let table = open_table(&store, "late", TableKind::Values);
        assert_eq!(get_one(&table, b"key"), Some(b"value".to_vec()));
        store.log().expect("a log").abandon();
    };
    is_there();
    fs::write(&manifest, &before).expect("a cut manifest");
    assert!(!check_dir(dir.path(), tiny(64)).is_sound());
    assert!(repair_dir(dir.path(), Durability::EverySec).manifest_rebuilt);
    assert_sound(dir.path(), tiny(64));
    is_there();
}

/// What told of a table was torn off with the log's end; what was written to it after the next start was then of a table
/// that nothing but the manifest knew.
#[test]
fn a_start_tells_the_log_of_tables_that_it_does_not_know() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || open_logged(dir.path(), tiny(64), Durability::EverySec);
    let mut opened = open();
    opened.log().expect("a log").abandon();
    for value in [b"1", b"2"] {
        // The log takes nothing more, so that the manifest alone knows of what is made.
        drop(open_table(&opened, "late", TableKind::Values));
        drop(opened);
        let store = open();
        let table = open_table(&store, "late", TableKind::Values);
        let put = Op::Put { key: b"key", value };
        write(&table, &[put]).expect("a put");
        let log = store.log().expect("a log");
        log.wait_acked(log.last()).expect("it is written");
        log.abandon();
        drop((table, store));
        fs::remove_file(dir.path().join("MANIFEST")).expect("a manifest");
        let store = open();
        let table = open_table(&store, "late", TableKind::Values);
        assert_eq!(get_one(&table, b"key"), Some(value.to_vec()));
        // What a checkpoint cuts, its new segment tells again, runs or not.
        store.close_table(table.id()).expect("closed");
        opened = store;
        opened.checkpoint().expect("a checkpoint");
        opened.log().expect("a log").abandon();
    }
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
