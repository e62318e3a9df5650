//! A backup is waited for however long it takes, while the server is heard, and never asked for twice.

mod support;

use std::{error::Error, time::Duration};

use rhash_client::{BytesCodec, ErrorKind, RemoteHash, blocking, testing::FakeServer};
use support::{eventually, quiet, server};

type Done = Result<(), Box<dyn Error>>;
type Table = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;

#[tokio::test]
async fn a_backup_has_what_its_client_wrote_before() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: Table = client.table("t").open().await?;
    table.insert(b"k", b"v").await?;
    assert!(server.stored("t").is_empty(), "it is in the cache");
    let made = client.backup("/backups/one").await?;
    assert_eq!((made.tables, server.stored("t").len()), (1, 1));
    Ok(())
}

#[test]
fn the_blocking_client_makes_backups_too() -> Done {
    let server = FakeServer::start()?;
    let client = blocking::Client::connect(&server.address())?;
    assert_eq!(client.backup("/b")?.tables, 0);
    assert_eq!(server.seen().backups, 1);
    Ok(())
}

#[tokio::test]
async fn a_path_that_cannot_be_one_is_not_even_sent() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let long = format!("/{}", "x".repeat(5000));
    for dir in ["", "relative", "./here", "/with\0nul", &long] {
        let error = client.backup(dir).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{dir:?}: {error}");
    }
    assert_eq!(server.seen().backups, 0);
    Ok(())
}

#[tokio::test]
async fn a_backup_may_take_longer_than_any_other_call() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.backup_pings = 4)?;
    let timeout = Duration::from_millis(300);
    let client = quiet()
        .request_timeout(timeout)
        .connect(&server.address())
        .await?;
    // It is answered after four signs of life, of which one is asked for at each timeout.
    let begun = std::time::Instant::now();
    client.backup("/b").await?;
    assert!(begun.elapsed() >= timeout * 4);
    let seen = server.seen();
    assert_eq!((seen.backups, seen.connections), (1, 1));
    Ok(())
}

#[tokio::test]
async fn a_server_that_falls_silent_is_not_waited_for() -> Done {
    let server = server();
    let client = quiet()
        .request_timeout(Duration::from_millis(100))
        .connect(&server.address())
        .await?;
    server.hold_answers(true);
    let error = client.backup("/b").await.unwrap_err();
    let kinds = [ErrorKind::Timeout, ErrorKind::Connection];
    assert!(kinds.contains(&error.kind()), "{error}");
    server.hold_answers(false);
    Ok(())
}

/// The copy of the first one may be there, and a second one would find that its directory exists.
#[tokio::test]
async fn a_backup_whose_connection_is_lost_is_not_asked_for_again() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    server.hold_answers(true);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.backup("/b").await }
    });
    eventually("the server is asked", || server.seen().backups == 1).await;
    server.cut();
    let error = asking.await?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("/b is there once"), "{error}");
    server.hold_answers(false);
    client.ping().await?;
    let seen = server.seen();
    assert_eq!((seen.backups, seen.connections), (1, 2));
    Ok(())
}
