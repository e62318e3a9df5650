//! A blocking client that is driven now by the threads that ask, now by its own.

mod support;

use std::{error::Error, sync::Arc, thread, time::Duration};

use rhash_client::{
    CachePolicy, ErrorKind,
    blocking::{Client, RemoteHash},
    testing::FakeServer,
};
use support::{DEADLINE, seed, server};

type Done = Result<(), Box<dyn Error>>;
type Numbers = RemoteHash<u32, u32>;

const KEYS: u32 = 64;

fn open(server: &FakeServer, client: &Client) -> Result<Numbers, Box<dyn Error>> {
    let table: Numbers = client.table("t").open()?;
    table.extend((0..KEYS).map(|key| (key, key)))?;
    table.flush()?;
    assert!(server.seen().writes > 0);
    Ok(table)
}

/// Asks so often that this thread drives, past the cache.
fn ask_often(table: &Numbers) -> Done {
    for key in 0..KEYS {
        assert_eq!(table.get(key)?, Some(key));
    }
    Ok(())
}

fn uncached(server: &FakeServer) -> Result<Client, Box<dyn Error>> {
    let options = Client::builder().cache_policy(CachePolicy::None);
    Ok(options.connect(&server.address())?)
}

#[test]
fn the_clients_thread_takes_over_when_nobody_asks() -> Done {
    let server = server();
    let one = Client::connect(&server.address())?;
    let mine = open(&server, &one)?;
    let unknown: Vec<u32> = (KEYS..2 * KEYS).collect();
    for key in &unknown {
        assert_eq!(mine.get(key)?, None);
    }
    // Nothing is asked from here on: only a client that reads hears that another has come, and
    // that what it has cached is void.
    let other = Client::connect(&server.address())?;
    let theirs: Numbers = other.table("t").open()?;
    theirs.insert(1, 100)?;
    theirs.flush()?;
    let begun = std::time::Instant::now();
    while mine.get(1)? != Some(100) {
        assert!(begun.elapsed() < DEADLINE, "the notice was not read");
        thread::yield_now();
    }
    Ok(())
}

#[test]
fn writes_leave_by_themselves_after_questions() -> Done {
    let server = server();
    let client = Client::builder()
        .flush_interval(Duration::from_millis(20))
        .connect(&server.address())?;
    let table = open(&server, &client)?;
    for key in KEYS..2 * KEYS {
        assert_eq!(table.get(key)?, None);
    }
    let writes = server.seen().writes;
    table.insert(7, 8)?;
    let begun = std::time::Instant::now();
    while server.seen().writes == writes {
        assert!(begun.elapsed() < DEADLINE, "nothing was flushed");
        thread::yield_now();
    }
    Ok(())
}

#[test]
fn threads_ask_write_flush_and_scan_at_the_same_time() -> Done {
    let seed = seed();
    let server = server();
    let client = uncached(&server)?;
    let table = Arc::new(open(&server, &client)?);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let table = Arc::clone(&table);
            let mut random = fastrand::Rng::with_seed(seed + number);
            thread::spawn(move || -> Result<(), String> {
                for _ in 0..400 {
                    let key = random.u32(..KEYS);
                    let told = |error: rhash_client::Error| error.to_string();
                    match random.u32(..20) {
                        0 => table.flush().map_err(told)?,
                        1 => assert_eq!(table.iter().count(), KEYS as usize),
                        2 => table.insert(key, key).map_err(told)?,
                        // So long that the client's own thread takes over.
                        3 => thread::park_timeout(Duration::from_millis(3)),
                        4 => assert_eq!(
                            table.get_many([key, KEYS]).map_err(told)?,
                            [Some(key), None]
                        ),
                        _ => assert_eq!(table.get(key).map_err(told)?, Some(key)),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_panic| "a thread panicked")??;
    }
    Ok(())
}

#[test]
fn inside_of_a_runtime_the_clients_thread_drives() -> Done {
    let server = server();
    let client = uncached(&server)?;
    let table = open(&server, &client)?;
    ask_often(&table)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { ask_often(&table) })?;
    ask_often(&table)?;
    // The last owner goes inside of a runtime, right after it drove.
    runtime.block_on(async move {
        drop(table);
        drop(client);
    });
    Ok(())
}

#[test]
fn a_thread_that_drives_comes_back_after_a_lost_connection_and_gives_up_in_time() -> Done {
    let server = server();
    let client = Client::builder()
        .cache_policy(CachePolicy::None)
        .retry_deadline(Duration::from_millis(300))
        .backoff(Duration::from_millis(2)..=Duration::from_millis(20))
        .connect(&server.address())?;
    let table = open(&server, &client)?;
    for _ in 0..5 {
        ask_often(&table)?;
        server.cut();
    }
    ask_often(&table)?;
    server.set(|hooks| hooks.refuse_connections = true);
    server.cut();
    assert_eq!(table.get(1).unwrap_err().kind(), ErrorKind::Connection);
    server.set(|hooks| hooks.refuse_connections = false);
    let begun = std::time::Instant::now();
    while table.get(1).is_err() {
        assert!(begun.elapsed() < DEADLINE, "it does not come back");
    }
    Ok(())
}
