//! One round: all steps on one server, each measured from its first call to its last answer.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rhash_client::{Client, Stats};

use super::{
    figures::{ServerFigures, StepRun},
    lists,
    plan::Work,
    progress::Progress,
    step::Step,
    values,
    watch::Watch,
};
use crate::failure::{Failure, Outcome};

/// Progress within a step is told in this many parts.
pub(crate) const STEP_PARTS: u64 = 1000;

/// A server rests when nothing was spilled or merged for so long.
const RESTS_AFTER: Duration = Duration::from_millis(400);

/// How often it is asked whether it rests.
const RESTS_EVERY: Duration = Duration::from_millis(50);

/// A server that does not rest is no longer waited for.
const RESTS_DEADLINE: Duration = Duration::from_secs(120);

/// The longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// What a round is run with.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    pub(crate) client: &'a Client,
    pub(crate) work: &'a Work,
    pub(crate) data_bytes: u64,
    pub(crate) watch: &'a Watch,
    pub(crate) progress: &'a Progress,
    pub(crate) random: fastrand::Rng,
}

/// A step that is being measured.
#[derive(Debug)]
pub(crate) struct Begun {
    step: Step,
    stats: Stats,
    seconds: f64,
    at: Instant,
    latencies: Latencies,
}

/// The latencies of the calls of a step.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    nanoseconds: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Outcome<Self> {
        let nanoseconds = Histogram::new_with_max(nanoseconds(LATENCY_MAX), LATENCY_DIGITS)
            .map_err(|error| Failure::plain(format!("latencies cannot be counted: {error}")))?;
        Ok(Self { nanoseconds })
    }

    fn record(&mut self, time: Duration) {
        self.nanoseconds.saturating_record(nanoseconds(time));
    }

    /// Counts those of another round too.
    pub(crate) fn join(&mut self, other: &Self) {
        // Both have the same bounds, so all fits.
        let _joined = self.nanoseconds.add(&other.nanoseconds);
    }

    pub(crate) fn count(&self) -> u64 {
        self.nanoseconds.len()
    }

    /// The latency in milliseconds that so many of a hundred calls do not exceed.
    pub(crate) fn percentile_ms(&self, percentile: f64) -> f64 {
        self.nanoseconds.value_at_percentile(percentile) as f64 / 1e6
    }
}

impl Begun {
    /// Times one call.
    pub(crate) async fn call<T>(
        &mut self,
        call: impl Future<Output = rhash_client::Result<T>>,
    ) -> Outcome<T> {
        let asked = Instant::now();
        let answer = call.await?;
        self.latencies.record(asked.elapsed());
        Ok(answer)
    }

    /// The time since the step began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }
}

impl Round<'_> {
    /// Runs all steps that are wanted.
    ///
    /// # Errors
    /// The server failed, gave a wrong answer, or nobody wants to wait any longer.
    pub(crate) async fn run(&mut self) -> Outcome<Vec<StepRun>> {
        let mut runs = Vec::new();
        if self.work.lists {
            runs.extend(lists::run(self).await?);
        }
        if self.work.values {
            runs.extend(values::run(self).await?);
        }
        Ok(runs)
    }

    /// Begins a step.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn begin(&self, step: Step) -> Outcome<Begun> {
        self.progress.step(step);
        let stats = self.client.stats().await?;
        self.watch.begin(&stats);
        Ok(Begun {
            step,
            stats,
            seconds: self.watch.seconds(),
            latencies: Latencies::new()?,
            at: Instant::now(),
        })
    }

    /// Tells how far a step is that has a known amount of work.
    ///
    /// # Errors
    /// Nobody wants to wait any longer.
    pub(crate) fn done(&self, part: u64, whole: u64) -> Outcome {
        let parts = u128::from(part) * u128::from(STEP_PARTS) / u128::from(whole.max(1));
        self.progress.at(u64::try_from(parts).unwrap_or(STEP_PARTS))
    }

    /// Ends a step in which so many things were done.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn end(&self, begun: Begun, operations: u64) -> Outcome<StepRun> {
        let elapsed = begun.at.elapsed();
        self.end_after(begun, operations, elapsed).await
    }

    async fn end_after(
        &self,
        begun: Begun,
        operations: u64,
        elapsed: Duration,
    ) -> Outcome<StepRun> {
        let stats = self.client.stats().await?;
        let peak = self.watch.end(&stats);
        Ok(StepRun {
            step: begun.step,
            began_seconds: begun.seconds,
            operations,
            elapsed,
            server: ServerFigures::between(&begun.stats, &stats, peak),
            latencies: begun.latencies,
        })
    }

    /// Waits until the server has spilled and merged what it wants to; the time is that until the
    /// last change that was seen.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn settle(&self, step: Step) -> Outcome<StepRun> {
        let begun = self.begin(step).await?;
        let mut seen = marks(&begun.stats);
        let mut changed = Duration::ZERO;
        while begun.elapsed() < RESTS_DEADLINE && begun.elapsed() - changed < RESTS_AFTER {
            tokio::time::sleep(RESTS_EVERY).await;
            let now = marks(&self.client.stats().await?);
            if now != seen {
                (seen, changed) = (now, begun.elapsed());
            }
            self.progress.at(0)?;
        }
        self.end_after(begun, 0, changed).await
    }
}

/// What changes while a server spills or merges.
fn marks(stats: &Stats) -> [u64; 4] {
    [
        stats.spilled_bytes,
        stats.merges,
        stats.merged_bytes,
        stats.disk_bytes,
    ]
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
