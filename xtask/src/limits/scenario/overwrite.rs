//! Everything overwritten three times: once merges settle, disk is close to the live data.

use std::time::{Duration, Instant};

use rhash_client::{CachePolicy, Client};

use super::super::data::Values;
use super::super::data::{Tally, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use super::KEYS_A_BATCH;
use super::entries::{load, value};
use crate::failure::Failure;

/// An entry's payload.
const ENTRY_BYTES: u64 = 116;
/// Times that all is written over.
const OVERWRITES: u64 = 3;
/// Merges have settled when the disk stays as it is for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// They must have within this.
const SETTLE_WAIT: Duration = Duration::from_secs(120);
/// The disk may take this many times the live data.
const DISK_FACTOR_MAX: f64 = 1.5;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "overwrite", Keeping::Spilling)?;
    // Far more than memory holds, so that what is on disk counts.
    let entries = stage.amounts.volume_bytes / ENTRY_BYTES;
    let seed = stage.seed;
    let address = trial.address();
    let driven = trial.drive(async {
        let client = Client::connect(&address).await?;
        let builder = client.temporary().cache_policy(CachePolicy::None);
        let table: Values = builder.open().await?;
        for version in 0..=OVERWRITES {
            load(&table, seed, 0..entries, version).await?;
        }
        let at_once = stage.disk_bytes();
        let began = Instant::now();
        let disk = settle(stage).await;
        let settle_seconds = began.elapsed().as_secs_f64();
        let mut tally = Tally::default();
        for batch in 0..100 {
            let number = |at| mix(seed ^ (batch << 8) ^ at) % entries;
            let numbers: Vec<u64> = (0..KEYS_A_BATCH).map(number).collect();
            let keys: Vec<_> = numbers.iter().map(|&number| key(seed, number)).collect();
            for (&number, found) in numbers.iter().zip(table.get_many(&keys).await?) {
                let is_right = found == Some(value(number, OVERWRITES));
                tally.note(is_right, || format!("entry {number}"));
            }
        }
        Ok((tally, at_once, disk, settle_seconds))
    });
    let live = entries * ENTRY_BYTES;
    report.figure("live_bytes", live);
    let driven = driven.map(|(tally, at_once, disk, settle_seconds)| {
        report.figure("disk_bytes_at_once", at_once);
        report.figure("disk_bytes_settled", disk);
        report.figure("settle_seconds", settle_seconds);
        let factor = disk as f64 / live as f64;
        let detail = format!("{factor:.2} of {DISK_FACTOR_MAX}, after {settle_seconds:.1} s");
        let passed = factor <= DISK_FACTOR_MAX;
        report.check("disk settles close to the live data", passed, detail);
        tally
    });
    report.answers(driven);
    trial.finish(report)
}

/// Waits until the disk stays as it is.
async fn settle(stage: &Stage) -> u64 {
    let began = Instant::now();
    let (mut disk, mut since) = (stage.disk_bytes(), Instant::now());
    while since.elapsed() < SETTLED_AFTER && began.elapsed() < SETTLE_WAIT {
        tokio::time::sleep(SETTLED_AFTER / 10).await;
        let now = stage.disk_bytes();
        if now != disk {
            (disk, since) = (now, Instant::now());
        }
    }
    disk
}
