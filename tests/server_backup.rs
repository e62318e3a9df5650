//! A backup by the protocol: what is refused, what goes on meanwhile, and what is left when the server ends in the
//! middle of it.

mod server_support;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rhash_protocol::{ErrorCode, Op, Request, Response};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult};

const ENTRIES: u32 = 20_000;
const VALUE: [u8; 500] = [7; 500];

async fn fill(peer: &mut Peer) -> TestResult {
    let (table, _) = peer.open(Some("t")).await?;
    for first in (0..ENTRIES).step_by(250) {
        let keys: Vec<_> = (first..first + 250).map(u32::to_le_bytes).collect();
        let put = |key| Op::Put { key, value: &VALUE };
        let ops: Vec<_> = keys.iter().map(|key| put(&key[..])).collect();
        peer.write(table, &ops).await?;
    }
    Ok(())
}

/// Wants all entries to be on a server that is started on a directory.
async fn check(dir: &Path) -> TestResult {
    let server = ServerProcess::start_in(dir)?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("t")).await?;
    assert_eq!(peer.len(table).await?, u64::from(ENTRIES));
    for number in (0..ENTRIES).step_by(101) {
        let found = peer.get(table, &number.to_le_bytes()).await?;
        assert!(found.as_deref() == Some(&VALUE), "{number}");
    }
    Ok(())
}

fn text(path: &Path) -> TestResult<&str> {
    Ok(path.to_str().ok_or("not UTF-8")?)
}

fn partial_of(dir: &Path) -> PathBuf {
    PathBuf::from(format!("{}.partial", dir.display()))
}

/// Waits until a backup has begun.
fn wait_for(dir: &Path) -> TestResult {
    let began = Instant::now();
    while !dir.exists() && !partial_of(dir).exists() {
        if began.elapsed() > DEADLINE {
            return Err("no backup begins".into());
        }
        thread::yield_now();
    }
    Ok(())
}

#[tokio::test]
async fn a_path_that_cannot_be_one_is_refused() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(&dir.path().join("data"))?;
    let mut peer = Peer::connect(&server).await?;
    let long = format!("/{}", "x".repeat(4096));
    for (path, why) in [
        ("", "not the absolute path"),
        ("copy", "not the absolute path"),
        ("../copy", "not the absolute path"),
        ("/", "not the absolute path"),
        ("/tmp/with\0nul", "with a NUL byte"),
        (&long, "4097 bytes, the limit is 4096"),
    ] {
        let answer = peer.call(Request::Backup { dir: path }).await?;
        let error = answer.error()?;
        assert_eq!(error.code, ErrorCode::BadRequest, "{path:?}");
        assert!(error.text.contains(why), "{path:?}: {}", error.text);
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_goes_on_while_a_backup_is_made() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(&dir.path().join("data"))?;
    let mut peer = Peer::connect(&server).await?;
    fill(&mut peer).await?;
    let copy = dir.path().join("copy");
    let backup = peer.send(Request::Backup { dir: text(&copy)? }).await?;
    let mut made = false;
    for _ in 0..200 {
        let ping = peer.send(Request::Ping).await?;
        loop {
            let (request, answer) = peer.receive().await?;
            if request == ping {
                assert_eq!(answer.response()?, Response::Pong);
                break;
            }
            assert_eq!(request, backup);
            assert!(matches!(answer.response()?, Response::BackedUp(_)));
            made = true;
        }
    }
    if !made {
        let answer = peer.answer_to(backup).await?;
        assert!(matches!(answer.response()?, Response::BackedUp(_)));
    }
    check(&copy).await
}

/// Whenever a server is killed, what has the copy's name is whole, and what it leaves else has another.
#[tokio::test]
async fn a_kill_in_the_middle_leaves_no_half_copy_under_the_name() -> TestResult {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let server = ServerProcess::start_in(&data)?;
    fill(&mut Peer::connect(&server).await?).await?;
    assert!(server.stop()?.success());
    for round in 0..6 {
        let server = ServerProcess::start_in(&data)?;
        let mut peer = Peer::connect(&server).await?;
        let copy = dir.path().join(format!("copy-{round}"));
        peer.send(Request::Backup { dir: text(&copy)? }).await?;
        wait_for(&copy)?;
        thread::park_timeout(Duration::from_micros(rng.u64(..30_000)));
        drop(server);
        let (whole, cut_short) = (copy.exists(), partial_of(&copy).exists());
        println!("round {round}: whole {whole}, cut short {cut_short}");
        assert_ne!(whole, cut_short);
        if whole {
            check(&copy).await?;
            continue;
        }
        let server = ServerProcess::start_in(&data)?;
        let mut peer = Peer::connect(&server).await?;
        let again = peer.call(Request::Backup { dir: text(&copy)? }).await?;
        let error = again.error()?;
        assert!(error.text.contains("cut short"), "{}", error.text);
        fs::remove_dir_all(partial_of(&copy))?;
        let again = peer.call(Request::Backup { dir: text(&copy)? }).await?;
        assert!(matches!(again.response()?, Response::BackedUp(_)));
        check(&copy).await?;
    }
    check(&data).await
}

#[tokio::test]
async fn a_server_that_stops_gives_a_backup_up_or_finishes_it() -> TestResult {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let mut server = ServerProcess::start_in(&data)?;
    fill(&mut Peer::connect(&server).await?).await?;
    for round in 0..4 {
        let mut peer = Peer::connect(&server).await?;
        let copy = dir.path().join(format!("copy-{round}"));
        let backup = peer.send(Request::Backup { dir: text(&copy)? }).await?;
        wait_for(&copy)?;
        // It waits for the end, within the deadline.
        assert!(server.stop()?.success());
        assert!(!partial_of(&copy).exists(), "nothing half stays");
        let made = match peer.answer_to(backup).await?.response()? {
            Response::BackedUp(_) => true,
            Response::Error(error) => {
                assert_eq!(error.code, ErrorCode::ShuttingDown, "{}", error.text);
                false
            }
            other => return Err(format!("{other:?}").into()),
        };
        println!("round {round}: made {made}");
        assert_eq!(copy.exists(), made);
        if made {
            check(&copy).await?;
        }
        server = ServerProcess::start_in(&data)?;
    }
    Ok(())
}
