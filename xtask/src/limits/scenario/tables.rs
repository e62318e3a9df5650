//! Thousands of tables of all kinds, named and temporary, then all of them closed.

use std::{
    thread,
    time::{Duration, Instant},
};

use rhash_client::{BytesCodec, CachePolicy, Client, Counter, RemoteHash};

use super::super::data::{Lists, Tally, Values, content, is_content, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use crate::failure::Failure;

/// Entries of a table.
const ENTRIES: u64 = 24;
/// Of so many tables one has a hundred times as many.
const LARGE_EVERY: u64 = 100;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// After all are closed, memory is given back within this.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(6);
/// A connection keeps the buffer of a long request until it has been quiet for two seconds, so a
/// look must come later than that after the one before.
const LOOK_EVERY: Duration = Duration::from_millis(2500);
/// What the log says of them is cut within this: it waits until nothing was logged for five seconds.
const LOG_CUT_WITHIN: Duration = Duration::from_secs(15);
/// And the tables' files may take this much.
const DISK_LEFT_MAX: u64 = 16 << 20;

/// The room that the answer takes which tells of all this.
const ANSWER_BYTES: u64 = 4 << 10;

type Counters = RemoteHash<Vec<u8>, Counter, BytesCodec>;

/// A table of one of the kinds.
#[derive(Debug)]
enum Table {
    Values(Values),
    Lists(Lists),
    Counters(Counters),
}

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "tables", Keeping::Spilling)?;
    let (tables, seed) = (stage.amounts.tables, stage.seed);
    let address = trial.address();
    let driven = trial.drive(async move {
        let client = Client::connect(&address).await?;
        let mut tally = Tally::default();
        let mut open = Vec::new();
        for number in 0..tables {
            let table = Table::open(&client, number).await?;
            table.fill(seed, number).await?;
            open.push(table);
        }
        for (number, table) in open.iter().enumerate() {
            table.check(seed, number as u64, &mut tally).await?;
        }
        let listed = client.stats().await?.tables.len() as u64;
        tally.note(listed == tables, || {
            format!("{listed} tables, not {tables}")
        });
        for table in open {
            table.close().await?;
        }
        let began = Instant::now();
        loop {
            let stats = client.stats().await?;
            let (left, tracked) = (stats.tables.len(), stats.tracked_bytes);
            let is_given_back = left == 0 && tracked <= ANSWER_BYTES;
            if is_given_back || began.elapsed() > GIVEN_BACK_WITHIN {
                let detail = || format!("{left} tables and {tracked} bytes in memory are left");
                tally.note(is_given_back, detail);
                return Ok(tally);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    report.answers(driven);
    let disk = disk_in_the_end(stage);
    report.figure("tables", tables);
    report.figure("disk_bytes_after_close", disk);
    let detail = format!("{disk} bytes");
    report.check(
        "closing all gives the disk back",
        disk <= DISK_LEFT_MAX,
        detail,
    );
    trial.finish(report)
}

/// What the directory takes once the log is cut, or after a while.
fn disk_in_the_end(stage: &Stage) -> u64 {
    let began = Instant::now();
    loop {
        let disk = stage.disk_bytes();
        if disk <= DISK_LEFT_MAX || began.elapsed() > LOG_CUT_WITHIN {
            return disk;
        }
        thread::park_timeout(Duration::from_millis(100));
    }
}

fn entries(number: u64) -> u64 {
    match number % LARGE_EVERY {
        0 => ENTRIES * 100,
        _ => ENTRIES,
    }
}

impl Table {
    async fn open(client: &Client, number: u64) -> Result<Self, Failure> {
        let builder = match number % 2 {
            0 => client.table(format!("table{number}")),
            _ => client.temporary(),
        };
        let builder = builder.cache_policy(CachePolicy::None);
        Ok(match number % 3 {
            0 => Self::Values(builder.open().await?),
            1 => Self::Lists(builder.open().await?),
            _ => Self::Counters(builder.open().await?),
        })
    }

    async fn fill(&self, seed: u64, number: u64) -> Result<(), Failure> {
        let written = match self {
            Self::Values(table) => {
                let mut bulk = table.bulk();
                for entry in 0..entries(number) {
                    let value = content(mix(number ^ entry), VALUE_BYTES);
                    bulk.insert(key(seed, entry), &value[..])?;
                }
                bulk.finish().await?
            }
            Self::Lists(table) => {
                let mut bulk = table.bulk();
                for entry in 0..entries(number) {
                    let value = content(mix(number ^ entry), VALUE_BYTES);
                    bulk.append(key(seed, entry), &value[..VALUE_BYTES / 2])?;
                    bulk.append(key(seed, entry), &value[VALUE_BYTES / 2..])?;
                }
                bulk.finish().await?
            }
            Self::Counters(table) => {
                let mut bulk = table.bulk();
                for entry in 0..entries(number) {
                    bulk.add(key(seed, entry), number as i64)?;
                    bulk.add(key(seed, entry), entry as i64)?;
                }
                bulk.finish().await?
            }
        };
        debug_assert!(written > 0, "a table has entries");
        Ok(())
    }

    async fn check(&self, seed: u64, number: u64, tally: &mut Tally) -> Result<(), Failure> {
        let keys: Vec<_> = (0..ENTRIES).map(|entry| key(seed, entry)).collect();
        let what = |entry: usize| format!("table {number}, entry {entry}");
        let is_value = |entry: usize, found: &Option<Vec<u8>>| {
            let expected = mix(number ^ entry as u64);
            found
                .as_ref()
                .is_some_and(|found| found.len() == VALUE_BYTES && is_content(expected, 0, found))
        };
        match self {
            Self::Values(table) => {
                for (entry, found) in table.get_many(&keys).await?.iter().enumerate() {
                    tally.note(is_value(entry, found), || what(entry));
                }
            }
            Self::Lists(table) => {
                for (entry, found) in table.get_many(&keys).await?.iter().enumerate() {
                    tally.note(is_value(entry, found), || what(entry));
                }
            }
            Self::Counters(table) => {
                for (entry, found) in table.get_many(&keys).await?.iter().enumerate() {
                    let expected = number as i64 + entry as i64;
                    tally.note(*found == Some(expected), || what(entry));
                }
            }
        }
        Ok(())
    }

    async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Values(table) => table.close().await?,
            Self::Lists(table) => table.close().await?,
            Self::Counters(table) => table.close().await?,
        }
        Ok(())
    }
}
