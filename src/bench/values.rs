//! Steps on a table of values: load, gets, scan, close.

use rhash_client::{BytesCodec, CachePolicy, RemoteHash};

use super::{
    data::{self, Draw, Zipf},
    figures::StepRun,
    round::{Begun, Round},
    step::Step,
};
use crate::{
    failure::{Failure, Outcome},
    output::count,
};

type Table = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;

/// Progress is told once for so many entries of a scan.
const SCAN_PART: u64 = 4096;

/// Runs the steps.
///
/// # Errors
/// The server failed or gave a wrong answer.
pub(super) async fn run(round: &mut Round<'_>) -> Outcome<Vec<StepRun>> {
    let entries = round.work.entries(round.data_bytes);
    let uniform = Draw::Uniform;
    let zipf = Draw::Zipf(Zipf::new(entries, round.work.zipf_exponent));
    // Past the client's cache: it is the server that is measured.
    let open = round.client.temporary().cache_policy(CachePolicy::None);
    let table: Table = open.open().await?;
    let mut runs = vec![
        load(round, &table, entries).await?,
        round.settle(Step::Settle).await?,
    ];
    for (step, draw) in [(Step::BatchUniform, uniform), (Step::BatchZipf, zipf)] {
        runs.push(batches(round, &table, step, draw).await?);
    }
    for (step, draw) in [(Step::SingleUniform, uniform), (Step::SingleZipf, zipf)] {
        runs.push(singles(round, &table, step, draw).await?);
    }
    runs.push(scan(round, &table, entries).await?);
    let begun = round.begin(Step::Close).await?;
    table.close().await?;
    runs.push(round.end(begun, 0).await?);
    Ok(runs)
}

async fn load(round: &Round<'_>, table: &Table, entries: u64) -> Outcome<StepRun> {
    let mut begun = round.begin(Step::Load).await?;
    let mut bulk = table.bulk();
    let mut value = vec![0; round.work.value_bytes];
    for number in 0..entries {
        data::fill_value(number, &mut value);
        bulk.insert(data::key(number), &value[..])?;
        if bulk.is_full() {
            begun.call(bulk.send()).await?;
            round.done(number, entries)?;
        }
    }
    begun.call(bulk.send()).await?;
    bulk.finish().await?;
    round.end(begun, entries).await
}

async fn batches(round: &mut Round<'_>, table: &Table, step: Step, draw: Draw) -> Outcome<StepRun> {
    let entries = round.work.entries(round.data_bytes);
    let mut begun = round.begin(step).await?;
    let mut operations = 0;
    while is_time(round, &begun)? {
        let numbers: Vec<u64> = (0..round.work.batch_keys)
            .map(|_| draw.entry(entries, &mut round.random))
            .collect();
        let keys = numbers.iter().map(|&number| data::key(number));
        let values = begun.call(table.get_many(keys)).await?;
        for (&number, value) in numbers.iter().zip(&values) {
            check(round, number, value.as_deref())?;
        }
        operations += values.len() as u64;
    }
    round.end(begun, operations).await
}

async fn singles(round: &mut Round<'_>, table: &Table, step: Step, draw: Draw) -> Outcome<StepRun> {
    let entries = round.work.entries(round.data_bytes);
    let mut begun = round.begin(step).await?;
    let mut operations = 0;
    while is_time(round, &begun)? {
        let number = draw.entry(entries, &mut round.random);
        let value = begun.call(table.get(data::key(number))).await?;
        check(round, number, value.as_deref())?;
        operations += 1;
    }
    round.end(begun, operations).await
}

async fn scan(round: &Round<'_>, table: &Table, entries: u64) -> Outcome<StepRun> {
    let begun = round.begin(Step::Scan).await?;
    let mut stream = table.iter();
    let mut seen = 0;
    let mut sum = 0u64;
    while let Some(entry) = stream.next().await {
        let (key, value) = entry?;
        let number = data::number_of(&key)
            .ok_or_else(|| Failure::plain("a scan returned a key that was never written"))?;
        check(round, number, Some(&value))?;
        seen += 1;
        sum = sum.wrapping_add(data::mix(number));
        if seen % SCAN_PART == 0 {
            round.done(seen, entries)?;
        }
    }
    let run = round.end(begun, seen).await?;
    let whole = (0..entries).fold(0u64, |sum, number| sum.wrapping_add(data::mix(number)));
    if seen != entries || sum != whole {
        return Err(Failure::plain(format!(
            "a scan returned {} entries, not each of the {} that were written once",
            count(seen),
            count(entries)
        )));
    }
    Ok(run)
}

/// Whether a step of gets still has time; it always has for its first call.
pub(super) fn is_time(round: &Round<'_>, begun: &Begun) -> Outcome<bool> {
    let (elapsed, time) = (begun.elapsed(), round.work.get_time);
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    round.done(micros(elapsed), micros(time))?;
    Ok(elapsed < time)
}

fn check(round: &Round<'_>, number: u64, value: Option<&[u8]>) -> Outcome {
    match value {
        Some(value) if data::is_value(number, value, round.work.value_bytes) => Ok(()),
        Some(value) => Err(Failure::plain(format!(
            "entry {number} came back with {} bytes that are not those written",
            value.len()
        ))),
        None => Err(Failure::plain(format!("entry {number} was not found"))),
    }
}
