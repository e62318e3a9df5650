//! A copy of the log has its records up to one, whole and in order, while others are appended; and what is damaged
//! is not copied.

use super::*;
use crate::log::files::LogFile;

/// Copies the log up to a record.
fn copy(log: &Log, through: Lsn) -> Result<(MemoryFiles, u64), LogError> {
    let into = MemoryFiles::default();
    let mut bytes = 0;
    for part in log.parts_through(through) {
        bytes += log.copy_part(part, &into)?;
    }
    into.sync_names().expect("names are synced");
    Ok((into, bytes))
}

#[test]
fn a_copy_ends_with_its_record_wherever_that_is() {
    let (files, mut rng) = (MemoryFiles::default(), rng());
    let log = start(&files, Durability::EverySec);
    for number in 1..=150 {
        append(&log, number, rng.usize(..300)).expect("appended");
        if rng.u8(..10) == 0 {
            log.wait_acked(number).expect("written");
        }
    }
    log.sync_through(150).expect("synced");
    for through in 0..=150 {
        let (into, bytes) = copy(&log, through).expect("a copy");
        let (numbers, found) = read(&into, 1).expect("a sound log");
        assert_eq!(numbers, (1..=through).collect::<Vec<_>>());
        assert_eq!((found.next, &found.torn), (through + 1, &None));
        assert!(!found.segments.is_empty(), "there is a segment");
        assert_eq!(
            found.segments.iter().map(|(_, bytes)| bytes).sum::<u64>(),
            bytes
        );
        // All of it is on stable storage.
        let (after, _) = read(&into.after_power_cut(&mut rng), 1).expect("a sound log");
        assert_eq!(after.len() as u64, through);
        // A log that goes on after it is one.
        let dyn_files: Arc<dyn LogFiles> = Arc::new(into.clone());
        let options = options(Durability::EverySec);
        let again = Log::start(dyn_files, options, &found, Ledger::default()).expect("a log");
        append(&again, 999, 5).expect("appended");
        again.stop();
        let (after, _) = read(&into, 1).expect("a sound log");
        assert_eq!(
            (after.len() as u64, after.last()),
            (through + 1, Some(&999))
        );
    }
}

#[test]
fn a_copy_of_a_log_that_was_cut_begins_behind_the_cut() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    for number in 1..=100 {
        append(&log, number, 200).expect("appended");
        log.wait_acked(number).expect("written");
    }
    let through = log.begin_checkpoint().expect("a segment");
    assert_eq!(through, 100);
    append(&log, 101, 10).expect("appended");
    log.sync_through(101).expect("synced");
    log.cut(through).expect("cut");
    for last in [100, 101] {
        let (into, _) = copy(&log, last).expect("a copy");
        let (numbers, found) = read(&into, 101).expect("a sound log");
        assert_eq!(numbers, (101..=last).collect::<Vec<_>>());
        assert_eq!(found.next, last + 1);
    }
}

#[test]
fn records_longer_than_all_buffers_are_copied() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    for (number, bytes) in (1..).zip([10, 1 << 20, 128 << 10, (128 << 10) - 40, 3, 700_000]) {
        append(&log, number, bytes).expect("appended");
    }
    log.sync_through(6).expect("synced");
    let (into, bytes) = copy(&log, 6).expect("a copy");
    assert_eq!(read(&into, 1).expect("a sound log").0, [1, 2, 3, 4, 5, 6]);
    assert_eq!(bytes, log.bytes());
}

#[test]
fn what_is_damaged_is_not_copied() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    for number in 1..=5 {
        append(&log, number, 20).expect("appended");
    }
    log.sync_through(5).expect("synced");
    let length = files.open(1).and_then(|file| file.bytes()).expect("a file");
    for at in 0..length as usize {
        files.edit(1, |bytes| bytes[at] ^= 1);
        let error = copy(&log, 5).expect_err("it is damaged");
        let expected = matches!(error, LogError::Damaged { .. } | LogError::Format { .. });
        assert!(expected, "byte {at}: {error}");
        files.edit(1, |bytes| bytes[at] ^= 1);
    }
    for length in 0..length as usize {
        let whole = files.after_kill();
        files.edit(1, |bytes| bytes.truncate(length));
        copy(&log, 5).expect_err("it is cut");
        let file: Arc<dyn LogFile> = whole.open(1).expect("a file");
        let mut bytes = vec![0; file.bytes().expect("a length") as usize];
        file.read_at(&mut bytes, 0).expect("a read");
        files.edit(1, |cut| *cut = bytes);
    }
    copy(&log, 5).expect("it is whole again");
}

#[test]
fn a_disk_that_is_full_or_fails_is_told_of() {
    let files = MemoryFiles::default();
    let log = start(&files, Durability::EverySec);
    for number in 1..=50 {
        append(&log, number, 300).expect("appended");
        log.wait_acked(number).expect("written");
    }
    log.sync_through(50).expect("synced");
    let mut failed = 0;
    for nth in 1.. {
        let into = MemoryFiles::default();
        into.fail_from(nth, ErrorKind::StorageFull);
        let parts = log.parts_through(50);
        let copied: Result<Vec<u64>, LogError> = parts
            .into_iter()
            .map(|part| log.copy_part(part, &into))
            .collect();
        match copied {
            Ok(_) => break,
            Err(LogError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::StorageFull),
            Err(error) => panic!("{error}"),
        }
        failed += 1;
    }
    assert!(failed > 6, "there are several segments: {failed}");
}
