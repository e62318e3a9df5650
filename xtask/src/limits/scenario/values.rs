//! Values of all lengths, from nothing to the longest that the server takes, by several clients at
//! once.

use rhash_client::{CachePolicy, Client};

use super::super::data::{Tally, Values, content, is_content, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use crate::failure::Failure;

/// Clients that write and read at the same time.
const WRITERS: u64 = 4;
/// By default a value may take this share of the limit, up to a bound.
const VALUE_SHARE: u64 = 8;
const VALUE_BYTES_MAX: u64 = 256 << 20;
/// Of so many writes one is as long as may be, and one is empty.
const RARE: u64 = 400;
/// A read follows so many writes.
const READ_EVERY: u64 = 5;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "values", Keeping::Spilling)?;
    let longest = (stage.mem_limit_bytes / VALUE_SHARE).min(VALUE_BYTES_MAX);
    let volume = stage.amounts.volume_bytes / WRITERS;
    let (address, seed) = (trial.address(), stage.seed);
    let driven = trial.drive(async move {
        let writers = (0..WRITERS).map(|writer| {
            let address = address.clone();
            tokio::spawn(async move {
                let client = Client::connect(&address).await?;
                let writer = Writer {
                    seed: mix(seed + writer),
                    longest,
                };
                writer.run(&client, volume).await
            })
        });
        let (mut tally, mut written) = (Tally::default(), 0);
        for writer in writers.collect::<Vec<_>>() {
            let (of_writer, count) = writer.await??;
            tally.add(of_writer);
            written += count;
        }
        Ok((tally, written))
    });
    let driven = driven.map(|(tally, written)| {
        report.figure("values", written);
        report.figure("longest_bytes", longest);
        tally
    });
    report.answers(driven);
    trial.finish(report)
}

/// What one client writes.
#[derive(Debug, Clone, Copy)]
struct Writer {
    seed: u64,
    longest: u64,
}

impl Writer {
    async fn run(self, client: &Client, volume: u64) -> Result<(Tally, u64), Failure> {
        let builder = client.temporary().cache_policy(CachePolicy::None);
        let table: Values = builder.open().await?;
        let (mut tally, mut number, mut bytes) = (Tally::default(), 0, 0);
        while bytes < volume {
            let length = self.length(number);
            let value = content(self.content(number), length as usize);
            table.insert(key(self.seed, number), &value[..]).await?;
            bytes += length;
            number += 1;
            if number % READ_EVERY == 0 {
                let asked = mix(self.seed ^ number) % number;
                self.read(&table, asked, &mut tally).await?;
            }
        }
        // The longest and the empty ones are all read in the end.
        for asked in (0..number).filter(|number| number % RARE < 2) {
            self.read(&table, asked, &mut tally).await?;
        }
        let found = table.len().await?;
        tally.note(found == number, || format!("{found} values, not {number}"));
        Ok((tally, number))
    }

    async fn read(self, table: &Values, number: u64, tally: &mut Tally) -> Result<(), Failure> {
        let found = table.get(key(self.seed, number)).await?;
        let is_right = found.as_ref().is_some_and(|found| {
            found.len() as u64 == self.length(number) && is_content(self.content(number), 0, found)
        });
        tally.note(is_right, || {
            let found = found.map(|found| found.len());
            format!(
                "value {number}: {found:?}, not {} bytes",
                self.length(number)
            )
        });
        Ok(())
    }

    /// Mostly short; each power of two is as frequent as the next.
    fn length(self, number: u64) -> u64 {
        let random = mix(self.seed.wrapping_add(number));
        match number % RARE {
            0 => self.longest,
            1 => 0,
            _ => {
                let power = random % (u64::from(self.longest.ilog2()) + 1);
                // Every second long one is cut, or they would be all that fits the volume.
                let power = if power > 16 && random & (1 << 40) != 0 {
                    power - 8
                } else {
                    power
                };
                (1 << power) | (random >> 8) & ((1 << power) - 1)
            }
        }
        .min(self.longest)
    }

    fn content(self, number: u64) -> u64 {
        mix(self.seed ^ (number << 1))
    }
}
