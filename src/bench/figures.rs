//! What steps gave: of one round, and of all rounds together.

use std::time::Duration;

use rhash_client::Stats;
use serde::Serialize;

use super::{
    round::Latencies,
    step::Step,
    watch::{Peak, Sample},
};

/// What a server did and took during a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ServerFigures {
    /// The most memory that was seen.
    pub(crate) memory_bytes_max: u64,
    /// The disk in use at the end.
    pub(crate) disk_bytes: u64,
    /// The most disk that was seen.
    pub(crate) disk_bytes_max: u64,
    pub(crate) spilled_bytes: u64,
    pub(crate) merged_bytes: u64,
    pub(crate) cold_reads: u64,
    pub(crate) promoted_entries: u64,
    /// How long writers were made to wait.
    pub(crate) stall_ms: u64,
}

impl ServerFigures {
    /// The difference that a step made.
    pub(crate) fn between(before: &Stats, after: &Stats, peak: Peak) -> Self {
        let grown = |figure: fn(&Stats) -> u64| figure(after).saturating_sub(figure(before));
        Self {
            memory_bytes_max: peak.memory_bytes,
            disk_bytes: after.disk_bytes,
            disk_bytes_max: peak.disk_bytes,
            spilled_bytes: grown(|stats| stats.spilled_bytes),
            merged_bytes: grown(|stats| stats.merged_bytes),
            cold_reads: grown(|stats| stats.cold_reads),
            promoted_entries: grown(|stats| stats.promoted_entries),
            stall_ms: grown(|stats| stats.stall_ms),
        }
    }
}

/// A step of one round.
#[derive(Debug, Clone)]
pub(crate) struct StepRun {
    pub(crate) step: Step,
    /// Since the watch began.
    pub(crate) began_seconds: f64,
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    pub(crate) server: ServerFigures,
    pub(crate) latencies: Latencies,
}

impl StepRun {
    fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds().max(1e-9)
    }
}

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (figures.first(), figures.last()) else {
            return Self {
                median: 0.0,
                least: 0.0,
                most: 0.0,
            };
        };
        // Of two in the middle, that between them.
        let (left, right) = ((figures.len() - 1) / 2, figures.len() / 2);
        Self {
            median: f64::midpoint(figures[left], figures[right]),
            least,
            most,
        }
    }
}

/// The percentiles of all latencies of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// What was timed.
    pub(crate) call: &'static str,
    pub(crate) calls: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

/// A step over all rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StepFigures {
    pub(crate) step: Step,
    /// What is counted; nothing where only the time counts.
    pub(crate) unit: Option<&'static str>,
    /// Things done in the median round.
    pub(crate) operations: u64,
    pub(crate) per_second: Option<Spread>,
    pub(crate) seconds: Spread,
    pub(crate) latency: Option<Percentiles>,
    /// The greatest of all rounds for memory and disk, medians for the others.
    pub(crate) server: ServerFigures,
}

impl StepFigures {
    /// Puts the runs of one step together; at least one.
    pub(crate) fn of(runs: &[&StepRun]) -> Option<Self> {
        let step = runs.first()?.step;
        let mut latencies = Latencies::new().ok()?;
        for run in runs {
            latencies.join(&run.latencies);
        }
        let of = |figure: fn(&StepRun) -> f64| Spread::of(runs.iter().map(|run| figure(run)));
        Some(Self {
            step,
            unit: step.unit(),
            operations: of(|run| run.operations as f64).median as u64,
            per_second: step.unit().map(|_| of(StepRun::rate)),
            seconds: of(StepRun::seconds),
            latency: step
                .call()
                .map(|call| percentiles(call, &latencies))
                .filter(|percentiles| percentiles.calls > 0),
            server: server_figures(runs),
        })
    }
}

fn percentiles(call: &'static str, latencies: &Latencies) -> Percentiles {
    Percentiles {
        call,
        calls: latencies.count(),
        p50_ms: latencies.percentile_ms(50.0),
        p90_ms: latencies.percentile_ms(90.0),
        p99_ms: latencies.percentile_ms(99.0),
        p999_ms: latencies.percentile_ms(99.9),
        max_ms: latencies.percentile_ms(100.0),
    }
}

fn server_figures(runs: &[&StepRun]) -> ServerFigures {
    let figures = || runs.iter().map(|run| run.server);
    let most = |figure: fn(ServerFigures) -> u64| figures().map(figure).max().unwrap_or(0);
    let median = |figure: fn(ServerFigures) -> u64| {
        Spread::of(figures().map(|run| figure(run) as f64)).median as u64
    };
    ServerFigures {
        memory_bytes_max: most(|run| run.memory_bytes_max),
        disk_bytes: median(|run| run.disk_bytes),
        disk_bytes_max: most(|run| run.disk_bytes_max),
        spilled_bytes: median(|run| run.spilled_bytes),
        merged_bytes: median(|run| run.merged_bytes),
        cold_reads: median(|run| run.cold_reads),
        promoted_entries: median(|run| run.promoted_entries),
        stall_ms: median(|run| run.stall_ms),
    }
}

/// One round on one server.
#[derive(Debug, Clone)]
pub(crate) struct RoundRun {
    pub(crate) steps: Vec<StepRun>,
    pub(crate) samples: Vec<Sample>,
    /// What the server says of itself.
    pub(crate) limit_bytes: u64,
    pub(crate) memory_only: bool,
    pub(crate) round_trip: Duration,
}

/// When a step began, for the chart over time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Mark {
    pub(crate) step: Step,
    pub(crate) seconds: f64,
}

/// One server over all rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SetupFigures {
    pub(crate) name: String,
    pub(crate) limit_bytes: u64,
    pub(crate) memory_only: bool,
    /// Keys and values of each table.
    pub(crate) data_bytes: u64,
    pub(crate) memory_bytes_max: u64,
    pub(crate) disk_bytes_max: u64,
    pub(crate) spilled_bytes: u64,
    pub(crate) round_trip_ms: f64,
    pub(crate) steps: Vec<StepFigures>,
    /// Memory and disk of the first round over time, and where its steps begin.
    pub(crate) samples: Vec<Sample>,
    pub(crate) marks: Vec<Mark>,
}

impl SetupFigures {
    /// Puts the rounds on one server together.
    pub(crate) fn of(name: String, data_bytes: u64, rounds: Vec<RoundRun>) -> Option<Self> {
        let first = rounds.first()?;
        let steps: Vec<StepFigures> = (0..first.steps.len())
            .filter_map(|at| {
                let runs = rounds.iter().filter_map(|round| round.steps.get(at));
                StepFigures::of(&runs.collect::<Vec<_>>())
            })
            .collect();
        let most = |figure: fn(&ServerFigures) -> u64| {
            let steps = steps.iter().map(|step| figure(&step.server));
            steps.max().unwrap_or(0)
        };
        let round_trips = rounds.iter().map(|round| round.round_trip.as_secs_f64());
        Some(Self {
            name,
            limit_bytes: first.limit_bytes,
            memory_only: first.memory_only,
            data_bytes,
            memory_bytes_max: most(|server| server.memory_bytes_max),
            disk_bytes_max: most(|server| server.disk_bytes_max),
            spilled_bytes: steps.iter().map(|step| step.server.spilled_bytes).sum(),
            round_trip_ms: Spread::of(round_trips).median * 1e3,
            marks: first.steps.iter().map(mark).collect(),
            samples: first.samples.clone(),
            steps,
        })
    }
}

fn mark(run: &StepRun) -> Mark {
    Mark {
        step: run.step,
        seconds: run.began_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        for (figures, median) in [
            (&[][..], 0.0),
            (&[3.0], 3.0),
            (&[3.0, 1.0], 2.0),
            (&[9.0, 1.0, 2.0], 2.0),
        ] {
            assert_eq!(Spread::of(figures.iter().copied()).median, median);
        }
        let spread = Spread::of([9.0, 1.0, 2.0]);
        assert_eq!((spread.least, spread.most), (1.0, 9.0));
    }
}
