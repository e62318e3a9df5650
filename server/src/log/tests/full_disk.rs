//! A disk without room for the log: discards go on, nobody waits in vain, and all goes on by itself.

use super::*;

/// Runs `call` on another thread, and expects it to end in time.
fn in_time<T: Send>(what: &str, call: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let running = scope.spawn(call);
        let began = Instant::now();
        while !running.is_finished() {
            if began.elapsed() > DEADLINE {
                eprintln!("{what} hangs");
                // The scope would wait for it.
                std::process::abort();
            }
            thread::yield_now();
        }
        running.join().expect("no panic")
    })
}

/// The end of a segment gave its reserve back before the next one had any: a checkpoint that met a full disk left none.
#[test]
fn a_segment_that_finds_no_room_for_its_reserve_leaves_that_of_the_one_before() {
    let files = MemoryFiles::default();
    files.set_capacity(Some(6 << 20));
    let log = start(&files, Durability::EverySec);
    let lsn = append(&log, 1, 1000).expect("appended");
    log.wait_acked(lsn).expect("written");
    // A header fits, and no reserve.
    files.set_capacity(Some(files.used() + 10_000));
    let refusal = log.begin_checkpoint().expect_err("no room for a segment");
    assert_eq!(refusal.code, ErrorCode::DiskFull);
    for number in 2..50 {
        let room = log.try_admit(1000, Durability::EverySec, Admit::Discards);
        let room = room.expect("a discard goes in").expect("at once");
        let lsn = append(&log, number, 1000).expect("appended");
        drop(room);
        log.wait_acked(lsn).expect("written");
    }
    let (numbers, found) = read(&files, 1).expect("a sound log");
    assert_eq!(numbers, (1..50).collect::<Vec<_>>());
    assert_eq!(found.segments.len(), 1, "the old one went on");
    files.set_capacity(None);
    assert_eq!(log.begin_checkpoint().expect("a segment"), 49);
    log.cut(49).expect("cut");
    log.stop();
    let (numbers, _) = read(&files, 50).expect("a sound log");
    assert!(numbers.is_empty());
}

/// Without its answer, who waits for the log to be cut would wait for nothing.
#[test]
fn a_checkpoint_whose_segment_cannot_be_begun_says_so() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    let lsn = append(&log, 1, 1000).expect("appended");
    log.sync_through(lsn).expect("synced");
    // The sync of the old segment goes well, and the new one cannot be made.
    files.fail_from(2, ErrorKind::PermissionDenied);
    let refusal = log.begin_checkpoint().expect_err("no segment");
    assert_eq!(refusal.code, ErrorCode::Storage);
    assert!(refusal.text.contains("no new segment"), "{}", refusal.text);
    assert!(log.failure().is_none(), "the old one goes on");
    files.fail_from(u64::MAX, ErrorKind::PermissionDenied);
    assert_eq!(log.begin_checkpoint().expect("a segment"), lsn);
}

#[test]
fn a_full_disk_refuses_writes_takes_discards_and_goes_on_when_there_is_room() {
    let files = MemoryFiles::default();
    files.set_capacity(Some(6 << 20));
    let options = LogOptions {
        limit_bytes: 4 << 20,
        ..options(Durability::EverySec)
    };
    let log = Log::start(
        Arc::new(files.clone()),
        options,
        &empty(),
        Ledger::default(),
    )
    .expect("a log");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let admit = |bytes, kind| runtime.block_on(log.admit(bytes, Durability::EverySec, kind));
    let lsn = append(&log, 1, 1000).expect("appended");
    log.wait_acked(lsn).expect("written");
    files.set_capacity(Some(files.used()));
    // What was allocated is used up first.
    let mut number = 1;
    let refusal = loop {
        match admit(30_000, Admit::Any) {
            Ok(room) => {
                number += 1;
                let lsn = append(&log, number, 30_000).expect("appended");
                drop(room);
                log.wait_acked(lsn).expect("written");
            }
            Err(error) => break error,
        }
        assert!(number < 1000);
    };
    assert_eq!(refusal.code, ErrorCode::DiskFull);
    for _ in 0..50 {
        let room = admit(1000, Admit::Discards).expect("a discard goes in");
        number += 1;
        let lsn = append(&log, number, 1000).expect("appended");
        drop(room);
        log.wait_acked(lsn).expect("written");
    }
    files.set_capacity(None);
    let began = Instant::now();
    while admit(30_000, Admit::Any).is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "it goes on by itself"
        );
        thread::yield_now();
    }
    assert!(log.trouble().is_none());
    log.stop();
    let (numbers, _) = read(&files, 1).expect("a sound log");
    assert_eq!(numbers, (1..=number).collect::<Vec<_>>());
}

#[test]
fn a_full_log_takes_discards_where_there_is_no_disk_for_a_checkpoint_up_to_a_bound() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    let limit = options(Durability::EverySec).limit_bytes as usize;
    let lsn = append(&log, 1, limit).expect("appended");
    log.wait_acked(lsn).expect("written");
    let admitted = |admit| {
        log.try_admit(1, Durability::EverySec, admit)
            .map(|room| room.is_some())
    };
    assert_eq!(
        admitted(Admit::Any),
        Ok(false),
        "a checkpoint is on its way"
    );
    let full = WireError {
        code: ErrorCode::DiskFull,
        text: "no disk for runs".to_owned(),
    };
    log.set_checkpoint_trouble(Some(full.clone()));
    assert_eq!(admitted(Admit::Any), Err(full.clone()));
    let_in(&log, Admit::Discards);
    let lsn = append(&log, 2, limit / 2).expect("appended");
    log.wait_acked(lsn).expect("written");
    assert_eq!(admitted(Admit::Discards), Err(full));
    log.set_checkpoint_trouble(None);
    assert_eq!(admitted(Admit::Discards), Ok(false));
}

#[test]
fn discards_leave_a_part_of_the_reserve_to_clears() {
    let files = MemoryFiles::default();
    let options = LogOptions {
        limit_bytes: 1 << 30,
        ..options(Durability::EverySec)
    };
    let dyn_files: Arc<dyn LogFiles> = Arc::new(files.clone());
    let log = Log::start(dyn_files, options, &empty(), Ledger::default()).expect("a log");
    let lsn = append(&log, 1, 1000).expect("appended");
    log.wait_acked(lsn).expect("written");
    files.set_capacity(Some(files.used()));
    let mut number = 1;
    let refusal = loop {
        match log.try_admit(20_000, Durability::EverySec, Admit::Discards) {
            Ok(Some(room)) => {
                number += 1;
                let lsn = append(&log, number, 20_000).expect("appended");
                drop(room);
                in_time("a discard", || log.wait_acked(lsn)).expect("written");
            }
            Ok(None) => thread::yield_now(),
            Err(error) => break error,
        }
        assert!(number < 1000);
    };
    assert_eq!(refusal.code, ErrorCode::DiskFull);
    assert!(number > 50, "only {number} discards");
    for _ in 0..100 {
        number += 1;
        let lsn = append(&log, number, 4000).expect("appended");
        in_time("a clear", || log.sync_through(lsn)).expect("written");
    }
    log.stop();
    assert!(log.failure().is_none());
}

#[test]
fn nobody_blocks_on_a_disk_that_is_full_and_what_waits_is_written_when_there_is_room() {
    let files = MemoryFiles::default();
    files.set_simple();
    let log = start(&files, Durability::EverySec);
    let lsn = append(&log, 1, 1000).expect("appended");
    log.wait_acked(lsn).expect("written");
    files.set_capacity(Some(files.used() + 500));
    let lsn = append(&log, 2, 1000).expect("appended");
    let refusal = in_time("a sync", || log.sync_through(lsn)).expect_err("no room");
    assert_eq!(refusal.code, ErrorCode::DiskFull);
    in_time("a sync of what is written", || log.sync_through(lsn - 1)).expect("synced");
    assert!(log.failure().is_none() && log.blocked().is_some());
    let discard = log
        .try_admit(10, Durability::EverySec, Admit::Discards)
        .expect_err("no reserve");
    assert_eq!(discard.code, ErrorCode::DiskFull);
    files.set_capacity(None);
    let began = Instant::now();
    while log.sync_through(lsn).is_err() {
        assert!(began.elapsed() < DEADLINE, "it goes on by itself");
        thread::yield_now();
    }
    assert!(log.blocked().is_none());
    log.stop();
    assert_eq!(read(&files, 1).expect("a sound log").0, [1, 2]);
}
