//! Scans and merges under load: a table several times the limit is overwritten, read and scanned
//! at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rhash_client::{CachePolicy, Client};

use super::super::data::{Tally, Values, is_content, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use super::KEYS_A_BATCH;
use super::entries::{VALUE_BYTES, load, value_of};
use crate::failure::Failure;

/// Clients that scan, and clients that read single batches.
const SCANNERS: u64 = 2;
const READERS: u64 = 4;
/// An entry's payload.
const ENTRY_BYTES: u64 = 116;
/// Overwriting goes through the keys in pieces of so many.
const PIECE: u64 = 50_000;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "load", Keeping::Spilling)?;
    let scene = Scene {
        seed: stage.seed,
        entries: stage.amounts.volume_bytes / 2 / ENTRY_BYTES,
        busy: stage.amounts.busy,
    };
    let address = trial.address();
    let driven = trial.drive(scene.play(address));
    let driven = driven.map(|(tally, played)| {
        report.figure("entries", scene.entries);
        report.figure("entries_scanned", played.scanned);
        report.figure("entries_overwritten", played.overwritten);
        report.figure("keys_read", played.read);
        tally
    });
    report.answers(driven);
    trial.finish(report)
}

/// What is there, and for how long it is worked on.
#[derive(Debug, Clone, Copy)]
struct Scene {
    seed: u64,
    entries: u64,
    busy: Duration,
}

/// How much was done.
#[derive(Debug, Default)]
struct Played {
    scanned: u64,
    overwritten: u64,
    read: u64,
}

impl Scene {
    async fn play(self, address: String) -> Result<(Tally, Played), Failure> {
        let client = Client::connect(&address).await?;
        let name = "load";
        let builder = client.table(name).cache_policy(CachePolicy::None);
        let table: Values = builder.open().await?;
        load(&table, self.seed, 0..self.entries, 0).await?;
        let done = Arc::new(AtomicBool::new(false));
        let mut scanners = Vec::new();
        let mut readers = Vec::new();
        for number in 0..SCANNERS + READERS {
            let client = Client::connect(&address).await?;
            let builder = client.table(name).cache_policy(CachePolicy::None);
            let (table, done): (Values, _) = (builder.open().await?, Arc::clone(&done));
            if number < SCANNERS {
                scanners.push(tokio::spawn(self.scan(table, done)));
            } else {
                readers.push(tokio::spawn(self.read(table, done, number)));
            }
        }
        let mut played = Played::default();
        let began = Instant::now();
        let mut version = 0;
        while began.elapsed() < self.busy {
            version += 1;
            let mut from = 0;
            while from < self.entries && began.elapsed() < self.busy {
                let to = (from + PIECE).min(self.entries);
                load(&table, self.seed, from..to, version).await?;
                played.overwritten += to - from;
                from = to;
            }
        }
        done.store(true, Relaxed);
        let mut tally = Tally::default();
        for scanner in scanners {
            let of_scanner = scanner.await??;
            played.scanned += of_scanner.asked;
            tally.add(of_scanner);
        }
        for reader in readers {
            let of_reader = reader.await??;
            played.read += of_reader.asked;
            tally.add(of_reader);
        }
        Ok((tally, played))
    }

    /// Scans until the time is over, and the last scan to its end. No key is ever removed, so each
    /// scan must yield each exactly once.
    async fn scan(self, table: Values, done: Arc<AtomicBool>) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        while !done.load(Relaxed) {
            let mut seen = vec![0u64; self.entries.div_ceil(64) as usize];
            let mut count = 0;
            let mut scan = table.iter();
            while let Some(entry) = scan.next().await {
                let (found_key, value) = entry?;
                let number = found_key.get(8..).and_then(|tail| tail.try_into().ok());
                let number = number.map_or(u64::MAX, u64::from_le_bytes);
                let is_key = number < self.entries && found_key == key(self.seed, number);
                let mut is_new = false;
                if is_key {
                    let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
                    is_new = seen[word] & bit == 0;
                    seen[word] |= bit;
                }
                count += 1;
                tally.note(is_new && is_version(number, &value), || {
                    format!("scanned {number}: key {is_key}, new {is_new}")
                });
            }
            let entries = self.entries;
            tally.note(count == entries, || {
                format!("{count} scanned, not {entries}")
            });
        }
        Ok(tally)
    }

    async fn read(
        self,
        table: Values,
        done: Arc<AtomicBool>,
        reader: u64,
    ) -> Result<Tally, Failure> {
        let (mut tally, mut batch) = (Tally::default(), mix(reader) >> 1);
        while !done.load(Relaxed) {
            batch += 1;
            let number = |at| mix(batch.wrapping_mul(KEYS_A_BATCH) + at) % self.entries;
            let numbers: Vec<u64> = (0..KEYS_A_BATCH).map(number).collect();
            let keys: Vec<_> = numbers
                .iter()
                .map(|&number| key(self.seed, number))
                .collect();
            for (&number, found) in numbers.iter().zip(table.get_many(&keys).await?) {
                let is_right = found
                    .as_ref()
                    .is_some_and(|value| is_version(number, value));
                tally.note(is_right, || format!("read {number}: {found:?}"));
            }
        }
        Ok(tally)
    }
}

/// Overwriting goes through all keys at most so often.
const VERSIONS_MAX: u64 = 10_000;

/// Whether a value is one of those that were ever written to the key.
fn is_version(number: u64, value: &[u8]) -> bool {
    value.len() == VALUE_BYTES
        && (0..VERSIONS_MAX).any(|version| {
            // The first bytes settle it for all versions but one.
            is_content(value_of(number, version), 0, &value[..8])
                && is_content(value_of(number, version), 0, value)
        })
}
