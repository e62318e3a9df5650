//! Building an inverted index: postings are combined by the client until there are 200,000 of them,
//! then appended to their terms' lists, while the next ones are combined.

use std::{sync::mpsc::sync_channel, thread, time::Instant};

use rhash_harness::{
    Meter, Place, Report, Result, Unit, Usage, say,
    workload::{Batch, Postings, PostingsShape, Truth},
};

use crate::{
    options::Peers,
    stores::{Connection, Kind, Side},
};

/// Postings that a client combines before it sends them.
const BATCH_POSTINGS: usize = 200_000;

/// Lists that are asked for at once when they are checked.
const CHECK_LISTS: usize = 100;
/// Lists that are checked after runs other than the first.
const CHECKED_LISTS_MAX: usize = 20_000;

/// An index build by many.
pub(crate) struct Build {
    pub(crate) workload: &'static str,
    pub(crate) postings: usize,
    pub(crate) sides: Vec<Side>,
}

impl Build {
    /// Lets all sides build, in turn.
    pub(crate) fn run(&self, peers: &Peers, place: &Place, report: &mut Report) -> Result<()> {
        let postings = Postings::draw(peers.options.seed, &PostingsShape::text_like(self.postings));
        let truth = postings.truth();
        let size = format!(
            "{:.1} M postings of {} documents, {:.0} MiB, {} terms",
            postings.len() as f64 / 1e6,
            postings.documents(),
            postings.bytes() as f64 / f64::from(1 << 20),
            truth.terms().len()
        );
        say(format_args!("{}: {size}", self.workload));
        report.fact(self.workload, &size);
        let sides = peers.present(&self.sides, self.workload, report);
        peers.take_turns(self.workload, &sides, report, |round, side, report| {
            let ran = Ran {
                workload: self.workload,
                side,
                postings: &postings,
                truth: &truth,
                checks_all: round == 0,
            };
            ran.run(place, report)
        })?;
        let title = format!("Index build: {size}");
        let metrics = ["time", "server CPU", "memory, most", "written", "on disk"];
        report.finish(self.workload, &title, &metrics)
    }
}

struct Ran<'a> {
    workload: &'static str,
    side: Side,
    postings: &'a Postings,
    truth: &'a Truth,
    checks_all: bool,
}

impl Ran<'_> {
    fn run(&self, place: &Place, report: &mut Report) -> Result<()> {
        let name = self.side.name();
        let mut add = |metric: &str, unit, value| {
            report.add(self.workload, &name, metric, unit, value);
        };
        let store = self.side.start(place, self.postings.bytes())?;
        let here = std::process::id();
        let before = Usage::memory_now(store.process().unwrap_or(here))?;
        let meter = Meter::start(store.process().unwrap_or(here))?;
        let mut connection = store.connect(Kind::Lists)?;
        let begin = Instant::now();
        if self.side == Side::Pipe {
            self.build_synchronously(&mut *connection)?;
        } else {
            self.build_overlapped(&mut *connection)?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        store.settle()?;
        let usage = meter.stop()?;
        let disk_bytes = store.disk_bytes();
        say(format_args!("{}, {name}: {seconds:.2} s", self.workload));
        add("time", Unit::Seconds, seconds);
        if self.side == Side::Combine {
            return Ok(());
        }
        // What runs in this process cannot be told apart from the client's own work.
        let (cpu, memory_bytes) = match store.process() {
            Some(_) => ("server CPU", usage.memory_bytes_max),
            None => (
                "CPU with client",
                usage.memory_bytes_max.saturating_sub(before),
            ),
        };
        add(cpu, Unit::Seconds, usage.cpu_seconds);
        add("memory, most", Unit::Bytes, memory_bytes as f64);
        let payload = self.postings.bytes() as f64;
        add("written", Unit::Times, usage.written_bytes as f64 / payload);
        add("on disk", Unit::Times, disk_bytes as f64 / payload);
        for (fact, count) in store.facts()? {
            add(fact, Unit::Count, count);
        }
        let wrong = self.check(&mut *connection)?;
        add("wrong or lost", Unit::Count, wrong as f64);
        let begin = Instant::now();
        connection.free()?;
        add("close", Unit::Seconds, begin.elapsed().as_secs_f64());
        self.judge(wrong, report)
    }

    fn judge(&self, wrong: usize, report: &mut Report) -> Result<()> {
        let name = self.side.name();
        let asked = self.checked().len();
        if wrong == 0 {
            return Ok(());
        }
        if !self.side.may_lose() {
            return Err(format!("{name}: {wrong} of {asked} lists are wrong").into());
        }
        let text = format!(
            "{name} lost or cut lists without an error: its time is not one of the work done"
        );
        report.note(self.workload, text);
        Ok(())
    }

    /// The client combines while a thread of its own sends.
    fn build_overlapped(&self, connection: &mut dyn Connection) -> Result<()> {
        let (full_sender, full) = sync_channel::<Batch<'_>>(0);
        let (empty_sender, empty) = sync_channel::<Batch<'_>>(2);
        drop(empty_sender.try_send(Batch::default()));
        thread::scope(|scope| {
            let sender = scope.spawn(move || -> Result<()> {
                for mut batch in full {
                    connection.append(&batch)?;
                    batch.clear();
                    // Nobody takes the last ones back.
                    drop(empty_sender.try_send(batch));
                }
                connection.finish()
            });
            let combined = self.postings.combine(BATCH_POSTINGS, |batch| {
                full_sender
                    .send(batch)
                    .map_err(|_gone| "the sender ended")?;
                empty.recv().map_err(|_gone| "the sender ended")
            });
            drop(full_sender);
            sender
                .join()
                .map_err(|_panic| "the sender ended in a bug")??;
            combined.map_err(Into::into)
        })
    }

    /// The client waits for each batch.
    fn build_synchronously(&self, connection: &mut dyn Connection) -> Result<()> {
        self.postings.combine(BATCH_POSTINGS, |mut batch| {
            connection.append(&batch)?;
            batch.clear();
            Ok(batch)
        })
    }

    fn checked(&self) -> &[u32] {
        let all = self.truth.terms();
        let count = if self.checks_all {
            all.len()
        } else {
            CHECKED_LISTS_MAX.min(all.len())
        };
        &all[..count]
    }

    /// Asks for lists and counts those that are not as they must be.
    fn check(&self, connection: &mut dyn Connection) -> Result<usize> {
        let mut wrong = 0;
        for terms in self.checked().chunks(CHECK_LISTS) {
            let keys: Vec<_> = terms.iter().map(|&term| self.postings.term(term)).collect();
            connection.get_many(&keys, &mut |index, list| {
                let holds = list.is_some_and(|list| self.truth.holds(terms[index], list));
                wrong += usize::from(!holds);
            })?;
        }
        Ok(wrong)
    }
}
