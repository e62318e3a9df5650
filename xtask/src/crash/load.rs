//! The load of a crash run: clients that know what their tables must hold.
//!
//! Each client has keys of its own, so its journal says exactly what is there. A client outlives the
//! servers: it comes back by itself, and what was not answered it sends again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rhash_client::Durability::{self, Always, EverySec};
use rhash_client::{BytesCodec, Client, Counter, Error, ErrorKind, List, RemoteHash, TableBuilder};

/// Keys of each client and table.
const KEYS: u64 = 3000;
/// Operations between two flushes, at most.
const BATCH: u64 = 300;
/// Values are at most so long; most of the data is theirs.
const VALUE_BYTES_MAX: u64 = 4000;
/// A cache that holds little, so that the server is asked.
const CACHE_BYTES: usize = 64 * 1024;
/// Servers are away for less than this.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a client waits before it tries to come back, from and to.
const BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

type Values = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;
type Lists = RemoteHash<u64, List<u64>>;
type Counters = RemoteHash<u64, Counter>;

/// What all clients share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) operations: AtomicU64,
    pub(super) answers: AtomicU64,
}

/// Whose durability tables have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Levels {
    OfServer,
    Own,
}

impl Levels {
    fn table(self, client: &Client, name: &str, own: Durability) -> TableBuilder {
        match self {
            Self::OfServer => client.table(name),
            Self::Own => client.table(name).durability(own),
        }
    }

    async fn scratch(self, client: &Client) -> Result<Option<Values>, Error> {
        Ok(match self {
            Self::OfServer => None,
            Self::Own => {
                let table = client.table("scratch").durability(Durability::None);
                Some(table.open().await?)
            }
        })
    }
}

/// One client, and what its tables must hold.
pub(super) struct Writer {
    number: u64,
    draws: Draws,
    shared: Arc<Shared>,
    client: Client,
    values: Values,
    lists: Lists,
    counters: Counters,
    /// Where tables have levels of their own, one that is not logged: its requests come between those of the
    /// others, and what is in it nobody asks.
    scratch: Option<Values>,
    in_values: BTreeMap<u64, Vec<u8>>,
    in_lists: BTreeMap<u64, Vec<u64>>,
    in_counters: BTreeMap<u64, i64>,
    /// The first thing that was not as it should be.
    wrong: Option<String>,
    appended: u64,
}

/// Draws numbers by a multiplicative generator; enough to scatter keys.
#[derive(Debug)]
pub(super) struct Draws(pub(super) u64);

impl Draws {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

impl Writer {
    pub(super) async fn connect(
        address: &str,
        number: u64,
        seed: u64,
        levels: Levels,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let client = Client::builder()
            .cache_bytes(CACHE_BYTES)
            .request_timeout(PATIENCE)
            .retry_deadline(PATIENCE)
            .backoff(BACKOFF[0]..=BACKOFF[1])
            .connect(address)
            .await?;
        Ok(Self {
            number,
            draws: Draws(seed.wrapping_mul(31).wrapping_add(number)),
            shared,
            values: levels.table(&client, "values", Always).open().await?,
            lists: levels.table(&client, "lists", EverySec).open().await?,
            counters: levels.table(&client, "counters", Always).open().await?,
            scratch: levels.scratch(&client).await?,
            client,
            in_values: BTreeMap::new(),
            in_lists: BTreeMap::new(),
            in_counters: BTreeMap::new(),
            wrong: None,
            appended: 0,
        })
    }

    /// Writes until it is told to stop; then holds all that is there against the journal.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let text = |error: Error| format!("an error that no restart explains: {error:?}");
        while !self.shared.stop.load(Relaxed) && self.wrong.is_none() {
            for _ in 0..self.draws.below(BATCH) {
                self.step().await.map_err(text)?;
            }
            self.flush().await.map_err(text)?;
        }
        self.check_all().await.map_err(text)?;
        self.client.shutdown().await.map_err(text)?;
        self.wrong.map_or(Ok(()), Err)
    }

    /// Brings all that is cached to the server, and something to the table that is not logged, which is open no
    /// more after a crash.
    async fn flush(&mut self) -> Result<(), Error> {
        let Some(scratch) = &self.scratch else {
            return self.client.flush().await;
        };
        let value = [7; 300];
        let mut flushed = scratch.insert(&name(self.number), &value[..]).await;
        if flushed.is_ok() {
            flushed = self.client.flush().await;
        }
        match flushed {
            Err(error) if error.kind() == ErrorKind::TableClosed => {
                self.scratch = Levels::Own.scratch(&self.client).await?;
                self.client.flush().await
            }
            flushed => flushed,
        }
    }

    fn key(&mut self) -> u64 {
        self.number * KEYS + self.draws.below(KEYS)
    }

    fn value(&mut self) -> Vec<u8> {
        let length = self.draws.below(VALUE_BYTES_MAX) as usize;
        let mut value = self.draws.0.to_le_bytes().to_vec();
        value.resize(length.max(8), self.draws.0 as u8);
        value
    }

    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, key: u64, is: T, must: T) {
        self.shared.answers.fetch_add(1, Relaxed);
        if is != must && self.wrong.is_none() {
            let mut text = format!(
                "client {}, {what} of {key}: {is:?}, not {must:?}",
                self.number
            );
            text.truncate(text.floor_char_boundary(600));
            self.wrong = Some(text);
        }
    }

    async fn step(&mut self) -> Result<(), Error> {
        self.shared.operations.fetch_add(1, Relaxed);
        let key = self.key();
        match self.draws.below(12) {
            0..4 => {
                self.appended += 1;
                self.lists.append(key, self.appended).await?;
                self.in_lists.entry(key).or_default().push(self.appended);
            }
            4 | 5 => {
                let delta = self.draws.below(100) as i64 - 50;
                self.counters.add(key, delta).await?;
                *self.in_counters.entry(key).or_default() += delta;
            }
            6 => {
                let sum = self.in_counters.entry(key).or_default();
                *sum += 1;
                let must = *sum;
                let is = self.counters.add_and_get(key, 1).await?;
                self.expect("the sum", key, is, must);
            }
            7..10 => {
                let value = self.value();
                self.values.insert(&name(key), &value).await?;
                self.in_values.insert(key, value);
            }
            10 => self.decide(key).await?,
            _ => {
                self.values.discard(&name(key)).await?;
                self.in_values.remove(&key);
            }
        }
        Ok(())
    }

    /// What the server decides, and answers once, however often it is asked.
    async fn decide(&mut self, key: u64) -> Result<(), Error> {
        let must = self.in_values.get(&key).cloned();
        if self.draws.below(2) == 0 {
            let is = self.values.remove(&name(key)).await?;
            self.in_values.remove(&key);
            self.expect("what was removed", key, is, must);
            return Ok(());
        }
        let new = self.value();
        let swap = self
            .values
            .compare_and_swap(&name(key), must.as_ref(), Some(&new))
            .await?;
        let swapped = swap.is_done();
        self.expect("a swap", key, swapped, true);
        self.in_values.insert(key, new);
        Ok(())
    }

    async fn check_all(&mut self) -> Result<(), Error> {
        for key in self.number * KEYS..(self.number + 1) * KEYS {
            let is = self.lists.get(key).await?.map(|list| list.to_vec());
            let must = self.in_lists.get(&key).cloned();
            self.expect("the list", key, is, must);
            let is = self.counters.get(key).await?;
            let must = self.in_counters.get(&key).copied();
            self.expect("the counter", key, is, must);
            let is = self.values.get(&name(key)).await?;
            let must = self.in_values.get(&key).cloned();
            self.expect("the value", key, is, must);
        }
        Ok(())
    }
}

fn name(key: u64) -> Vec<u8> {
    key.to_be_bytes().to_vec()
}
