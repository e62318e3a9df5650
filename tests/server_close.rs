//! Closing a large table takes no time that anybody notices, and gives its disk back.

mod server_support;

use std::time::{Duration, Instant};

use rhash_protocol::{Request, Response};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult, disk_bytes};

/// What the table has, unless `RHASH_CLOSE_BYTES` says how much.
const TABLE_BYTES: usize = 128 << 20;
const VALUE_BYTES: usize = 100_000;
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// What stays of a server's directory.
const LEFT_BYTES: u64 = 5 << 20;

#[tokio::test]
async fn a_large_table_is_closed_within_a_second() -> TestResult {
    let table_bytes = std::env::var("RHASH_CLOSE_BYTES")
        .ok()
        .map_or(Ok(TABLE_BYTES), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("large")).await?;
    let value = vec![7; VALUE_BYTES];
    for number in 0..(table_bytes / VALUE_BYTES) as u64 {
        peer.put(table, &number.to_le_bytes(), &value).await?;
    }
    let began = Instant::now();
    let answered = peer.call(Request::Close { table }).await?;
    assert!(matches!(answered.response()?, Response::Done));
    let close_time = began.elapsed();
    while disk_bytes(dir.path()) > LEFT_BYTES {
        assert!(
            began.elapsed() < DEADLINE,
            "{} bytes are left",
            disk_bytes(dir.path())
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
    println!(
        "closed in {close_time:?}, disk given back after {:?}",
        began.elapsed()
    );
    assert!(
        close_time < CLOSE_MAX,
        "{close_time:?} for {table_bytes} bytes"
    );
    Ok(())
}
