//! A client reads its own writes, whatever state the entry is in, and cached writes of one key
//! leave as one.

mod support;

use std::error::Error;

use rhash_client::{
    BytesCodec, CachePolicy, Counter, ErrorKind, List, RemoteHash, Swap, testing::FakeServer,
};
use support::{quiet, server};

type Done = Result<(), Box<dyn Error>>;
type Texts = RemoteHash<String, String>;
type Lists = RemoteHash<Vec<u8>, List<u8>, BytesCodec>;

const POLICIES: [CachePolicy; 3] = [
    CachePolicy::WriteBack,
    CachePolicy::WriteThrough,
    CachePolicy::None,
];

fn key_of(text: &str) -> Vec<u8> {
    let mut key = vec![text.len() as u8];
    key.extend_from_slice(text.as_bytes());
    key
}

#[tokio::test]
async fn a_client_reads_its_own_writes_under_every_policy() -> Done {
    for policy in POLICIES {
        let server = server();
        let client = quiet()
            .cache_policy(policy)
            .connect(&server.address())
            .await?;
        let table: Texts = client.table("t").open().await?;
        assert_eq!(table.get("a").await?, None);
        table.insert("a", "one").await?;
        assert_eq!(table.get("a").await?.as_deref(), Some("one"), "{policy:?}");
        table.insert("a", "two").await?;
        assert_eq!(table.get("a").await?.as_deref(), Some("two"));
        table.flush().await?;
        assert_eq!(table.get("a").await?.as_deref(), Some("two"), "clean");
        table.discard("a").await?;
        assert_eq!(table.get("a").await?, None, "tombstone");
        assert!(!table.contains_key("a").await?);
        table.flush().await?;
        assert_eq!(table.get("a").await?, None);
        table.insert_many([("a", "1"), ("b", "2")]).await?;
        table.extend([("c".to_owned(), "3".to_owned())]).await?;
        assert_eq!(table.len().await?, 3, "len flushes first");
        let values = table.get_many(["a", "x", "c"]).await?;
        assert_eq!(values, [Some("1".into()), None, Some("3".into())]);
        table.clear().await?;
        assert_eq!(table.get("a").await?, None, "cleared");
        assert!(table.is_empty().await?);
    }
    Ok(())
}

#[tokio::test]
async fn fragments_are_folded_with_what_the_server_has() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: Lists = client.table("l").open().await?;
    table.append_many(b"k", b"ab").await?;
    table.append(b"k", b'c').await?;
    assert!(table.contains_key(b"k").await?);
    assert_eq!(
        table.get(b"k").await?.as_deref(),
        Some(&b"abc"[..]),
        "dirty fragments"
    );
    table.append_many(b"k", b"d").await?;
    table.flush().await?;
    table.append_many(b"k", b"e").await?;
    assert_eq!(table.get(b"k").await?.as_deref(), Some(&b"abcde"[..]));
    table.insert(b"k", b"X").await?;
    table.append_many(b"k", b"Y").await?;
    assert_eq!(
        table.get(b"k").await?.as_deref(),
        Some(&b"XY"[..]),
        "behind a dirty value"
    );
    table.discard(b"k").await?;
    table.append_many(b"k", b"Z").await?;
    assert_eq!(
        table.get(b"k").await?.as_deref(),
        Some(&b"Z"[..]),
        "behind a tombstone"
    );
    table.append_many(b"m", b"1").await?;
    let many = table.get_many([b"k", b"m", b"n"]).await?;
    assert_eq!(many, [Some(b"Z".to_vec()), Some(b"1".to_vec()), None]);
    Ok(())
}

#[tokio::test]
async fn many_appends_to_one_key_leave_as_one() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: Lists = client.table("l").open().await?;
    for at in 0..1000u32 {
        table
            .append_many(
                if at % 2 == 0 { b"even" } else { b"odd!" },
                &at.to_le_bytes(),
            )
            .await?;
    }
    table.flush().await?;
    let seen = server.seen();
    assert_eq!(
        (seen.writes, seen.operations),
        (1, 2),
        "one batch of one append a key"
    );
    assert_eq!(server.stored("l")[&b"even"[..]].len(), 2000);

    let counters: RemoteHash<String, Counter> = client.table("c").open().await?;
    for _ in 0..1000 {
        counters.add("n", 3).await?;
    }
    assert_eq!(counters.get("n").await?, Some(3000));
    assert_eq!(server.seen().operations, 3);
    assert_eq!(counters.add_and_get("n", -1).await?, 2999);
    Ok(())
}

#[tokio::test]
async fn clean_and_absent_entries_are_answered_without_the_server() -> Done {
    let server = server();
    let client = quiet().connect(&server.address()).await?;
    let table: Texts = client.table("t").open().await?;
    table.insert("here", "v").await?;
    table.flush().await?;
    assert_eq!(table.get("gone").await?, None);
    let before = server.seen().gets;
    for _ in 0..10 {
        assert_eq!(table.get("here").await?.as_deref(), Some("v"));
        assert_eq!(table.get("gone").await?, None);
    }
    assert_eq!(server.seen().gets, before);
    Ok(())
}

#[tokio::test]
async fn nothing_is_kept_without_a_cache() -> Done {
    let server = server();
    let client = quiet()
        .cache_policy(CachePolicy::None)
        .connect(&server.address())
        .await?;
    let table: Texts = client.table("t").open().await?;
    table.insert("k", "v").await?;
    assert_eq!(server.stored("t").len(), 1, "written through");
    table.get("k").await?;
    table.get("k").await?;
    assert_eq!(server.seen().gets, 2);
    Ok(())
}

#[tokio::test]
async fn the_server_decides_conditional_writes_after_cached_ones() -> Done {
    for policy in POLICIES {
        let server = server();
        let client = quiet()
            .cache_policy(policy)
            .connect(&server.address())
            .await?;
        let table: Texts = client.table("t").open().await?;
        table.insert("k", "v1").await?;
        assert_eq!(table.replace("k", "v2").await?.as_deref(), Some("v1"));
        assert_eq!(table.replace("none", "x").await?, None);
        assert_eq!(table.get("none").await?, None);
        assert_eq!(table.get("k").await?.as_deref(), Some("v2"));
        assert_eq!(table.get_or_insert("k", "v3").await?, "v2");
        assert_eq!(table.get_or_insert("new", "v3").await?, "v3");
        assert_eq!(table.get("new").await?.as_deref(), Some("v3"));
        let swap = table.compare_and_swap("k", Some("v2"), Some("v4")).await?;
        assert_eq!(swap, Swap::Done);
        let swap = table
            .compare_and_swap("k", Some("v2"), None::<&str>)
            .await?;
        assert_eq!(swap, Swap::Found(Some("v4".to_owned())));
        assert_eq!(
            table
                .compare_and_swap("fresh", None::<&str>, Some("f"))
                .await?,
            Swap::Done
        );
        assert_eq!(table.remove("k").await?.as_deref(), Some("v4"));
        assert_eq!(table.remove("k").await?, None);
        assert_eq!(table.get("k").await?, None);
        let removed = table.retain(|key, _| key == "fresh").await?;
        assert_eq!((removed, table.len().await?), (1, 1));
    }
    Ok(())
}

#[tokio::test]
async fn dirty_entries_that_must_make_room_are_flushed_and_not_lost() -> Done {
    let server = server();
    let client = quiet()
        .cache_bytes(8 * 1024)
        .connect(&server.address())
        .await?;
    let table: RemoteHash<u32, Vec<u8>> = client.table("t").open().await?;
    for key in 0..2000u32 {
        table.insert(key, vec![key as u8; 50]).await?;
        if key % 7 == 0 {
            assert_eq!(table.get(key / 2).await?, Some(vec![(key / 2) as u8; 50]));
        }
    }
    for key in (0..2000u32).rev() {
        assert_eq!(table.get(key).await?, Some(vec![key as u8; 50]));
    }
    assert_eq!(table.len().await?, 2000);
    let huge = vec![9u8; 100_000];
    table.insert(7u32, &huge).await?;
    assert_eq!(
        table.get(7u32).await?.as_ref(),
        Some(&huge),
        "larger than the cache"
    );
    Ok(())
}

#[tokio::test]
async fn the_cache_is_bounded_in_items_where_asked() -> Done {
    let server = server();
    let client = quiet().cache_items(10).connect(&server.address()).await?;
    let table: RemoteHash<u32, u32> = client.table("t").open().await?;
    for key in 0..100u32 {
        table.insert(key, key).await?;
    }
    assert!(server.stored("t").len() >= 90, "at most ten wait");
    table.flush().await?;
    let before = server.seen().gets;
    for key in 0..100u32 {
        assert_eq!(table.get(key).await?, Some(key));
    }
    assert!(server.seen().gets - before >= 90, "at most ten are kept");
    Ok(())
}

#[tokio::test]
async fn cached_writes_go_out_by_age_alone() -> Done {
    let server = server();
    let client = rhash_client::Client::builder()
        .flush_interval(std::time::Duration::from_millis(20))
        .connect(&server.address())
        .await?;
    let table: Texts = client.table("t").open().await?;
    table.insert("k", "v").await?;
    support::eventually("the flush", || {
        server.stored("t").contains_key(&key_of("k"))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn sizes_are_checked_before_anything_is_cached() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.value_bytes = 1000)?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Vec<u8>, Vec<u8>, BytesCodec> = client.table("t").open().await?;
    let kind = table
        .insert(vec![1; 70_000], b"v")
        .await
        .unwrap_err()
        .kind();
    assert_eq!(kind, ErrorKind::KeyTooLarge);
    let error = table.insert(b"k", vec![1; 1001]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ValueTooLarge);
    assert_eq!(
        error.to_string(),
        "a value of 1001 bytes is over the limit of 1000"
    );
    assert_eq!(table.len().await?, 0);

    let lists: Lists = client.table("l").open().await?;
    lists.append_many(b"k", vec![7; 5500]).await?;
    for _ in 0..50 {
        lists.append_many(b"k", vec![8; 90]).await?;
    }
    lists.flush().await?;
    assert_eq!(
        lists.get(b"k").await?.map(|list| list.len()),
        Some(10_000),
        "appends have no end"
    );
    Ok(())
}
