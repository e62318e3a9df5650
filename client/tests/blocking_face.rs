//! The blocking face, outside and inside of a runtime.

mod support;

use std::error::Error;

use rhash_client::{
    BytesCodec, Counter, ErrorKind, List, Swap,
    blocking::{Client, RemoteHash},
    testing::FakeServer,
};
use support::server;

type Done = Result<(), Box<dyn Error>>;

fn use_all(server: &FakeServer) -> Done {
    let client = Client::builder()
        .cache_bytes(1 << 20)
        .connect(&server.address())?;
    let table: RemoteHash<String, u32> = client.table("t").open()?;
    table.insert("a", 1)?;
    table.extend([("b", 2), ("c", 3)])?;
    assert_eq!(table.get("a")?, Some(1));
    assert_eq!(table.get_many(["b", "x"])?, [Some(2), None]);
    assert_eq!(table.replace("a", 4)?, Some(1));
    assert_eq!(table.get_or_insert("d", 9)?, 9);
    assert_eq!(
        table.compare_and_swap("d", Some(9), None::<u32>)?,
        Swap::Done
    );
    assert!(!table.contains_key("d")?);
    assert_eq!(table.remove("b")?, Some(2));
    table.discard("c")?;
    assert_eq!((table.len()?, table.is_empty()?), (1, false));
    let entries: Vec<_> = table.iter().collect::<Result<_, _>>()?;
    assert_eq!(entries, [("a".to_owned(), 4)]);
    assert_eq!(table.keys().count(), 1);
    assert_eq!(table.values().next().ok_or("empty")??, 4);
    assert_eq!(table.retain(|_, value| *value > 4)?, 1);
    table.clear()?;

    let lists: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = client.table("l").open()?;
    lists.append_many(b"k", b"ab")?;
    lists.append(b"k", b'c')?;
    assert_eq!(lists.append_batch([(b"k", b"de")])?, 1);
    assert_eq!(lists.get(b"k")?.as_deref(), Some(&b"abcde"[..]));
    let items: Vec<u8> = lists
        .stream(b"k")?
        .ok_or("no list")?
        .collect::<Result<_, _>>()?;
    assert_eq!(items, b"abcde");
    let counters: RemoteHash<String, Counter> = client.temporary().open()?;
    counters.add("n", 2)?;
    assert_eq!(counters.add_and_get("n", 3)?, 5);
    assert_eq!(counters.add_batch([("n", 1), ("m", 1)])?, 2);
    assert_eq!(counters.get("n")?, Some(6));
    assert_eq!(client.tables()?.len(), client.stats()?.tables.len());
    client.ping()?;
    lists.flush()?;
    lists.detach()?;
    table.close()?;
    let closed = client.close_table("t").map_err(|error| error.kind());
    assert_eq!(closed, Err(ErrorKind::NoSuchTable));
    Ok(())
}

#[test]
fn every_method_works_outside_of_a_runtime() -> Done {
    use_all(&server())
}

#[tokio::test]
async fn every_method_works_inside_of_a_single_threaded_runtime() -> Done {
    use_all(&server())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_works_inside_of_a_threaded_runtime() -> Done {
    use_all(&server())
}

#[test]
fn what_is_cached_is_flushed_when_the_last_handle_is_dropped() -> Done {
    let server = server();
    let table: RemoteHash<u32, u32> = Client::connect(&server.address())?.table("t").open()?;
    table.insert_many((0..1000).map(|n| (n, n)))?;
    drop(table);
    assert_eq!(server.stored("t").len(), 1000);
    Ok(())
}

#[tokio::test]
async fn a_client_may_be_dropped_inside_of_a_runtime() -> Done {
    let server = server();
    let table = RemoteHash::<u32, u32>::connect(&server.address())?;
    table.insert(1, 2)?;
    let clone = table.clone();
    std::thread::spawn(move || clone.insert(2, 3))
        .join()
        .map_err(|_panic| "panicked")??;
    assert_eq!(table.len()?, 2);
    drop(table);
    assert_eq!(server.tables(), 0, "the temporary table went with it");
    Ok(())
}

#[test]
fn a_bulk_can_be_fed_by_several_threads() -> Done {
    let server = server();
    let client = Client::connect(&server.address())?;
    let table: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = client.table("l").open()?;
    let threads: Vec<_> = (0..4u8)
        .map(|thread| {
            let mut bulk = table.bulk();
            std::thread::spawn(move || {
                for n in 0..50_000u32 {
                    bulk.append((n % 1000).to_le_bytes(), [thread])?;
                    if bulk.is_full() {
                        bulk.send()?;
                    }
                }
                bulk.finish()
            })
        })
        .collect();
    let mut written = 0;
    for thread in threads {
        written += thread.join().map_err(|_panic| "panicked")??;
    }
    assert_eq!(written, 200_000);
    assert_eq!(
        table.get(999u32.to_le_bytes())?.map(|list| list.len()),
        Some(200)
    );
    Ok(())
}
