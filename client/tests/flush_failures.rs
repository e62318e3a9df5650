//! Writes that the server refuses stay in the cache, are tried again, and are named in the error.

mod support;

use std::{error::Error, time::Duration};

use rhash_client::{BytesCodec, ErrorKind, List, RemoteHash};
use rhash_protocol::ErrorCode;
use support::{eventually, quiet, server};

type Done = Result<(), Box<dyn Error>>;

#[tokio::test]
async fn a_failed_flush_keeps_its_data_and_names_its_keys() -> Done {
    let server = server();
    let client = quiet()
        .retry_deadline(Duration::from_millis(60))
        .connect(&server.address())
        .await?;
    let table: RemoteHash<Vec<u8>, Vec<u8>, BytesCodec> = client.table("t").open().await?;
    server.set(|hooks| hooks.refuse_writes = Some(ErrorCode::OutOfMemory));
    for key in 0..150u8 {
        table.insert([key], b"v").await?;
    }
    let error = table.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FlushFailed);
    assert_eq!(
        (error.keys().count(), error.keys().first().len()),
        (150, 100)
    );
    let cause = Error::source(&error).and_then(|cause| cause.downcast_ref::<rhash_client::Error>());
    assert_eq!(
        cause.map(rhash_client::Error::kind),
        Some(ErrorKind::OutOfMemory)
    );
    assert_eq!(
        table.get([7]).await?.as_deref(),
        Some(&b"v"[..]),
        "still readable"
    );
    assert!(
        table.flush().await.is_err(),
        "and an error again while it goes on"
    );
    server.set(|hooks| hooks.refuse_writes = None);
    table.flush().await?;
    assert_eq!(server.stored("t").len(), 150);
    assert_eq!(server.seen().operations, 150, "each once");
    Ok(())
}

#[tokio::test]
async fn a_refusal_that_passes_is_not_noticed() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = client.table("t").open().await?;
    server.set(|hooks| hooks.refuse_writes = Some(ErrorCode::Busy));
    table.append_many(b"k", b"a").await?;
    let flushing = {
        let table = table.clone();
        tokio::spawn(async move { table.flush().await })
    };
    eventually("refusals", || server.seen().refusals > 2).await;
    table.append_many(b"k", b"b").await?;
    server.set(|hooks| hooks.refuse_writes = None);
    flushing.await??;
    table.flush().await?;
    assert_eq!(server.stored("t")[&b"k"[..]], b"ab", "in their order");
    Ok(())
}

#[tokio::test]
async fn the_next_call_says_that_a_background_flush_failed() -> Done {
    let server = server();
    let client = quiet()
        .flush_interval(Duration::from_millis(5))
        .retry_deadline(Duration::from_millis(50))
        .connect(&server.address())
        .await?;
    let table: RemoteHash<String, u32> = client.table("t").open().await?;
    server.set(|hooks| hooks.refuse_writes = Some(ErrorCode::DiskFull));
    table.insert("k", 1).await?;
    let mut error = None;
    let begun = std::time::Instant::now();
    while error.is_none() && begun.elapsed() < support::DEADLINE {
        error = table.get("k").await.err();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = error.ok_or("nothing was said")?;
    assert_eq!(
        (error.kind(), error.keys().count()),
        (ErrorKind::FlushFailed, 1)
    );
    assert_eq!(table.get("k").await?, Some(1), "said once");
    server.set(|hooks| hooks.refuse_writes = None);
    table.insert("l", 2).await?;
    eventually("the flush", || server.stored("t").len() == 2).await;
    Ok(())
}

#[tokio::test]
async fn a_full_cache_that_cannot_be_flushed_refuses_writes_after_the_deadline() -> Done {
    let server = server();
    let client = quiet()
        .cache_bytes(8 * 1024)
        .retry_deadline(Duration::from_millis(80))
        .connect(&server.address())
        .await?;
    let table: RemoteHash<u32, Vec<u8>> = client.table("t").open().await?;
    server.set(|hooks| hooks.refuse_writes = Some(ErrorCode::OutOfMemory));
    let mut written = 0u32;
    let error = loop {
        match table.insert(written, vec![1; 100]).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the cache is bounded");
    };
    assert_eq!(error.kind(), ErrorKind::FlushFailed);
    assert_eq!(
        error.keys().count(),
        u64::from(written),
        "all that wait are counted"
    );
    server.set(|hooks| hooks.refuse_writes = None);
    table.flush().await?;
    assert_eq!(server.stored("t").len(), written as usize, "none is lost");
    Ok(())
}

#[tokio::test]
async fn writes_during_a_flush_go_out_after_it() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = client.table("t").open().await?;
    let flush = || {
        let table = table.clone();
        tokio::spawn(async move { table.flush().await })
    };
    table.append_many(b"k", b"1").await?;
    table.insert(b"p", b"a").await?;
    server.hold_answers(true);
    let first = flush();
    eventually("the batch", || server.seen().writes == 1).await;
    table.append_many(b"k", b"2").await?;
    table.append_many(b"p", b"b").await?;
    assert_eq!(
        table.get(b"p").await?.as_deref(),
        Some(&b"ab"[..]),
        "in flight and behind it"
    );
    let second = flush();
    table.discard(b"p").await?;
    assert_eq!(table.get(b"p").await?, None);
    server.hold_answers(false);
    first.await??;
    second.await??;
    table.flush().await?;
    assert_eq!(table.get(b"k").await?.as_deref(), Some(&b"12"[..]));
    assert_eq!(server.stored("t").len(), 1);
    assert_eq!(server.seen().by_key[&b"k"[..]], 2);
    Ok(())
}

#[tokio::test]
async fn a_bulk_names_the_keys_of_the_batch_that_failed() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = client.table("t").open().await?;
    let written = table
        .append_batch((0..100_000u32).map(|n| (n.to_le_bytes(), b"xy")))
        .await?;
    assert_eq!(written, 100_000);
    assert!(server.seen().writes < 10, "full batches");
    assert_eq!(
        table.get(7u32.to_le_bytes()).await?.as_deref(),
        Some(&b"xy"[..])
    );
    server.set(|hooks| hooks.refuse_writes = Some(ErrorCode::OutOfMemory));
    let error = table
        .append_batch([(b"a", b"1"), (b"b", b"2")])
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.keys().count()),
        (ErrorKind::OutOfMemory, 2)
    );
    Ok(())
}

#[tokio::test]
async fn a_busy_server_is_asked_again_for_what_it_decides() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<String, rhash_client::Counter> = client.table("c").open().await?;
    server.set(|hooks| hooks.refuse_writes = Some(ErrorCode::Busy));
    let asking = {
        let table = table.clone();
        tokio::spawn(async move { table.add_and_get("n", 1).await })
    };
    eventually("a refusal", || server.seen().refusals > 2).await;
    server.set(|hooks| hooks.refuse_writes = None);
    assert_eq!(asking.await??, 1);
    Ok(())
}
