//! How rates change while a table grows from far below the limit to far beyond it.
//!
//! One table of lists grows in steps. At each: entries of 16 + 100 bytes are loaded up to it; 8 bytes
//! are appended to lists picked by lot, blind; lists picked by lot are read, and looked at.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use rhash_client::{BytesCodec, CachePolicy, Client, List, RemoteHash, blocking};
use rhash_harness::{
    Group, Lines, Meter, Options, Place, Report, Result, RhashServer, Series, ServerOptions, Unit,
    say,
    workload::{Entries, KEY_BYTES, Pick, VALUE_BYTES},
};

/// Chart the rates of loads, appends and gets while a table grows.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench scale --", max_term_width = 100)]
struct Scale {
    #[command(flatten)]
    options: Options,

    /// Grow to so many entries. Default: 100 M, with --quick 10 M.
    #[arg(long, value_name = "COUNT")]
    entries: Option<u64>,

    /// The server's limit, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    limit: u64,

    /// Do not run the server in a memory group of its limit, a quarter more, and 32 MiB.
    #[arg(long)]
    no_group: bool,
}

/// The first step.
const ENTRIES_MIN: u64 = 1_000_000;
/// Appends at each step, at most.
const APPENDS_MAX: u64 = 2_000_000;
/// What is appended.
const APPENDED_BYTES: usize = 8;
/// Clients that read, and keys that each asks for at once.
const READERS: usize = 4;
const BATCH_KEYS: usize = 100;
/// How long is read at each step.
const READ_SPAN: Duration = Duration::from_secs(3);

const WORKLOAD: &str = "scale";
const TABLE: &str = "scale";
const METRICS: [&str; 3] = ["load", "append", "get in batches"];

type Bulk = blocking::Bulk<Vec<u8>, List<u8>, BytesCodec>;
type Lists = RemoteHash<Vec<u8>, List<u8>, BytesCodec>;

fn main() -> ExitCode {
    match run(&Scale::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("scale: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(scale: &Scale) -> Result<()> {
    let most = scale.options.pick(100_000_000, 10_000_000);
    let most = scale.entries.unwrap_or(most);
    let limit_bytes = scale.limit << 20;
    let place = Place::prepare("scale", &scale.options)?;
    let mut report = Report::begin("scale", &scale.options, &place)?;
    report.fact("limit", format!("{} MiB", scale.limit));
    let mut sizes: Vec<u64> = std::iter::successors(Some(ENTRIES_MIN), |size| Some(size * 2))
        .take_while(|&size| size < most)
        .collect();
    sizes.push(most);
    for round in 0..scale.options.runs() {
        let group = (!scale.no_group)
            .then(|| Group::create_or_say("scale", limit_bytes * 5 / 4 + (32 << 20)))
            .flatten();
        report.fact("memory group", group.is_some());
        let data = place.empty_directory("data")?;
        let server = RhashServer::start(
            &place,
            &ServerOptions {
                limit_bytes,
                data: Some(&data),
                group: group.as_ref(),
                ..ServerOptions::default()
            },
        )?;
        let growth = Growth {
            entries: Entries::new(scale.options.seed),
            server,
            round: round.into(),
        };
        growth.run(&sizes, &mut report)?;
        if let Some(group) = &group
            && group.kills() > 0
        {
            return Err("the kernel killed the server for want of memory".into());
        }
    }
    finish(&report, &sizes, limit_bytes)
}

fn finish(report: &Report, sizes: &[u64], limit_bytes: u64) -> Result<()> {
    let series: Vec<_> = METRICS
        .iter()
        .map(|&metric| Series {
            name: metric.to_owned(),
            points: sizes
                .iter()
                .filter_map(|&size| {
                    let median = report.figures().median(WORKLOAD, &name_of(size), metric)?;
                    Some((size as f64, median))
                })
                .collect(),
        })
        .collect();
    let entry_bytes = (KEY_BYTES + VALUE_BYTES) as u64;
    let marks: Vec<_> = [1, 8, 20]
        .iter()
        .map(|times| {
            let entries = (limit_bytes * times / entry_bytes) as f64;
            (entries, format!("{times}x the limit"))
        })
        .filter(|&(entries, _)| {
            let most = sizes.last().copied().unwrap_or(0) as f64;
            entries > ENTRIES_MIN as f64 && entries <= most
        })
        .collect();
    let title = format!("Rates by size, limit {} MiB", limit_bytes >> 20);
    let lines = Lines {
        title: &title,
        subtitle: &report.machine_line(),
        x: ("entries", Unit::Count),
        y: ("a second", Unit::PerSecond),
        series: &series,
        marks: &marks,
    };
    report.finish_lines(WORKLOAD, &title, &lines)
}

/// What a size is called.
fn name_of(entries: u64) -> String {
    format!("{:.1} M", entries as f64 / 1e6)
}

struct Growth {
    entries: Entries,
    server: RhashServer,
    round: u64,
}

impl Growth {
    fn run(&self, sizes: &[u64], report: &mut Report) -> Result<()> {
        let mut before = 0;
        for &size in sizes {
            let name = name_of(size);
            let meter = Meter::start(self.server.id())?;
            let load = self.load(before, size)?;
            let append = self.append(size)?;
            let get = self.get(size)?;
            let usage = meter.stop()?;
            for (metric, rate) in METRICS.iter().zip([load, append, get]) {
                say(format_args!(
                    "{name}, {metric}: {}",
                    Unit::PerSecond.show(rate)
                ));
                report.add(WORKLOAD, &name, metric, Unit::PerSecond, rate);
            }
            let memory = usage.memory_bytes_max as f64;
            report.add(WORKLOAD, &name, "memory, most", Unit::Bytes, memory);
            report.add(
                WORKLOAD,
                &name,
                "server CPU",
                Unit::Seconds,
                usage.cpu_seconds,
            );
            let disk = self.server.disk_bytes() as f64;
            report.add(WORKLOAD, &name, "on disk", Unit::Bytes, disk);
            before = size;
        }
        Ok(())
    }

    fn bulk(&self) -> Result<Bulk> {
        let client = blocking::Client::connect(self.server.address())?;
        let table: blocking::RemoteHash<Vec<u8>, List<u8>, BytesCodec> =
            client.table(TABLE).open()?;
        Ok(table.bulk())
    }

    /// Loads entries from one number to below another.
    fn load(&self, from: u64, to: u64) -> Result<f64> {
        let mut bulk = self.bulk()?;
        let begin = Instant::now();
        for number in from..to {
            bulk.insert(&self.entries.key(number)[..], self.entries.value(number))?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        Ok((to - from) as f64 / begin.elapsed().as_secs_f64())
    }

    /// Appends its own number to lists below this one.
    fn append(&self, size: u64) -> Result<f64> {
        let count = (size / 10).min(APPENDS_MAX);
        let mut random = fastrand::Rng::with_seed(size + self.round);
        let mut bulk = self.bulk()?;
        let begin = Instant::now();
        for _ in 0..count {
            let number = random.u64(0..size);
            bulk.append(&self.entries.key(number)[..], &number.to_le_bytes()[..])?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }

    /// Reads lists below this one.
    fn get(&self, size: u64) -> Result<f64> {
        let counts = thread::scope(|scope| {
            let read = |reader: u64| {
                let random = fastrand::Rng::with_seed(size * 31 + self.round * 7 + reader);
                scope.spawn(move || self.get_alone(size, random))
            };
            let readers: Vec<_> = (0..READERS as u64).map(read).collect();
            let rates = readers.into_iter().map(|reader| reader.join());
            rates
                .map(|rate| rate.unwrap_or_else(|_panic| Err("a reader ended in a bug".into())))
                .collect::<Result<Vec<f64>>>()
        })?;
        Ok(counts.iter().sum())
    }

    fn get_alone(&self, size: u64, mut random: fastrand::Rng) -> Result<f64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let pick = Pick::uniform(size);
        runtime.block_on(async {
            let client = Client::connect(self.server.address()).await?;
            let table = client.table(TABLE).cache_policy(CachePolicy::None);
            let table: Lists = table.open().await?;
            let mut count = 0;
            let begin = Instant::now();
            while begin.elapsed() < READ_SPAN {
                let numbers: Vec<_> = (0..BATCH_KEYS).map(|_| pick.draw(&mut random)).collect();
                let keys = numbers
                    .iter()
                    .map(|&number| self.entries.key(number).to_vec());
                let lists = table.get_many(keys).await?;
                for (&number, list) in numbers.iter().zip(lists) {
                    if !list.is_some_and(|list| self.is_right(number, &list)) {
                        return Err(format!("entry {number} of {size} is wrong or lost").into());
                    }
                }
                count += BATCH_KEYS;
            }
            let rate = count as f64 / begin.elapsed().as_secs_f64();
            client.shutdown().await?;
            Ok(rate)
        })
    }

    /// A list is its entry's value, and behind it its own number, as often as it was appended to.
    fn is_right(&self, number: u64, list: &[u8]) -> bool {
        let Some((value, appended)) = list.split_at_checked(VALUE_BYTES) else {
            return false;
        };
        let (numbers, rest) = appended.as_chunks::<APPENDED_BYTES>();
        let own = number.to_le_bytes();
        value == self.entries.value(number) && rest.is_empty() && numbers.iter().all(|n| *n == own)
    }
}
