//! After a crash a server without a log starts again: what was spilled is there, what was only in RAM is
//! lost, and nothing is there that was never written.

mod server_support;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use rhash_protocol::{Keys, Op, Request, Response, Slot};
use server_support::{Peer, ServerProcess, TestResult, keys_bytes};

const ROUNDS: u64 = 4;
const KEYS: u32 = 20_000;
const BATCHES: u64 = 400;
const BATCH: u64 = 100;

/// A value that says when it was written, long enough to be spilled soon.
fn value(key: u32, version: u64) -> Vec<u8> {
    let mut value = version.to_le_bytes().to_vec();
    value.extend(key.to_le_bytes().repeat(200));
    value
}

#[tokio::test]
async fn a_server_that_was_killed_starts_again_with_what_was_spilled() -> TestResult {
    let dir = tempfile::tempdir()?;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    // Of each key, all versions that were ever written.
    let mut written: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut version = 0;
    for round in 0..ROUNDS {
        let data = dir.path().to_str().ok_or("not UTF-8")?;
        let args = ["--mem-limit", "24M", "--durability", "none", "--data", data];
        let server = ServerProcess::start(&args)?;
        let mut peer = Peer::connect(&server).await?;
        let (table, _) = peer.open(Some("survivor")).await?;
        let found = check(&mut peer, table, &written).await?;
        assert!(
            round == 0 || found > 0,
            "round {round}: what was spilled is there"
        );
        for _ in 0..rng.u64(BATCHES / 2..BATCHES) {
            let keys: Vec<u32> = (0..BATCH).map(|_| rng.u32(..KEYS)).collect();
            version += 1;
            let encoded: Vec<_> = keys
                .iter()
                .map(|key| (key.to_le_bytes(), value(*key, version)))
                .collect();
            let puts: Vec<Op<'_>> = encoded
                .iter()
                .map(|(key, value)| Op::Put { key, value })
                .collect();
            peer.write(table, &puts).await?;
            for key in keys {
                written.entry(key).or_default().push(version);
            }
        }
        // The process is killed.
        drop(server);
    }
    let said = start_and_stop(dir.path())?;
    assert!(
        said.contains("not stopped cleanly") && said.contains("survivor"),
        "{said}"
    );
    let said = start_and_stop(dir.path())?;
    assert!(!said.contains("not stopped cleanly"), "{said}");
    Ok(())
}

/// Reads all keys: each has a value that was once written, or none. Returns how many have one.
async fn check(
    peer: &mut Peer,
    table: u64,
    written: &BTreeMap<u32, Vec<u64>>,
) -> TestResult<usize> {
    let mut found = 0;
    let keys: Vec<u32> = (0..KEYS).collect();
    for chunk in keys.chunks(100) {
        let encoded: Vec<[u8; 4]> = chunk.iter().map(|key| key.to_le_bytes()).collect();
        let slices: Vec<&[u8]> = encoded.iter().map(<[u8; 4]>::as_slice).collect();
        let packed = keys_bytes(&slices);
        let keys = Keys::new(chunk.len() as u32, &packed);
        let answered = peer.call(Request::Get { table, keys }).await?;
        let Response::Values(values) = answered.response()? else {
            return Err("not values".into());
        };
        assert_eq!(values.count(), chunk.len());
        for (slot, &key) in values.iter().zip(chunk) {
            match slot? {
                Slot::Absent => {}
                Slot::Value(bytes) => {
                    let version = u64::from_le_bytes(bytes[..8].try_into()?);
                    let known = written
                        .get(&key)
                        .is_some_and(|versions| versions.contains(&version));
                    assert!(
                        known && bytes == value(key, version),
                        "key {key}, version {version}"
                    );
                    found += 1;
                }
                Slot::Large(_) => return Err("the values are short".into()),
            }
        }
    }
    Ok(found)
}

/// What a server says on standard error from its start to its clean stop.
fn start_and_stop(dir: &Path) -> TestResult<String> {
    let mut server = server_support::server_command();
    server
        .args(["--listen", "127.0.0.1:0", "--mem-limit", "24M"])
        .args(["--durability", "none", "--data"])
        .arg(dir);
    let mut child = server
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    let stdout = child.stdout.take().ok_or("no standard output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready)?;
    assert!(ready.starts_with("listening on "), "{ready}");
    let stopped = Command::new("kill")
        .args(["-s", "TERM", &child.id().to_string()])
        .status()?;
    assert!(stopped.success());
    let output = child.wait_with_output()?;
    assert!(output.status.success());
    Ok(String::from_utf8(output.stderr)?)
}
