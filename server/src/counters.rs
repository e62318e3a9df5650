//! What the engine counts for `stats`.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Counters since the start; each is exact, but they are not read at one moment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Entries that spills wrote.
    pub(crate) spilled_entries: AtomicU64,
    /// Bytes that spills wrote.
    pub(crate) spilled_bytes: AtomicU64,
    /// Entries that reads brought back to RAM.
    pub(crate) promoted_entries: AtomicU64,
    /// Merges done.
    pub(crate) merges: AtomicU64,
    /// Bytes that merges wrote.
    pub(crate) merged_bytes: AtomicU64,
    /// Requests that waited for RAM.
    pub(crate) stalls: Stalls,
    /// Spills that waited for merges.
    pub(crate) merge_stalls: Stalls,
}

/// Waits that somebody may have noticed.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    /// How many.
    pub(crate) count: AtomicU64,
    /// Their microseconds, summed.
    pub(crate) total_us: AtomicU64,
    /// Those of the longest.
    pub(crate) longest_us: AtomicU64,
}

impl Stalls {
    /// Counts one that has ended.
    pub(crate) fn note(&self, waited: Duration) {
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        count(&self.count, 1);
        count(&self.total_us, waited_us);
        self.longest_us.fetch_max(waited_us, Relaxed);
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

/// One more that waits, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// One more among these.
    pub(crate) fn among(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
