//! What others notice of a load far beyond the limit: single gets of a working set while spills and merges run at
//! full rate, and gets of what was just loaded, while its merges go on.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rhash_client::Stats;
use rhash_harness::{
    Disk, Latencies, Report, Result, Unit, say,
    workload::{Entries, KEY_BYTES, Pick, VALUE_BYTES},
};

use crate::{
    Job, floor,
    side::{Served, Side},
    table::{self, Reader},
};

/// Entries of the working set: a fraction of the smallest limit.
const WORKING_SET: u64 = 10_000;
/// Each is read so often before the load, so that it is in use.
const READS_BEFORE: u64 = 3;
/// The table of the working set; the load has another one.
const TABLE: &str = "working set";
/// Keys of a batch of gets.
const BATCH_KEYS: usize = 100;

/// Lets the servers that spill take the load, in turn.
pub(crate) fn run(job: &Job<'_>, report: &mut Report) -> Result<()> {
    let workload = job.name("beside");
    let options = &job.tiering.options;
    let count = job.data_bytes() / (KEY_BYTES + VALUE_BYTES) as u64;
    let size = format!(
        "{WORKING_SET} entries read beside a load of {:.2} M entries of 16 + 100 bytes, {} MiB, {} times the limit",
        count as f64 / 1e6,
        job.data_bytes() >> 20,
        job.ratio
    );
    let work = Work {
        workload: &workload,
        entries: Entries::new(options.seed),
        count,
        seed: options.seed,
        span: job.tiering.get_time,
        disk: job.disk,
    };
    job.take_turns(&workload, &size, report, |round, side, served, report| {
        work.run(side, round, served, report)
    })?;
    let metrics = [
        "hot gets, p50",
        "hot gets, p99",
        "hot gets, longest",
        "load",
        "merges meanwhile",
        "batches after it",
        "batches after it, of the disk",
        "singles after it, p50",
        "singles after it, beyond the disk",
        "merges after it",
    ];
    report.finish(&workload, &format!("Beside a load: {size}"), &metrics)
}

struct Work<'a> {
    workload: &'a str,
    entries: Entries,
    count: u64,
    seed: u64,
    span: Duration,
    disk: &'a Disk,
}

impl Work<'_> {
    fn run(&self, side: Side, round: u32, served: &Served, report: &mut Report) -> Result<()> {
        let mut add = |metric: &str, unit, value| {
            report.add(self.workload, side.name(), metric, unit, value);
        };
        let mut random = Rng::with_seed(self.seed + u64::from(round));
        let set = self.working_set(served.server.address())?;
        let before = served.stats()?;
        let loaded = AtomicBool::new(false);
        let begin = Instant::now();
        let (mut latencies, seconds) = thread::scope(|scope| {
            let load = scope.spawn(|| {
                let done = self
                    .load(served.server.address())
                    .map_err(|error| error.to_string());
                loaded.store(true, Relaxed);
                done.map(|()| begin.elapsed().as_secs_f64())
            });
            let read = self.read_hot(&set, &mut random, &loaded);
            let load = load.join().map_err(|_panic| "the load panicked")?;
            Ok::<_, rhash_harness::Error>((read?, load?))
        })?;
        let after = served.stats()?;
        for (metric, share) in [("p50", 0.5), ("p99", 0.99), ("longest", 1.0)] {
            let time = latencies.quantile_us(share);
            add(&format!("hot gets, {metric}"), Unit::Microseconds, time);
        }
        add("load", Unit::PerSecond, self.count as f64 / seconds);
        let merges = |from: &Stats, to: &Stats| (to.merges - from.merges) as f64;
        add("merges meanwhile", Unit::Count, merges(&before, &after));
        say(format_args!("{}: load in {seconds:.2} s", self.workload));

        let reader = Reader::<Vec<u8>>::open(served.server.address())?;
        let pick = Pick::uniform(self.count);
        let (rate, _) = self.read_cold(&reader, &pick, BATCH_KEYS, &mut random)?;
        add("batches after it", Unit::PerSecond, rate);
        let (_, mut latencies) = self.read_cold(&reader, &pick, 1, &mut random)?;
        let time = latencies.quantile_us(0.5);
        add("singles after it, p50", Unit::Microseconds, time);
        let merged = merges(&after, &served.stats()?);
        add("merges after it", Unit::Count, merged);
        if side.spills() {
            // What is under way is no part of what the disk itself can do.
            served.settle()?;
            floor::of_batches(self.disk, rate, "batches after it", &mut add)?;
            floor::of_singles(self.disk, time, "singles after it", &mut add)?;
        }
        Ok(())
    }

    /// Writes the working set, and reads it until it is in use.
    fn working_set(&self, address: &str) -> Result<Reader<Vec<u8>>> {
        let mut bulk = table::writer_of::<Vec<u8>>(address, TABLE)?;
        for number in 0..WORKING_SET {
            bulk.insert(self.entries.key(number), self.entries.value(number))?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        let reader = Reader::open_table(address, TABLE)?;
        let numbers: Vec<u64> = (0..WORKING_SET).collect();
        for _ in 0..READS_BEFORE {
            for batch in numbers.chunks(BATCH_KEYS) {
                let keys: Vec<_> = batch
                    .iter()
                    .map(|&number| self.entries.key(number))
                    .collect();
                self.check(batch, &reader.get_many(&keys)?)?;
            }
        }
        Ok(reader)
    }

    fn load(&self, address: &str) -> Result<()> {
        let mut bulk = table::writer::<Vec<u8>>(address)?;
        for number in 0..self.count {
            bulk.insert(self.entries.key(number), self.entries.value(number))?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        Ok(())
    }

    /// Reads the working set one by one until the load is done.
    fn read_hot(
        &self,
        set: &Reader<Vec<u8>>,
        random: &mut Rng,
        loaded: &AtomicBool,
    ) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        while !loaded.load(Relaxed) {
            let number = random.u64(..WORKING_SET);
            let key = self.entries.key(number);
            let value = latencies.time(|| set.get(&key))?;
            self.check(&[number], &[value])?;
        }
        Ok(latencies)
    }

    /// Reads what was loaded for a while.
    fn read_cold(
        &self,
        reader: &Reader<Vec<u8>>,
        pick: &Pick,
        keys_at_once: usize,
        random: &mut Rng,
    ) -> Result<(f64, Latencies)> {
        let mut latencies = Latencies::default();
        let mut answers = 0;
        let begin = Instant::now();
        while begin.elapsed() < self.span {
            let numbers: Vec<u64> = (0..keys_at_once).map(|_| pick.draw(random)).collect();
            let keys: Vec<_> = numbers
                .iter()
                .map(|&number| self.entries.key(number))
                .collect();
            let values = latencies.time(|| reader.get_many(&keys))?;
            self.check(&numbers, &values)?;
            answers += values.len();
        }
        Ok((answers as f64 / begin.elapsed().as_secs_f64(), latencies))
    }

    fn check(&self, numbers: &[u64], values: &[Option<Vec<u8>>]) -> Result<()> {
        for (&number, value) in numbers.iter().zip(values) {
            if value.as_deref() != Some(self.entries.value(number)) {
                return Err(format!("entry {number} is wrong").into());
            }
        }
        Ok(())
    }
}
