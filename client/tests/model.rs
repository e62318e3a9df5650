//! The client behaves like a `HashMap`, with a cache far too small, connections that are cut, and
//! batches that are refused.

mod support;
#[path = "support/model.rs"]
mod shared;

use std::{error::Error, time::Duration};

use rhash_client::{CachePolicy, Client, testing::FakeServer};
use rhash_protocol::ErrorCode;
use shared::Run;

type Done = Result<(), Box<dyn Error>>;

const ROUNDS: u64 = 60;

async fn rounds(policy: CachePolicy, cuts: bool) -> Done {
    let seed = support::seed();
    for round in 0..ROUNDS {
        let seed = seed.wrapping_add(round);
        let mut rng = fastrand::Rng::with_seed(seed);
        let server = FakeServer::start_with(|hooks| {
            hooks.value_bytes = 5000;
            hooks.inline_bytes = 300;
            hooks.chunk_bytes = 100;
            hooks.page_entries = 5;
            hooks.unsettled = 8;
        })?;
        let client = Client::builder()
            .cache_policy(policy)
            .cache_bytes(rng.usize(4096..20_000))
            .cache_items(rng.bool().then(|| rng.usize(1..30)))
            .flush_interval(Duration::from_millis(rng.u64(0..4)))
            .backoff(Duration::from_millis(1)..=Duration::from_millis(4))
            .connect(&server.address())
            .await?;
        let run = Run {
            steps: 200,
            keys: 40,
            value_bytes: 2000,
            long_percent: 10,
        };
        let disturb = |rng: &mut fastrand::Rng| match rng.u8(..60) {
            0 if cuts => server.set(|hooks| hooks.cut_after_writes = Some(1)),
            1 if cuts => server.cut(),
            2 if cuts => server.set(|hooks| hooks.cut_after_chunks = Some(2)),
            _ => {}
        };
        shared::run(&client, seed, run, disturb).await;
    }
    Ok(())
}

#[tokio::test]
async fn write_back_behaves_like_a_hash_map() -> Done {
    rounds(CachePolicy::WriteBack, false).await
}

#[tokio::test]
async fn write_back_behaves_like_a_hash_map_over_cuts() -> Done {
    rounds(CachePolicy::WriteBack, true).await
}

#[tokio::test]
async fn write_through_behaves_like_a_hash_map_over_cuts() -> Done {
    rounds(CachePolicy::WriteThrough, true).await
}

#[tokio::test]
async fn no_cache_behaves_like_a_hash_map_over_cuts() -> Done {
    rounds(CachePolicy::None, true).await
}

/// Cached writes that are refused for a while come later, in their order.
#[tokio::test]
async fn refused_flushes_change_nothing_in_the_end() -> Done {
    use rhash_client::{List, RemoteHash};
    let mut rng = fastrand::Rng::with_seed(support::seed());
    let server = FakeServer::start()?;
    let client = Client::builder()
        .flush_interval(Duration::from_millis(1))
        .connect(&server.address())
        .await?;
    let table: RemoteHash<u16, List<u16>> = client.table("t").open().await?;
    let mut model: std::collections::HashMap<u16, Vec<u16>> = Default::default();
    for step in 0..20_000u16 {
        let key = rng.u16(..20);
        if rng.u8(..100) == 0 {
            let refuse = rng.bool().then_some(ErrorCode::Busy);
            server.set(|hooks| hooks.refuse_writes = refuse);
            tokio::task::yield_now().await;
        }
        match rng.u8(..10) {
            0 => {
                table.discard(key).await?;
                model.remove(&key);
            }
            1 => {
                table.insert(key, [step]).await?;
                model.insert(key, vec![step]);
            }
            _ => {
                table.append(key, step).await?;
                model.entry(key).or_default().push(step);
            }
        }
    }
    server.set(|hooks| hooks.refuse_writes = None);
    table.flush().await?;
    for key in 0..20 {
        assert_eq!(table.get(key).await?, model.get(&key).cloned());
    }
    Ok(())
}
