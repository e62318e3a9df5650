//! `rhash-server --check` and `--repair`: what a person sees of them.

mod server_support;

use std::{fs, path::Path};

use serde_json::Value;
use server_support::{Peer, ServerProcess, TestResult, run_to_end};

/// Runs the server so that it ends by itself; gives its exit code and what it says.
fn examine(dir: &Path, args: &[&str]) -> TestResult<(Option<i32>, String)> {
    let dir = dir.to_str().ok_or("not UTF-8")?;
    let mut all = vec!["--mem-limit", "24M", "--log", "error", "--data", dir];
    all.extend(args);
    let output = run_to_end(&all)?;
    let mut text = String::from_utf8(output.stdout)?;
    text.push_str(&String::from_utf8(output.stderr)?);
    Ok((output.status.code(), text))
}

async fn fill(dir: &Path) -> TestResult {
    fill_with(dir, 3000).await
}

async fn fill_with(dir: &Path, entries: u32) -> TestResult {
    let server = ServerProcess::start_in(dir)?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("people")).await?;
    for number in 0..entries {
        let key = format!("key {number}");
        peer.put(table, key.as_bytes(), &[number as u8; 500])
            .await?;
    }
    assert_eq!(server.stop()?.code(), Some(0));
    Ok(())
}

fn only_run(dir: &Path) -> TestResult<std::path::PathBuf> {
    let mut runs = fs::read_dir(dir.join("runs"))?;
    let run = runs.next().ok_or("there is a run")??.path();
    assert!(runs.next().is_none(), "there is one run");
    Ok(run)
}

#[tokio::test]
async fn a_check_names_what_is_damaged_and_a_repair_keeps_the_rest() -> TestResult {
    let dir = tempfile::tempdir()?;
    fill(dir.path()).await?;
    let (code, text) = examine(dir.path(), &["--check"])?;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("1 tables, 1 runs with 3000 records"),
        "{text}"
    );
    assert!(text.contains("all is as it was written"), "{text}");

    let run = only_run(dir.path())?;
    let mut bytes = fs::read(&run)?;
    bytes[5000] ^= 0x10;
    fs::write(&run, bytes)?;
    let (code, text) = examine(dir.path(), &["--check"])?;
    assert_eq!(code, Some(1), "{text}");
    let named = format!("damaged: {} at byte 4096 (table \"people\")", run.display());
    assert!(text.contains(&named), "{text}");
    let (code, text) = examine(dir.path(), &["--check", "--json"])?;
    assert_eq!(code, Some(1), "{text}");
    let report: Value = serde_json::from_str(&text)?;
    assert_eq!(report["sound"], false);
    assert_eq!(report["damage"][0]["offset"], 4096);

    let (code, text) = examine(dir.path(), &["--repair"])?;
    assert_eq!(code, Some(1), "something was left out: {text}");
    assert!(
        text.contains(&named) && text.contains("damaged files are in"),
        "{text}"
    );
    let (code, text) = examine(dir.path(), &["--check"])?;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = examine(dir.path(), &["--repair"])?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("nothing is damaged"), "{text}");

    let server = ServerProcess::start_in(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("people")).await?;
    let left = peer.len(table).await?;
    assert!((2900..3000).contains(&left), "{left} entries are left");
    Ok(())
}

#[tokio::test]
async fn a_start_makes_a_lost_manifest_anew() -> TestResult {
    let dir = tempfile::tempdir()?;
    fill(dir.path()).await?;
    fs::remove_file(dir.path().join("MANIFEST"))?;
    let (code, text) = examine(dir.path(), &["--check"])?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("MANIFEST"), "{text}");
    let server = ServerProcess::start_in(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, created) = peer.open(Some("people")).await?;
    assert!(!created);
    assert_eq!(peer.len(table).await?, 3000);
    assert_eq!(
        peer.get(table, b"key 77").await?,
        Some(vec![77; 500]),
        "it is what it was"
    );
    Ok(())
}

/// Where a damaged snapshot keeps sled from opening, all that it snapshots is still there.
#[tokio::test]
async fn a_repair_goes_on_without_what_sled_can_do_without() -> TestResult {
    let dir = tempfile::tempdir()?;
    fill_with(dir.path(), 40).await?;
    assert_eq!(fs::read_dir(dir.path().join("runs"))?.count(), 0);
    let sled = dir.path().join("sled");
    let mut snapshots = Vec::new();
    for entry in fs::read_dir(&sled)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("snap.")) {
            snapshots.push(path);
        }
    }
    assert!(!snapshots.is_empty(), "a stop leaves a snapshot");
    for path in &snapshots {
        let mut bytes = fs::read(path)?;
        bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::write(path, bytes)?;
    }
    let (code, text) = examine(dir.path(), &["--check"])?;
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = examine(dir.path(), &["--repair"])?;
    assert_eq!(code, Some(1), "something was damaged: {text}");
    assert!(text.contains("begun without its snapshots"), "{text}");
    assert!(dir.path().join("damaged/sled/db").is_file());
    let (code, text) = examine(dir.path(), &["--check"])?;
    assert_eq!(code, Some(0), "{text}");
    let server = ServerProcess::start_in(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("people")).await?;
    assert_eq!(peer.len(table).await?, 40);
    assert_eq!(peer.get(table, b"key 7").await?, Some(vec![7; 500]));
    Ok(())
}

#[test]
fn what_is_no_data_directory_is_not_made_one() -> TestResult {
    let dir = tempfile::tempdir()?;
    for option in ["--check", "--repair"] {
        for data in [dir.path().to_owned(), dir.path().join("none")] {
            let (code, text) = examine(&data, &[option])?;
            assert_eq!(code, Some(1), "{text}");
            assert!(text.contains("no data directory"), "{text}");
        }
    }
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    let server = ServerProcess::start_in(dir.path())?;
    let (code, text) = examine(dir.path(), &["--check"])?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("in use"), "{text}");
    drop(server);
    let (code, text) = examine(dir.path(), &["--json"])?;
    assert_eq!(code, Some(2), "{text}");
    let (code, text) = examine(dir.path(), &["--check", "--repair"])?;
    assert_eq!(code, Some(2), "{text}");
    Ok(())
}
