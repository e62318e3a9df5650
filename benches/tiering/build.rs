//! An index build: the client combines postings until there are 200,000 of them, and appends them to
//! their terms' lists while it combines on; then lists are read, and the table is freed.

use std::time::{Duration, Instant};

use rhash_client::List;
use rhash_harness::{
    Meter, Report, Result, Unit, say,
    workload::{POSTING_BYTES, Postings, PostingsShape, Truth},
};

use crate::{
    Job,
    side::{Served, Side},
    table::{self, Reader},
};

/// Postings that the client combines before it sends them.
const BATCH_POSTINGS: usize = 200_000;
/// Lists of one get.
const BATCH_LISTS: usize = 100;

/// Lets all sides build, in turn.
pub(crate) fn run(job: &Job<'_>, report: &mut Report) -> Result<()> {
    let workload = job.name("build");
    let options = &job.tiering.options;
    let count = job.data_bytes() as usize / POSTING_BYTES;
    let postings = Postings::draw(options.seed, &PostingsShape::text_like(count));
    let truth = postings.truth();
    let size = format!(
        "{:.1} M postings, {} MiB, {} times the limit, {} terms",
        postings.len() as f64 / 1e6,
        postings.bytes() >> 20,
        job.ratio,
        truth.terms().len()
    );
    let work = Work {
        workload: &workload,
        postings: &postings,
        truth: &truth,
        span: job.tiering.get_time,
    };
    job.take_turns(&workload, &size, report, |_, side, served, report| {
        work.run(side, served, report)
    })?;
    let metrics = [
        "rate",
        "settle",
        "server CPU",
        "memory, most",
        "written",
        "on disk",
        "list gets",
        "close",
    ];
    report.finish(&workload, &format!("Index build: {size}"), &metrics)
}

struct Work<'a> {
    workload: &'a str,
    postings: &'a Postings,
    truth: &'a Truth,
    span: Duration,
}

impl Work<'_> {
    fn run(&self, side: Side, served: &Served, report: &mut Report) -> Result<()> {
        let name = side.name();
        let meter = Meter::start(served.server.id())?;
        let begin = Instant::now();
        self.build(served)?;
        let seconds = begin.elapsed().as_secs_f64();
        let settled = served.settle()?;
        let usage = meter.stop()?;
        let stats = served.stats()?;
        let payload = self.postings.bytes() as f64;
        let mut add = |metric, unit, value| report.add(self.workload, name, metric, unit, value);
        add(
            "rate",
            Unit::PerSecond,
            self.postings.len() as f64 / seconds,
        );
        add("time", Unit::Seconds, seconds);
        add("settle", Unit::Seconds, settled.as_secs_f64());
        add("server CPU", Unit::Seconds, usage.cpu_seconds);
        add("memory, most", Unit::Bytes, usage.memory_bytes_max as f64);
        add("written", Unit::Times, usage.written_bytes as f64 / payload);
        add(
            "on disk",
            Unit::Times,
            served.server.disk_bytes() as f64 / payload,
        );
        add("stalled", Unit::Seconds, stats.stall_ms as f64 / 1e3);
        let (rate, p99_us) = self.read(served)?;
        add("list gets", Unit::PerSecond, rate);
        add("list gets, p99", Unit::Microseconds, p99_us);
        let begin = Instant::now();
        table::free(served.server.address())?;
        add("close", Unit::Seconds, begin.elapsed().as_secs_f64());
        say(format_args!("{}, {name}: {seconds:.2} s", self.workload));
        Ok(())
    }

    fn build(&self, served: &Served) -> Result<()> {
        let mut bulk = table::writer::<List<u8>>(served.server.address())?;
        self.postings.combine(BATCH_POSTINGS, |mut batch| {
            for (term, list) in batch.iter() {
                bulk.append(term, list)?;
                if bulk.is_full() {
                    bulk.send()?;
                }
            }
            batch.clear();
            Ok::<_, rhash_client::Error>(batch)
        })?;
        bulk.finish()?;
        Ok(())
    }

    /// Reads lists for a while, and checks them.
    fn read(&self, served: &Served) -> Result<(f64, f64)> {
        let reader = Reader::<List<u8>>::open(served.server.address())?;
        let mut latencies = rhash_harness::Latencies::default();
        let mut lists = 0;
        let begin = Instant::now();
        for terms in self.truth.terms().chunks(BATCH_LISTS).cycle() {
            let keys: Vec<&[u8]> = terms.iter().map(|&term| self.postings.term(term)).collect();
            let values = latencies.time(|| reader.get_many(&keys))?;
            for (&term, value) in terms.iter().zip(&values) {
                let holds = value
                    .as_ref()
                    .is_some_and(|list| self.truth.holds(term, list));
                if !holds {
                    return Err(format!("the list of term {term} is wrong").into());
                }
            }
            lists += values.len();
            if begin.elapsed() >= self.span {
                break;
            }
        }
        let rate = lists as f64 / begin.elapsed().as_secs_f64();
        Ok((rate, latencies.quantile_us(0.99)))
    }
}
