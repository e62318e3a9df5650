//! A server does its work with few file descriptors, however many run files there are.

mod server_support;

use rhash_protocol::{Op, TableId};
use server_support::{Peer, ServerProcess, TestResult};

const FILES_MAX: u32 = 128;
const TABLES: u64 = 200;
const KEYS: u64 = 100;

async fn fill(peer: &mut Peer, table: TableId, seed: u64) -> TestResult {
    let entries: Vec<_> = (0..KEYS)
        .map(|key| (key.to_le_bytes(), vec![(seed + key) as u8; 2000]))
        .collect();
    let ops: Vec<_> = entries
        .iter()
        .map(|(key, value)| Op::Put { key, value })
        .collect();
    peer.write(table, &ops).await
}

#[tokio::test]
async fn two_hundred_tables_in_files_are_served_with_128_descriptors() -> TestResult {
    let dir = tempfile::tempdir()?;
    let data = dir.path().to_str().ok_or("not UTF-8")?;
    let args = ["--mem-limit", "24M", "--small-run", "0", "--data", data];
    let server = ServerProcess::start_with_files(FILES_MAX, &args)?;
    let mut peer = Peer::connect(&server).await?;
    let mut tables = Vec::new();
    for number in 0..TABLES {
        let (table, _) = peer.open(Some(&format!("t{number}"))).await?;
        fill(&mut peer, table, number).await?;
        tables.push(table);
    }
    assert!(server.stop()?.success(), "a stop gives each table a file");
    let files = std::fs::read_dir(dir.path().join("runs"))?.count();
    assert!(files as u64 >= TABLES, "{files} run files");

    let server = ServerProcess::start_with_files(FILES_MAX, &args)?;
    let mut peers = Vec::new();
    for _ in 0..30 {
        peers.push(Peer::connect(&server).await?);
    }
    let mut files_open_max = 0;
    for number in 0..TABLES {
        let peer = &mut peers[number as usize % 30];
        let (table, _) = peer.open(Some(&format!("t{number}"))).await?;
        for key in (0..KEYS).step_by(9) {
            let found = peer.get(table, &key.to_le_bytes()).await?;
            assert!(
                found == Some(vec![(number + key) as u8; 2000]),
                "{key} of {number}"
            );
        }
        fill(peer, table, number + 1).await?;
        files_open_max = files_open_max.max(server.files_open()?);
    }
    assert!(
        files_open_max < FILES_MAX as usize,
        "{files_open_max} files open"
    );
    assert!(server.stop()?.success());
    Ok(())
}
