//! Many connections at once, each with all kinds of requests.

use std::time::{Duration, Instant};

use rhash_client::{CachePolicy, Client};

use super::super::data::{Tally, Values, content, is_content, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use super::KEYS_A_BATCH;
use crate::failure::Failure;

/// Entries of a batch of writes.
const BATCH: u64 = 200;
/// Keys that each connection writes to.
const KEYS: u64 = 4000;
/// Scans of a connection take so many entries and are then given up.
const SCANNED: u64 = 2000;
/// Reads of a connection that are on their way at once.
const READS: u64 = 4;
/// The most bytes that a client has on its way: many small clients, not one large one.
const IN_FLIGHT_BYTES: usize = 2 << 20;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "connections", Keeping::Spilling)?;
    let (address, seed) = (trial.address(), stage.seed);
    let (connections, busy) = (stage.amounts.connections, stage.amounts.busy);
    let driven = trial.drive(async move {
        let users = (0..connections).map(|number| {
            let address = address.clone();
            tokio::spawn(async move {
                let builder = Client::builder().in_flight_bytes(IN_FLIGHT_BYTES);
                let client = builder.connect(&address).await?;
                User::open(&client, mix(seed ^ number))
                    .await?
                    .run(busy)
                    .await
            })
        });
        let mut tally = Tally::default();
        for user in users.collect::<Vec<_>>() {
            tally.add(user.await??);
        }
        Ok(tally)
    });
    report.figure("connections", connections);
    report.answers(driven);
    trial.finish(report)
}

/// One connection's table, and what it wrote there.
#[derive(Debug)]
struct User {
    seed: u64,
    table: Values,
    /// By key: the version written last, 0 for none.
    versions: Vec<u64>,
    step: u64,
    tally: Tally,
}

impl User {
    async fn open(client: &Client, seed: u64) -> Result<Self, Failure> {
        let builder = client.temporary().cache_policy(CachePolicy::None);
        Ok(Self {
            seed,
            table: builder.open().await?,
            versions: vec![0; KEYS as usize],
            step: 0,
            tally: Tally::default(),
        })
    }

    async fn run(mut self, busy: Duration) -> Result<Tally, Failure> {
        let began = Instant::now();
        while began.elapsed() < busy {
            self.step += 1;
            match mix(self.seed ^ self.step) % 8 {
                0..3 => self.write().await?,
                3..6 => self.read().await?,
                6 => self.read_one().await?,
                _ => self.scan().await?,
            }
        }
        let expected = self.versions.iter().filter(|&&version| version > 0).count() as u64;
        let found = self.table.len().await?;
        let (tally, seed) = (&mut self.tally, self.seed);
        tally.note(found == expected, || {
            format!("user {seed}: {found} entries, not {expected}")
        });
        Ok(self.tally)
    }

    async fn write(&mut self) -> Result<(), Failure> {
        let mut bulk = self.table.bulk();
        for at in 0..BATCH {
            let number = mix(self.seed ^ (self.step << 16) ^ at) % KEYS;
            self.versions[number as usize] = self.step;
            let (content_of, bytes) = value_of(number, self.step);
            bulk.insert(key(self.seed, number), &content(content_of, bytes)[..])?;
            if bulk.is_full() {
                bulk.send().await?;
            }
        }
        bulk.finish().await?;
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let batches = (0..READS).map(|read| {
            let number = |at| mix(self.seed ^ (self.step << 16) ^ (read << 8) ^ at) % KEYS;
            (0..KEYS_A_BATCH).map(number).collect::<Vec<u64>>()
        });
        let batches: Vec<Vec<u64>> = batches.collect();
        let answers = batches.iter().map(|numbers| {
            let keys: Vec<_> = numbers.iter().map(|&n| key(self.seed, n)).collect();
            let table = self.table.clone();
            async move { table.get_many(&keys).await }
        });
        for (numbers, found) in batches
            .iter()
            .zip(futures_util::future::join_all(answers).await)
        {
            for (&number, found) in numbers.iter().zip(found?) {
                self.judge(number, found.as_deref());
            }
        }
        Ok(())
    }

    async fn read_one(&mut self) -> Result<(), Failure> {
        let number = mix(self.seed ^ !self.step) % KEYS;
        let found = self.table.get(key(self.seed, number)).await?;
        self.judge(number, found.as_deref());
        Ok(())
    }

    async fn scan(&mut self) -> Result<(), Failure> {
        let mut scan = self.table.iter();
        for _ in 0..SCANNED {
            let Some(entry) = scan.next().await else {
                break;
            };
            let (key, value) = entry?;
            let number = key.get(8..).and_then(|tail| tail.try_into().ok());
            self.judge(number.map_or(u64::MAX, u64::from_le_bytes), Some(&value));
        }
        Ok(())
    }

    fn judge(&mut self, number: u64, found: Option<&[u8]>) {
        let version = self.versions.get(number as usize).copied().unwrap_or(0);
        let is_right = match found {
            None => version == 0,
            Some(found) => {
                let (content_of, bytes) = value_of(number, version);
                version > 0 && found.len() == bytes && is_content(content_of, 0, found)
            }
        };
        let seed = self.seed;
        self.tally.note(is_right, || {
            let found = found.map(<[u8]>::len);
            format!("user {seed}, entry {number}, version {version}: {found:?} bytes")
        });
    }
}

/// The content and the length of a value; a few are long.
fn value_of(number: u64, version: u64) -> (u64, usize) {
    let random = mix(number ^ (version << 32));
    let bytes = match random % 256 {
        0 => random >> 8 & 0xf_ffff,
        1..16 => random >> 8 & 0x3fff,
        _ => random >> 8 & 0xff,
    };
    (random, bytes as usize)
}
