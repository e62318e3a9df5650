//! What a bench leaves: a table on the terminal, and for each workload JSON and charts.

use std::{fs, path::Path};

use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value, json};

use crate::{Bars, Figures, Floors, Lines, Machine, Options, Place, Result, Unit, say, table};

/// Gathers figures and writes them down.
#[derive(Debug)]
pub struct Report {
    bench: String,
    machine: Machine,
    floors: Floors,
    seed: u64,
    runs: u32,
    command: String,
    facts: Map<String, Value>,
    notes: Vec<(String, String)>,
    figures: Figures,
    place_results: std::path::PathBuf,
}

impl Report {
    /// Looks at the machine and measures its floors.
    ///
    /// # Errors
    /// The floors cannot be measured.
    pub fn begin(bench: &str, options: &Options, place: &Place) -> Result<Self> {
        let words = told(std::env::args().skip(1));
        let separator = if words.is_empty() { "" } else { " -- " };
        let report = Self {
            bench: bench.to_owned(),
            machine: Machine::look(),
            floors: Floors::measure(place.work(), options.quick)?,
            seed: options.seed,
            runs: options.runs(),
            command: format!("cargo bench --bench {bench}{separator}{}", words.join(" ")),
            facts: Map::new(),
            notes: Vec::new(),
            figures: Figures::default(),
            place_results: place.results().to_owned(),
        };
        say(report.machine.line());
        say(report.floors.line());
        say(format_args!("seed {}", report.seed));
        Ok(report)
    }

    /// The machine's floors.
    pub fn floors(&self) -> &Floors {
        &self.floors
    }

    /// All figures so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Says something about the workloads that a reader needs: how much data, which limit.
    pub fn fact(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.facts.insert(name.to_owned(), value);
    }

    /// Says once that something about a workload is not as one would think: a program that is
    /// missing, data that were lost.
    pub fn note(&mut self, workload: &str, text: impl Into<String>) {
        let note = (workload.to_owned(), text.into());
        if !self.notes.contains(&note) {
            say(format_args!("{}: {}", note.0, note.1));
            self.notes.push(note);
        }
    }

    /// Adds what one run gave.
    pub fn add(&mut self, workload: &str, side: &str, metric: &str, unit: Unit, value: f64) {
        self.figures.add(workload, side, metric, unit, value);
    }

    /// Takes over what an earlier call left of a workload, if its seed and source were these, and so
    /// were the facts so far.
    pub fn go_on(&mut self, workload: &str) {
        let text = fs::read(self.path(workload, "json")).unwrap_or_default();
        let Ok(earlier) = serde_json::from_slice::<Value>(&text) else {
            return;
        };
        let same_facts = self
            .facts
            .iter()
            .all(|(name, value)| earlier["facts"][name] == *value);
        if !same_facts
            || earlier["seed"] != self.seed
            || earlier["machine"]["source"] != self.machine.source
        {
            return;
        }
        let all = |name: &str| earlier[name].as_array().cloned().unwrap_or_default();
        for note in all("notes") {
            self.note(workload, note.as_str().unwrap_or_default());
        }
        for figure in all("figures") {
            let text = |name: &str| figure[name].as_str().unwrap_or_default();
            let Ok(unit) = Unit::deserialize(&figure["unit"]) else {
                continue;
            };
            let values = figure["values"].as_array().cloned().unwrap_or_default();
            for value in values.iter().filter_map(Value::as_f64) {
                self.add(workload, text("side"), text("metric"), unit, value);
            }
        }
    }

    /// Prints the table of a workload, and writes `WORKLOAD.json` and `WORKLOAD.svg` with bars for
    /// these metrics.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn finish(&self, workload: &str, title: &str, metrics: &[&str]) -> Result<()> {
        self.write(workload, title)?;
        let bars = Bars {
            title,
            subtitle: &self.machine_line(),
            notes: &self.notes_of(workload),
            figures: &self.figures,
            workload,
            metrics,
        };
        bars.write(&self.path(workload, "svg"))
    }

    /// As [`finish`](Self::finish), with a chart of lines instead of bars.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn finish_lines(&self, workload: &str, title: &str, lines: &Lines<'_>) -> Result<()> {
        self.write(workload, title)?;
        lines.write(&self.path(workload, "svg"))
    }

    /// The machine in short, for the foot of a chart.
    pub fn machine_line(&self) -> String {
        let runs = match self.runs {
            1 => "one run".to_owned(),
            runs => format!("medians of {runs} runs, lines from least to most"),
        };
        format!(
            "{}, {} cores; {runs}; {}",
            self.machine.processor, self.machine.cores, self.command
        )
    }

    fn write(&self, workload: &str, title: &str) -> Result<()> {
        let notes = self.notes_of(workload);
        table::print(title, self.figures.of(workload), &notes)?;
        let figures: Vec<_> = self.figures.of(workload).collect();
        let all = json!({
            "bench": self.bench,
            "workload": workload,
            "title": title,
            "command": self.command,
            "seed": self.seed,
            "runs": self.runs,
            "machine": self.machine,
            "floors": self.floors,
            "facts": self.facts,
            "notes": notes,
            "figures": figures,
        });
        let mut text = serde_json::to_string_pretty(&all)?;
        text.push('\n');
        write(&self.path(workload, "json"), &text)
    }

    fn notes_of(&self, workload: &str) -> Vec<&str> {
        let notes = self.notes.iter();
        notes
            .filter(|note| note.0 == workload || note.0.is_empty())
            .map(|note| note.1.as_str())
            .collect()
    }

    fn path(&self, workload: &str, kind: &str) -> std::path::PathBuf {
        self.place_results.join(format!("{workload}.{kind}"))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Options that say where things lie on this machine, which changes nothing about figures.
const PLACES: [&str; 3] = ["--work", "--results", "--bin-dir"];

/// The words of a command line that others need to run the same.
fn told(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut told = Vec::new();
    let mut is_place = false;
    for word in words {
        let (name, value) = word
            .split_once('=')
            .map_or((&*word, None), |(name, value)| (name, Some(value)));
        if is_place {
            is_place = false;
        } else if PLACES.contains(&name) {
            is_place = value.is_none();
        } else if word != "--bench" {
            told.push(word);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_without_the_places_of_this_machine() {
        let line = "--bench --runs 3 --work /a --only build --bin-dir=/b --results /c --quick";
        let words = told(line.split(' ').map(str::to_owned));
        assert_eq!(words.join(" "), "--runs 3 --only build --quick");
    }
}
