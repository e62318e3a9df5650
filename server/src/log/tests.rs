//! What was acknowledged is found again, whatever was torn, full or failing, and nothing else is.

use std::{
    io::ErrorKind,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fastrand::Rng;

use super::{memory_files::MemoryFiles, segment::HEADER_BYTES, *};

mod copy;
mod full_disk;

const DEADLINE: Duration = Duration::from_secs(20);
const MARK: u32 = 77;

fn options(durability: Durability) -> LogOptions {
    LogOptions {
        durability,
        buffer_bytes: 64 << 10,
        segment_bytes: 4096,
        limit_bytes: 1 << 20,
        mark: MARK,
    }
}

fn empty() -> Found {
    Found {
        next: 1,
        segments: Vec::new(),
        torn: None,
    }
}

fn start(files: &MemoryFiles, durability: Durability) -> Log {
    let files: Arc<dyn LogFiles> = Arc::new(files.clone());
    Log::start(files, options(durability), &empty(), Ledger::default()).expect("a log")
}

/// A batch that says its number.
fn append(log: &Log, number: u64, bytes: usize) -> Result<Lsn, WireError> {
    let mut ops = vec![number as u8; bytes];
    ops.extend_from_slice(&number.to_le_bytes());
    log.append(&Record::Batch {
        table: 1,
        by: None,
        count: 1,
        ops: &ops,
        reply: OwnedReply::Written(0, Bytes::new()),
    })
}

/// The numbers of all batches that are found.
fn read(files: &MemoryFiles, from: Lsn) -> Result<(Vec<u64>, Found), LogError> {
    let mut numbers = Vec::new();
    let found = read_log(files, MARK, Wanted::from(from), |_, record| {
        if let Record::Batch { ops, .. } = record {
            let (_, number) = ops.split_last_chunk::<8>().ok_or("short")?;
            numbers.push(u64::from_le_bytes(*number));
        }
        Ok(())
    })?;
    Ok((numbers, found))
}

fn rng() -> Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    Rng::with_seed(seed)
}

#[test]
fn what_was_appended_is_read_over_all_segments() {
    let (files, mut rng) = (MemoryFiles::default(), rng());
    let log = start(&files, Durability::EverySec);
    for number in 1..=300 {
        assert_eq!(
            append(&log, number, rng.usize(..300)).expect("appended"),
            number
        );
        if rng.u8(..10) == 0 {
            log.wait_acked(number).expect("written");
        }
    }
    log.stop();
    let (numbers, found) = read(&files, 1).expect("a sound log");
    assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
    assert!(found.segments.len() > 3 && found.torn.is_none() && found.next == 301);
    let bytes: u64 = found.segments.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(log.bytes(), bytes);
    assert!(append(&log, 301, 1).is_err(), "it was stopped");
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_and_the_log_goes_on() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    let mut ends = vec![HEADER_BYTES as u64];
    for number in 1..=5 {
        let lsn = append(&log, number, 10).expect("appended");
        log.wait_acked(lsn).expect("written");
        ends.push(log.bytes());
    }
    // Nothing was synced yet, as far as the records know.
    for length in HEADER_BYTES as u64..=*ends.last().expect("an end") {
        let cut = files.after_kill();
        cut.edit(1, |bytes| bytes.truncate(length as usize));
        let (numbers, found) = read(&cut, 1).expect("a torn log");
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        assert_eq!(numbers.len(), whole, "cut at {length}");
        let torn = found.torn.as_ref().map_or(0, |torn| torn.bytes);
        assert_eq!(torn, length - ends[whole]);
        let dyn_files: Arc<dyn LogFiles> = Arc::new(cut.clone());
        let options = options(Durability::EverySec);
        let again = Log::start(dyn_files, options, &found, Ledger::default()).expect("a log");
        append(&again, 99, 5).expect("appended");
        again.stop();
        let (after, _) = read(&cut, 1).expect("a sound log");
        assert_eq!((after.len(), after.last()), (whole + 1, Some(&99)));
    }
}

#[test]
fn no_flipped_bit_makes_up_a_record_or_loses_one_that_later_ones_vouch_for() {
    let (files, mut rng) = (MemoryFiles::default(), rng());
    let log = start(&files, Durability::Always);
    for number in 1..=60 {
        let lsn = append(&log, number, rng.usize(..200)).expect("appended");
        log.wait_acked(lsn).expect("synced");
    }
    log.stop();
    let firsts = files.list().expect("segments");
    let (mut refused, mut cut) = (0, 0);
    for _ in 0..3000 {
        let damaged = files.after_kill();
        let first = firsts[rng.usize(..firsts.len())];
        damaged.edit(first, |bytes| {
            let at = rng.usize(..bytes.len());
            if rng.u8(..8) == 0 {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << rng.u8(..8);
            }
        });
        match read(&damaged, 1) {
            Err(LogError::Refused { .. }) => panic!("a damaged record was given to apply"),
            Err(_) => refused += 1,
            Ok((numbers, _)) => {
                let whole = numbers.len() as u64;
                assert_eq!(numbers, (1..=whole).collect::<Vec<_>>());
                // Truncation to a record's end cannot be told, nor damage of the very last ones.
                assert!(
                    first == *firsts.last().expect("one"),
                    "only {whole} of segment {first}"
                );
                cut += 1;
            }
        }
    }
    assert!(refused > 0 && cut > 0);
}

#[test]
fn always_is_synced_before_it_is_acknowledged_and_many_share_a_sync() {
    let (files, mut rng) = (MemoryFiles::default(), rng());
    let log = start(&files, Durability::Always);
    let mut acked = 0;
    for number in 1..=400 {
        let lsn = append(&log, number, rng.usize(..100)).expect("appended");
        if rng.u8(..20) == 0 {
            log.wait_acked(lsn).expect("synced");
            acked = lsn;
        }
        if rng.u8(..20) == 0 {
            let cut = files.after_power_cut(&mut rng);
            let (numbers, _) = read(&cut, 1).expect("a log after a power cut");
            assert!(numbers.len() as u64 >= acked);
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        }
    }
    log.stop();
    assert!(files.syncs() < 400, "{} syncs", files.syncs());
}

#[test]
fn everysec_is_written_before_it_is_acknowledged_and_a_sync_can_be_asked_for() {
    let (files, mut rng) = (MemoryFiles::default(), rng());
    let log = start(&files, Durability::EverySec);
    for number in 1..=100 {
        let lsn = append(&log, number, rng.usize(..100)).expect("appended");
        log.wait_acked(lsn).expect("written");
        assert_eq!(
            read(&files.after_kill(), 1).expect("a log").0.len() as u64,
            number
        );
        if number % 10 == 0 {
            log.sync_through(lsn).expect("synced");
            let cut = files.after_power_cut(&mut rng);
            assert!(read(&cut, 1).expect("a log").0.len() as u64 >= number);
        }
    }
}

#[test]
fn what_is_acknowledged_before_the_disk_fails_is_there_and_nothing_is_after() {
    let fine = MemoryFiles::default();
    let write_all = |files: &MemoryFiles, durability| {
        let log = Log::start(
            Arc::new(files.clone()),
            options(durability),
            &empty(),
            Ledger::default(),
        );
        let Ok(log) = log else { return 0 };
        let mut acked = 0;
        for number in 1..=60 {
            let Ok(lsn) = append(&log, number, 150) else {
                break;
            };
            if log.wait_acked(lsn).is_err() {
                break;
            }
            acked = lsn;
        }
        if acked < 60 {
            let error = log.failure().expect("it says why");
            assert_eq!(error.code, ErrorCode::Storage);
            assert!(append(&log, 61, 1).is_err());
            assert!(log.sync_through(acked + 1).is_err());
        }
        acked
    };
    for durability in [Durability::EverySec, Durability::Always] {
        assert_eq!(write_all(&fine, durability), 60);
        for nth in 1..fine.calls() + 2 {
            let files = MemoryFiles::default();
            files.fail_from(nth, ErrorKind::Other);
            let acked = write_all(&files, durability);
            let after = files.after_kill();
            let (numbers, _) = read(&after, 1).expect("a log that can be read");
            assert!(
                numbers.len() as u64 >= acked,
                "call {nth}: {acked} acknowledged"
            );
        }
        fine.disk_reset();
    }
}

/// One that has done nothing yet.
fn session() -> SessionRecord {
    SessionRecord {
        id: 5,
        secret: [1; 16],
        token: ("anybody".to_owned(), None),
        taken: 0,
        settled: 0,
        tables: vec![],
        replies: vec![],
    }
}

#[test]
fn a_checkpoint_cuts_what_is_before_it_and_keeps_the_sessions() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    let session = session();
    log.begin_session(5, || session.clone()).expect("begun");
    for number in 1..=100 {
        append(&log, number, 200).expect("appended");
    }
    let last = log.begin_checkpoint().expect("a segment");
    for number in 101..=110 {
        append(&log, number, 200).expect("appended");
    }
    log.sync_through(log.last()).expect("synced");
    log.cut(last).expect("cut");
    log.stop();
    let mut ledger = Ledger::default();
    read_log(&files, MARK, Wanted::from(last + 1), |_, record| {
        ledger.apply(&record);
        Ok(())
    })
    .expect("a sound log");
    assert_eq!(ledger.snapshot(), [session]);
    let (numbers, found) = read(&files, last + 1).expect("a sound log");
    assert_eq!(numbers, (101..=110).collect::<Vec<_>>());
    assert_eq!(
        found.segments.first().map(|segment| segment.0),
        Some(last + 1)
    );
    assert!(matches!(read(&files, last), Err(LogError::Missing { .. })));
    assert!(matches!(
        read(&files, 10_000),
        Err(LogError::Missing { .. })
    ));
}

#[test]
fn a_full_buffer_holds_writers_back_until_it_is_written() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let all = runtime
        .block_on(log.admit(1 << 20, Durability::EverySec, Admit::Any))
        .expect("alone, whatever its length");
    let next = log
        .try_admit(1, Durability::EverySec, Admit::Any)
        .expect("no trouble");
    assert!(next.is_none());
    drop(all);
    let admitted = runtime.block_on(async {
        tokio::time::timeout(DEADLINE, log.admit(1, Durability::EverySec, Admit::Any)).await
    });
    assert!(admitted.expect("in time").is_ok());
}

/// Waits until a write is let in.
fn let_in(log: &Log, admit: Admit) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let admitted = runtime.block_on(async {
        tokio::time::timeout(DEADLINE, log.admit(1, Durability::EverySec, admit)).await
    });
    assert!(admitted.expect("in time").is_ok());
}

#[test]
fn long_answers_that_nobody_settles_are_no_reason_for_checkpoints_nor_in_the_way_of_writers() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    let limit = options(Durability::EverySec).limit_bytes as usize;
    let session = session();
    log.begin_session(5, || session).expect("begun");
    let by = By {
        session: 5,
        sequence: 1,
        settled: 0,
    };
    let answer = Bytes::from(vec![7; 2 * limit]);
    log.append(&Record::Batch {
        table: 1,
        by: Some(by),
        count: 1,
        ops: b"op",
        reply: OwnedReply::Written(1, answer.clone()),
    })
    .expect("appended");
    for round in 0..3 {
        log.sync_through(log.last()).expect("synced");
        assert!(log.wants_checkpoint(), "round {round}");
        let last = log.begin_checkpoint().expect("a segment");
        log.sync_through(log.last()).expect("synced");
        log.cut(last).expect("cut");
        assert!(log.bytes() as usize > answer.len(), "the answer is kept");
        assert!(!log.wants_checkpoint(), "round {round}");
        let_in(&log, Admit::Any);
        let lsn = append(&log, round, limit / 2 + 1).expect("appended");
        log.wait_acked(lsn).expect("written");
        let_in(&log, Admit::Any);
    }
    let lsn = append(&log, 9, limit / 2).expect("appended");
    log.wait_acked(lsn).expect("written");
    let_in(&log, Admit::Discards);
    let refused = log
        .try_admit(1, Durability::EverySec, Admit::Any)
        .expect("no trouble")
        .is_none();
    assert!(refused, "what a checkpoint could cut is too much");
    assert!(matches!(log.sessions()[0].replies[..], [(1, _)]));
}

/// The manifest says that there is a log, and a crash came after its one segment was removed and before it was made
/// again.
#[test]
fn an_empty_segment_is_gone_on_with_and_never_away() {
    let mut nth = 1;
    loop {
        let files = MemoryFiles::default();
        start(&files, Durability::EverySec).abandon();
        let (_, found) = read(&files, 1).expect("an empty log");
        assert_eq!(found.segments.len(), 1);
        files.fail_from(nth, ErrorKind::Other);
        let dyn_files: Arc<dyn LogFiles> = Arc::new(files.clone());
        let options = options(Durability::EverySec);
        let started = Log::start(dyn_files, options, &found, Ledger::default());
        let after = files.after_kill();
        let (_, found) = read(&after, 1).expect("an empty log");
        assert_eq!(found.segments.len(), 1, "call {nth} failed");
        if let Ok(log) = started {
            log.abandon();
            break;
        }
        nth += 1;
    }
    assert!(nth > 1, "no call failed");
}
