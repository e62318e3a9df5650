//! What a server does with its data directory: keeps, finds, refuses.

mod server_support;

use std::fs;

use server_support::{Peer, ServerProcess, TestResult, run_to_end};

/// Starts a server where it must fail, and gives its line on standard error.
fn failure(dir: &std::path::Path) -> TestResult<String> {
    let dir = dir.to_str().ok_or("not UTF-8")?;
    let args = [
        "--listen",
        "127.0.0.1:0",
        "--mem-limit",
        "24M",
        "--log",
        "off",
        "--data",
        dir,
    ];
    let output = run_to_end(&args)?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty(), "it never was ready");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("rhash-server: "), "{stderr}");
    Ok(stderr)
}

#[tokio::test]
async fn a_clean_stop_keeps_named_tables() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("people")).await?;
    for number in 0..1000u32 {
        peer.put(
            table,
            format!("key {number}").as_bytes(),
            &number.to_le_bytes(),
        )
        .await?;
    }
    let (temporary, _) = peer.open(None).await?;
    peer.put(temporary, b"k", b"v").await?;
    assert_eq!(server.stop()?.code(), Some(0));

    let server = ServerProcess::start_in(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("people")).await?;
    assert_eq!(peer.len(table).await?, 1000);
    for number in [0u32, 500, 999] {
        let value = peer.get(table, format!("key {number}").as_bytes()).await?;
        assert_eq!(value, Some(number.to_le_bytes().to_vec()));
    }
    Ok(())
}

#[test]
fn a_directory_in_use_is_refused() -> TestResult {
    let dir = tempfile::tempdir()?;
    let _server = ServerProcess::start_in(dir.path())?;
    let stderr = failure(dir.path())?;
    assert!(
        stderr.contains("in use") || stderr.contains("another"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_made_or_written_is_refused() -> TestResult {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, b"not a directory")?;
    let stderr = failure(&file)?;
    assert!(stderr.contains("file"), "{stderr}");
    let stderr = failure(&file.join("below"))?;
    assert!(stderr.contains("below"), "{stderr}");
    // Not even root can write there.
    let stderr = failure(std::path::Path::new("/proc/rhash"))?;
    assert!(stderr.contains("/proc/rhash"), "{stderr}");
    Ok(())
}

#[test]
fn a_directory_of_another_format_is_refused() -> TestResult {
    let dir = tempfile::tempdir()?;
    assert_eq!(ServerProcess::start_in(dir.path())?.stop()?.code(), Some(0));
    let manifest = dir.path().join("MANIFEST");
    let mut bytes = fs::read(&manifest)?;
    bytes[..8].copy_from_slice(b"FUTURE 9");
    fs::write(&manifest, &bytes)?;
    let stderr = failure(dir.path())?;
    assert!(
        stderr.contains("MANIFEST") || stderr.contains("format"),
        "{stderr}"
    );
    assert_eq!(fs::read(&manifest)?, bytes, "it was left as it is");
    Ok(())
}
