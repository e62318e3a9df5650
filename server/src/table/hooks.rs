//! Points at which tests stop a thread, to force an interleaving.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

/// Where threads meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Point {
    /// An interval left the hot map; nothing of its run is written.
    SpillFrozen,
    /// The interval's run is written, and not taken in.
    SpillWritten,
    /// A merged run is written, and not taken in.
    MergeWritten,
    /// A batch's key was looked up in RAM; nothing below was read.
    BatchLooked,
    /// A conditional batch's keys were read; nothing was applied.
    ConditionalLooked,
    /// A scan's page was looked up in RAM; nothing below was read.
    ScanLooked,
}

type Hook = Arc<dyn Fn(Point) + Send + Sync>;

/// What is called at each point.
#[derive(Default)]
pub(crate) struct Hooks {
    hook: Mutex<Option<Hook>>,
}

impl Hooks {
    /// Calls `hook` at each point from now on.
    pub(crate) fn set(&self, hook: impl Fn(Point) + Send + Sync + 'static) {
        *self.hook.lock() = Some(Arc::new(hook));
    }

    /// A thread is at `point`.
    pub(crate) fn reached(&self, point: Point) {
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            hook(point);
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Hooks")
    }
}
