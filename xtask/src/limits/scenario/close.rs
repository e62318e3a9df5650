//! Closing a large table is quick, and gives its disk back.

use std::time::{Duration, Instant};

use rhash_client::{CachePolicy, Client};

use super::super::data::{Values, content, key};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use crate::failure::Failure;

/// Bytes of a value: the number of bytes counts here, not that of entries.
const VALUE_BYTES: usize = 4000;
/// A close takes less than this.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// The disk is free within this.
const FREE_WAIT: Duration = Duration::from_secs(5);
/// What is left on the disk afterwards.
const DISK_LEFT_MAX: u64 = 16 << 20;

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "close", Keeping::Spilling)?;
    let entries = stage.amounts.close_bytes / VALUE_BYTES as u64;
    let (seed, address) = (stage.seed, trial.address());
    let driven = trial.drive(async {
        let client = Client::connect(&address).await?;
        let builder = client.table("large").cache_policy(CachePolicy::None);
        let table: Values = builder.open().await?;
        let mut bulk = table.bulk();
        let value = content(seed, VALUE_BYTES);
        let began = Instant::now();
        for number in 0..entries {
            bulk.insert(key(seed, number), &value[..])?;
            if bulk.is_full() {
                bulk.send().await?;
            }
        }
        bulk.finish().await?;
        let fill_seconds = began.elapsed().as_secs_f64();
        let disk = stage.disk_bytes();
        let began = Instant::now();
        table.close().await?;
        let closing = began.elapsed();
        while stage.disk_bytes() > DISK_LEFT_MAX && began.elapsed() < FREE_WAIT {
            tokio::time::sleep(CLOSE_MAX / 50).await;
        }
        Ok((disk, closing, began.elapsed(), fill_seconds))
    });
    match driven {
        Ok((disk, closing, freeing, fill_seconds)) => {
            let left = stage.disk_bytes();
            report.figure("disk_bytes", disk);
            report.figure("fill_seconds", fill_seconds);
            report.figure("close_seconds", closing.as_secs_f64());
            report.figure("free_seconds", freeing.as_secs_f64());
            report.figure("disk_bytes_left", left);
            let detail = format!("{closing:?}, {disk} bytes");
            report.check("a close is quick", closing < CLOSE_MAX, detail);
            let detail = format!("{left} bytes are left after {freeing:?}");
            report.check("a close gives the disk back", left <= DISK_LEFT_MAX, detail);
        }
        Err(failure) => report.check("a close is quick", false, failure.to_string()),
    }
    trial.finish(report)
}
