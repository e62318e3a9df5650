//! Whatever goes on while a backup is made, it has of all tables what they had at one moment.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rhash_protocol::{BackupInfo, ErrorCode, Op, OpenMode, TableKind};

use super::{
    super::support::{get_one, open_logged, open_table, wait, write},
    Tables, WRITERS, back_up, filled, small, steps_in,
};
use crate::{log::Durability, store::Store};

/// The most steps of a writer.
const STEPS_MAX: u32 = 4000;
const BACKUPS: usize = 5;
const DEADLINE: Duration = Duration::from_secs(120);

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

/// Ends what goes on when the test does, also by a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
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
