//! An index that is built while its connection is cut again and again and its server is ended and started: it must
//! equal one that was built in peace, list by list.
//!
//! It is built as `rhash index` builds one: lengths and records of documents first, then postings, appended to lists
//! in batches that follow each other without waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rhash_client::{BytesCodec, CachePolicy, Client, List, RemoteHash};

use super::proxy::{Plan, Proxy};
use super::rig::Rig;
use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::server::Server;

/// Terms that there are, and those of a load, by Zipf's law.
const VOCABULARY: u64 = 4000;
const LOAD_TERMS: usize = 400;
const LOAD_DOCUMENTS: u64 = 20;
/// Terms of a batch.
const BATCH_TERMS: usize = 50;
/// The postings of a term in one load.
const POSTINGS_BYTES_MAX: usize = 80;
/// A connection carries so many bytes at most before it is cut: some batches.
const UP_BYTES_MAX: u64 = 64 << 10;
const DOWN_BYTES_MAX: u64 = 2000;
/// At least so much is built, and at most.
const LOADS_MIN: u64 = 50;
const LOADS_MAX: u64 = 20_000;
/// How often it looks whether the server is to be ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// No end of a server, and not the whole build, takes longer.
const DEADLINE: Duration = Duration::from_secs(600);
/// Servers are away for less than this.
const PATIENCE: Duration = Duration::from_secs(300);
const BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

type Values = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;
type Lists = RemoteHash<Vec<u8>, List<u8>, BytesCodec>;

/// The tables of an index, as `rhash index` names them; the last one has lists.
const NAMES: [&str; 3] = ["index.lengths", "index.documents", "index"];

/// All that an index holds, by table.
pub(super) type Whole = [BTreeMap<Vec<u8>, Vec<u8>>; 3];

/// What is sent at once.
struct Load {
    lengths: (Vec<u8>, Vec<u8>),
    documents: Vec<(Vec<u8>, Vec<u8>)>,
    postings: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Load {
    fn new(seed: u64, number: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let bytes = |rng: &mut Rng, bytes_max: usize| {
            let mut bytes = vec![0; rng.usize(1..=bytes_max)];
            rng.fill(&mut bytes);
            bytes
        };
        let lengths = (number.to_be_bytes().to_vec(), bytes(&mut rng, 64));
        let first = number * LOAD_DOCUMENTS;
        let documents = first..first + LOAD_DOCUMENTS;
        let documents = documents
            .map(|document| (document.to_be_bytes().to_vec(), bytes(&mut rng, 120)))
            .collect();
        let mut terms: Vec<u64> = (0..LOAD_TERMS).map(|_| zipf(&mut rng)).collect();
        terms.sort_unstable();
        terms.dedup();
        let postings = terms.into_iter().map(|term| {
            let term = format!("term {term}").into_bytes();
            (term, bytes(&mut rng, POSTINGS_BYTES_MAX))
        });
        Self {
            lengths,
            documents,
            postings: postings.collect(),
        }
    }
}

/// A term by Zipf's law with exponent 1: the first is the most frequent.
fn zipf(rng: &mut Rng) -> u64 {
    let rank = ((VOCABULARY as f64 + 1.0).ln() * rng.f64()).exp() as u64;
    rank.clamp(1, VOCABULARY) - 1
}

/// The open tables of an index.
struct Tables {
    lengths: Values,
    documents: Values,
    postings: Lists,
}

impl Tables {
    async fn open(client: &Client) -> Result<Self, Failure> {
        let [lengths, documents, postings] =
            NAMES.map(|name| client.table(name).cache_policy(CachePolicy::None));
        Ok(Self {
            lengths: lengths.open().await?,
            documents: documents.open().await?,
            postings: postings.open().await?,
        })
    }

    async fn send(&self, load: &Load) -> Result<(), Failure> {
        let mut bulk = self.lengths.bulk();
        bulk.insert(&load.lengths.0, &load.lengths.1)?;
        bulk.finish().await?;
        let mut bulk = self.documents.bulk();
        for (number, record) in &load.documents {
            bulk.insert(number, record)?;
        }
        bulk.finish().await?;
        let mut bulk = self.postings.bulk();
        for batch in load.postings.chunks(BATCH_TERMS) {
            for (term, postings) in batch {
                bulk.append(term, postings)?;
            }
            bulk.send().await?;
        }
        bulk.finish().await?;
        Ok(())
    }
}

/// What the builder and the one who ends servers tell each other.
#[derive(Debug, Default)]
struct Progress {
    restarts: AtomicU64,
}

/// Builds the index through a proxy and in peace, and compares.
pub(super) fn run(rig: &Rig<'_>, checks: &mut Checklist) -> Result<(), Failure> {
    let options = rig.options;
    let mut server = rig.start("index", None)?;
    let address = server.address().to_owned();
    let plan = Plan {
        cuts: options.cuts,
        up_bytes: (1, UP_BYTES_MAX),
        down_bytes: (1, DOWN_BYTES_MAX),
        once: false,
        seed: options.seed,
    };
    let proxy = Arc::new(rig.runtime.block_on(Proxy::start(&address, plan))?);
    let progress = Arc::new(Progress::default());
    let building = rig.runtime.spawn(build(
        Arc::clone(&proxy),
        Arc::clone(&progress),
        (options.cuts, options.restarts),
        options.seed,
    ));
    let began = Instant::now();
    let mut killed = 0;
    while !building.is_finished() {
        if began.elapsed() > DEADLINE {
            building.abort();
            return Err(Failure::Failed(format!(
                "the index is not built within {DEADLINE:?}: {:?}, {progress:?}",
                proxy.figures()
            )));
        }
        let ends = progress.restarts.load(Relaxed);
        let is_due = proxy.figures().cuts * (options.restarts + 1) >= options.cuts * (ends + 1);
        if ends < options.restarts && is_due {
            let by_kill = ends.is_multiple_of(2);
            killed += u64::from(by_kill);
            end(&mut server, by_kill)?;
            server = rig.start(&format!("index-{ends}"), Some(&address))?;
            progress.restarts.fetch_add(1, Relaxed);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    let loads = rig.runtime.block_on(building)??;
    let seconds = began.elapsed().as_secs_f64();
    // What was acknowledged has to survive this one, too.
    server.kill(DEADLINE)?;
    server = rig.start("index-last", Some(&address))?;
    let figures = proxy.figures();
    let cut = rig.runtime.block_on(read(address))?;
    server.stop(DEADLINE)?;
    let uncut = build_in_peace(rig, loads)?;
    compare(rig, &cut, &uncut, loads, checks);
    let name = format!("{}: the build was cut and its server was ended", rig.level);
    let detail = format!(
        "{} cuts ({} on the way to the server, {} back, {} inside of a frame), {} ends of the server \
         ({killed} of them kills), {loads} loads, {seconds:.1} s",
        figures.cuts, figures.up, figures.down, figures.in_frames, options.restarts,
    );
    let enough = figures.cuts >= options.cuts && figures.up > 0 && figures.down > 0;
    checks.check(&name, enough, detail);
    Ok(())
}

/// Kills a server, or stops it.
fn end(server: &mut Server, by_kill: bool) -> Result<(), Failure> {
    if by_kill {
        server.kill(DEADLINE)?;
        return Ok(());
    }
    let status = server.stop(DEADLINE)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Failed(format!("a server stopped with {status}")))
}

/// Builds until there were enough cuts and ends; says how many loads that took.
async fn build(
    proxy: Arc<Proxy>,
    progress: Arc<Progress>,
    (cuts, restarts): (u64, u64),
    seed: u64,
) -> Result<u64, Failure> {
    let client = Client::builder()
        .request_timeout(PATIENCE)
        .retry_deadline(PATIENCE)
        .backoff(BACKOFF[0]..=BACKOFF[1]);
    let client = connect(client, &proxy.address()).await?;
    let tables = Tables::open(&client).await?;
    for number in 0..LOADS_MAX {
        let is_enough = proxy.figures().cuts >= cuts && progress.restarts.load(Relaxed) >= restarts;
        if is_enough && number >= LOADS_MIN {
            client.shutdown().await?;
            return Ok(number);
        }
        tables.send(&Load::new(seed, number)).await?;
    }
    Err(Failure::Failed(format!(
        "{LOADS_MAX} loads are built, and there were no {cuts} cuts and {restarts} ends: {:?}",
        proxy.figures()
    )))
}

/// Connects, though the first connections may be cut: a client that never was connected does not try again.
async fn connect(builder: rhash_client::ClientBuilder, address: &str) -> Result<Client, Failure> {
    let began = Instant::now();
    loop {
        match builder.clone().connect(address).await {
            Ok(client) => return Ok(client),
            Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
            Err(_cut) => {}
        }
    }
}

/// Builds the same on a server of its own, without a proxy.
fn build_in_peace(rig: &Rig<'_>, loads: u64) -> Result<Whole, Failure> {
    let mut server = rig.start("peace", None)?;
    let (address, seed) = (server.address().to_owned(), rig.options.seed);
    let whole = rig.runtime.block_on(async move {
        let client = Client::connect(&address).await?;
        let tables = Tables::open(&client).await?;
        for number in 0..loads {
            tables.send(&Load::new(seed, number)).await?;
        }
        client.shutdown().await?;
        read(address).await
    })?;
    server.stop(DEADLINE)?;
    Ok(whole)
}

/// All that is in an index.
pub(super) async fn read(address: String) -> Result<Whole, Failure> {
    let client = Client::connect(&address).await?;
    let tables = Tables::open(&client).await?;
    let mut whole = Whole::default();
    for (table, into) in [&tables.lengths, &tables.documents]
        .into_iter()
        .zip(&mut whole)
    {
        let mut entries = table.iter();
        while let Some(entry) = entries.next().await {
            let (key, value) = entry?;
            into.insert(key, value);
        }
    }
    let mut entries = tables.postings.iter();
    while let Some(entry) = entries.next().await {
        let (term, postings) = entry?;
        whole[2].insert(term, postings);
    }
    client.shutdown().await?;
    Ok(whole)
}

/// What the index must hold, without any server.
fn expected(seed: u64, loads: u64) -> Whole {
    let mut whole = Whole::default();
    for number in 0..loads {
        let load = Load::new(seed, number);
        whole[0].insert(load.lengths.0, load.lengths.1);
        whole[1].extend(load.documents);
        for (term, postings) in load.postings {
            whole[2].entry(term).or_default().extend(postings);
        }
    }
    whole
}

fn compare(rig: &Rig<'_>, cut: &Whole, uncut: &Whole, loads: u64, checks: &mut Checklist) {
    let expected = expected(rig.options.seed, loads);
    for (what, other) in [
        ("one that was built without cuts", uncut),
        ("what was sent", &expected),
    ] {
        let differing = all_differing(cut, other);
        let entries: usize = cut.iter().map(BTreeMap::len).sum();
        let bytes: usize = cut.iter().flat_map(BTreeMap::values).map(Vec::len).sum();
        let mut detail = format!(
            "{} of {entries} entries ({bytes} bytes) differ",
            differing.len()
        );
        for difference in differing.iter().take(3) {
            detail.push_str("; ");
            detail.push_str(difference);
        }
        let name = format!("{}: the index equals {what}, list by list", rig.level);
        checks.check(&name, differing.is_empty() && entries > 0, detail);
    }
}

/// The entries of all tables that are not the same in both.
pub(super) fn all_differing(one: &Whole, other: &Whole) -> Vec<String> {
    let tables = NAMES.iter().zip(one.iter().zip(other));
    tables
        .flat_map(|(name, (one, other))| differing(name, one, other))
        .collect()
}

/// The keys that are not the same in both.
fn differing(
    table: &str,
    one: &BTreeMap<Vec<u8>, Vec<u8>>,
    other: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> Vec<String> {
    let keys = one
        .keys()
        .chain(other.keys().filter(|key| !one.contains_key(*key)));
    let differs = |key: &&Vec<u8>| one.get(*key) != other.get(*key);
    keys.filter(differs)
        .map(|key| {
            let bytes = |map: &BTreeMap<Vec<u8>, Vec<u8>>| map.get(key).map(Vec::len);
            let key = String::from_utf8_lossy(key);
            format!(
                "{table} {key}: {:?} bytes, not {:?}",
                bytes(one),
                bytes(other)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_longer_or_missing_differs() {
        let whole = expected(3, 5);
        assert_eq!(whole[1].len() as u64, 5 * LOAD_DOCUMENTS);
        assert!(differing("t", &whole[2], &expected(3, 5)[2]).is_empty());
        let mut other = whole.clone();
        let first = other[2].keys().next().cloned().unwrap();
        other[2].get_mut(&first).unwrap().push(1);
        assert_eq!(differing("t", &whole[2], &other[2]).len(), 1);
        other[2].remove(&first);
        assert_eq!(differing("t", &whole[2], &other[2]).len(), 1);
        assert_eq!(differing("t", &other[2], &whole[2]).len(), 1);
    }
}
