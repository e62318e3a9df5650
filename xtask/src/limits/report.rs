//! What came out of scenarios: checks, figures, and the files that keep them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::data::Tally;
use super::options::Options;
use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place::{describe_machine, without_home};
use crate::sizes::mebibytes;

mod chart;

/// What came out of one scenario.
#[derive(Debug)]
pub(super) struct Report {
    scenario: &'static str,
    limit_bytes: u64,
    checks: Checklist,
    figures: Map<String, Value>,
    parts: Vec<Value>,
}

impl Report {
    /// Nothing yet.
    pub(super) fn new(scenario: &'static str, limit_bytes: u64) -> Self {
        Self {
            scenario,
            limit_bytes,
            checks: Checklist::default(),
            figures: Map::new(),
            parts: Vec::new(),
        }
    }

    /// Records a check.
    pub(super) fn check(&mut self, name: &str, passed: bool, detail: String) {
        let name = format!("{}: {name}", self.scenario);
        self.checks.check(&name, passed, detail);
    }

    /// Records a figure.
    pub(super) fn figure(&mut self, name: &str, figure: impl Into<Value>) {
        self.figures.insert(name.to_owned(), figure.into());
    }

    /// Records answers that were checked, or why there are none.
    pub(super) fn answers(&mut self, driven: Result<Tally, Failure>) {
        match driven {
            Ok(tally) => {
                let example = tally.example.unwrap_or_default();
                let detail = format!("{} of {} wrong {example}", tally.wrong, tally.asked);
                let passed = tally.wrong == 0 && tally.asked > 0;
                self.check("every answer is right", passed, detail);
                self.figure("answers_checked", tally.asked);
            }
            Err(failure) => self.check("every answer is right", false, failure.to_string()),
        }
    }

    /// Holds what the sampler saw against the limit.
    pub(super) fn judge_memory(&mut self, part: &str, memory: &Value) {
        let most = memory["own_bytes_max"].as_u64().unwrap_or(u64::MAX);
        let passed = most <= self.limit_bytes && memory["samples"].as_u64() > Some(0);
        let detail = format!(
            "at most {} of {}, at {} s of {}, {} samples",
            mebibytes(most),
            mebibytes(self.limit_bytes),
            memory["own_bytes_max_at_seconds"],
            memory["seconds"],
            memory["samples"]
        );
        let name = format!("{part}: RssAnon + RssShmem stay under the limit");
        self.check(&name, passed, detail);
    }

    /// Sees whether the kernel killed what was in the control group.
    pub(super) fn judge_cgroup(&mut self, part: &str, figures: &Value) {
        let passed = figures["killed"].as_u64() == Some(0);
        let bytes = |name: &str| mebibytes(figures[name].as_u64().unwrap_or(0));
        let detail = format!(
            "killed {}, at most {} of {}",
            figures["killed"],
            bytes("used_bytes_max"),
            bytes("limit_bytes")
        );
        let name = format!("{part}: it is not killed in its control group");
        self.check(&name, passed, detail);
    }

    /// Keeps what is known of one server.
    pub(super) fn add_part(&mut self, part: Value) {
        self.parts.push(part);
    }

    /// The figures, for the eye.
    pub(super) fn figures(&self) -> String {
        Value::Object(self.figures.clone()).to_string()
    }

    /// The checks.
    pub(super) fn into_checks(self) -> Checklist {
        self.checks
    }
}

/// The file that keeps what came out under one limit. Scenarios that are run again take the place
/// of what is there.
#[derive(Debug)]
pub(super) struct Summary {
    path: PathBuf,
    limit_bytes: u64,
    command: String,
    content: Map<String, Value>,
}

impl Summary {
    /// Reads what is there.
    pub(super) fn open(options: &Options, results: &Path) -> Result<Self, Failure> {
        let group = if options.cgroup { "-cgroup" } else { "" };
        let path = results.join(format!("{}{group}.json", options.mem_limit));
        let content = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Failure::new(path.display(), error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(Failure::new(path.display(), error)),
        };
        Ok(Self {
            path,
            limit_bytes: options.mem_limit_bytes,
            command: command(options),
            content,
        })
    }

    /// Keeps a scenario's report, and draws the chart of all.
    pub(super) fn take(&mut self, report: &Report) -> Result<(), Failure> {
        self.content.insert(
            report.scenario.to_owned(),
            json!({
                "command": format!("{} --only {}", self.command, report.scenario),
                "machine": describe_machine(),
                "figures": report.figures,
                "checks": report.checks.json(),
                "parts": report.parts,
            }),
        );
        let text = format!("{:#}\n", Value::Object(self.content.clone()));
        self.write("json", &without_home(&compact_lists(&text)))?;
        self.write("svg", &chart::draw(&self.content, self.limit_bytes))
    }

    fn write(&self, extension: &str, text: &str) -> Result<(), Failure> {
        let path = self.path.with_extension(extension);
        std::fs::write(&path, text).map_err(|error| Failure::new(path.display(), error))
    }
}

/// Puts lists of numbers on one line each.
fn compact_lists(text: &str) -> String {
    let mut compact = String::with_capacity(text.len());
    let mut in_numbers = false;
    for line in text.lines() {
        let word = line.trim();
        let is_number = word.trim_end_matches(',').parse::<f64>().is_ok();
        let begins = is_number && !in_numbers;
        let ends = in_numbers && !is_number;
        if begins || ends || is_number {
            // The line break after the list's bracket, or after the last number, goes.
            if compact.ends_with('\n') {
                compact.pop();
            }
            if is_number && !begins {
                compact.push(' ');
            }
            compact.push_str(word);
        } else {
            compact.push_str(line);
        }
        compact.push('\n');
        in_numbers = is_number;
    }
    compact
}

/// The command that does it again, but for the scenario.
fn command(options: &Options) -> String {
    let limit = &options.mem_limit;
    let group = if options.cgroup { " --cgroup" } else { "" };
    let amounts = &options.amounts;
    format!(
        "cargo xtask limits --mem-limit {limit}{group} --volume {} --entries {} --list {} \
         --tables {} --connections {} --seconds {} --rounds {} --close {} --keys {} --seed {}",
        amounts.volume_bytes,
        amounts.entries,
        amounts.list_bytes,
        amounts.tables,
        amounts.connections,
        amounts.busy.as_secs(),
        amounts.rounds,
        amounts.close_bytes,
        amounts.cold_keys,
        options.seed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_take_one_line() {
        let value = json!({ "a": [1, 2.5, 3], "b": 4, "c": ["x"] });
        let text = compact_lists(&format!("{value:#}\n"));
        assert!(text.contains("\"a\": [1, 2.5, 3],\n"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn no_answer_at_all_is_a_failure() {
        let mut report = Report::new("index", 1);
        report.answers(Ok(Tally::default()));
        assert!(!report.into_checks().all_passed());
    }

    #[test]
    fn one_byte_too_much_is_seen() {
        let mut report = Report::new("index", 1000);
        report.judge_memory("it", &json!({ "own_bytes_max": 1000, "samples": 3 }));
        assert!(report.checks.all_passed());
        report.judge_memory("it", &json!({ "own_bytes_max": 1001, "samples": 3 }));
        assert!(!report.checks.all_passed());
    }
}
