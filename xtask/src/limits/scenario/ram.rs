//! What an entry takes in memory beyond its payload, and what a key takes that is on disk.

use rhash_client::{CachePolicy, Client};

use super::super::data::{Tally, Values, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use super::KEYS_A_BATCH;
use super::entries::{load, read_back};
use crate::failure::Failure;

/// A hot entry's payload.
const ENTRY_BYTES: f64 = 116.0;
/// Beyond it, a hot entry may take this much.
const HOT_EXTRA_MAX: f64 = 40.0;
/// A cold key may take this much, mapped pages counted.
const COLD_KEY_MAX: f64 = 2.5;
/// Batches that are read so that filters and indexes are mapped in.
const BATCHES: u64 = 4000;

/// A server's resident bytes: its own, and those of mapped files.
fn resident(id: u32) -> Result<[u64; 2], Failure> {
    let path = format!("/proc/{id}/status");
    let status = std::fs::read_to_string(&path).map_err(|e| Failure::new(&path, e))?;
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().nth(1));
        word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Ok([figure("RssAnon") + figure("RssShmem"), figure("RssFile")])
}

pub(super) fn hot(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "hot", Keeping::MemoryOnly)?;
    let entries = stage.amounts.hot_entries;
    let (address, seed, id) = (trial.address(), stage.seed, trial.id());
    let driven = trial.drive(async move {
        let client = Client::connect(&address).await?;
        let builder = client.temporary().cache_policy(CachePolicy::None);
        let table: Values = builder.open().await?;
        load(&table, seed, 0..KEYS_A_BATCH, 0).await?;
        let [before, _] = resident(id)?;
        load(&table, seed, 0..entries, 0).await?;
        let [after, _] = resident(id)?;
        let tally = read_back(&table, seed, entries, 0..10).await?;
        Ok((tally, after - before))
    });
    let driven = driven.map(|(tally, grown)| {
        let extra = grown as f64 / entries as f64 - ENTRY_BYTES;
        report.figure("entries", entries);
        report.figure("extra_bytes_an_entry", extra);
        let detail = format!("{extra:.1} of {HOT_EXTRA_MAX}");
        report.check(
            "a hot entry takes little more than its payload",
            extra <= HOT_EXTRA_MAX,
            detail,
        );
        tally
    });
    report.answers(driven);
    trial.finish(report)
}

pub(super) fn cold(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "cold", Keeping::Spilling)?;
    let keys = stage.amounts.cold_keys;
    let (address, seed, id) = (trial.address(), stage.seed, trial.id());
    let [before, files_before] = resident(id)?;
    let driven = trial.drive(async move {
        let client = Client::connect(&address).await?;
        let builder = client.temporary().cache_policy(CachePolicy::None);
        let table: Values = builder.open().await?;
        let mut bulk = table.bulk();
        for number in 0..keys {
            bulk.insert(key(seed, number), mix(number).to_le_bytes())?;
            if bulk.is_full() {
                bulk.send().await?;
            }
        }
        bulk.finish().await?;
        let mut tally = Tally::default();
        for batch in 0..BATCHES {
            let number = |at| mix(seed ^ (batch << 8) ^ at) % keys;
            let numbers: Vec<u64> = (0..KEYS_A_BATCH).map(number).collect();
            let asked: Vec<_> = numbers.iter().map(|&number| key(seed, number)).collect();
            for (&number, found) in numbers.iter().zip(table.get_many(&asked).await?) {
                let is_right = found.as_deref() == Some(&mix(number).to_le_bytes());
                tally.note(is_right, || format!("key {number}"));
            }
        }
        let [own, files] = resident(id)?;
        let stats = client.stats().await?;
        let hot: u64 = stats.tables.iter().map(|table| table.hot_bytes).sum();
        Ok((tally, own, files, hot))
    });
    let driven = driven.map(|(tally, own, files, hot)| {
        let own = own.saturating_sub(before).saturating_sub(hot) as f64 / keys as f64;
        let mapped = files.saturating_sub(files_before) as f64 / keys as f64;
        report.figure("keys", keys);
        report.figure("own_bytes_a_key", own);
        report.figure("mapped_bytes_a_key", mapped);
        let detail = format!("{own:.2} own and {mapped:.2} mapped, of {COLD_KEY_MAX}");
        report.check(
            "a cold key takes little memory",
            own + mapped <= COLD_KEY_MAX,
            detail,
        );
        tally
    });
    report.answers(driven);
    trial.finish(report)
}
