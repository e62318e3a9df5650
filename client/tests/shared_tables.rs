//! Handles that share a table, in one client and in several.

mod support;

use std::error::Error;

use rhash_client::{Client, Counter, Durability, ErrorKind, List, RemoteHash};
use support::{eventually, quiet, server};

type Done = Result<(), Box<dyn Error>>;
type Texts = RemoteHash<String, String>;

#[tokio::test]
async fn clean_entries_are_cached_only_while_the_client_is_alone() -> Done {
    let server = server();
    let one = quiet().connect(&server.address()).await?;
    let mine: Texts = one.table("t").open().await?;
    mine.insert("k", "old").await?;
    mine.flush().await?;
    assert_eq!(mine.get("k").await?.as_deref(), Some("old"));
    assert_eq!(server.seen().gets, 0, "alone: cached");

    let other = quiet().connect(&server.address()).await?;
    let theirs: Texts = other.table("t").open().await?;
    theirs.insert("k", "new").await?;
    theirs.flush().await?;
    one.ping().await?;
    assert_eq!(
        mine.get("k").await?.as_deref(),
        Some("new"),
        "shared: asked"
    );
    mine.get("k").await?;
    assert_eq!(server.seen().gets, 2);

    theirs.detach().await?;
    one.ping().await?;
    mine.get("k").await?;
    mine.get("k").await?;
    assert_eq!(
        server.seen().gets,
        3,
        "alone again: asked once, then cached"
    );
    Ok(())
}

#[tokio::test]
async fn two_handles_of_one_client_see_each_others_cached_writes() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let first: Texts = client.table("t").open().await?;
    let second: Texts = client.table("t").open().await?;
    first.insert("k", "v").await?;
    assert_eq!(second.get("k").await?.as_deref(), Some("v"));
    assert_eq!(server.seen().writes, 0, "still only in the cache");
    drop(first);
    client.ping().await?;
    assert_eq!(
        second.get("k").await?.as_deref(),
        Some("v"),
        "the table stays open"
    );
    second.detach().await?;
    assert_eq!(server.stored("t").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_dropped_handle_flushes_and_lets_go() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let named: Texts = client.table("t").open().await?;
    let temporary: Texts = client.temporary().open().await?;
    named.insert("k", "v").await?;
    temporary.insert("k", "v").await?;
    assert_eq!(server.tables(), 2);
    drop((named, temporary));
    let again: Texts = client.table("t").open().await?;
    assert_eq!(
        again.get("k").await?.as_deref(),
        Some("v"),
        "opened while it was let go of"
    );
    eventually("the end of the temporary table", || server.tables() == 1).await;
    drop(again);
    client.shutdown().await?;
    assert_eq!(server.stored("t").len(), 1);
    assert_eq!(client.ping().await.unwrap_err().kind(), ErrorKind::Usage);
    Ok(())
}

#[tokio::test]
async fn a_closed_table_is_closed_for_everybody() -> Done {
    let server = server();
    let (one, other) = (
        quiet().connect(&server.address()).await?,
        quiet().connect(&server.address()).await?,
    );
    let mine: Texts = one.table("t").open().await?;
    let clone = mine.clone();
    let theirs: Texts = other.table("t").open().await?;
    theirs.insert("waits", "here").await?;
    mine.close().await?;
    assert_eq!(
        clone.get("k").await.unwrap_err().kind(),
        ErrorKind::TableClosed
    );
    let error = theirs.flush().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.keys().count()),
        (ErrorKind::TableClosed, 1)
    );
    assert_eq!(
        theirs.get("k").await.unwrap_err().kind(),
        ErrorKind::TableClosed
    );
    assert_eq!(
        one.close_table("t").await.unwrap_err().kind(),
        ErrorKind::NoSuchTable
    );
    let new: Texts = one.table("t").create_new().open().await?;
    assert!(new.is_empty().await?);
    other.close_table("t").await?;
    assert_eq!(server.tables(), 0);
    Ok(())
}

#[tokio::test]
async fn a_table_keeps_the_durability_that_it_was_made_with() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let kind = |error: rhash_client::Error| error.kind();
    let open = |name: &str, durability| client.table(name).durability(durability).open();
    let _safe: Texts = open("safe", Durability::Always).await?;
    let again: Texts = client.table("safe").open().await?;
    drop(again);
    let other: Result<Texts, _> = open("safe", Durability::None).await;
    assert_eq!(
        other.map(drop).map_err(kind),
        Err(ErrorKind::WrongDurability)
    );
    let _plain: Texts = client.table("plain").open().await?;
    let _as_it_is: Texts = open("plain", Durability::EverySec).await?;
    for (name, durability, own) in [
        ("safe", Durability::Always, true),
        ("plain", Durability::EverySec, false),
    ] {
        let info = client.find_table(name).await?.ok_or("not listed")?;
        assert_eq!((info.durability, info.own_durability), (durability, own));
    }
    let temporary = client.temporary().durability(Durability::None);
    let temporary: Result<Texts, _> = temporary.open().await;
    assert_eq!(temporary.map(drop).map_err(kind), Err(ErrorKind::Usage));
    Ok(())
}

#[tokio::test]
async fn opening_says_what_does_not_fit() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let open = client.table("t").existing().open::<String, String, _>();
    let kind = |error: rhash_client::Error| error.kind();
    assert_eq!(
        open.await.map(drop as fn(Texts)).map_err(kind),
        Err(ErrorKind::NoSuchTable)
    );
    let _table: Texts = client.table("t").open().await?;
    let again: Result<Texts, _> = client.table("t").create_new().open().await;
    assert_eq!(again.map(drop).map_err(kind), Err(ErrorKind::TableExists));
    let lists: Result<RemoteHash<String, List<String>>, _> = client.table("t").open().await;
    assert_eq!(lists.map(drop).map_err(kind), Err(ErrorKind::WrongKind));
    let numbers: Result<RemoteHash<String, u64>, _> = client.table("t").open().await;
    assert_eq!(numbers.map(drop).map_err(kind), Err(ErrorKind::WrongCodec));
    let info = client.find_table("t").await?.ok_or("not listed")?;
    assert_eq!(info.codec, "bincode(String,String)");
    assert_eq!(client.find_table("u").await?, None);
    assert_eq!(
        client.stats().await?.tables.len(),
        client.tables().await?.len()
    );
    Ok(())
}

#[tokio::test]
async fn ten_thousand_tables_share_one_connection_and_one_cache() -> Done {
    let server = server();
    let client = quiet()
        .cache_bytes(1 << 20)
        .connect(&server.address())
        .await?;
    let opening: Vec<_> = (0..10_000)
        .map(|_| {
            let builder = client.temporary();
            tokio::spawn(async move { builder.open::<u32, Counter, _>().await })
        })
        .collect();
    let mut tables: Vec<RemoteHash<u32, Counter>> = Vec::new();
    for table in opening {
        tables.push(table.await??);
    }
    for (at, table) in tables.iter().enumerate() {
        table.add(7, at as i64).await?;
    }
    for (at, table) in tables.iter().enumerate().step_by(97) {
        assert_eq!(table.get(7).await?, Some(at as i64));
    }
    client.flush().await?;
    let seen = server.seen();
    assert_eq!((seen.connections, server.tables()), (1, 10_000));
    assert_eq!(seen.operations, 10_000);
    drop(tables);
    client.shutdown().await?;
    assert_eq!(server.tables(), 0, "all let go of");
    Ok(())
}

#[tokio::test]
async fn one_line_makes_a_hash() -> Done {
    let server = server();
    let table = RemoteHash::<String, Vec<u32>>::connect(&server.address()).await?;
    table.insert("k", vec![1, 2, 3]).await?;
    assert_eq!(table.get("k").await?, Some(vec![1, 2, 3]));
    let client: Client = table.client().clone();
    drop(table);
    client.shutdown().await?;
    assert_eq!(server.tables(), 0);
    Ok(())
}

/// A write that came after a shutdown was taken into the cache, and lost without a word.
#[tokio::test]
async fn tables_of_a_client_that_was_shut_down_take_nothing() -> Done {
    let server = server();
    let client = Client::connect(&server.address()).await?;
    let table: RemoteHash<String, u32> = client.table("t").open().await?;
    table.insert("before", 1).await?;
    client.shutdown().await?;
    let written = table.insert("after", 2).await;
    assert_eq!(written.map_err(|error| error.kind()), Err(ErrorKind::Usage));
    let read = table.get("before").await;
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::Usage));
    let client = Client::connect(&server.address()).await?;
    let table: RemoteHash<String, u32> = client.table("t").open().await?;
    assert_eq!(table.get("before").await?, Some(1));
    assert_eq!(table.get("after").await?, None);
    Ok(())
}
