//! An index build: postings gathered into batches and appended to the lists of their terms.

use std::collections::HashMap;
use std::time::Instant;

use rhash_client::{CachePolicy, Client, List, RemoteHash};

use super::super::data::{Tally, mix, zipf};
use super::super::report::Report;
use super::super::trial::{Keeping, Stage, Trial};
use crate::failure::Failure;

/// Terms that there are.
const TERMS: u64 = 500_000;
/// Postings of a batch.
const BATCH: u64 = 200_000;
/// Bytes of a posting.
const POSTING_BYTES: u64 = 8;
/// The most frequent terms, all of which are read back.
const FREQUENT: u64 = 20;
/// Other terms that are read back.
const SAMPLED: u64 = 3000;

type Index = RemoteHash<String, List<u64>>;

/// What a term's list must be: how many postings, and a sum that depends on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Expected {
    count: u64,
    sum: u64,
}

impl Expected {
    fn push(&mut self, posting: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_mul(31).wrapping_add(posting);
    }
}

pub(super) fn run(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let trial = Trial::start(stage, "index", Keeping::Spilling)?;
    let postings = stage.amounts.volume_bytes / POSTING_BYTES;
    let (address, seed) = (trial.address(), stage.seed);
    let driven = trial.drive(async move {
        let client = Client::connect(&address).await?;
        let builder = client.temporary().cache_policy(CachePolicy::None);
        let index: Index = builder.open().await?;
        let began = Instant::now();
        let expected = build(&index, postings, seed).await?;
        let build_seconds = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let tally = read_back(&index, &expected, seed).await?;
        Ok((tally, build_seconds, began.elapsed().as_secs_f64()))
    });
    let driven = driven.map(|(tally, build_seconds, read_seconds)| {
        report.figure("postings", postings);
        report.figure("build_seconds", build_seconds);
        report.figure("read_seconds", read_seconds);
        tally
    });
    report.answers(driven);
    trial.finish(report)
}

async fn build(index: &Index, postings: u64, seed: u64) -> Result<Vec<Expected>, Failure> {
    let mut expected = vec![Expected::default(); TERMS as usize];
    let mut bulk = index.bulk();
    let mut batch: HashMap<u64, Vec<u64>> = HashMap::new();
    for posting in 0..postings {
        let term = zipf(mix(seed ^ posting), TERMS);
        expected[term as usize].push(posting);
        batch.entry(term).or_default().push(posting);
        if posting % BATCH == BATCH - 1 || posting == postings - 1 {
            for (term, list) in batch.drain() {
                bulk.append(name(term), &list)?;
                if bulk.is_full() {
                    bulk.send().await?;
                }
            }
        }
    }
    bulk.finish().await?;
    Ok(expected)
}

async fn read_back(index: &Index, expected: &[Expected], seed: u64) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let sampled = (0..SAMPLED).map(|number| mix(seed + number) % TERMS);
    for term in (0..FREQUENT).chain(sampled) {
        let mut found = Expected::default();
        if let Some(mut list) = index.stream(name(term)).await? {
            while let Some(posting) = list.next().await {
                found.push(posting?);
            }
        }
        let wanted = expected[term as usize];
        tally.note(found == wanted, || {
            format!("term {term}: {found:?}, not {wanted:?}")
        });
    }
    let terms = expected.iter().filter(|term| term.count > 0).count() as u64;
    let found = index.len().await?;
    tally.note(found == terms, || format!("{found} terms, not {terms}"));
    Ok(tally)
}

fn name(term: u64) -> String {
    format!("term{term}")
}
