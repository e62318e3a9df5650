//! Shows on a terminal how far a run is. Where the standard error is no terminal, nothing is shown.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{round::STEP_PARTS, step::Step};
use crate::failure::{Failure, Outcome};

/// One line: which round of which server is in which step, and how far.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    stopped: Arc<AtomicBool>,
}

impl Progress {
    /// Shows from now on; `stopped` becomes true when nobody wants to wait any longer.
    pub(crate) fn new(stopped: Arc<AtomicBool>) -> Self {
        let bar = ProgressBar::new(STEP_PARTS);
        let template = "{prefix}  {msg:24} [{wide_bar}] {percent:>3}%  {elapsed_precise}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, stopped }
    }

    /// Names the round and its server.
    pub(crate) fn round(&self, text: String) {
        self.bar.set_prefix(text);
    }

    /// Begins a step.
    pub(crate) fn step(&self, step: Step) {
        self.bar.set_message(step.name());
        self.bar.set_position(0);
    }

    /// How much of the step is done, in parts of [`STEP_PARTS`].
    ///
    /// # Errors
    /// Nobody wants to wait any longer.
    pub(crate) fn at(&self, parts: u64) -> Outcome {
        self.bar.set_position(parts.min(STEP_PARTS));
        if self.stopped.load(Relaxed) {
            return Err(Failure::plain(
                "stopped before the end; no figures were kept",
            ));
        }
        Ok(())
    }

    /// Removes the line.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
