//! Entries of 16 + 100 bytes: loaded, asked for in batches and one by one, alike and by Zipf's law,
//! scanned, freed.

use std::time::{Duration, Instant};

use fastrand::Rng;
use rhash_harness::{
    Disk, Latencies, Meter, Report, Result, Unit, say,
    workload::{Entries, KEY_BYTES, Pick, VALUE_BYTES},
};

use crate::{
    Job, floor,
    side::{Served, Side},
    table::{self, Reader},
};

/// Keys of a batch of gets.
const BATCH_KEYS: usize = 100;

/// Lets all sides take the entries, in turn.
pub(crate) fn run(job: &Job<'_>, report: &mut Report) -> Result<()> {
    let workload = job.name("entries");
    let options = &job.tiering.options;
    let count = job.data_bytes() / (KEY_BYTES + VALUE_BYTES) as u64;
    let size = format!(
        "{:.2} M entries of 16 + 100 bytes, {} MiB, {} times the limit",
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
        "load",
        "settle",
        "server CPU",
        "memory, most",
        "written",
        "on disk",
        "batches, uniform",
        "batches, uniform, of the disk",
        "batches, Zipf",
        "singles, uniform, p50",
        "singles, uniform, beyond the disk",
        "singles, uniform, p99",
        "singles, Zipf, p50",
        "singles, Zipf, p99",
        "scan",
        "close",
    ];
    report.finish(&workload, &format!("Key and value: {size}"), &metrics)
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
        let name = side.name();
        let mut add = |metric: &str, unit, value| {
            report.add(self.workload, name, metric, unit, value);
        };
        self.load(served, &mut add)?;
        let reader = Reader::<Vec<u8>>::open(served.server.address())?;
        let mut random = Rng::with_seed(self.seed + u64::from(round));
        let picks = [
            ("uniform", Pick::uniform(self.count)),
            ("Zipf", Pick::zipf(self.count)),
        ];
        for (law, pick) in &picks {
            let (rate, mut latencies) = self.read(&reader, pick, BATCH_KEYS, &mut random)?;
            add(&format!("batches, {law}"), Unit::PerSecond, rate);
            let p99 = latencies.quantile_us(0.99);
            add(&format!("batches, {law}, p99"), Unit::Microseconds, p99);
            if side.spills() && *law == "uniform" {
                floor::of_batches(self.disk, rate, &format!("batches, {law}"), &mut add)?;
            }
        }
        for (law, pick) in &picks {
            let (rate, mut latencies) = self.read(&reader, pick, 1, &mut random)?;
            add(&format!("singles, {law}"), Unit::PerSecond, rate);
            for (quantile, share) in [("p50", 0.5), ("p99", 0.99)] {
                let time = latencies.quantile_us(share);
                add(
                    &format!("singles, {law}, {quantile}"),
                    Unit::Microseconds,
                    time,
                );
            }
            if side.spills() && *law == "uniform" {
                let p50 = latencies.quantile_us(0.5);
                floor::of_singles(self.disk, p50, &format!("singles, {law}"), &mut add)?;
            }
        }
        let begin = Instant::now();
        self.scan(&reader)?;
        add(
            "scan",
            Unit::PerSecond,
            self.count as f64 / begin.elapsed().as_secs_f64(),
        );
        let stats = served.stats()?;
        add("cold reads", Unit::Count, stats.cold_reads as f64);
        add("promoted", Unit::Count, stats.promoted_entries as f64);
        let begin = Instant::now();
        table::free(served.server.address())?;
        add("close", Unit::Seconds, begin.elapsed().as_secs_f64());
        Ok(())
    }

    fn load(&self, served: &Served, add: &mut impl FnMut(&str, Unit, f64)) -> Result<()> {
        let meter = Meter::start(served.server.id())?;
        let begin = Instant::now();
        let mut bulk = table::writer::<Vec<u8>>(served.server.address())?;
        for number in 0..self.count {
            bulk.insert(self.entries.key(number), self.entries.value(number))?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        let seconds = begin.elapsed().as_secs_f64();
        let settled = served.settle()?;
        let usage = meter.stop()?;
        let payload = (self.count * (KEY_BYTES + VALUE_BYTES) as u64) as f64;
        add("load", Unit::PerSecond, self.count as f64 / seconds);
        add("settle", Unit::Seconds, settled.as_secs_f64());
        add("server CPU", Unit::Seconds, usage.cpu_seconds);
        add("memory, most", Unit::Bytes, usage.memory_bytes_max as f64);
        add("written", Unit::Times, usage.written_bytes as f64 / payload);
        add(
            "on disk",
            Unit::Times,
            served.server.disk_bytes() as f64 / payload,
        );
        add(
            "stalled",
            Unit::Seconds,
            served.stats()?.stall_ms as f64 / 1e3,
        );
        say(format_args!("{}: load in {seconds:.2} s", self.workload));
        Ok(())
    }

    /// Reads for a while, and checks what comes.
    fn read(
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
            let values = latencies.time(|| match &keys[..] {
                [key] => Ok(vec![reader.get(key)?]),
                keys => reader.get_many(keys),
            })?;
            for (&number, value) in numbers.iter().zip(&values) {
                if value.as_deref() != Some(self.entries.value(number)) {
                    return Err(format!("entry {number} is wrong").into());
                }
            }
            answers += values.len();
        }
        Ok((answers as f64 / begin.elapsed().as_secs_f64(), latencies))
    }

    fn scan(&self, reader: &Reader<Vec<u8>>) -> Result<()> {
        let (mut seen, mut bytes) = (0, 0);
        reader.scan(|key, value| {
            seen += 1;
            bytes += key.len() + value.len();
        })?;
        let expected = self.count as usize * (KEY_BYTES + VALUE_BYTES);
        if seen != self.count || bytes != expected {
            return Err(format!("a scan saw {seen} entries of {}", self.count).into());
        }
        Ok(())
    }
}
