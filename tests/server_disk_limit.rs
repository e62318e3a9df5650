//! `--disk-limit`: reached, it refuses writes and nothing else, until there is room again.

mod server_support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rhash_protocol::{ErrorCode, Op, Ops, Request, Response, Stats, TableId, TableKind, WireError};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult, disk_bytes, ops_bytes};

const LIMIT_BYTES: u64 = 64 << 20;
const VALUE_BYTES: usize = 4000;
const BATCH: u64 = 64;
/// What lies beside the runs: the manifest, and what file systems round up to.
const BESIDE_BYTES: u64 = 1 << 20;

fn start(dir: &Path) -> TestResult<ServerProcess> {
    let dir = dir.to_str().ok_or("not UTF-8")?;
    ServerProcess::start(&["--mem-limit", "24M", "--disk-limit", "64M", "--data", dir])
}

fn value(number: u64, round: u8) -> Vec<u8> {
    let mut value = vec![round; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// Puts a batch of values from `first` on; the error if it is refused.
async fn put_batch(
    peer: &mut Peer,
    table: TableId,
    first: u64,
    round: u8,
) -> TestResult<Option<WireError>> {
    let entries: Vec<_> = (first..first + BATCH)
        .map(|number| (number.to_le_bytes(), value(number, round)))
        .collect();
    let ops: Vec<_> = entries
        .iter()
        .map(|(key, value)| Op::Put { key, value })
        .collect();
    write(peer, table, &ops).await
}

async fn write(peer: &mut Peer, table: TableId, ops: &[Op<'_>]) -> TestResult<Option<WireError>> {
    let bytes = ops_bytes(ops);
    let ops = Ops::new(ops.len() as u32, &bytes);
    let answered = peer.call(Request::Write { table, ops }).await?;
    match answered.response()? {
        Response::Written(_) => Ok(None),
        Response::Error(error) => Ok(Some(error)),
        response => Err(format!("{response:?}").into()),
    }
}

/// Puts values until one batch is refused; returns how many are there and what was said.
async fn fill(peer: &mut Peer, table: TableId, dir: &Path) -> TestResult<(u64, WireError)> {
    let mut number = 0;
    loop {
        if let Some(error) = put_batch(peer, table, number, 1).await? {
            return Ok((number, error));
        }
        number += BATCH;
        let bytes = runs_bytes(dir);
        assert!(bytes <= LIMIT_BYTES + BESIDE_BYTES, "{bytes} bytes on disk");
        assert!(number < 40_000, "nothing was refused");
    }
}

async fn discard(peer: &mut Peer, table: TableId, numbers: std::ops::Range<u64>) -> TestResult {
    let keys: Vec<_> = numbers.map(u64::to_le_bytes).collect();
    let ops: Vec<_> = keys.iter().map(|key| Op::Discard { key }).collect();
    for ops in ops.chunks(500) {
        if let Some(error) = write(peer, table, ops).await? {
            return Err(format!("a discard was refused: {error:?}").into());
        }
    }
    Ok(())
}

async fn stats(peer: &mut Peer) -> TestResult<Stats> {
    let answered = peer.call(Request::Stats).await?;
    match answered.response()? {
        Response::Stats(stats) => Ok(*stats),
        response => Err(format!("{response:?}").into()),
    }
}

/// Puts one batch again and again until it is taken in.
async fn wait_until_taken(peer: &mut Peer, table: TableId, first: u64) -> TestResult {
    let began = Instant::now();
    while let Some(error) = put_batch(peer, table, first, 2).await? {
        if began.elapsed() > 3 * DEADLINE {
            return Err(format!("still refused: {}", error.text).into());
        }
    }
    Ok(())
}

/// What the limit is of: all but the log.
fn runs_bytes(dir: &Path) -> u64 {
    disk_bytes(dir).saturating_sub(disk_bytes(&dir.join("log")))
}

/// A merge or a spill that was under way ends before its files go.
fn wait_for_disk(dir: &Path, bytes_max: u64) -> TestResult {
    let began = Instant::now();
    while runs_bytes(dir) > bytes_max {
        if began.elapsed() > DEADLINE {
            return Err(format!("{} bytes on disk", runs_bytes(dir)).into());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

#[tokio::test]
async fn a_full_disk_refuses_writes_with_the_way_out_and_goes_on_with_all_else() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("t")).await?;
    let (count, error) = fill(&mut peer, table, dir.path()).await?;
    assert_eq!(error.code, ErrorCode::DiskFull);
    for part in [
        "of 64 MiB",
        "67108864",
        "8 MiB are kept",
        "discard",
        "--disk-limit",
    ] {
        assert!(error.text.contains(part), "{part} in {}", error.text);
    }
    let stats = stats(&mut peer).await?;
    assert_eq!(stats.disk_limit_bytes, LIMIT_BYTES);
    assert!(stats.disk_bytes > LIMIT_BYTES / 4 * 3);
    for number in [0, count / 2, count - 1] {
        let found = peer.get(table, &number.to_le_bytes()).await?;
        assert!(found == Some(value(number, 1)), "value {number}");
    }
    // What is discarded gives room for new values, without a restart.
    discard(&mut peer, table, 0..count / 4 * 3).await?;
    wait_until_taken(&mut peer, table, 1_000_000).await?;
    let left = count - count / 4 * 3 + BATCH;
    assert_eq!(peer.len(table).await?, left);
    assert!(runs_bytes(dir.path()) <= LIMIT_BYTES + BESIDE_BYTES);
    assert!(server.stop()?.success());
    // And what was taken in is there after a start.
    let server = start(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("t")).await?;
    assert_eq!(peer.len(table).await?, left);
    Ok(())
}

#[tokio::test]
async fn a_closed_or_cleared_table_makes_room_at_once() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (kept, _) = peer.open(Some("kept")).await?;
    let (other, _) = peer.open(None).await?;
    fill(&mut peer, other, dir.path()).await?;
    let answered = peer.call(Request::Clear { table: other }).await?;
    assert!(matches!(answered.response()?, Response::Done));
    wait_for_disk(dir.path(), LIMIT_BYTES / 8)?;
    wait_until_taken(&mut peer, kept, 0).await?;
    fill(&mut peer, other, dir.path()).await?;
    let answered = peer.call(Request::Close { table: other }).await?;
    assert!(matches!(answered.response()?, Response::Done));
    wait_for_disk(dir.path(), LIMIT_BYTES / 8)?;
    wait_until_taken(&mut peer, kept, 0).await?;
    assert_eq!(peer.len(kept).await?, BATCH);
    Ok(())
}

/// A list that has grown in RAM to more than spills take at a time was frozen without room for it, and
/// lay in the way of the deletes that would have made some.
#[tokio::test]
async fn a_list_longer_than_the_room_that_is_left_keeps_nobody_from_making_more() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    let (lists, _) = peer.open_kind(None, TableKind::Lists).await?;
    let count = LIMIT_BYTES / 16 * 13 / VALUE_BYTES as u64 / BATCH * BATCH;
    for first in (0..count).step_by(BATCH as usize) {
        assert_eq!(
            put_batch(&mut peer, table, first, 1).await?,
            None,
            "there is room"
        );
    }
    let bytes = vec![7; 250_000];
    let mut length = 0;
    for _ in 0..400 {
        let ops = [Op::Append {
            key: b"long",
            bytes: &bytes,
        }];
        match write(&mut peer, lists, &ops).await? {
            None => length += bytes.len(),
            Some(error) => {
                assert_eq!(error.code, ErrorCode::DiskFull, "{}", error.text);
                break;
            }
        }
    }
    assert!((1 << 20..64 << 20).contains(&length), "{length} bytes");
    discard(&mut peer, table, 0..count / 4 * 3).await?;
    wait_until_taken(&mut peer, table, 1_000_000).await?;
    let ops = [Op::Append {
        key: b"long",
        bytes: &bytes,
    }];
    let began = Instant::now();
    while let Some(error) = write(&mut peer, lists, &ops).await? {
        assert!(began.elapsed() < DEADLINE, "still refused: {}", error.text);
    }
    Ok(())
}

/// Old versions are found and given back before anybody is refused.
#[tokio::test]
async fn overwriting_what_fits_is_never_refused() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    let batches = (LIMIT_BYTES / 2) / (BATCH * VALUE_BYTES as u64);
    for round in 0..6 {
        for batch in 0..batches {
            let refused = put_batch(&mut peer, table, batch * BATCH, round).await?;
            assert_eq!(refused, None, "round {round}, batch {batch}");
        }
        let bytes = runs_bytes(dir.path());
        assert!(bytes <= LIMIT_BYTES + BESIDE_BYTES, "{bytes} bytes on disk");
    }
    assert_eq!(peer.len(table).await?, batches * BATCH);
    Ok(())
}

/// Each discard of a key that may be on disk takes RAM until it is spilled.
#[tokio::test]
async fn discards_on_a_full_disk_stay_within_the_memory_limit() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    let (count, _) = fill(&mut peer, table, dir.path()).await?;
    let mut refused = 0;
    for batch in 0..400u64 {
        // Keys that nobody has, so that nothing is freed by them.
        let keys: Vec<_> = (0..2000)
            .map(|key| (1 << 40 | batch << 20 | key).to_le_bytes())
            .collect();
        let ops: Vec<_> = keys.iter().map(|key| Op::Discard { key }).collect();
        match write(&mut peer, table, &ops).await? {
            None => {}
            Some(error) => {
                assert_eq!(error.code, ErrorCode::DiskFull, "{}", error.text);
                refused += 1;
            }
        }
        let resident = server.status_bytes("RssAnon")? + server.status_bytes("RssShmem")?;
        assert!(
            resident <= 24 << 20,
            "{resident} bytes after batch {batch}, {refused} refused"
        );
    }
    assert_eq!(peer.len(table).await?, count);
    let bytes = runs_bytes(dir.path());
    assert!(bytes <= LIMIT_BYTES + BESIDE_BYTES, "{bytes} bytes on disk");
    Ok(())
}
