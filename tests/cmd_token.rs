//! `rhash token new` makes what a server knows its clients by, and clients find it in many places.

mod cmd_support;
mod server_support;

use std::{fs, os::unix::fs::PermissionsExt as _};

use cmd_support::Place;
use rhash_client::{ErrorKind, RemoteHash};
use server_support::{ServerProcess, TestResult};

#[test]
fn a_token_opens_the_server_that_has_its_line() -> TestResult {
    let place = Place::new()?;
    let file = place.path().join("tokens");
    let path = file.to_str().ok_or("not UTF-8")?;
    let secret = place.output(&["token", "new", "writer", "--file", "tokens"])?;
    let secret = secret.trim();
    let reader = place.output(&["token", "new", "r", "--rights", "read", "--file", "tokens"])?;
    let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
    let lines = fs::read_to_string(&file)?;
    assert_eq!((mode, lines.lines().count()), (0o600, 2), "{lines}");
    assert!(!lines.contains(secret), "{lines}");
    let twice = place.failure(2, &["token", "new", "writer", "--file", "tokens"])?;
    assert!(
        twice.contains("line 3") && twice.contains("taken"),
        "{twice}"
    );
    assert_eq!(fs::read_to_string(&file)?, lines, "nothing was added");
    place.failure(2, &["token", "new", "two words"])?;

    let small = ["--memory-only", "--mem-limit", "24M", "--tokens", path];
    let server = ServerProcess::start(&small)?;
    let address = server.address.to_string();
    let refused = place.failure(1, &["--server", &address, "len", "t"])?;
    assert!(
        refused.contains("asks for a token") && refused.contains("RHASH_TOKEN"),
        "{refused}"
    );
    let with_token = format!("rhash://{secret}@{address}");
    place.output(&["--server", &with_token, "put", "t", "key", "1"])?;

    place.write("t.token", &reader)?;
    let of_file = ["--server", &address, "--token-file", "t.token"];
    let with = |args: &[&'static str]| [&of_file[..], args].concat();
    let open = place.failure(2, &with(&["get", "t", "key"]))?;
    assert!(
        open.contains("others can read") && open.contains("chmod 600"),
        "{open}"
    );
    fs::set_permissions(
        place.path().join("t.token"),
        fs::Permissions::from_mode(0o600),
    )?;
    assert_eq!(place.output(&with(&["get", "t", "key"]))?.trim(), "1");
    let denied = place.failure(1, &with(&["del", "t", "key"]))?;
    assert!(
        denied.contains("the token r may not write the table \"t\""),
        "{denied}"
    );
    Ok(())
}

#[test]
fn without_a_file_the_line_is_for_the_reader() -> TestResult {
    let place = Place::new()?;
    let run = place.run(&["token", "new", "a", "--tables", "x*,y", "--rights", "admin"])?;
    assert_eq!(run.code, Some(0));
    let secret = run.stdout.trim();
    let line = run.stderr.lines().last().unwrap_or_default();
    assert!(
        secret.starts_with("rhash_") && secret.len() == 70,
        "{secret}"
    );
    assert!(
        line.starts_with("a sha256:") && line.ends_with(" x*,y admin"),
        "{line}"
    );
    assert!(!run.stderr.contains(secret));
    Ok(())
}

#[tokio::test]
async fn a_client_whose_token_is_revoked_is_told_so_by_its_next_call() -> TestResult {
    let place = Place::new()?;
    let file = place.path().join("tokens");
    let secret = place.output(&["token", "new", "a", "--file", "tokens"])?;
    place.output(&["token", "new", "b", "--file", "tokens"])?;
    let path = file.to_str().ok_or("not UTF-8")?;
    let server = ServerProcess::start(&["--memory-only", "--mem-limit", "24M", "--tokens", path])?;
    let builder = rhash_client::Client::builder().token(secret.trim());
    let client = builder.connect(&server.address.to_string()).await?;
    let table: RemoteHash<String, u32> = client.table("t").open().await?;
    table.insert("key", 1).await?;
    table.flush().await?;
    let lines = fs::read_to_string(&file)?;
    let rest = lines.lines().nth(1).ok_or("one line only")?;
    fs::write(&file, rest)?;
    server.signal("HUP")?;
    let began = std::time::Instant::now();
    let error = loop {
        match table.len().await {
            Err(error) => break error,
            Ok(_) if began.elapsed() > server_support::DEADLINE => return Err("still in".into()),
            Ok(_) => {}
        }
    };
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(
        began.elapsed() < server_support::DEADLINE,
        "at once, and not after 30 s"
    );
    Ok(())
}
