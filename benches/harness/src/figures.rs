//! Figures of many runs, and what is told of them: the median and the spread.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Microseconds.
    Microseconds,
    /// Things a second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// So many times something.
    Times,
    /// Things.
    Count,
}

impl Unit {
    /// A figure as a reader wants it.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 10.0 => format!("{value:.2} s"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Microseconds => format!("{value:.0} µs"),
            Self::PerSecond => format!("{}/s", thousands(value)),
            Self::Bytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
            Self::BytesPerSecond => format!("{:.0} MiB/s", value / f64::from(1 << 20)),
            Self::Times => format!("{value:.2}x"),
            Self::Count => thousands(value),
        }
    }
}

/// Three digits or so, and a letter for the rest.
fn thousands(value: f64) -> String {
    match value {
        value if value >= 9_995_000.0 => format!("{:.1} M", value / 1e6),
        value if value >= 999_500.0 => format!("{:.2} M", value / 1e6),
        value if value >= 1_000.0 => format!("{:.0} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// What is told of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Summary {
    /// Of these values; none of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min,
            max,
        })
    }
}

/// One figure of one side in one workload, as all runs gave it.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The workload.
    pub workload: String,
    /// Who did it.
    pub side: String,
    /// What was measured.
    pub metric: String,
    /// In which unit.
    pub unit: Unit,
    /// Run by run.
    pub values: Vec<f64>,
    /// Median and spread.
    pub summary: Summary,
}

/// All figures of a bench, in the order in which they first came.
#[derive(Debug, Default)]
pub struct Figures {
    all: Vec<Figure>,
}

impl Figures {
    /// Adds what one run gave.
    pub fn add(&mut self, workload: &str, side: &str, metric: &str, unit: Unit, value: f64) {
        let known = self.all.iter_mut().find(|figure| {
            figure.workload == workload && figure.side == side && figure.metric == metric
        });
        match known {
            Some(figure) => {
                figure.values.push(value);
                if let Some(summary) = Summary::of(&figure.values) {
                    figure.summary = summary;
                }
            }
            None => self.all.push(Figure {
                workload: workload.to_owned(),
                side: side.to_owned(),
                metric: metric.to_owned(),
                unit,
                values: vec![value],
                summary: Summary {
                    median: value,
                    min: value,
                    max: value,
                },
            }),
        }
    }

    /// Those of one workload.
    pub fn of(&self, workload: &str) -> impl Iterator<Item = &Figure> {
        self.all
            .iter()
            .filter(move |figure| figure.workload == workload)
    }

    /// The median of one figure.
    pub fn median(&self, workload: &str, side: &str, metric: &str) -> Option<f64> {
        self.of(workload)
            .find(|figure| figure.side == side && figure.metric == metric)
            .map(|figure| figure.summary.median)
    }

    /// How many runs of a workload a side has behind it.
    pub fn runs(&self, workload: &str, side: &str) -> u32 {
        let figures = self.of(workload).filter(|figure| figure.side == side);
        figures.map(|figure| figure.values.len()).max().unwrap_or(0) as u32
    }

    /// The workloads, in their order.
    pub fn workloads(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for figure in &self.all {
            if !names.contains(&figure.workload.as_str()) {
                names.push(&figure.workload);
            }
        }
        names
    }
}

/// Times of many single operations.
#[derive(Debug, Default)]
pub struct Latencies {
    nanoseconds: Vec<u32>,
}

impl Latencies {
    /// Times an operation.
    pub fn time<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = operation();
        self.add(begin.elapsed());
        result
    }

    /// Adds a time that was taken elsewhere; four seconds and more are all the same.
    pub fn add(&mut self, time: Duration) {
        self.nanoseconds
            .push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Takes over those of another thread.
    pub fn join(&mut self, other: Self) {
        self.nanoseconds.extend(other.nanoseconds);
    }

    /// The time in microseconds that this share of the operations did not exceed.
    pub fn quantile_us(&mut self, share: f64) -> f64 {
        if self.nanoseconds.is_empty() {
            return f64::NAN;
        }
        let rank = ((self.nanoseconds.len() - 1) as f64 * share).round() as usize;
        let (_, &mut value, _) = self.nanoseconds.select_nth_unstable(rank);
        f64::from(value) / 1e3
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { median, min, max } = self.summary;
        out.write_str(&self.unit.show(median))?;
        if self.values.len() > 1 {
            let (min, max) = (self.unit.show(min), self.unit.show(max));
            let unit = |text: &str| text.split_once(' ').map_or("", |(_, unit)| unit).to_owned();
            let number = |text: &str| text.split_once(' ').map_or(text, |(n, _)| n).to_owned();
            if unit(&min) == unit(&max) {
                write!(out, " ({}-{})", number(&min), number(&max))?;
            } else {
                write!(out, " ({min}-{max})")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let odd = Summary::of(&[3.0, 1.0, 100.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (3.0, 1.0, 100.0));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn runs_of_one_figure_come_together() {
        let mut figures = Figures::default();
        for value in [5.0, 4.0, 6.0] {
            figures.add("load", "redis", "time", Unit::Seconds, value);
            figures.add("load", "rhash", "time", Unit::Seconds, value / 2.0);
        }
        assert_eq!(figures.median("load", "redis", "time"), Some(5.0));
        assert_eq!(figures.of("load").count(), 2);
        let line = figures.of("load").next().unwrap().to_string();
        assert_eq!(line, "5.00 s (4.00-6.00)");
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let mut latencies = Latencies::default();
        for microseconds in (1..=101).rev() {
            latencies.add(Duration::from_micros(microseconds));
        }
        assert_eq!(latencies.quantile_us(0.5), 51.0);
        assert_eq!(latencies.quantile_us(0.99), 100.0);
        assert_eq!(latencies.quantile_us(1.0), 101.0);
    }
}
