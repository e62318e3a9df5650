//! Tables that come, outgrow RAM and go leave nothing behind: no disk, RAM, threads or descriptors.

mod server_support;

use std::{path::Path, time::Instant};

use rhash_protocol::{Op, Request, Response};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult, disk_bytes};

/// Rounds, unless `RHASH_ROUNDS` says how many.
const ROUNDS: u64 = 4;
/// Rounds before anything is held against them.
const WARM_UP_ROUNDS: u64 = 3;
/// What each round writes, under a limit of 24 MiB.
const ROUND_BYTES: usize = 40 << 20;
const VALUE_BYTES: usize = 3000;
/// What a server may take more than after its first round: sled's own files, and pages of the
/// allocator.
const SLACK_BYTES: u64 = 6 << 20;
/// Threads and files that sled opens when the first small run comes, and closes when it likes.
const SLACK_OF_SLED: usize = 10;

/// What a server takes.
#[derive(Debug, Clone, Copy)]
struct Taken {
    disk_bytes: u64,
    resident_bytes: u64,
    threads: usize,
    files: usize,
}

impl Taken {
    fn by(server: &ServerProcess, dir: &Path) -> TestResult<Self> {
        Ok(Self {
            disk_bytes: disk_bytes(dir),
            resident_bytes: server.status_bytes("RssAnon")? + server.status_bytes("RssShmem")?,
            threads: server.threads()?,
            files: server.files_open()?,
        })
    }

    /// What was taken at most, but for the disk, which is given back as a table is closed.
    fn at_least(&self, other: &Self) -> Self {
        Self {
            disk_bytes: self.disk_bytes,
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            threads: self.threads.max(other.threads),
            files: self.files.max(other.files),
        }
    }

    fn is_within(&self, first: &Self) -> bool {
        self.disk_bytes <= first.disk_bytes + SLACK_BYTES
            && self.resident_bytes <= first.resident_bytes + SLACK_BYTES
            && self.threads <= first.threads + SLACK_OF_SLED
            && self.files <= first.files + SLACK_OF_SLED
    }
}

async fn round(server: &ServerProcess, round: u64) -> TestResult {
    let mut peer = Peer::connect(server).await?;
    let (table, _) = peer.open(None).await?;
    let value = vec![round as u8; VALUE_BYTES];
    let keys: Vec<_> = (0..(ROUND_BYTES / VALUE_BYTES) as u64)
        .map(u64::to_le_bytes)
        .collect();
    for keys in keys.chunks(100) {
        let ops: Vec<_> = keys
            .iter()
            .map(|key| Op::Put { key, value: &value })
            .collect();
        peer.write(table, &ops).await?;
    }
    for key in keys.iter().step_by(1009) {
        assert!(peer.get(table, key).await? == Some(value.clone()));
    }
    let answered = peer.call(Request::Close { table }).await?;
    assert!(matches!(answered.response()?, Response::Done));
    Ok(())
}

#[tokio::test]
async fn rounds_of_open_fill_and_close_leave_nothing_behind() -> TestResult {
    let rounds = std::env::var("RHASH_ROUNDS")
        .ok()
        .map_or(Ok(ROUNDS), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(dir.path())?;
    // Until sled is open and all pools have their threads.
    let mut first = Taken::by(&server, dir.path())?;
    for number in 0..WARM_UP_ROUNDS {
        round(&server, number).await?;
        first = first.at_least(&Taken::by(&server, dir.path())?);
    }
    for number in WARM_UP_ROUNDS..WARM_UP_ROUNDS + rounds {
        round(&server, number).await?;
        // The close itself is done; the connection's end and the last spill are not waited for.
        let began = Instant::now();
        loop {
            let now = Taken::by(&server, dir.path())?;
            if now.is_within(&first) {
                break;
            }
            if began.elapsed() > DEADLINE {
                return Err(format!("round {number}: {now:?}, at first {first:?}").into());
            }
            // A look every few milliseconds at something that has no other way to be waited for.
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
    Ok(())
}
