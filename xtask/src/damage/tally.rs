//! Counts what came of the cases, by kind of file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::base::FileKind;
use super::case::{Ending, Outcome};
use super::repaired::Kept;
use crate::failure::Failure;

/// Violations that are shown; the others are counted.
const SHOWN_MAX: usize = 20;
/// It says how far it is after so many cases.
const SAID_EVERY: u64 = 500;

/// What came of the cases on one kind of file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Row {
    cases: u64,
    whole: u64,
    gave_up: u64,
    refused: u64,
    errors: u64,
    violated: u64,
    /// Repairs that found damage, and what they kept.
    repairs: u64,
    kept: Kept,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: BTreeMap<FileKind, Row>,
    /// Cases that ended their process, or did not end.
    lost: u64,
    cases: u64,
    violated: u64,
    shown: usize,
    /// Where all violations are written down.
    file: Option<File>,
}

impl Tally {
    /// One that writes down all violations in a file.
    pub(super) fn with_file(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure::new(path.display(), error))?;
        Ok(Self {
            file: Some(file),
            ..Self::default()
        })
    }

    /// Counts a case, and says what was wrong with it.
    pub(super) fn take(&mut self, number: u64, outcome: &Outcome) {
        let row = self.rows.entry(outcome.kind).or_default();
        row.cases += 1;
        match outcome.ending {
            Ending::Whole => row.whole += 1,
            Ending::GaveUp => row.gave_up += 1,
            Ending::Refused => row.refused += 1,
            Ending::Errors => row.errors += 1,
        }
        if let Some(kept) = outcome.kept {
            row.repairs += 1;
            row.kept.right += kept.right;
            row.kept.keys += kept.keys;
        }
        if !outcome.violations.is_empty() {
            row.violated += 1;
            self.show(number, &outcome.story, &outcome.violations);
        }
        self.count();
    }

    /// Counts a case whose process did not live to tell.
    pub(super) fn take_end(&mut self, number: u64, how: String) {
        self.lost += 1;
        self.show(number, "see --case for what it did", &[how]);
        self.count();
    }

    fn count(&mut self) {
        self.cases += 1;
        if self.cases.is_multiple_of(SAID_EVERY) {
            say!("xtask: damage: {} cases", self.cases);
        }
    }

    fn show(&mut self, number: u64, story: &str, violations: &[String]) {
        self.violated += 1;
        self.shown += 1;
        if let Some(file) = &mut self.file {
            // The first ones are shown as well.
            writeln!(
                file,
                "case {number}: {story}\n    {}",
                violations.join("\n    ")
            )
            .ok();
        }
        if self.shown <= SHOWN_MAX {
            say!("xtask: damage: case {number}: {story}");
            for violation in violations {
                say!("xtask: damage:     {violation}");
            }
        }
    }

    /// How many cases there were, and how many had something that must not be.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.cases, self.violated)
    }

    /// Cases in which the server noticed the damage.
    pub(super) fn noticed(&self) -> u64 {
        let rows = self.rows.values();
        rows.map(|row| row.gave_up + row.refused + row.errors).sum()
    }

    /// The table.
    pub(super) fn say(&self) {
        say!(
            "{:<20} {:>7} {:>10} {:>9} {:>9} {:>8} {:>9} {:>9} {:>11}",
            "damaged",
            "cases",
            "all right",
            "end lost",
            "refused",
            "errors",
            "repaired",
            "keys kept",
            "violations"
        );
        for (kind, row) in &self.rows {
            say!(
                "{:<20} {:>7} {:>10} {:>9} {:>9} {:>8} {:>9} {:>8.2}% {:>11}",
                kind.name(),
                row.cases,
                row.whole,
                row.gave_up,
                row.refused,
                row.errors,
                row.repairs,
                100.0 * row.kept.right as f64 / row.kept.keys.max(1) as f64,
                row.violated
            );
        }
        if self.lost > 0 {
            say!("{} cases ended their process, or did not end", self.lost);
        }
        if self.shown > SHOWN_MAX {
            say!("{} more cases had violations", self.shown - SHOWN_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_by_kind_and_ending() {
        let mut tally = Tally::default();
        let mut outcome = Outcome {
            kind: FileKind::Run,
            ending: Ending::Errors,
            story: String::new(),
            violations: Vec::new(),
            said: None,
            kept: Some(Kept { right: 1, keys: 2 }),
        };
        tally.take(0, &outcome);
        outcome.ending = Ending::Whole;
        outcome.violations.push("wrong".to_owned());
        tally.take(1, &outcome);
        tally.take_end(2, "hung".to_owned());
        assert_eq!((tally.counts(), tally.noticed()), ((3, 2), 1));
        let row = Row {
            cases: 2,
            whole: 1,
            errors: 1,
            violated: 1,
            repairs: 2,
            kept: Kept { right: 2, keys: 4 },
            ..Row::default()
        };
        assert_eq!(tally.rows[&FileKind::Run], row);
    }
}
