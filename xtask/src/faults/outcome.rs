//! What came of one case.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::cases::Case;
use super::client::Board;
use super::control::Control;

/// What came of a case.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) group: String,
    pub(super) name: String,
    /// Calls that failed.
    pub(super) hits: u64,
    pub(super) acked: u64,
    pub(super) refused: u64,
    pub(super) reads: u64,
    pub(super) reads_failed: u64,
    pub(super) log_failed: bool,
    /// How long after the last fault a new write was acknowledged.
    pub(super) resumed: Option<Duration>,
    /// What must not be.
    pub(super) wrong: Vec<String>,
    /// The errors that clients were told, and what else is worth a look.
    notes: Vec<String>,
}

impl Outcome {
    /// What the disk and the clients saw.
    pub(super) fn new(case: &Case, control: &Control, board: &Board) -> Self {
        let errors = board.errors().into_iter();
        Self {
            group: case.group.clone(),
            name: case.name.clone(),
            hits: control.hits(),
            acked: board.acked.load(Relaxed),
            refused: board.refused.load(Relaxed),
            reads: board.reads.load(Relaxed),
            reads_failed: board.reads_failed.load(Relaxed),
            log_failed: false,
            resumed: None,
            wrong: board.all_wrong(),
            notes: errors
                .map(|(what, text)| format!("{what}: {text}"))
                .collect(),
        }
    }

    pub(super) fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    pub(super) fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    /// One line, and one more for each note.
    pub(super) fn lines(&self) -> String {
        let resumed = match self.resumed {
            Some(after) => format!("writes again after {} ms", after.as_millis()),
            None => "no writes again".to_owned(),
        };
        let failed = if self.log_failed { ", log failed" } else { "" };
        let mut lines = format!(
            "{}: {} hits, {} acked, {} refused, {} reads, {} of them failed, {resumed}{failed}",
            self.name, self.hits, self.acked, self.refused, self.reads, self.reads_failed
        );
        for note in &self.notes {
            lines.push_str("\n    ");
            lines.push_str(note);
        }
        for wrong in &self.wrong {
            lines.push_str("\n    WRONG: ");
            lines.push_str(wrong);
        }
        lines
    }
}
