//! The log's disk fails, or loses what was not synced: what was acknowledged is there all the same, each write
//! once, and what needs no log goes on.

use std::{
    io::ErrorKind,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rhash_protocol::{ErrorCode, Op, Response, TableKind};

use super::support::{get_one, open_logged_in, open_table, scan, tiny, write};
use crate::{
    dispatch::encode,
    hot::Sweep,
    log::{Admit, By, Durability, Lsn, OwnedReply, SessionRecord, memory_files::MemoryFiles},
    store::{Store, Tiny},
    table::Table,
};

const KEYS: u8 = 20;
/// Less than a write waits for room.
const DEADLINE: Duration = Duration::from_secs(20);

fn open(dir: &Path, files: &MemoryFiles, durability: Durability) -> (Arc<Store>, Arc<Table>) {
    let store = open_logged_in(dir, Arc::new(files.clone()), tiny(64), durability);
    let table = open_table(&store, "lists", TableKind::Lists);
    (store, table)
}

/// Appends number after number, each to two keys in one batch, with spills, merges and checkpoints in between;
/// returns the numbers that were acknowledged, and the one at which the log failed.
fn append(store: &Store, table: &Arc<Table>, rng: &mut Rng, numbers: u32) -> (u32, u32) {
    for number in 0..numbers {
        match rng.u8(..12) {
            0 => drop(store.checkpoint()),
            1 => drop(table.spill(2000, [Sweep::All, Sweep::Spare][rng.usize(..2)])),
            2 => drop(table.merge_some(rng)),
            _ => {}
        }
        let bytes = number.to_le_bytes();
        let keys = [[rng.u8(..KEYS)], [rng.u8(..KEYS) + KEYS]];
        let ops = keys.each_ref().map(|key| Op::Append { key, bytes: &bytes });
        let log = store.log().expect("a log");
        let acked = write(table, &ops).and_then(|_| log.wait_acked(log.last()));
        if let Err(error) = acked {
            assert_eq!(error.code, ErrorCode::Storage, "{}", error.text);
            return (number, number + 1);
        }
    }
    (numbers, numbers)
}

/// The numbers that are there: each in two lists or in none, and none twice.
fn numbers(table: &Arc<Table>) -> Vec<u32> {
    let mut found = [Vec::new(), Vec::new()];
    for (key, list) in scan(table, 100) {
        let (numbers, rest) = list.as_chunks::<4>();
        assert!(rest.is_empty());
        let half = usize::from(key[0] >= KEYS);
        found[half].extend(numbers.iter().map(|number| u32::from_le_bytes(*number)));
    }
    let [mut first, mut second] = found;
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, second, "no half of a batch");
    assert_eq!(first, (0..first.len() as u32).collect::<Vec<_>>());
    first
}

#[test]
fn what_was_acknowledged_before_the_disk_failed_is_there_once() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut failed = 0;
    for nth in (1..).step_by(3) {
        let mut rng = Rng::with_seed(seed);
        let dir = tempfile::tempdir().expect("a directory");
        let files = MemoryFiles::default();
        let (store, table) = open(dir.path(), &files, Durability::EverySec);
        files.fail_from(nth, ErrorKind::Other);
        let (acked, tried) = append(&store, &table, &mut rng, 60);
        if acked == 60 {
            break;
        }
        failed += 1;
        // Reads go on, and so does what needs no log.
        assert!(numbers(&table).len() as u32 >= acked);
        assert!(store.checkpoint().is_err());
        assert!(store.stats().log_trouble.is_some());
        let temporary = store
            .open_table(
                None,
                Some(TableKind::Values),
                Some("bytes"),
                rhash_protocol::OpenMode::OpenOrCreate,
            )
            .expect("a table")
            .table;
        let put = Op::Put {
            key: b"k",
            value: b"v",
        };
        write(&temporary, &[put]).expect("a write to a temporary table");
        temporary.spill(usize::MAX, Sweep::All).expect("a spill");
        assert_eq!(get_one(&temporary, b"k").as_deref(), Some(&b"v"[..]));
        let killed = files.after_kill();
        drop((temporary, table, store));
        let (store, table) = open(dir.path(), &killed, Durability::EverySec);
        let there = numbers(&table).len() as u32;
        assert!(
            (acked..=tried).contains(&there),
            "{acked} of {tried}: {there}"
        );
        append(&store, &table, &mut rng, 0);
        write(&table, &[Op::Discard { key: &[0] }]).expect("it goes on");
    }
    assert!(failed > 10, "{failed} failures");
}

#[test]
fn what_was_acknowledged_before_the_power_was_cut_is_there_once() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for durability in [Durability::Always, Durability::EverySec] {
        for _ in 0..12 {
            let dir = tempfile::tempdir().expect("a directory");
            let files = MemoryFiles::default();
            let (store, table) = open(dir.path(), &files, durability);
            let count = rng.u32(1..80);
            let (acked, _) = append(&store, &table, &mut rng, count);
            assert_eq!(acked, count);
            // The records that say that the table is there.
            let told = store.log().expect("a log").last() - u64::from(count);
            // Of what is not acknowledged, some.
            let more = rng.u32(..20);
            for number in count..count + more {
                let bytes = number.to_le_bytes();
                let keys = [[rng.u8(..KEYS)], [rng.u8(..KEYS) + KEYS]];
                let ops = keys.each_ref().map(|key| Op::Append { key, bytes: &bytes });
                write(&table, &ops).expect("a write");
                if rng.u8(..6) == 0 {
                    table.spill(1000, Sweep::All).expect("a spill");
                }
            }
            let log = store.log().expect("a log");
            let synced: Lsn = (0..=log.last())
                .rev()
                .find(|lsn| log.is_synced(*lsn))
                .expect("record 0 always is");
            let cut = files.after_power_cut(&mut rng);
            drop((table, store));
            let (_store, table) = open(dir.path(), &cut, durability);
            let there = numbers(&table).len() as u32;
            assert!(there <= count + more);
            let synced = synced.saturating_sub(told);
            assert!(u64::from(there) >= synced, "{there} of {synced} synced");
            if durability == Durability::Always {
                assert!(there >= count);
            }
        }
    }
}

#[test]
fn a_full_disk_of_the_log_keeps_nobody_waiting_and_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = MemoryFiles::default();
    files.set_simple();
    let (store, table) = open(dir.path(), &files, Durability::EverySec);
    let mut rng = Rng::with_seed(1);
    assert_eq!(append(&store, &table, &mut rng, 40).0, 40);
    files.set_capacity(Some(files.used()));
    let bytes = &40u32.to_le_bytes();
    let keys = [[0], [KEYS]];
    let ops = keys.each_ref().map(|key| Op::Append { key, bytes });
    write(&table, &ops).expect("it is in the buffer");
    let log = store.log().expect("a log");
    let (done, calls) = std::sync::mpsc::channel();
    let (also_store, also_table) = (Arc::clone(&store), Arc::clone(&table));
    let calling = thread::spawn(move || {
        let log = also_store.log().expect("a log");
        let sync = log.sync_through(log.last());
        let clear = also_table.clear();
        let spill = also_table.spill(usize::MAX, Sweep::All).map(drop);
        let checkpoint = also_store.checkpoint();
        let results = [sync, clear, spill, checkpoint];
        drop(done.send((results, also_store.stop().is_err())));
    });
    let deadline = Duration::from_secs(30);
    let (results, stop_failed) = calls.recv_timeout(deadline).expect("nothing hangs");
    calling.join().expect("no panic");
    let codes = results.map(|result| result.err().map(|error| error.code));
    assert_eq!(codes, [Some(ErrorCode::DiskFull); 4]);
    assert!(stop_failed, "what waits is not on disk");
    assert_eq!(numbers(&table).len(), 41, "nothing was cleared");
    assert!(!log.is_acked(log.last()));
    let killed = files.after_kill();
    drop((table, store));
    let (_store, table) = open(dir.path(), &killed, Durability::EverySec);
    assert_eq!(numbers(&table).len(), 40, "all that was acknowledged");
}

#[test]
fn a_clear_or_close_that_was_done_was_answered_as_far_as_the_next_start_knows() {
    for close in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let files = MemoryFiles::default();
        let (store, table) = open(dir.path(), &files, Durability::EverySec);
        let session = SessionRecord {
            id: 7,
            secret: [1; 16],
            token: ("anybody".to_owned(), None),
            taken: 2,
            settled: 2,
            tables: vec![(table.id(), 1)],
            replies: vec![],
        };
        let log = store.log().expect("a log");
        log.begin_session(7, || session.clone()).expect("begun");
        let put = Op::Append {
            key: b"k",
            bytes: b"v",
        };
        write(&table, &[put]).expect("a write");
        let by = Some(By {
            session: 7,
            sequence: 3,
            settled: 2,
        });
        let lsn = if close {
            store.close_table_by(table.id(), by).expect("closed")
        } else {
            table.clear_by(by).expect("cleared")
        };
        // The record of what the table is since then follows.
        assert_eq!(lsn, log.last() - 1, "one record says both");
        let killed = files.after_kill();
        drop((table, store));
        let (store, table) = open(dir.path(), &killed, Durability::EverySec);
        assert_eq!(get_one(&table, b"k"), None);
        let done = OwnedReply::Body(encode(&Response::Done));
        let expected = SessionRecord {
            taken: 3,
            tables: if close {
                vec![]
            } else {
                session.tables.clone()
            },
            replies: vec![(3, done)],
            ..session
        };
        assert_eq!(store.logged_sessions(), [expected]);
    }
}

#[test]
fn nothing_of_a_named_table_becomes_a_run_once_the_log_failed() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = MemoryFiles::default();
    let (store, table) = open(dir.path(), &files, Durability::EverySec);
    let mut rng = Rng::with_seed(1);
    append(&store, &table, &mut rng, 10);
    let log = store.log().expect("a log");
    log.sync_through(log.last()).expect("synced");
    // A write that the log refused now may be in RAM, behind records that are all on stable storage.
    log.fail("a test");
    for sweep in [Sweep::All, Sweep::Spare, Sweep::Age] {
        let spilled = table.spill(usize::MAX, sweep).map(drop);
        assert_eq!(
            spilled.err().map(|error| error.code),
            Some(ErrorCode::Storage)
        );
    }
}

/// The log may not grow and cannot be cut: whoever waited for that would wait for nothing.
#[test]
fn writes_are_refused_while_the_disk_has_no_room_for_another_segment_and_then_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = MemoryFiles::default();
    let tiny = Tiny {
        threads: true,
        ..tiny(64)
    };
    let store = open_logged_in(
        dir.path(),
        Arc::new(files.clone()),
        tiny,
        Durability::EverySec,
    );
    let table = open_table(&store, "lists", TableKind::Lists);
    let log = store.log().expect("a log");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let append = |number: u32| {
        let admitted = log.admit(1000, Durability::EverySec, Admit::Any);
        let room = runtime.block_on(admitted)?;
        let bytes = number.to_le_bytes();
        let keys = [[0], [KEYS]];
        write(
            &table,
            &keys.each_ref().map(|key| Op::Append { key, bytes: &bytes }),
        )?;
        drop(room);
        log.wait_acked(log.last())
    };
    append(0).expect("room");
    files.set_capacity(Some(files.used()));
    let began = Instant::now();
    let mut acked = 1;
    let refusal = loop {
        match append(acked) {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.code, ErrorCode::DiskFull, "{}", refusal.text);
    assert!(log.trouble().is_none(), "the segment at hand has room");
    files.set_capacity(None);
    while append(acked).is_err() {
        thread::yield_now();
    }
    assert!(began.elapsed() < DEADLINE, "it goes on by itself");
    assert_eq!(numbers(&table), (0..=acked).collect::<Vec<_>>());
}
