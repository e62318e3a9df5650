//! A lost connection comes back, and each write is applied once; a lost session is an error.

mod support;

use std::{error::Error, time::Duration};

use rhash_client::{
    BytesCodec, CachePolicy, Counter, ErrorKind, List, RemoteHash, testing::FakeServer,
};
use support::{DEADLINE, eventually, quiet, server, until_answered};

type Done = Result<(), Box<dyn Error>>;
type Lists = RemoteHash<Vec<u8>, List<u8>, BytesCodec>;

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_applied_once() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: Lists = client.table("l").open().await?;
    server.set(|hooks| hooks.cut_after_writes = Some(1));
    table.append_many(b"k", b"once").await?;
    table.flush().await?;
    assert_eq!(table.get(b"k").await?.as_deref(), Some(&b"once"[..]));
    let seen = server.seen();
    assert_eq!((seen.connections, seen.repeats, seen.writes), (2, 1, 1));
    Ok(())
}

#[tokio::test]
async fn all_that_is_in_flight_survives_a_cut_in_its_order() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: Lists = client.table("l").open().await?;
    for round in 0..20u8 {
        server.set(|hooks| hooks.cut_after_writes = Some(3));
        let mut bulk = table.bulk();
        for item in 0..10u8 {
            bulk.append(b"k", [round, item])?;
            bulk.send().await?;
        }
        assert_eq!(bulk.finish().await?, 10);
    }
    let expected: Vec<u8> = (0..20u8)
        .flat_map(|round| (0..10u8).flat_map(move |item| [round, item]))
        .collect();
    assert_eq!(table.get(b"k").await?, Some(expected));
    assert_eq!(server.seen().operations, 200);
    assert!(server.seen().repeats > 0, "cuts came in between");
    Ok(())
}

#[tokio::test]
async fn conditional_writes_keep_their_answers_over_a_cut() -> Done {
    let server = server();
    let client = quiet()
        .cache_policy(CachePolicy::None)
        .connect(&server.address())
        .await?;
    let table: RemoteHash<String, Counter> = client.table("c").open().await?;
    for expected in 1..=50 {
        if expected % 5 == 0 {
            server.set(|hooks| hooks.cut_after_writes = Some(1));
        }
        assert_eq!(table.add_and_get("n", 1).await?, expected);
    }
    Ok(())
}

/// With several threads, the writer of a lost connection once took a call that was queued again
/// for the next one, and sent it to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_all_survive_cuts() -> Done {
    let server = server();
    let client = quiet()
        .cache_policy(CachePolicy::None)
        .connect(&server.address())
        .await?;
    let table: RemoteHash<u32, Counter> = client.table("c").open().await?;
    let tasks: Vec<_> = (0..50u32)
        .map(|key| {
            let table = table.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    table.add(key % 7, 1).await?;
                    table.get(key).await?;
                }
                Ok::<_, rhash_client::Error>(())
            })
        })
        .collect();
    for _ in 0..30 {
        let connections = server.seen().connections;
        server.cut();
        eventually("a reconnect", || server.seen().connections > connections).await;
    }
    for task in tasks {
        task.await??;
    }
    let sum: i64 = table.get_many(0..7u32).await?.into_iter().flatten().sum();
    assert_eq!(sum, 5000);
    Ok(())
}

#[tokio::test]
async fn an_expired_session_is_an_error_and_nothing_is_applied_twice() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let temporary: RemoteHash<String, u32> = client.temporary().open().await?;
    let named: Lists = client.table("l").open().await?;
    named.append_many(b"k", b"a").await?;
    named.flush().await?;
    temporary.insert("t", 1).await?;
    named.append_many(b"k", b"b").await?;
    server.hold_answers(true);
    let flushing = {
        let named = named.clone();
        tokio::spawn(async move { named.flush().await })
    };
    eventually("the batch", || server.seen().writes == 2).await;
    server.expire_sessions();
    server.hold_answers(false);
    let error = flushing.await?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionExpired);
    assert_eq!(
        error.keys().first(),
        [b"k".to_vec()],
        "the uncertain write is named"
    );
    let error = temporary.get("t").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.keys().count()),
        (ErrorKind::SessionExpired, 1)
    );
    assert_eq!(
        named.get(b"k").await.unwrap_err().kind(),
        ErrorKind::SessionExpired
    );

    let again: Lists = client.table("l").open().await?;
    assert_eq!(
        again.get(b"k").await?.as_deref(),
        Some(&b"ab"[..]),
        "applied, and once"
    );
    assert_eq!(server.tables(), 1, "the temporary table is gone");
    Ok(())
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_error_and_writes_wait_for_it() -> Done {
    let server = server();
    let client = quiet()
        .retry_deadline(Duration::from_millis(100))
        .connect(&server.address())
        .await?;
    let table: RemoteHash<String, u32> = client.table("t").open().await?;
    server.set(|hooks| hooks.refuse_connections = true);
    server.cut();
    eventually("the cut", || server.live_connections() == 0).await;
    table.insert("k", 1).await?;
    let error = tokio::time::timeout(DEADLINE, table.flush())
        .await?
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.keys().count()),
        (ErrorKind::FlushFailed, 1)
    );
    let error = tokio::time::timeout(DEADLINE, table.get("other"))
        .await?
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert_eq!(table.get("k").await?, Some(1), "still in the cache");
    server.set(|hooks| hooks.refuse_connections = false);
    until_answered(&client).await;
    table.flush().await?;
    assert_eq!(server.stored("t").len(), 1);
    assert_eq!(server.seen().operations, 1);
    Ok(())
}

#[tokio::test]
async fn the_first_connection_says_why_it_fails() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.token = "sesame".to_owned())?;
    let error = quiet().connect(&server.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let client = quiet().token("sesame").connect(&server.address()).await?;
    client.ping().await?;
    drop(client);
    let address = server.address();
    drop(server);
    assert_eq!(
        quiet().connect(&address).await.unwrap_err().kind(),
        ErrorKind::Connection
    );
    assert_eq!(
        quiet().connect("no address").await.unwrap_err().kind(),
        ErrorKind::Usage
    );
    Ok(())
}

#[tokio::test]
async fn few_unsettled_answers_only_slow_a_client_down() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.unsettled = 2)?;
    let client = quiet()
        .cache_policy(CachePolicy::None)
        .connect(&server.address())
        .await?;
    let table: RemoteHash<u32, u32> = client.table("t").open().await?;
    let tasks: Vec<_> = (0..100u32)
        .map(|key| {
            let table = table.clone();
            tokio::spawn(async move { table.insert(key, key).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    assert_eq!(table.len().await?, 100);
    Ok(())
}
