//! Iteration in pages, values and lists too long for one answer, and bulk writes.

mod support;

use std::{collections::BTreeMap, error::Error};

use futures_util::TryStreamExt as _;
use rhash_client::{
    BincodeCodec, BytesCodec, CachePolicy, ErrorKind, List, RemoteHash, Value, ValueCodec,
    testing::FakeServer,
};
use rhash_protocol::limits::ANSWER_BYTES_TARGET;
use support::{DEADLINE, quiet};

type Done = Result<(), Box<dyn Error>>;

#[tokio::test]
async fn scans_give_every_entry_once_over_many_pages() -> Done {
    let server = FakeServer::start_with(|hooks| {
        hooks.page_entries = 7;
        hooks.inline_bytes = 50;
    })?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<u32, String> = client.table("t").open().await?;
    let expected: BTreeMap<u32, String> = (0..500)
        .map(|key| (key, "x".repeat(key as usize % 100)))
        .collect();
    table.extend(&expected).await?;
    let entries: BTreeMap<u32, String> = table.iter().try_collect().await?;
    assert_eq!(
        entries, expected,
        "cached writes are flushed first; long values are fetched"
    );
    let keys: Vec<u32> = table.keys().try_collect().await?;
    assert_eq!(keys.len(), 500);
    let mut values = table.values();
    let mut bytes = 0;
    while let Some(value) = values.next().await {
        bytes += value?.len();
    }
    assert_eq!(bytes, expected.values().map(String::len).sum::<usize>());
    assert_eq!(table.retain(|key, _| key % 2 == 0).await?, 250);
    assert_eq!(table.len().await?, 250);
    Ok(())
}

#[tokio::test]
async fn a_long_value_is_got_like_any_other() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.chunk_bytes = 1000)?;
    let client = quiet()
        .cache_bytes(100_000)
        .connect(&server.address())
        .await?;
    let table: RemoteHash<String, Vec<u8>, BincodeCodec> = client.table("t").open().await?;
    let long: Vec<u8> = (0..700_000u32).map(|n| n as u8).collect();
    table.insert("long", &long).await?;
    table.insert("short", vec![1]).await?;
    assert_eq!(table.get("long").await?.as_ref(), Some(&long));
    let many = table.get_many(["short", "long", "none"]).await?;
    assert_eq!(many, [Some(vec![1]), Some(long), None]);
    Ok(())
}

#[tokio::test]
async fn a_read_of_many_keys_is_whole_however_short_the_answers_are() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.inline_bytes = 300)?;
    let client = quiet()
        .cache_policy(CachePolicy::None)
        .connect(&server.address())
        .await?;
    let table: RemoteHash<u32, Vec<u8>, BincodeCodec> = client.table("t").open().await?;
    // Some of them absent, and some longer than answers have inline.
    let value = |key: u32| vec![key as u8; (key as usize * 7) % 400];
    let expected = |key: u32| (!key.is_multiple_of(5)).then(|| value(key));
    let there = (0..3000).filter(|key| expected(*key).is_some());
    table
        .insert_many(there.map(|key| (key, value(key))))
        .await?;
    for answer_bytes in [1, 700, 5000, ANSWER_BYTES_TARGET] {
        server.set(|hooks| hooks.answer_bytes = answer_bytes);
        for keys in [1, 95, 96, 100, 3000] {
            let values = table.get_many(0..keys).await?;
            let right: Vec<_> = (0..keys).map(expected).collect();
            assert!(values == right, "{keys} keys, {answer_bytes} bytes");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_list_is_streamed_element_by_element_wherever_it_is_cut() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.chunk_bytes = 5)?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<String, List<String>> = client.table("l").open().await?;
    let words: Vec<String> = (0..300).map(|n| "w".repeat(n % 40)).collect();
    table.append_many("k", &words).await?;
    let stream = table.stream("k").await?.ok_or("no list")?;
    assert_eq!(stream.try_collect::<Vec<_>>().await?, words);
    assert!(table.stream("none").await?.is_none());
    assert_eq!(table.get("k").await?, Some(words));

    let numbers: RemoteHash<String, List<u64>> = client.table("n").open().await?;
    numbers.append_many("k", [300, 70_000]).await?;
    let bytes: RemoteHash<String, List<(u8, u64)>> = client.table("m").open().await?;
    bytes.append("k", (1, 2)).await?;
    bytes.append("k", (3, 70_000)).await?;
    assert_eq!(bytes.get("k").await?, Some(vec![(1, 2), (3, 70_000)]));
    Ok(())
}

#[tokio::test]
async fn a_stream_goes_on_after_a_cut_where_it_was() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.chunk_bytes = 1000)?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = client.table("l").open().await?;
    let long: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    for part in long.chunks(100_000) {
        table.append_many(b"k", part).await?;
    }
    table.flush().await?;
    server.set(|hooks| hooks.cut_after_chunks = Some(500));
    let mut chunks = table.chunks(b"k").await?.ok_or("no list")?;
    let mut got = Vec::new();
    while let Some(chunk) = chunks.next().await {
        got.extend_from_slice(&chunk?);
    }
    assert!(got == long, "{} of {} bytes", got.len(), long.len());
    assert_eq!(server.seen().connections, 2);
    Ok(())
}

/// The reader of a stream makes calls of its own between two parts. If the connection waited for
/// the stream alone, each would wait for the other.
#[tokio::test]
async fn a_slow_reader_of_a_stream_does_not_lock_itself_out() -> Done {
    let server = FakeServer::start_with(|hooks| hooks.chunk_bytes = 1000)?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = client.table("l").open().await?;
    let long: Vec<u8> = (0..30_000u32).flat_map(u32::to_le_bytes).collect();
    table.append_many(b"k", &long).await?;
    let mut chunks = table.chunks(b"k").await?.ok_or("no list")?;
    let mut got = Vec::new();
    let reading = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            got.extend_from_slice(&chunk);
            client.ping().await?;
            table.append_many(b"copy", &chunk[..]).await?;
        }
        Ok::<_, rhash_client::Error>(())
    };
    tokio::time::timeout(DEADLINE, reading).await??;
    assert!(got == long, "{} of {} bytes", got.len(), long.len());
    assert_eq!(table.get(b"copy").await?, Some(long));
    assert!(server.seen().fetches > 2, "it was asked again");
    Ok(())
}

#[tokio::test]
async fn values_describe_themselves_and_equal_numbers_are_one_key() -> Done {
    let server = FakeServer::start()?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Value, Value, ValueCodec> = client.table("v").open().await?;
    table.insert(1i64, "int").await?;
    table.insert(1.0, "float").await?;
    assert_eq!(table.get(true).await?, Some("float".into()));
    assert_eq!(table.len().await?, 1);
    let nested = Value::Map(vec![(
        "a".into(),
        Value::List(vec![1.5.into(), Value::Null]),
    )]);
    table.insert("k", &nested).await?;
    table.flush().await?;
    assert_eq!(table.get("k").await?, Some(nested));
    Ok(())
}

mod one {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Pair(pub(super) u8, pub(super) u8);
}

mod other {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    pub(super) struct Pair(pub(super) String);
}

/// Names of types carry no paths, so that types can be moved: two of one name pass the check of
/// the codec's name, and then the bytes tell.
#[tokio::test]
async fn bytes_of_another_type_are_a_decode_error() -> Done {
    let server = FakeServer::start()?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<String, one::Pair> = client.table("t").open().await?;
    table.insert("k", one::Pair(9, 9)).await?;
    let same: RemoteHash<String, other::Pair> = client.table("t").open().await?;
    assert_eq!(same.get("k").await.unwrap_err().kind(), ErrorKind::Decode);
    let mut entries = same.iter();
    let error = entries.next().await.ok_or("no entry")?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    table.insert("k", one::Pair(1, b'x')).await?;
    assert_eq!(
        same.get("k").await?.map(|pair| pair.0).as_deref(),
        Some("x")
    );
    Ok(())
}

#[tokio::test]
async fn values_are_elements_of_lists_too() -> Done {
    let server = FakeServer::start()?;
    let client = quiet().connect(&server.address()).await?;
    let table: RemoteHash<Value, List<Value>, ValueCodec> = client.table("t").open().await?;
    table.append("k", Value::Null).await?;
    table
        .append_many("k", [1i64.into(), Value::from("x")])
        .await?;
    assert_eq!(
        table.get("k").await?,
        Some(vec![Value::Null, Value::Int(1), "x".into()])
    );
    Ok(())
}
