//! Lists that grow to hundreds of megabytes, between appends to others, and are read back whole.

use std::time::Instant;

use rhash_client::{CachePolicy, Client};

use super::super::data::{Lists, Tally, fill, is_content, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use crate::failure::Failure;

/// Long lists: the first grows to the full length, each other one to half of the one before.
const LONG: u64 = 4;
/// Short lists between them.
const SHORT: u64 = 10_000;
/// One append to a long list is at most so long.
const APPEND_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an append to a short list.
const SHORT_BYTES: u64 = 40;
/// Appends to short lists after each to a long one.
const SHORT_APPENDS: u64 = 20;
/// Short lists that are read back.
const SAMPLED: u64 = 1000;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "lists", Keeping::Spilling)?;
    let growth = Growth {
        seed: stage.seed,
        longest: stage.amounts.list_bytes,
    };
    let address = trial.address();
    let driven = trial.drive(async move {
        let client = Client::connect(&address).await?;
        let builder = client.temporary().cache_policy(CachePolicy::None);
        let table: Lists = builder.open().await?;
        let began = Instant::now();
        let lengths = growth.grow(&table).await?;
        let grow_seconds = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let tally = growth.read_back(&table, &lengths).await?;
        Ok((tally, grow_seconds, began.elapsed().as_secs_f64()))
    });
    let driven = driven.map(|(tally, grow_seconds, read_seconds)| {
        report.figure("longest_bytes", growth.longest);
        report.figure("grow_seconds", grow_seconds);
        report.figure("read_seconds", read_seconds);
        tally
    });
    report.answers(driven);
    trial.finish(report)
}

/// How the lists grow.
#[derive(Debug, Clone, Copy)]
struct Growth {
    seed: u64,
    longest: u64,
}

impl Growth {
    /// Grows all lists; returns their lengths, those of the long ones first.
    async fn grow(self, table: &Lists) -> Result<Vec<u64>, Failure> {
        let mut lengths = vec![0; (LONG + SHORT) as usize];
        let mut bulk = table.bulk();
        let mut buffer = vec![0; APPEND_BYTES_MAX as usize];
        let mut step = 0;
        while lengths[0] < self.longest {
            for long in 0..LONG {
                step += 1;
                let left = (self.longest >> long) - lengths[long as usize];
                // The shorter the list, the shorter its appends: all end at the same time.
                let most = APPEND_BYTES_MAX >> long;
                let bytes = (mix(self.seed ^ step) % most + 1).min(left);
                let bytes = if left < most { left } else { bytes };
                let appends = (0..SHORT_APPENDS)
                    .map(|at| (LONG + mix((step << 8) | at) % SHORT, SHORT_BYTES))
                    .chain((bytes > 0).then_some((long, bytes)));
                for (list, bytes) in appends {
                    let part = &mut buffer[..bytes as usize];
                    let length = &mut lengths[list as usize];
                    fill(mix(list), *length, part);
                    *length += bytes;
                    bulk.append(key(self.seed, list), &*part)?;
                    if bulk.is_full() {
                        bulk.send().await?;
                    }
                }
            }
        }
        bulk.finish().await?;
        Ok(lengths)
    }

    async fn read_back(self, table: &Lists, lengths: &[u64]) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        let sampled = (0..SAMPLED).map(|number| LONG + mix(self.seed + number) % SHORT);
        for list in (0..LONG).chain(sampled) {
            let (mut offset, mut is_right) = (0, true);
            if let Some(mut parts) = table.chunks(key(self.seed, list)).await? {
                while let Some(part) = parts.next().await {
                    let part = part?;
                    is_right &= is_content(mix(list), offset, &part);
                    offset += part.len() as u64;
                }
            }
            let length = lengths[list as usize];
            tally.note(is_right && offset == length, || {
                format!("list {list}: {offset} bytes, not {length}, or others")
            });
        }
        let lists = lengths.iter().filter(|&&length| length > 0).count() as u64;
        let found = table.len().await?;
        tally.note(found == lists, || format!("{found} lists, not {lists}"));
        Ok(tally)
    }
}
