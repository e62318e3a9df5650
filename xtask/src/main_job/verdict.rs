//! What came out: checks passed and failed, figures, and the files that keep them.

use serde_json::{Value, json};

use super::counter::Counts;
use super::options::Options;
use super::workplace::Workplace;
use crate::failure::Failure;

/// The figures of one phase.
#[derive(Debug, Default)]
pub(super) struct PhaseResult {
    pub(super) name: &'static str,
    pub(super) start_seconds: f64,
    pub(super) index_seconds: Option<f64>,
    pub(super) asked: usize,
    pub(super) differing: usize,
    pub(super) ask_seconds: f64,
    pub(super) searches: usize,
    pub(super) search_seconds: f64,
    pub(super) stop_seconds: f64,
    pub(super) stats_before: Value,
    pub(super) stats_after: Value,
    pub(super) memory: Value,
}

#[derive(Debug)]
struct Check {
    name: String,
    passed: bool,
    detail: String,
}

/// All checks and figures so far.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    checks: Vec<Check>,
    phases: Vec<PhaseResult>,
}

impl Verdict {
    /// Records a check and says it.
    pub(super) fn check(&mut self, name: &str, passed: bool, detail: String) {
        say!(
            "xtask: {} {name}: {detail}",
            if passed { "ok    " } else { "FAILED" }
        );
        self.checks.push(Check {
            name: name.to_owned(),
            passed,
            detail,
        });
    }

    /// Records a phase's figures.
    pub(super) fn add(&mut self, result: PhaseResult) {
        self.phases.push(result);
    }

    /// Prints the table and writes `summary.json`.
    pub(super) fn write(
        &self,
        options: &Options,
        workplace: &Workplace,
        counts: &Counts,
    ) -> Result<(), Failure> {
        say!("\n{}", self.table());
        let path = workplace.results.join("summary.json");
        let summary = json!({
            "command": command(options),
            "corpus": workplace.corpus.iter().map(|p| without_home(&p.to_string_lossy()))
                .collect::<Vec<_>>(),
            "machine": super::describe_machine(),
            "counter": counts.report,
            "counter_seconds": counts.seconds,
            "phases": self.phases.iter().map(phase_json).collect::<Vec<_>>(),
            "checks": self.checks.iter().map(|check| json!({
                "name": check.name, "passed": check.passed, "detail": check.detail,
            })).collect::<Vec<_>>(),
        });
        // Nothing that names this machine's user goes into a file that is kept.
        let text = without_home(&format!("{summary:#}\n"));
        std::fs::write(&path, text).map_err(|error| Failure::new(path.display(), error))?;
        say!(
            "xtask: figures and charts are in {}",
            workplace.results.display()
        );
        Ok(())
    }

    fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<12} {:>9} {:>9} {:>9} {:>11} {:>11} {:>11} {:>8} {:>8} {:>8}",
            "server",
            "start",
            "index",
            "terms",
            "most memory",
            "cold",
            "disk",
            "asked",
            "differ",
            "stop"
        )];
        for phase in &self.phases {
            let seconds = |value: f64| format!("{value:.2} s");
            let told = |value: Option<u64>| value.map_or("-".to_owned(), bytes);
            lines.push(format!(
                "{:<12} {:>9} {:>9} {:>9} {:>11} {:>11} {:>11} {:>8} {:>8} {:>8}",
                phase.name,
                seconds(phase.start_seconds),
                phase.index_seconds.map_or("-".to_owned(), seconds),
                seconds(phase.ask_seconds),
                told(phase.memory["own_bytes_max"].as_u64()),
                told(super::ask::cold_bytes(&phase.stats_before)),
                told(phase.stats_before["disk_bytes"].as_u64()),
                phase.asked,
                phase.differing,
                seconds(phase.stop_seconds),
            ));
        }
        lines.join("\n")
    }

    /// Whether every check passed.
    pub(super) fn outcome(&self) -> Result<(), Failure> {
        let failed: Vec<&str> = self
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|c| c.name.as_str())
            .collect();
        if failed.is_empty() {
            say!("xtask: main job: all {} checks passed", self.checks.len());
            return Ok(());
        }
        let (count, all) = (failed.len(), self.checks.len());
        Err(Failure::Failed(format!(
            "{count} of {all} checks failed: {}",
            failed.join("; ")
        )))
    }
}

/// The command that does it again.
fn command(options: &Options) -> String {
    let mut words = vec![format!(
        "cargo xtask main-job --mem-limit {}",
        options.mem_limit
    )];
    words.push(format!(
        "--sample {} --seed {}",
        options.sample, options.seed
    ));
    if options.skip_memory_only {
        words.push("--skip-memory-only".to_owned());
    } else {
        words.push(format!("--memory-only-limit {}", options.memory_only_limit));
    }
    words.extend(options.paths.iter().map(|path| path.display().to_string()));
    words.join(" ")
}

fn phase_json(phase: &PhaseResult) -> Value {
    json!({
        "name": phase.name,
        "start_seconds": phase.start_seconds,
        "index_seconds": phase.index_seconds,
        "terms_asked": phase.asked,
        "terms_differing": phase.differing,
        "terms_seconds": phase.ask_seconds,
        "searches": phase.searches,
        "searches_seconds": phase.search_seconds,
        "stop_seconds": phase.stop_seconds,
        "stats_before_reading": phase.stats_before,
        "stats_after_reading": phase.stats_after,
        "memory": phase.memory,
    })
}

/// Replaces the home directory by `~`.
fn without_home(text: &str) -> String {
    match std::env::var("HOME") {
        Ok(home) if home.len() > 1 => text.replace(&home, "~"),
        _ => text.to_owned(),
    }
}

/// A number of bytes, for reading.
pub(super) fn bytes(count: u64) -> String {
    format!("{:.1} MiB", count as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_fails_the_whole_and_is_named() {
        let mut verdict = Verdict::default();
        verdict.check("first", true, String::new());
        assert!(verdict.outcome().is_ok());
        verdict.check("second", false, "1 of 2".to_owned());
        let failure = verdict.outcome().unwrap_err();
        assert_eq!(failure.to_string(), "1 of 2 checks failed: second");
    }

    #[test]
    fn the_table_has_a_line_for_each_phase() {
        let mut verdict = Verdict::default();
        verdict.add(PhaseResult {
            name: "limited",
            index_seconds: Some(12.345),
            memory: json!({"own_bytes_max": 30 << 20}),
            ..PhaseResult::default()
        });
        let table = verdict.table();
        assert_eq!(table.lines().count(), 2);
        assert!(
            table.contains("12.35 s") || table.contains("12.34 s"),
            "{table}"
        );
        assert!(table.contains("30.0 MiB"), "{table}");
    }
}
