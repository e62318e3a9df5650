//! What the client's tests share.

#![expect(
    clippy::print_stdout,
    reason = "a failing run is repeated with its seed"
)]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint's exception is for #[test] only"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file uses a part of this"
)]

use std::time::{Duration, Instant};

use rhash_client::{Client, ClientBuilder, testing::FakeServer};

/// Every wait of these tests ends by then.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A client whose flusher does nothing by itself for the time of a test.
pub(crate) fn quiet() -> ClientBuilder {
    Client::builder()
        .flush_interval(Duration::from_secs(3600))
        .retry_deadline(Duration::from_secs(10))
        .backoff(Duration::from_millis(2)..=Duration::from_millis(20))
}

pub(crate) fn server() -> FakeServer {
    FakeServer::start().unwrap()
}

/// Waits until `done`, or fails.
pub(crate) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < DEADLINE, "not in time: {what}");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the client has a connection again. The server knows of it a moment before the client does.
pub(crate) async fn until_answered(client: &Client) {
    let begun = Instant::now();
    while let Err(error) = client.ping().await {
        assert!(begun.elapsed() < DEADLINE, "no connection in time: {error}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The seed of a random test: given in `RHASH_SEED`, or new; printed either way.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("RHASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("RHASH_SEED={seed}");
    seed
}
