//! A backup has of all tables what they had at one moment, whatever goes on meanwhile; and where none can be made,
//! nothing stays of it.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rhash_protocol::{BackupInfo, ErrorCode, Op, OpenMode, TableKind, WireError};

use super::support::{config, get_one, open, open_logged, open_table, scan, tiny, wait, write};
use crate::{
    cold::Faults,
    data_dir::manifest::Edit,
    log::Durability,
    store::{Store, Tiny},
    table::Table,
};

const WRITERS: u8 = 4;
/// The most steps of a writer.
const STEPS_MAX: u32 = 4000;
/// Numbers in a list.
const LIST_ITEMS: u32 = 100;
/// Keys that a writer puts and discards in turn.
const SLOTS: u32 = 50;
/// Counters of a writer, but for the one that counts its steps.
const SUMS: u32 = 7;
const BACKUPS: usize = 5;
const DEADLINE: Duration = Duration::from_secs(120);

/// Budgets so small that all levels, both homes and several segments of the log are there.
fn small() -> Tiny {
    Tiny {
        entries_bytes: 150_000,
        ..tiny(64)
    }
}

/// The tables that a step changes, in this order.
struct Tables {
    lists: Arc<Table>,
    more_lists: Arc<Table>,
    sums: Arc<Table>,
    values: Arc<Table>,
}

fn list_key(writer: u8, number: u32) -> Vec<u8> {
    let list = number / LIST_ITEMS;
    [&[writer][..], &list.to_le_bytes()].concat()
}

fn value_of(number: u32) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(64, number as u8);
    value
}

impl Tables {
    fn of(store: &Store) -> Self {
        Self {
            lists: open_table(store, "lists", TableKind::Lists),
            more_lists: open_table(store, "more lists", TableKind::Lists),
            sums: open_table(store, "sums", TableKind::Counters),
            values: open_table(store, "values", TableKind::Values),
        }
    }

    /// What a writer does for a number, table by table.
    fn step(&self, writer: u8, number: u32) {
        let (key, bytes) = (list_key(writer, number), &number.to_le_bytes());
        for table in [&self.lists, &self.more_lists] {
            write(table, &[Op::Append { key: &key, bytes }]).expect("an append");
        }
        let sum = [writer, (number % SUMS) as u8];
        let adds = [
            Op::Add {
                key: &[writer],
                delta: 1,
            },
            Op::Add {
                key: &sum,
                delta: i64::from(number),
            },
        ];
        write(&self.sums, &adds).expect("additions");
        let (key, value) = ([writer, (number % SLOTS) as u8], value_of(number));
        let op = match number % 9 {
            0 => Op::Discard { key: &key },
            _ => Op::Put {
                key: &key,
                value: &value,
            },
        };
        write(&self.values, &[op]).expect("a write");
    }

    /// The numbers that a writer's lists have, which must be all from 0 on, each once.
    fn listed(table: &Arc<Table>, writer: u8) -> u32 {
        let mut count = 0;
        while let Some(list) = get_one(table, &list_key(writer, count)) {
            let (numbers, rest) = list.as_chunks::<4>();
            assert!(rest.is_empty());
            for number in numbers {
                assert_eq!(u32::from_le_bytes(*number), count, "writer {writer}");
                count += 1;
            }
            if !count.is_multiple_of(LIST_ITEMS) {
                break;
            }
        }
        count
    }

    fn sum(&self, key: &[u8]) -> i64 {
        get_one(&self.sums, key).map_or(0, |sum| {
            i64::from_le_bytes(sum.try_into().expect("a counter"))
        })
    }

    /// Whether a writer's values are what so many steps leave.
    fn values_are_of(&self, writer: u8, steps: u32) -> bool {
        (0..SLOTS).all(|slot| {
            let last = (0..steps).rev().find(|number| number % SLOTS == slot);
            let expected = last.filter(|number| number % 9 != 0).map(value_of);
            get_one(&self.values, &[writer, slot as u8]) == expected
        })
    }

    /// How many steps of each writer are whole. Of the one that comes next the tables may have a first part.
    fn steps(&self) -> Vec<u32> {
        let of_writer = |writer| {
            let listed = Self::listed(&self.lists, writer);
            let listed_more = Self::listed(&self.more_lists, writer);
            let added = self.sum(&[writer]) as u32;
            for rest in 0..SUMS {
                let numbers = (0..added).filter(|number| number % SUMS == rest);
                let expected: u32 = numbers.sum();
                assert_eq!(self.sum(&[writer, rest as u8]), i64::from(expected));
            }
            let written = [added, added.saturating_sub(1)]
                .into_iter()
                .find(|&steps| self.values_are_of(writer, steps))
                .expect("values as of a step");
            let steps = [listed, listed_more, added, written];
            assert!(
                steps.is_sorted_by(|before, after| before >= after),
                "{steps:?}"
            );
            assert!(listed - written <= 1, "{steps:?}");
            written
        };
        (0..WRITERS).map(of_writer).collect()
    }
}

/// A table that is filled, and then cleared or closed, again and again.
fn come_and_go(store: &Store, round: u8) {
    let table = open_table(store, "fleeting", TableKind::Values);
    for number in 0..30u8 {
        let (key, value) = (&[number], &[round; 40]);
        write(&table, &[Op::Put { key, value }]).expect("a put");
    }
    match round % 2 {
        0 => table.clear().expect("a clear"),
        _ => store.close_table(table.id()).expect("a close"),
    }
}

/// What is there of it is the beginning of one round.
fn check_fleeting(store: &Store) {
    let found = store.open_table(Some("fleeting"), None, None, OpenMode::Existing);
    let Ok(found) = found else {
        return;
    };
    let mut entries = scan(&found.table, 100);
    entries.sort();
    for (number, (key, value)) in entries.iter().enumerate() {
        assert_eq!((&key[..], value), (&[number as u8][..], &entries[0].1));
    }
}

/// Everything that goes on while backups are made.
fn go_on(store: &Arc<Store>, seed: u64, progress: &[AtomicU32], done: &AtomicBool) {
    thread::scope(|scope| {
        for (writer, progress) in (0..WRITERS).zip(progress) {
            scope.spawn(move || {
                let tables = Tables::of(store);
                let log = store.log().expect("a log");
                for number in 0..STEPS_MAX {
                    if done.load(SeqCst) {
                        return;
                    }
                    tables.step(writer, number);
                    progress.store(number + 1, SeqCst);
                    if number % 8 == 7 {
                        log.wait_acked(log.last()).expect("it is written");
                    }
                }
            });
        }
        scope.spawn(|| {
            let rounds = (0..=u8::MAX).cycle().take_while(|_| !done.load(SeqCst));
            rounds.for_each(|round| come_and_go(store, round));
        });
        scope.spawn(|| {
            let mut rng = Rng::with_seed(seed);
            while !done.load(SeqCst) {
                store.relieve_now();
                if rng.bool() {
                    let tables = Tables::of(store);
                    let merged = [tables.lists, tables.sums, tables.values];
                    merged[rng.usize(..3)]
                        .merge_some(&mut rng)
                        .expect("a merge");
                }
            }
        });
        scope.spawn(|| {
            let mut rng = Rng::with_seed(seed + 1);
            while !done.load(SeqCst) {
                store.checkpoint().expect("a checkpoint");
                thread::park_timeout(Duration::from_millis(rng.u64(..20)));
            }
        });
    });
}

/// Makes a backup; until it is there, nothing has its name.
fn back_up(store: &Store, dir: &Path) -> Result<BackupInfo, WireError> {
    let made = store.backup(dir, &|| {
        assert!(!dir.exists(), "it has its name before it is whole");
        true
    });
    let partial = partial_of(dir);
    assert!(!partial.exists(), "{} stays", partial.display());
    made
}

fn partial_of(dir: &Path) -> PathBuf {
    PathBuf::from(format!("{}.partial", dir.display()))
}

/// Opens the copy twice, the second time after a clean stop; returns the steps that it has.
fn steps_in(dir: &Path, info: &BackupInfo) -> Vec<u32> {
    let mut seen = Vec::new();
    for round in 0..2 {
        let store = open_logged(dir, small(), Durability::EverySec);
        let names: Vec<_> = store.tables().into_iter().map(|table| table.name).collect();
        assert!(names.iter().all(Option::is_some), "no temporary tables");
        if round == 0 {
            assert!(names.len() as u64 <= info.tables, "{names:?}");
        }
        check_fleeting(&store);
        let tables = Tables::of(&store);
        seen.push(tables.steps());
        drop(tables);
        store.stop().expect("a clean stop");
    }
    assert_eq!(seen[0], seen[1]);
    seen.remove(0)
}

#[test]
fn a_backup_has_what_all_tables_had_at_one_moment() {
    let seed = fastrand::u64(..1 << 40);
    println!("seed {seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_logged(&dir.path().join("data"), small(), Durability::EverySec);
    let temporary = store
        .open_table(
            None,
            Some(TableKind::Values),
            Some("bytes"),
            OpenMode::OpenOrCreate,
        )
        .expect("a table");
    let (progress, done) = (
        [const { AtomicU32::new(0) }; WRITERS as usize],
        AtomicBool::new(false),
    );
    let mut made = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| go_on(&store, seed, &progress, &done));
        let finished = Done(&done);
        let mut before = vec![0; usize::from(WRITERS)];
        for number in 0..BACKUPS {
            // Each has more than the one before.
            let began = Instant::now();
            while progress.iter().zip(&before).any(|(now, before)| {
                let now = now.load(SeqCst);
                now < before + 20 && now < STEPS_MAX
            }) {
                assert!(began.elapsed() < DEADLINE, "the writers stand still");
                thread::park_timeout(Duration::from_millis(1));
            }
            before = progress.iter().map(|now| now.load(SeqCst)).collect();
            let copy = dir.path().join(format!("copy-{number}"));
            let info = back_up(&store, &copy).expect("a backup");
            println!("{before:?}: {info:?}");
            made.push((copy, before.clone(), info));
        }
        drop(finished);
    });
    assert!(made.iter().map(|(_, _, info)| info.record).is_sorted());
    for (copy, before, info) in &made {
        let steps = steps_in(copy, info);
        let all_in = steps
            .iter()
            .zip(before)
            .all(|(steps, before)| steps >= before);
        assert!(all_in, "{steps:?} of at least {before:?}");
    }
    let any = |what: fn(&BackupInfo) -> u64| made.iter().any(|(_, _, info)| what(info) > 0);
    assert!(any(|info| info.runs_linked) && any(|info| info.runs_copied));
    // The store that they were made of has lost nothing by it.
    let steps: Vec<u32> = progress.iter().map(|now| now.load(SeqCst)).collect();
    assert_eq!(Tables::of(&store).steps(), steps);
    drop(temporary);
}

/// Ends what goes on when the test does, also by a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A store with a table that has runs in both homes, and something in the log.
fn filled(dir: &Path, faults: Option<&Arc<Faults>>) -> Arc<Store> {
    let mut config = config(Some(dir), small());
    config.durability = Durability::EverySec;
    config.log_limit_bytes = 64 << 10;
    config.faults = faults.cloned();
    let store = Store::open(config).expect("a store");
    let tables = Tables::of(&store);
    for number in 0..300 {
        tables.step(0, number);
        if number % 100 == 50 {
            store.checkpoint().expect("a checkpoint");
        }
    }
    store
}

#[test]
fn a_copy_is_for_its_owner_alone_and_shares_files_where_it_can() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let store = filled(&data, None);
    let copy = dir.path().join("copy");
    let info = back_up(&store, &copy).expect("a backup");
    let mode = fs::metadata(&copy)
        .expect("a directory")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let runs = fs::read_dir(copy.join("runs")).expect("a directory");
    let links: Vec<u64> = runs
        .map(|run| run.and_then(|run| run.metadata()).expect("a file").nlink())
        .collect();
    let linked = links.iter().filter(|links| **links == 2).count() as u64;
    assert_eq!(
        (linked, links.len() as u64),
        (info.runs_linked, info.runs_linked + info.runs_copied)
    );
    assert!(
        linked > 0 && info.runs_copied > 0 && info.log_bytes > 0,
        "{info:?}"
    );
    assert!(!copy.join("sled").exists() && !copy.join("LOCK").exists());
    // What the server does with its own files changes nothing in the copy.
    for name in ["lists", "more lists", "sums", "values"] {
        let opened = store.open_table(Some(name), None, None, OpenMode::Existing);
        let table = opened.expect("a table").table;
        store.close_table(table.id()).expect("a close");
    }
    store.stop().expect("a clean stop");
    drop(store);
    assert_eq!(steps_in(&copy, &info), [300, 0, 0, 0]);
}

#[test]
fn where_no_backup_can_be_made_the_error_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let store = filled(&data, None);
    let there = dir.path().join("there");
    fs::create_dir(&there).expect("a directory");
    let cut_short = dir.path().join("cut short");
    fs::create_dir(partial_of(&cut_short)).expect("a directory");
    for (to, why) in [
        (Path::new("relative").to_owned(), "not the absolute path"),
        (PathBuf::from("/"), "not the absolute path"),
        (dir.path().join(".."), "not the absolute path"),
        (there.clone(), "exists; a backup makes a directory"),
        (cut_short.clone(), "a backup that was cut short left it"),
        (
            data.join("copy"),
            "lies inside of the server's data directory",
        ),
        (data.join("runs").join("copy"), "lies inside of"),
    ] {
        let error = store.backup(&to, &|| true).expect_err("it cannot be made");
        assert_eq!(error.code, ErrorCode::BadRequest, "{error:?}");
        assert!(error.text.contains(why), "{}: {}", to.display(), error.text);
    }
    let error = store.backup(&dir.path().join("no/parent"), &|| true);
    let error = error.expect_err("there is no parent");
    assert!(
        error.text.contains("find the directory") && error.text.contains("/no"),
        "{error:?}"
    );
    assert!(
        partial_of(&cut_short).exists(),
        "it belongs to somebody else"
    );
    let in_memory = open(None, tiny(64));
    let without_log = open(Some(&dir.path().join("other")), tiny(64));
    for (store, why) in [
        (in_memory, "--memory-only"),
        (without_log, "--durability none"),
    ] {
        let to = dir.path().join("copy");
        let error = back_up(&store, &to).expect_err("it cannot be made");
        assert_eq!(error.code, ErrorCode::BadRequest);
        assert!(error.text.contains(why), "{}", error.text);
    }
}

#[test]
fn one_backup_is_made_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = filled(&dir.path().join("data"), None);
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let refused = Cell::new(0);
    let goes_on = || {
        // The first look is taken before the directory is made.
        let error = store
            .backup(&second, &|| true)
            .expect_err("it is too early");
        assert_eq!(error.code, ErrorCode::Busy);
        refused.set(refused.get() + 1);
        true
    };
    store.backup(&first, &goes_on).expect("a backup");
    assert!(refused.get() > 2 && !second.exists());
    back_up(&store, &second).expect("another backup");
}

#[test]
fn a_backup_that_is_given_up_or_fails_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults::default());
    let store = filled(&dir.path().join("data"), Some(&faults));
    let copy = dir.path().join("copy");
    let mut given_up = 0;
    for looks in 0.. {
        let left = Cell::new(looks);
        let goes_on = || left.replace(left.get().saturating_sub(1)) > 0;
        match store.backup(&copy, &goes_on) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.code, ErrorCode::ShuttingDown, "{error:?}"),
        }
        assert!(
            !copy.exists() && !partial_of(&copy).exists(),
            "after {looks} looks"
        );
        given_up += 1;
    }
    assert!(given_up > 5, "{given_up}");
    fs::remove_dir_all(&copy).expect("it is there");

    let mut failed = 0;
    for nth in 1.. {
        faults.fail_read(nth);
        let made = back_up(&store, &copy);
        faults.fail_read(0);
        match made {
            Ok(_) => break,
            Err(error) => assert!(error.text.contains("a faulty home"), "{error:?}"),
        }
        assert!(!copy.exists());
        failed += 1;
    }
    assert!(failed > 0);
    assert_eq!(
        Tables::of(&store).steps(),
        [300, 0, 0, 0],
        "the store goes on"
    );
    store.stop().expect("a clean stop");
    let other = dir.path().join("other");
    let error = back_up(&store, &other).expect_err("it has stopped");
    assert_eq!(error.code, ErrorCode::ShuttingDown);
}

#[test]
fn a_run_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = filled(&dir.path().join("data"), None);
    let table = open_table(&store, "values", TableKind::Values);
    let edit = Edit::Spilled {
        id: table.id(),
        run: 777_777,
        first: 0,
        last: u64::MAX,
        marks: Vec::new(),
    };
    table.shared.record(edit).expect("it is recorded");
    let error = back_up(&store, &dir.path().join("copy")).expect_err("a run is missing");
    assert_eq!(error.code, ErrorCode::Damaged);
    assert!(
        error.text.contains("run 777777 of the table \"values\""),
        "{}",
        error.text
    );
}

/// A clear that was logged, and is not in the manifest yet, is replayed; one behind the moment is not in the copy.
#[test]
fn clears_and_closes_are_in_a_copy_or_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = filled(&dir.path().join("data"), None);
    let before = dir.path().join("before");
    back_up(&store, &before).expect("a backup");
    let values = open_table(&store, "values", TableKind::Values);
    values.clear().expect("a clear");
    write(
        &values,
        &[Op::Put {
            key: b"new",
            value: b"one",
        }],
    )
    .expect("a put");
    let sums = open_table(&store, "sums", TableKind::Counters);
    store.close_table(sums.id()).expect("a close");
    let after = dir.path().join("after");
    let info = back_up(&store, &after).expect("a backup");
    assert_eq!(info.tables, 3);
    drop((values, sums));
    let copy = open_logged(&after, small(), Durability::EverySec);
    let values = open_table(&copy, "values", TableKind::Values);
    assert_eq!(wait(values.len()).expect("a count"), 1);
    assert_eq!(get_one(&values, b"new").as_deref(), Some(&b"one"[..]));
    let sums = copy.open_table(Some("sums"), None, None, OpenMode::Existing);
    assert_eq!(
        sums.expect_err("it was closed").code,
        ErrorCode::NoSuchTable
    );
    let copy = open_logged(&before, small(), Durability::EverySec);
    assert_eq!(Tables::of(&copy).steps(), [300, 0, 0, 0]);
}
