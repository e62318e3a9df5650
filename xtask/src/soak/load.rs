//! The load of a soak: clients that stay, and clients that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rhash_client::{BytesCodec, Client, Error, List, RemoteHash};
use tokio::task::JoinSet;

use crate::failure::Failure;

/// Keys and values together.
pub(super) const ENTRY_BYTES: u64 = 1024;

const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = ENTRY_BYTES as usize - KEY_BYTES;

/// Clients that overwrite and read.
const STAYERS: u64 = 3;

/// Entries of a batch.
const BATCH: u64 = 50;

/// After so many appended batches a table of lists is freed, and another made.
const LIST_BATCHES: u64 = 400;

/// The cache of a client is small, so that the server is asked.
const CACHE_BYTES: usize = 256 * 1024;

/// What the clients did.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) operations: AtomicU64,
    pub(super) wrong: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) stop: AtomicBool,
}

/// Who loads what.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) address: String,
    pub(super) entries: u64,
    pub(super) seed: u64,
    pub(super) counts: Arc<Counts>,
}

type Values = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;
type Lists = RemoteHash<u64, List<u64>>;

/// Draws numbers by a multiplicative generator; enough to scatter keys.
#[derive(Debug)]
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:0KEY_BYTES$}").into_bytes()
}

/// A value of any version of an entry: it begins with its key, and one byte fills the rest.
fn value(number: u64, version: u64) -> Vec<u8> {
    let mut value = key(number);
    value.resize(VALUE_BYTES, (version % 251) as u8);
    value
}

fn is_value_of(number: u64, value: &[u8]) -> bool {
    let Some(rest) = value.strip_prefix(key(number).as_slice()) else {
        return false;
    };
    value.len() == VALUE_BYTES && rest.iter().all(|byte| Some(byte) == rest.first())
}

impl Load {
    /// Writes all entries once.
    pub(super) async fn fill(&self) -> Result<(), Failure> {
        let filled = async {
            let client = self.client().await?;
            let table: Values = client.table("soak").open().await?;
            for number in 0..self.entries {
                table.insert(&key(number), &value(number, 0)).await?;
            }
            table.flush().await?;
            table.detach().await
        };
        filled
            .await
            .map_err(|error: Error| Failure::new("the first load", error))
    }

    /// Starts all clients.
    pub(super) fn start(&self) -> JoinSet<Result<(), Failure>> {
        let mut tasks = JoinSet::new();
        for number in 0..STAYERS {
            let load = self.clone();
            tasks.spawn(async move {
                let draws = Draws(load.seed.wrapping_mul(31).wrapping_add(number));
                let stayed = load.stay(draws).await;
                stayed.map_err(|error| Failure::new("a client that stays", error))
            });
        }
        let load = self.clone();
        tasks.spawn(async move {
            let appended = load.append().await;
            appended.map_err(|error| Failure::new("a client that appends", error))
        });
        let load = self.clone();
        tasks.spawn(async move {
            let came = load.come_and_go().await;
            came.map_err(|error| Failure::new("a client that comes and goes", error))
        });
        tasks
    }

    async fn client(&self) -> Result<Client, Error> {
        let builder = Client::builder().cache_bytes(CACHE_BYTES);
        builder.connect(&self.address).await
    }

    fn goes_on(&self) -> bool {
        !self.counts.stop.load(Relaxed)
    }

    /// Overwrites, reads, and looks at many at a time.
    async fn stay(&self, mut draws: Draws) -> Result<(), Error> {
        let client = self.client().await?;
        let table: Values = client.table("soak").open().await?;
        let mut version = 0;
        while self.goes_on() {
            version += 1;
            for _ in 0..BATCH {
                let number = draws.below(self.entries);
                table.insert(&key(number), &value(number, version)).await?;
            }
            table.flush().await?;
            let numbers: Vec<u64> = (0..BATCH).map(|_| draws.below(self.entries)).collect();
            let keys: Vec<Vec<u8>> = numbers.iter().map(|number| key(*number)).collect();
            let values = table.get_many(&keys).await?;
            let wrong = numbers.iter().zip(values).filter(|(number, value)| {
                !value
                    .as_ref()
                    .is_some_and(|value| is_value_of(**number, value))
            });
            self.counts.wrong.fetch_add(wrong.count() as u64, Relaxed);
            self.counts.operations.fetch_add(2 * BATCH, Relaxed);
        }
        client.shutdown().await
    }

    /// Appends to lists, and frees the table that they are in from time to time.
    async fn append(&self) -> Result<(), Error> {
        let client = self.client().await?;
        while self.goes_on() {
            let lists: Lists = client.temporary().open().await?;
            let mut batches = 0u64;
            while self.goes_on() && batches < LIST_BATCHES {
                for number in 0..BATCH {
                    lists.append(number, batches).await?;
                }
                lists.flush().await?;
                batches += 1;
                self.counts.operations.fetch_add(BATCH, Relaxed);
            }
            let list = lists.get(batches % BATCH).await?.unwrap_or_default();
            let are_right = list.iter().copied().eq(0..batches);
            if lists.len().await? != BATCH.min(BATCH * batches) || !are_right {
                self.counts.wrong.fetch_add(1, Relaxed);
            }
            lists.close().await?;
        }
        client.shutdown().await
    }

    /// Connects, works a little, and goes: with a word, or without.
    async fn come_and_go(&self) -> Result<(), Error> {
        let mut number = 0u64;
        while self.goes_on() {
            number += 1;
            let client = self.client().await?;
            let table: Values = client.temporary().open().await?;
            for entry in 0..BATCH {
                table.insert(&key(entry), &value(entry, number)).await?;
            }
            table.flush().await?;
            let found = table.get(&key(number % BATCH)).await?;
            if !found.is_some_and(|found| is_value_of(number % BATCH, &found)) {
                self.counts.wrong.fetch_add(1, Relaxed);
            }
            if number.is_multiple_of(2) {
                table.close().await?;
                client.shutdown().await?;
            }
            self.counts.connections.fetch_add(1, Relaxed);
            self.counts.operations.fetch_add(BATCH + 1, Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_that_of_its_key_in_any_version_and_of_no_other() {
        assert!(is_value_of(7, &value(7, 0)) && is_value_of(7, &value(7, 300)));
        assert!(!is_value_of(8, &value(7, 0)));
        let mut torn = value(7, 1);
        torn.truncate(100);
        torn.resize(VALUE_BYTES, 2);
        assert!(!is_value_of(7, &torn));
    }
}
