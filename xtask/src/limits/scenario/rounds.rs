//! Round after round of open, fill past the limit, close: what a round takes, it gives back.

use std::time::Duration;

use rhash_client::{CachePolicy, Client, Durability};
use serde_json::json;

use super::super::data::{Tally, Values, content, is_content, key, mix};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use crate::failure::Failure;

/// Bytes of a value.
const VALUE_BYTES: usize = 1000;
/// Keys of each round that are read back.
const SAMPLED: u64 = 50;
/// Rounds before the first measurement: threads are started, buffers grown.
const WARM_UP: u64 = 10;
/// After the last round the server may take this much more memory and disk than after the first.
const MEMORY_SLACK_BYTES: u64 = 2 << 20;
const DISK_SLACK_BYTES: u64 = 2 << 20;
/// A server at rest for so long has given back what it will: tables are freed behind the answer, memory little by little,
/// and the runtime keeps a thread for blocking work for ten seconds in which there is none.
const REST: Duration = Duration::from_secs(12);

/// What a server holds of the machine.
#[derive(Debug, Clone, Copy)]
struct Held {
    disk_bytes: u64,
    memory_bytes: u64,
    threads: u64,
    descriptors: u64,
}

impl Held {
    fn by(stage: &Stage, id: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().nth(1));
            word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        let files = std::fs::read_dir(format!("/proc/{id}/fd"));
        Self {
            disk_bytes: stage.disk_bytes(),
            memory_bytes: (figure("RssAnon") + figure("RssShmem")) * 1024,
            threads: figure("Threads"),
            descriptors: files.map_or(0, |files| files.count() as u64),
        }
    }
}

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "rounds", Keeping::Spilling)?;
    let rounds = stage.amounts.rounds;
    let entries = stage.mem_limit_bytes / 8 * 10 / VALUE_BYTES as u64;
    let (address, id) = (trial.address(), trial.id());
    let driven = trial.drive(async {
        let client = Client::connect(&address).await?;
        let (mut tally, mut held) = (Tally::default(), Vec::new());
        write_a_small_run(&client).await?;
        for round in 0..WARM_UP + rounds {
            play(&client, mix(stage.seed ^ round), entries, &mut tally).await?;
            if round == WARM_UP || round == WARM_UP + rounds / 2 || round + 1 == WARM_UP + rounds {
                tokio::time::sleep(REST).await;
                held.push(Held::by(stage, id));
            }
        }
        Ok((tally, held))
    });
    let driven = driven.map(|(tally, held)| {
        judge(&held, report);
        tally
    });
    report.figure("rounds", rounds);
    report.figure("bytes_a_round", entries * VALUE_BYTES as u64);
    report.answers(driven);
    trial.finish(report)
}

/// Has the server open the home of small runs, which has threads and files of its own and is not opened before there is
/// one.
async fn write_a_small_run(client: &Client) -> Result<(), Failure> {
    let builder = client.table("small").durability(Durability::None);
    let table: Values = builder.cache_policy(CachePolicy::None).open().await?;
    let mut bulk = table.bulk();
    bulk.insert(key(0, 0), &content(0, VALUE_BYTES)[..])?;
    bulk.finish().await?;
    client.sync().await?;
    table.close().await?;
    Ok(())
}

/// One round; every second one in a named table, every third one ended by a drop or a clear first.
async fn play(client: &Client, seed: u64, entries: u64, tally: &mut Tally) -> Result<(), Failure> {
    let builder = match seed % 2 {
        0 => client.table("round"),
        _ => client.temporary(),
    };
    let table: Values = builder.cache_policy(CachePolicy::None).open().await?;
    let mut bulk = table.bulk();
    for number in 0..entries {
        bulk.insert(
            key(seed, number),
            &content(mix(seed ^ number), VALUE_BYTES)[..],
        )?;
        if bulk.is_full() {
            bulk.send().await?;
        }
    }
    bulk.finish().await?;
    let numbers: Vec<u64> = (0..SAMPLED).map(|at| mix(seed + at) % entries).collect();
    let keys: Vec<_> = numbers.iter().map(|&number| key(seed, number)).collect();
    for (&number, found) in numbers.iter().zip(table.get_many(&keys).await?) {
        let is_right = found.is_some_and(|found| {
            found.len() == VALUE_BYTES && is_content(mix(seed ^ number), 0, &found)
        });
        tally.note(is_right, || format!("round {seed}, entry {number}"));
    }
    if seed.is_multiple_of(3) {
        table.clear().await?;
    }
    table.close().await?;
    Ok(())
}

fn judge(held: &[Held], report: &mut Report) {
    let mut compare = |name: &str, of: fn(&Held) -> u64, slack: u64| {
        let seen: Vec<u64> = held.iter().map(of).collect();
        let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
            return;
        };
        report.check(
            &format!("{name} are where they were"),
            *last <= first + slack,
            format!("{seen:?} after the first rounds, half of them, and the last"),
        );
        report.figure(&format!("{name}_after_first_half_and_last"), json!(seen));
    };
    compare("bytes of disk", |held| held.disk_bytes, DISK_SLACK_BYTES);
    compare(
        "bytes of memory",
        |held| held.memory_bytes,
        MEMORY_SLACK_BYTES,
    );
    compare("threads", |held| held.threads, 0);
    compare("descriptors", |held| held.descriptors, 0);
}
