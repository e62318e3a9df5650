//! Many small entries: loaded in batches, read back at random, counted.

use std::time::Instant;

use rhash_client::{CachePolicy, Client};

use super::super::data::{Tally, Values, content, fill, is_content, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use super::KEYS_A_BATCH;
use crate::failure::Failure;

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 100;
/// Batches of keys that are read back, by each of the readers.
const BATCHES: u64 = 500;
/// Readers at the same time.
const READERS: u64 = 4;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "entries", Keeping::Spilling)?;
    let (entries, seed) = (stage.amounts.entries, stage.seed);
    let address = trial.address();
    let driven = trial.drive(async move {
        let client = Client::connect(&address).await?;
        let builder = client.temporary().cache_policy(CachePolicy::None);
        let table: Values = builder.open().await?;
        let began = Instant::now();
        load(&table, seed, 0..entries, 0).await?;
        let load_seconds = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let readers = (0..READERS).map(|reader| {
            let (table, from) = (table.clone(), seed + reader * BATCHES);
            tokio::spawn(
                async move { read_back(&table, seed, entries, from..from + BATCHES).await },
            )
        });
        let mut tally = Tally::default();
        for reader in readers.collect::<Vec<_>>() {
            tally.add(reader.await??);
        }
        let read_seconds = began.elapsed().as_secs_f64();
        let found = table.len().await?;
        tally.note(found == entries, || {
            format!("{found} entries, not {entries}")
        });
        Ok((tally, load_seconds, read_seconds))
    });
    let driven = driven.map(|(tally, load_seconds, read_seconds)| {
        report.figure("entries", entries);
        report.figure("load_seconds", load_seconds);
        report.figure("read_seconds", read_seconds);
        report.figure("entries_a_second", entries as f64 / load_seconds);
        tally
    });
    report.answers(driven);
    trial.finish(report)
}

/// Writes entries in batches; `version` goes into their values.
pub(super) async fn load(
    table: &Values,
    seed: u64,
    numbers: std::ops::Range<u64>,
    version: u64,
) -> Result<(), Failure> {
    let mut bulk = table.bulk();
    let mut value = [0; VALUE_BYTES];
    for number in numbers {
        fill(value_of(number, version), 0, &mut value);
        bulk.insert(key(seed, number), value)?;
        if bulk.is_full() {
            bulk.send().await?;
        }
    }
    bulk.finish().await?;
    Ok(())
}

/// The content of an entry's value.
pub(super) fn value_of(number: u64, version: u64) -> u64 {
    mix(number ^ (version << 48))
}

/// Reads batches of keys at random, among them some that are not there.
pub(super) async fn read_back(
    table: &Values,
    seed: u64,
    entries: u64,
    batches: std::ops::Range<u64>,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for batch in batches {
        // One key in a hundred and one or so is beyond the entries.
        let number = |at: u64| mix((batch << 20) | at) % (entries + entries / 100 + 1);
        let numbers: Vec<u64> = (0..KEYS_A_BATCH).map(number).collect();
        let keys: Vec<_> = numbers.iter().map(|&number| key(seed, number)).collect();
        let found = table.get_many(&keys).await?;
        for (&number, found) in numbers.iter().zip(found) {
            let is_right = match &found {
                Some(found) => {
                    found.len() == VALUE_BYTES
                        && number < entries
                        && is_content(value_of(number, 0), 0, found)
                }
                None => number >= entries,
            };
            tally.note(is_right, || format!("entry {number}: {found:?}"));
        }
    }
    Ok(tally)
}

/// One value, whole.
pub(super) fn value(number: u64, version: u64) -> Vec<u8> {
    content(value_of(number, version), VALUE_BYTES)
}
