//! Starts on a large directory: after a clean stop, and after a kill.

use rhash_client::{CachePolicy, Client};

use super::super::data::{Tally, Values};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use super::entries::{load, read_back};
use crate::failure::Failure;

/// Tables that the entries are spread over.
const TABLES: u64 = 8;
/// An entry's payload.
const ENTRY_BYTES: u64 = 116;
/// Batches that are read back from each table.
const BATCHES: u64 = 20;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let entries = stage.amounts.volume_bytes / ENTRY_BYTES / TABLES;
    let seed = stage.seed;
    let filling = Trial::start(stage, "start-fill", Keeping::Spilling)?;
    let address = filling.address();
    filling.drive(async move {
        let client = Client::connect(&address).await?;
        for number in 0..TABLES {
            let table = open(&client, number).await?;
            load(&table, seed, 0..entries, 0).await?;
        }
        Ok(())
    })?;
    filling.finish(report)?;
    report.figure("disk_bytes", stage.disk_bytes());

    let stopped = Trial::start(stage, "start-stopped", Keeping::Spilling)?;
    report.figure("start_seconds", stopped.start_seconds());
    let address = stopped.address();
    report.answers(stopped.drive(read_all(address, seed, entries)));
    // What has been spilled, and was not written since, is still there after a kill.
    stopped.crash(report)?;

    let killed = Trial::start(stage, "start-killed", Keeping::Spilling)?;
    report.figure("start_seconds_after_a_kill", killed.start_seconds());
    let address = killed.address();
    report.answers(killed.drive(read_all(address, seed, entries)));
    killed.finish(report)
}

async fn open(client: &Client, number: u64) -> Result<Values, Failure> {
    let builder = client.table(format!("table{number}"));
    Ok(builder.cache_policy(CachePolicy::None).open().await?)
}

async fn read_all(address: String, seed: u64, entries: u64) -> Result<Tally, Failure> {
    let client = Client::connect(&address).await?;
    let mut tally = Tally::default();
    for number in 0..TABLES {
        let table = open(&client, number).await?;
        let found = table.len().await?;
        tally.note(found == entries, || {
            format!("{found} entries, not {entries}")
        });
        let from = number * BATCHES;
        tally.add(read_back(&table, seed, entries, from..from + BATCHES).await?);
    }
    Ok(tally)
}
