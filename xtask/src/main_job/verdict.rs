//! What came out: checks passed and failed, figures, and the files that keep them.

use serde_json::{Value, json};

use super::counter::Counts;
use super::options::Options;
use super::workplace::Workplace;
use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place::{self, without_home};
use crate::sizes::mebibytes;

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

/// All checks and figures so far.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    checks: Checklist,
    phases: Vec<PhaseResult>,
}

impl Verdict {
    /// Records a check and says it.
    pub(super) fn check(&mut self, name: &str, passed: bool, detail: String) {
        self.checks.check(name, passed, detail);
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
            "machine": place::describe_machine(),
            "counter": counts.report,
            "counter_seconds": counts.seconds,
            "phases": self.phases.iter().map(phase_json).collect::<Vec<_>>(),
            "checks": self.checks.json(),
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
            let told = |value: Option<u64>| value.map_or("-".to_owned(), mebibytes);
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
        self.checks.outcome("main job")
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

#[cfg(test)]
mod tests {
    use super::*;

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
