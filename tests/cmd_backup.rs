//! `rhash backup` has a server copy its tables while it goes on, and a second server serves the copy.

mod cmd_support;
mod server_support;

use std::fs;

use cmd_support::Place;
use rhash_protocol::Op;
use server_support::{Peer, ServerProcess, TestResult};

/// So much that a server under the least limit has large runs.
const ENTRIES: u32 = 40_000;
const VALUE_BYTES: usize = 400;

fn value(round: u8) -> Vec<u8> {
    vec![round; VALUE_BYTES]
}

/// Puts all entries of a round, in batches.
async fn fill(peer: &mut Peer, name: &str, round: u8) -> TestResult {
    let (table, _) = peer.open(Some(name)).await?;
    let value = value(round);
    for first in (0..ENTRIES).step_by(400) {
        let keys: Vec<_> = (first..first + 400).map(u32::to_le_bytes).collect();
        let put = |key| Op::Put { key, value: &value };
        let ops: Vec<_> = keys.iter().map(|key| put(&key[..])).collect();
        peer.write(table, &ops).await?;
    }
    Ok(())
}

/// Wants all entries to be of a round.
async fn check(peer: &mut Peer, name: &str, round: u8) -> TestResult {
    let (table, _) = peer.open(Some(name)).await?;
    assert_eq!(peer.len(table).await?, u64::from(ENTRIES));
    for number in (0..ENTRIES).step_by(97) {
        let found = peer.get(table, &number.to_le_bytes()).await?;
        assert!(found == Some(value(round)), "{name}, {number}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_server_serves_the_copy_while_the_first_goes_on() -> TestResult {
    let place = Place::new()?;
    let server = ServerProcess::start_in(&place.path().join("data"))?;
    let address = server.address.to_string();
    let mut peer = Peer::connect(&server).await?;
    let (temporary, _) = peer.open(None).await?;
    peer.put(temporary, b"k", b"v").await?;
    fill(&mut peer, "large", 1).await?;
    place.output(&["--server", &address, "put", "small", "k", "\"before\""])?;

    // The path is relative to where the command runs, which is on the server's host.
    let made = place.json(&["--server", &address, "backup", "copy", "--json"])?;
    assert_eq!(made["tables"], 2, "{made}");
    for figure in ["record", "runs_linked", "linked_bytes", "log_bytes"] {
        assert!(made[figure].as_u64() > Some(0), "{figure}: {made}");
    }
    let copy = place.path().join("copy");
    assert_eq!(made["dir"].as_str(), copy.to_str());
    fill(&mut peer, "large", 2).await?;
    place.output(&["--server", &address, "put", "small", "k", "\"after\""])?;
    place.output(&["--server", &address, "put", "new", "k", "1"])?;
    let said = place.output(&["--server", &address, "backup", "second"])?;
    assert!(
        said.starts_with("backed up 3 tables as of record ") && said.contains("/second: "),
        "{said}"
    );

    for (dir, round, small, tables) in [("copy", 1, "before", 2), ("second", 2, "after", 3)] {
        let restored = ServerProcess::start_in(&place.path().join(dir))?;
        let address = restored.address.to_string();
        let got = place.output(&["--server", &address, "get", "small", "k"])?;
        assert_eq!(got, format!("\"{small}\"\n"));
        let listed = place.json(&["--server", &address, "tables", "--json"])?;
        assert_eq!(listed.as_array().map(Vec::len), Some(tables), "{listed}");
        let mut peer = Peer::connect(&restored).await?;
        check(&mut peer, "large", round).await?;
        // It is a server like any other, and shares nothing that it changes.
        fill(&mut peer, "large", 9).await?;
        drop(peer);
        assert!(restored.stop()?.success());
        let again = ServerProcess::start_in(&place.path().join(dir))?;
        check(&mut Peer::connect(&again).await?, "large", 9).await?;
    }
    check(&mut peer, "large", 2).await?;
    assert_eq!(peer.get(temporary, b"k").await?.as_deref(), Some(&b"v"[..]));
    Ok(())
}

#[test]
fn without_a_server_the_data_directory_is_backed_up() -> TestResult {
    let place = Place::new()?;
    place.output(&["put", "people", "ada", "36"])?;
    let made = place.json(&["backup", "copy", "--json"])?;
    assert_eq!(made["tables"], 1, "{made}");
    place.output(&["put", "people", "ada", "37"])?;
    assert_eq!(place.output(&["get", "people", "ada"])?, "37\n");
    let restored = place.output(&["--data", "copy", "get", "people", "ada"])?;
    assert_eq!(restored, "36\n");
    // A copy of a copy is one, too.
    place.output(&["--data", "copy", "backup", "of the copy"])?;
    let restored = place.output(&["--data", "of the copy", "get", "people", "ada"])?;
    assert_eq!(restored, "36\n");
    Ok(())
}

#[test]
fn a_backup_that_cannot_be_made_fails_and_says_why() -> TestResult {
    let place = Place::new()?;
    place.output(&["put", "people", "ada", "36"])?;
    fs::create_dir(place.path().join("there"))?;
    for (dir, why) in [
        ("there", "exists; a backup makes a directory of its own"),
        ("data/copy", "lies inside of the server's data directory"),
        ("no/parent", "cannot find the directory"),
    ] {
        let said = place.failure(1, &["backup", dir])?;
        assert!(said.contains(why), "{dir}: {said}");
    }
    place.failure(2, &["backup", ""])?;
    place.failure(2, &["backup"])?;
    place.failure(1, &["--data", "none-such", "backup", "copy"])?;
    let help = place.output(&["backup", "--help"])?;
    assert!(
        help.contains("on the server's host and not on this one"),
        "{help}"
    );

    let limit = ["--mem-limit", "24M"];
    let data = place.path().join("other");
    let data = data.to_str().ok_or("not UTF-8")?;
    let token = place.output(&["token", "new", "w", "--file", "tokens"])?;
    let tokens = place.path().join("tokens");
    let tokens = tokens.to_str().ok_or("not UTF-8")?;
    let servers: [(&[&str], &str); 3] = [
        (&["--memory-only"], "--memory-only has nothing on disk"),
        (
            &["--data", data, "--durability", "none"],
            "start it with --durability everysec",
        ),
        (&["--memory-only", "--tokens", tokens], "needs admin"),
    ];
    for (args, why) in servers {
        let server = ServerProcess::start(&[&limit[..], args].concat())?;
        let address = format!("rhash://{}@{}", token.trim(), server.address);
        let said = place.failure(1, &["--server", &address, "backup", "copy"])?;
        assert!(said.contains(why), "{args:?}: {said}");
    }
    let left: Vec<_> = fs::read_dir(place.path())?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    let is_copy = |name: &std::ffi::OsString| name.to_string_lossy().contains("copy");
    assert!(!left.iter().any(is_copy), "{left:?}");
    Ok(())
}
