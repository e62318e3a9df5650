//! Steps on a table of lists: an index build, whose client gathers postings by term and hands them
//! over in batches, as `rhash index` does; reading lists; closing.

use rhash_client::{BytesCodec, CachePolicy, List, RemoteHash};

use super::{
    data::{self, POSTING_BYTES, Zipf},
    figures::StepRun,
    plan::Work,
    round::Round,
    step::Step,
    values::is_time,
};
use crate::failure::{Failure, Outcome};

type Table = RemoteHash<Vec<u8>, List<u8>, BytesCodec>;

/// The postings that the client gathers before it sends them.
const GATHERED_MAX: usize = 200_000;

/// How unequal terms are: that of words in text.
const TERMS_EXPONENT: f64 = 1.0;

/// The postings of a document, of a few pages.
const POSTINGS_PER_DOCUMENT: u64 = 200;

/// The bits of a gathered posting that tell its place; the others tell its term.
const PLACE_BITS: u32 = 32;

/// What the lists must be: for each term the number of its postings, and their sum.
#[derive(Debug)]
struct Tally {
    postings: Vec<u64>,
    sums: Vec<u64>,
}

/// Runs the steps.
///
/// # Errors
/// The server failed or gave a wrong answer.
pub(super) async fn run(round: &mut Round<'_>) -> Outcome<Vec<StepRun>> {
    let open = round.client.temporary().cache_policy(CachePolicy::None);
    let table: Table = open.open().await?;
    let (built, tally) = build(round, &table).await?;
    let mut runs = vec![built, round.settle(Step::IndexSettle).await?];
    runs.push(gets(round, &table, &tally).await?);
    let begun = round.begin(Step::IndexClose).await?;
    table.close().await?;
    runs.push(round.end(begun, 0).await?);
    Ok(runs)
}

async fn build(round: &mut Round<'_>, table: &Table) -> Outcome<(StepRun, Tally)> {
    let postings = Work::postings(round.data_bytes);
    let terms = Work::terms(round.data_bytes);
    let zipf = Zipf::new(terms, TERMS_EXPONENT);
    let mut tally = Tally {
        postings: vec![0; terms as usize],
        sums: vec![0; terms as usize],
    };
    let mut begun = round.begin(Step::IndexBuild).await?;
    let mut bulk = table.bulk();
    let mut gathered: Vec<u64> = Vec::with_capacity(GATHERED_MAX);
    let mut list: Vec<u8> = Vec::new();
    let mut sent = 0;
    while sent < postings {
        let part = (postings - sent).min(GATHERED_MAX as u64);
        gathered.clear();
        gathered.extend((0..part).map(|at| (zipf.rank(&mut round.random) << PLACE_BITS) | at));
        // By term, and in the order of the documents within one.
        gathered.sort_unstable();
        for group in gathered.chunk_by(|left, right| left >> PLACE_BITS == right >> PLACE_BITS) {
            let term = group[0] >> PLACE_BITS;
            list.clear();
            for place in group {
                let at = sent + (place & u64::from(u32::MAX));
                let document = at / POSTINGS_PER_DOCUMENT;
                list.extend_from_slice(&document.to_le_bytes());
                tally.add(term, document);
            }
            bulk.append(data::term(term), &list[..])?;
            if bulk.is_full() {
                begun.call(bulk.send()).await?;
            }
        }
        sent += part;
        round.done(sent, postings)?;
    }
    begun.call(bulk.send()).await?;
    bulk.finish().await?;
    let run = round.end(begun, postings).await?;
    Ok((run, tally))
}

async fn gets(round: &mut Round<'_>, table: &Table, tally: &Tally) -> Outcome<StepRun> {
    let terms = tally.postings.len() as u64;
    let mut begun = round.begin(Step::ListGets).await?;
    let mut operations = 0;
    while is_time(round, &begun)? {
        let drawn: Vec<u64> = (0..round.work.batch_keys)
            .map(|_| round.random.u64(0..terms))
            .collect();
        let keys = drawn.iter().map(|&term| data::term(term));
        let lists = begun.call(table.get_many(keys)).await?;
        for (&term, list) in drawn.iter().zip(&lists) {
            tally.check(term, list.as_deref().unwrap_or_default())?;
        }
        operations += lists.len() as u64;
    }
    round.end(begun, operations).await
}

impl Tally {
    fn add(&mut self, term: u64, document: u64) {
        let term = term as usize;
        self.postings[term] += 1;
        self.sums[term] = self.sums[term].wrapping_add(document);
    }

    fn check(&self, term: u64, list: &[u8]) -> Outcome {
        let at = term as usize;
        let parts = list.chunks_exact(POSTING_BYTES);
        let sum = parts.clone().fold(0u64, |sum, part| {
            let mut posting = [0; POSTING_BYTES];
            posting.copy_from_slice(part);
            sum.wrapping_add(u64::from_le_bytes(posting))
        });
        if list.len() as u64 == self.postings[at] * POSTING_BYTES as u64 && sum == self.sums[at] {
            return Ok(());
        }
        Err(Failure::plain(format!(
            "the list of term {term} came back with {} bytes that are not the {} postings that \
             were appended",
            list.len(),
            self.postings[at]
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_lost_a_posting_or_have_another_are_noticed() {
        let mut tally = Tally {
            postings: vec![0; 2],
            sums: vec![0; 2],
        };
        tally.add(1, 7);
        tally.add(1, 8);
        let list = |postings: &[u64]| -> Vec<u8> {
            postings
                .iter()
                .flat_map(|posting| posting.to_le_bytes())
                .collect()
        };
        assert!(tally.check(0, &[]).is_ok());
        assert!(tally.check(1, &list(&[7, 8])).is_ok());
        for wrong in [&[7][..], &[7, 9], &[7, 8, 0]] {
            assert!(tally.check(1, &list(wrong)).is_err(), "{wrong:?}");
        }
        assert!(tally.check(1, &list(&[7, 8])[1..]).is_err());
    }
}
